import dataclasses

import matplotlib
import pytest
from matplotlib.colors import same_color

from yolonas_lab.experiments import Result
from yolonas_lab.latency import Frontier
from yolonas_lab.models import CONFIGS
from yolonas_lab.search import FULL_SPACE, LAB_SPACE, ErrorReport, NetworkTime
from yolonas_lab.search.evolve import Candidate
from yolonas_lab.search.latency_model import Prediction
from yolonas_lab.teaching.figures import HIGHLIGHT, INT8, VALIDATION
from yolonas_lab.teaching.lessons import nb09 as drawings

matplotlib.use("Agg")
S, L = CONFIGS["yolo_nas_s"], CONFIGS["yolo_nas_l"]


@pytest.fixture
def ax():
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def in_color(ax, color):
    return [patch for patch in ax.patches if same_color(patch.get_facecolor(), color)]


def test_each_network_marks_one_option_of_each_decision(ax):
    colors = {"S": "#ff0000", "L": "#0000ff"}
    assert drawings.draw_choices(ax, FULL_SPACE, {"S": S, "L": L}, colors, "title") is ax
    assert len(in_color(ax, "#ff0000")) == len(in_color(ax, "#0000ff")) == 8 * 4
    options = sum(
        len(FULL_SPACE.decisions[f"{place}.{field}"]) for place in drawings.PLACES for field in drawings.FIELDS
    )
    assert len(in_color(ax, "#f4f4f4")) == options
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["S", "L"]


def test_a_mark_lies_in_the_cell_of_its_option(ax):
    drawings.draw_choices(ax, FULL_SPACE, {"L": L}, {"L": "#0000ff"})
    words = {(round(t.get_position()[0], 3), round(t.get_position()[1] - 0.3, 3)): t.get_text() for t in ax.texts}
    cells = [(c.get_x(), c.get_y(), words[round(c.get_x() + drawings.CELL / 2, 3), c.get_y()])
             for c in in_color(ax, "#f4f4f4")]  # fmt: skip
    taken = []
    for mark in in_color(ax, "#0000ff"):
        middle = mark.get_x() + mark.get_width() / 2
        taken += [w for x, y, w in cells if x < middle < x + drawings.CELL and y < mark.get_y() < y + 0.84]
    expected = []
    for stage in (*L.backbone, *L.neck):
        expected += [str(stage.out_channels), str(stage.blocks), str(stage.hidden_channels)]
        expected.append("yes" if stage.concat else "no")
    assert taken == expected


def test_a_network_outside_the_space_is_named(ax):
    with pytest.raises(ValueError, match=r"S has backbone\.0\.out_channels = 96, which is no option of lab"):
        drawings.draw_choices(ax, LAB_SPACE, {"S": S}, {"S": "red"})


def test_smaller_kernels_lie_in_the_corner_of_the_largest(ax):
    drawings.draw_nested_kernel(ax, (16, 24), (8, 32), "title")
    sizes = [(p.get_x(), p.get_y(), p.get_width(), p.get_height()) for p in ax.patches]
    assert sizes == [(0, 0, 32, 24), (0, 0, 8, 16)]
    assert [text.get_text() for text in ax.texts] == ["24 × 32", "16 × 8"]
    whole, part = (sum(p.get_facecolor()[:3]) for p in ax.patches)
    assert whole > part  # paler


@pytest.fixture
def report():
    rows = (Prediction("a", 2_000_000, 1.0, 1.1), Prediction("b", 6_000_000, 1.2, 1.1))
    return ErrorReport("machine", "torch", 64, rows)


def test_measured_ms_over_macs_and_over_predicted_ms(report):
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2)
    pair = (NetworkTime(S, 2_000_000, 1.1), NetworkTime(L, 6_000_000, 1.1))
    drawings.draw_macs_and_ms(axes, report, pair)
    dots, joined = axes[0].lines
    assert list(dots.get_xdata()) == [2, 6] and list(dots.get_ydata()) == [1.1, 1.1]
    assert joined.get_label().endswith("3.0 × the MACs") and same_color(joined.get_color(), HIGHLIGHT)
    line, dots = axes[1].lines
    assert list(line.get_xdata()) == list(line.get_ydata()) == [1.0, 1.2]
    assert list(dots.get_xdata()) == [1.0, 1.2]
    plt.close(fig)


def test_without_a_pair_no_two_networks_are_joined(report):
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2)
    drawings.draw_macs_and_ms(axes, report)
    assert len(axes[0].lines) == 1
    plt.close(fig)


