"""The configs of several sizes side by side, generated from the dataclasses, so that a reader sees what differs.

Notebook 04 opens with it.
"""

from collections.abc import Sequence
from html import escape

from yolonas_lab.models import ConvBNAct, StageConfig, YoloNASConfig

NECK_NAMES = ("neck up 1", "neck up 2", "neck down 1", "neck down 2")

Row = tuple[str, list[tuple[str, ...]]]  # what it is, and for each config the pieces that can differ


def config_rows(configs: Sequence[YoloNASConfig]) -> list[Row]:
    """One row for each part from the stem to the heads; for each config the numbers that belong to it, as words.

    Raises ValueError where no config is given.
    """
    if not configs:
        raise ValueError("no config was given; give at least one, such as CONFIGS['yolo_nas_s'].")
    rows: list[Row] = [("stem", [(f"{c.stem_channels} ch",) for c in configs])]
    rows += [(f"stage {i + 1}", [_stage_words(c.backbone[i]) for c in configs]) for i in range(4)]
    rows.append(("SPP windows", [(_joined(c.spp_kernels),) for c in configs]))
    rows += [(name, [_stage_words(c.neck[i]) for c in configs]) for i, name in enumerate(NECK_NAMES)]
    rows.append(("heads, strides 8, 16, 32", [(f"{_joined(c.head_channels)} ch",) for c in configs]))
    rows.append(("reg_max", [(str(c.reg_max),) for c in configs]))
    return rows


def config_table(configs: Sequence[YoloNASConfig]) -> str:
    """The rows as an HTML table; rows in which the configs differ are shaded, and what differs in them is bold."""
    head = "".join(f"<th>{escape(c.name)}</th>" for c in configs)
    lines = []
    for name, cells in config_rows(configs):
        shade = ' style="background: #fff3d6"' if len(set(cells)) > 1 else ""
        varies = [len(set(pieces)) > 1 for pieces in zip(*cells, strict=True)]
        row = "".join(f"<td>{_cell(cell, varies)}</td>" for cell in cells)
        lines.append(f'<tr{shade}><td style="text-align: left">{escape(name)}</td>{row}</tr>')
    return f"<table><tr><th></th>{head}</tr>{''.join(lines)}</table>"


def _stage_words(stage: StageConfig) -> tuple[str, ...]:
    """Output channels, bottlenecks, their channels, and what is special: "96 ch:", "2 ×", "32", "concat"."""
    plain = " plain" if stage.block is ConvBNAct else ""
    return f"{stage.out_channels} ch:", f"{stage.blocks} ×", f"{stage.hidden_channels}{plain}", "concat" * stage.concat


def _cell(pieces: Sequence[str], varies: Sequence[bool]) -> str:
    words = [f"<b>{escape(p)}</b>" if bold else escape(p) for p, bold in zip(pieces, varies, strict=True) if p]
    return " ".join(words)


def _joined(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
