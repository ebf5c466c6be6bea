"""Drawings of a search: what may be chosen and was, how long networks take, and the frontier (notebook 09)."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from yolonas_lab.experiments import Result
from yolonas_lab.latency import Frontier
from yolonas_lab.models import YoloNASConfig
from yolonas_lab.search import ErrorReport, NetworkTime, Space, choices_of
from yolonas_lab.teaching import figures
from yolonas_lab.teaching.figures import ABOVE, HIGHLIGHT, INT8, MUTED, VALIDATION, add_rectangle

FIELDS = {"out_channels": "out", "blocks": "bottlenecks", "hidden_channels": "hidden", "concat": "concat"}
PLACES = {f"backbone.{i}": f"stage {i + 1}" for i in range(4)} | {
    "neck.0": "up 1", "neck.1": "up 2", "neck.2": "down 1", "neck.3": "down 2",
}  # fmt: skip
CELL, GAP = 0.9, 0.55  # of the grid of options: width of a cell, and between two fields
RIVAL_COLORS = {"searched INT8": INT8, "searched": HIGHLIGHT, "hand": VALIDATION}
COLORS = {"evolution": HIGHLIGHT, "random": "#56B4E9"}  # the two searches: magenta, sky


def draw_choices(
    ax: Any, space: Space, chosen: Mapping[str, YoloNASConfig], colors: Mapping[str, str], title: str
) -> Any:
    """The options of each stage as a row of cells, and in them a bar for each network that takes it, by name and color;
    block types are left out.
    """
    left, width = 0.0, (CELL - 0.12) / len(chosen)
    taken = {name: choices_of(config) for name, config in chosen.items()}
    for field, heading in FIELDS.items():
        ax.text(left, -0.25, heading, ha="left", va="bottom", fontsize=10, fontweight="bold")
        for row, place in enumerate(PLACES):
            options = space.decisions[f"{place}.{field}"]
            for number, option in enumerate(options):
                x = left + number * CELL
                word = {True: "yes", False: "no"}[option] if isinstance(option, bool) else str(option)
                cell = (x, row, x + CELL, row + 0.84)
                add_rectangle(ax, cell, facecolor="#f4f4f4", edgecolor="#999999", linewidth=0.8)
                ax.text(x + CELL / 2, row + 0.3, word, ha="center", va="center", fontsize=9.5)
            for rank, (name, choices) in enumerate(taken.items()):
                x = left + options.index(choices[f"{place}.{field}"]) * CELL + 0.06 + rank * width
                add_rectangle(ax, (x, row + 0.58, x + width, row + 0.78), facecolor=colors[name], edgecolor="none")
        left += CELL * max(len(space.decisions[f"{place}.{field}"]) for place in PLACES) + GAP
    for row, words in enumerate(PLACES.values()):
        ax.text(-0.25, row + 0.42, words, ha="right", va="center", fontsize=10)
    for name in chosen:
        ax.plot([], [], color=colors[name], linewidth=5, label=name)
    ax.set(xlim=(-1.5, left - GAP + 0.1), ylim=(len(PLACES) + 0.75, -0.8), title=title)
    ax.legend(loc="lower left", ncols=len(chosen), borderaxespad=0, fontsize=10)
    ax.set_axis_off()
    return ax


def draw_nested_kernel(ax: Any, outs: Sequence[int], ins: Sequence[int], title: str) -> Any:
    """One shared kernel as a rectangle of output rows and input columns, and the part of it that each width takes;
    `outs` and `ins` are the options of both widths, ascending.
    """
    from matplotlib import colormaps

    pairs = list(zip(reversed(outs), reversed(ins)))
    for number, (rows, columns) in enumerate(pairs, start=1):
        shade = colormaps["Blues"](0.6 * number / len(pairs))  # the whole kernel is the palest
        add_rectangle(ax, (0, 0, columns, rows), facecolor=shade, edgecolor="#333333", linewidth=1.4)
        ax.text(columns - 0.4, rows - 0.4, f"{rows} × {columns}", ha="right", va="bottom", fontsize=10)
    ax.set(xlim=(-0.5, ins[-1] + 0.5), ylim=(outs[-1] + 0.5, -0.5), aspect="equal", title=title)
    ax.set(xlabel="channels that it reads", ylabel="channels that it writes", xticks=(0, *ins), yticks=(0, *outs))
    ax.grid(False)
    return ax


def draw_macs_and_ms(axes: Sequence[Any], report: ErrorReport, pair: Sequence[NetworkTime]) -> None:
    """Two panels of measured networks: ms over MACs, with a pair of about equal ms joined; ms over predicted ms."""
    by_macs, by_model = axes
    measured, predicted = [row.measured_ms for row in report.rows], [row.predicted_ms for row in report.rows]
    by_macs.plot([row.macs / 1e6 for row in report.rows], measured, "o", color=VALIDATION)
    label = f"about the same ms, {pair[1].macs / pair[0].macs:.1f} × the MACs"
    x, y = [network.macs / 1e6 for network in pair], [network.ms for network in pair]
    by_macs.plot(x, y, "o-", color=HIGHLIGHT, markersize=8, label=label)
    by_macs.set(xlabel="million multiply-accumulates", ylabel="measured ms", title="Counted")
    ends = [min(*measured, *predicted), max(*measured, *predicted)]
    by_model.plot(ends, ends, color=MUTED, linewidth=1.2, label="prediction = measurement")
    by_model.plot(predicted, measured, "o", color=VALIDATION)
    by_model.set(xlabel="predicted ms", ylabel="measured ms", title="Predicted from the table")
    for ax in axes:
        ax.legend(loc="upper left", fontsize=9)
        ax.margins(y=0.18)


def draw_taus(ax: Any, taus: Mapping[str, tuple[float, float, float]], title: str) -> Any:
    """Kendall's tau of each guess by its name, as (tau, low, high): a dot with its interval, the best on top."""
    names = sorted(taus, key=lambda name: taus[name][0])
    for row, name in enumerate(names):
        figures.draw_interval(ax, row, *taus[name])
        ax.text(1.04, row, f"{taus[name][0]:+.2f}", va="center", fontsize=10)
    ax.axvline(0, color=VALIDATION, linewidth=0.8, linestyle=":")
    lowest = min(-0.5, *(low for _, low, _ in taus.values()))
    ax.set(xlim=(lowest - 0.05, 1.22), xlabel="Kendall's tau with the AP after training", title=title)
    return figures.name_rows(ax, names, -0.6, len(names) - 0.4)