def test_the_best_guess_is_on_top(ax):
    drawings.draw_taus(ax, {"macs": (0.2, -0.1, 0.5), "supernet": (0.7, 0.4, 0.9)})
    assert [label.get_text() for label in ax.get_yticklabels()] == ["macs", "supernet"]
    assert [text.get_text() for text in ax.texts] == ["+0.20", "+0.70"]
    intervals = [list(line.get_xdata()) for line in ax.lines if len(line.get_xdata()) == 2][:2]
    assert intervals == [[-0.1, 0.5], [0.4, 0.9]]
    assert ax.get_xlim()[0] < -0.5


def test_a_wide_interval_fits(ax):
    drawings.draw_taus(ax, {"macs": (-0.2, -0.9, 0.5)})
    assert ax.get_xlim()[0] < -0.9


@pytest.fixture
def frontier():
    rows = [(0.5, 4.0), (0.4, 5.0), (0.6, 6.0)]
    return Frontier(tuple(Candidate(dataclasses.replace(S, name=str(i)), *row) for i, row in enumerate(rows)))


def test_the_stairs_of_each_search_end_at_the_slowest_network(ax, frontier):
    other = Frontier((Candidate(L, 0.7, 9.0),))
    drawings.draw_searches(ax, {"evolution": frontier, "random": other}, drawings.COLORS)
    stairs = [line for line in ax.lines if line.get_drawstyle() == "steps-post"]
    assert [list(line.get_xdata()) for line in stairs] == [[4, 6, 9], [9, 9]]
    assert [list(line.get_ydata()) for line in stairs] == [[0.5, 0.6, 0.6], [0.7, 0.7]]
    assert [line.get_label() for line in stairs] == ["evolution", "random"]
    assert [len(dots.get_offsets()) for dots in ax.collections] == [3, 1]


def chosen(ax):
    return [line for line in ax.lines if line.get_label() == "chosen"]


@pytest.mark.parametrize(("budget", "ms"), [(4.0, 4.0), (5.9, 4.0), (7.0, 6.0)])
def test_the_best_network_under_the_budget_is_marked(ax, frontier, budget, ms):
    drawings.draw_budget(ax, frontier, budget, "title")
    (dot,) = chosen(ax)
    assert list(dot.get_xdata()) == [ms]
    assert ax.get_xlim()[0] <= budget <= ax.get_xlim()[1] and ax.get_title(loc="left") + ax.get_title() == "title"


def test_an_impossible_budget_chooses_nothing(ax, frontier):
    drawings.draw_budget(ax, frontier, 1.0)
    assert not chosen(ax) and ax.get_xlim()[0] <= 1.0


def test_each_rival_has_the_color_of_how_it_was_made(ax):
    made = {"hand small": (0.4, 2.0), "searched small": (0.5, 1.9), "searched INT8 small": (0.6, 2.1)}
    arms = {s: {arm: {"ap": ap + 0.1 * s, "ms": ms} for arm, (ap, ms) in made.items()} for s in (0, 1)}
    result = Result(
        claim="searched_networks", question="?", command="", git_revisions=(None,), data_digest="", machine="",
        torch_version="", settings={}, settings_digest="", budget=1.0, metrics=("ap", "ms"),
        comparisons=(("searched small", "hand small"),), arms=arms, seconds={0: 1.0, 1: 1.0},
    )  # fmt: skip
    drawings.draw_rivals(ax, result)
    for color, (ap, ms) in zip((VALIDATION, HIGHLIGHT, INT8), made.values()):
        dots, ring = (line for line in ax.lines if same_color(line.get_color(), color) and len(line.get_xdata()))
        assert list(dots.get_ydata()) == pytest.approx([ap, ap + 0.1]) and list(dots.get_xdata()) == [ms, ms]
        assert list(ring.get_ydata()) == pytest.approx([ap + 0.05])
    assert [text.get_text() for text in ax.texts] == ["small"]


def test_gains_of_each_metric_with_their_seeds_and_intervals(ax):
    arms = {s: {"evolution": {"ap": 0.4 + 0.1 * s, "ms": 2.0}, "random": {"ap": 0.3, "ms": 1.0}} for s in (0, 1)}
    result = Result(
        claim="search_frontier", question="?", command="", git_revisions=(None,), data_digest="", machine="",
        torch_version="", settings={}, settings_digest="", budget=1.0, metrics=("ap", "ms"),
        comparisons=(("evolution", "random"),), arms=arms, seconds={0: 1.0, 1: 1.0},
    )  # fmt: skip
    drawings.draw_gains(ax, result, "evolution", "random", {"ms": "time", "ap": "AP"}, "title")
    seeds, interval, mean = ax.lines[3:6]
    assert list(seeds.get_xdata()) == pytest.approx([0.1, 0.2]) and list(mean.get_xdata()) == pytest.approx([0.15])
    found = result.difference("evolution", "random", "ap")
    assert list(interval.get_xdata()) == pytest.approx([found.low, found.high])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["time", "AP"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first on top