def draw_searches(ax: Any, searches: Mapping[str, Frontier], colors: Mapping[str, str], title: str) -> Any:
    """What each search looked at, as small dots, and the stairs of the best: AP over ms, each in its own color."""
    slowest = max(c.ms for frontier in searches.values() for c in frontier.candidates)
    for name, frontier in searches.items():
        _draw_frontier(ax, frontier, colors[name], colors[name], name, slowest)
    ax.set(xlabel="predicted ms", ylabel="AP with the supernet's weights", title=title)
    ax.legend(ncols=2, **ABOVE)
    return ax


def _draw_frontier(ax: Any, frontier: Frontier, cloud: str, color: str, label: str, until_ms: float = 0) -> None:
    """Every network as a small dot and the frontier as stairs, the last of them up to `until_ms`."""
    ms, ap = zip(*((c.ms, c.ap) for c in frontier.candidates))
    ax.scatter(ms, ap, s=22, color=cloud, alpha=0.45, linewidth=0, zorder=1)
    points = [(point.ms, point.ap) for point in frontier.points]
    figures.draw_stairs(ax, points, until_ms, color=color, zorder=2, label=label)
    ax.plot(*zip(*points), "o", color=color, markersize=6, zorder=3)


def draw_budget(ax: Any, frontier: Frontier, budget_ms: float, title: str) -> Any:
    """The frontier, the budget as an edge behind which nothing counts, and the network chosen for it, if one fits."""
    _draw_frontier(ax, frontier, MUTED, VALIDATION, label="frontier")
    ax.set(xlabel="latency in ms", ylabel="AP")
    left, right = ax.get_xlim()
    right = max(right, budget_ms)
    ax.axvspan(budget_ms, right, color="#e6e6e6", zorder=0)
    ax.axvline(budget_ms, color=HIGHLIGHT, linewidth=1.6, zorder=1)
    if frontier.points[0].ms <= budget_ms:
        best = frontier.best(budget_ms)
        ax.plot([best.ms], [best.ap], "o", color=HIGHLIGHT, markersize=11, zorder=4, label="chosen")
    ax.set(xlim=(min(left, budget_ms), right), title=title)
    ax.legend(ncols=2, **ABOVE)
    return ax


def draw_gains(ax: Any, result: Result, arm: str, baseline: str, metrics: Mapping[str, str], title: str) -> Any:
    """What an arm of a claim gains over another in each metric (-> words beside the axis): seeds, mean, interval."""
    found = {words: result.difference(arm, baseline, name) for name, words in metrics.items()}
    return figures.draw_differences(ax, found, MUTED, f"{arm} − {baseline}, in AP", title)


def draw_rivals(ax: Any, result: Result, ms: str, ap: str, title: str) -> Any:
    """Metric `ap` over metric `ms` of a claim's arms, a dot for each seed and a ring at their mean: black what was made
    by hand, in color what was searched for.
    """
    for arm in result.arms[result.seeds[0]]:
        kind = next(kind for kind in RIVAL_COLORS if arm.startswith(kind))
        x, y = (result.values(arm, metric) for metric in (ms, ap))
        ax.plot(x, y, ".", color=RIVAL_COLORS[kind], markersize=6, alpha=0.6, zorder=2)
        middle = fmean(x), fmean(y)
        ax.plot(*middle, "o", color=RIVAL_COLORS[kind], markersize=10, markerfacecolor="none", zorder=3)
        if kind == "hand":  # the others are those that may take as long
            lower = (0, -12 - 11 * len(ax.texts))  # neighbors in time would write over each other
            figures.note(ax, arm.removeprefix(kind).strip(), middle, lower, ha="center", va="top", fontsize=9)
    for kind, color in RIVAL_COLORS.items():
        ax.plot([], [], "o", color=color, label=kind)
    ax.margins(0.12)
    ax.set(xlabel="measured ms", ylabel="AP", title=title)
    ax.legend(ncols=3, fontsize=9, columnspacing=1, handletextpad=0.1, **ABOVE)
    return ax
