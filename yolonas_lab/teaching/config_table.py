"""The configs of several sizes side by side, generated from the dataclasses, so that a reader sees what differs.

Notebook 04 opens with it.
"""

from collections.abc import Sequence
from html import escape

from yolonas_lab.models import StageConfig, YoloNASConfig

NECK_NAMES = ("neck up 1", "neck up 2", "neck down 1", "neck down 2")


def config_rows(configs: Sequence[YoloNASConfig]) -> list[tuple[str, list[str]]]:
    """One row (what, one value for each config) for every number of the configs, from the stem to the heads.

    Raises ValueError where no config is given.
    """
    if not configs:
        raise ValueError("no config was given; give at least one, such as CONFIGS['yolo_nas_s'].")
    rows = [("stem channels", [str(c.stem_channels) for c in configs])]
    stages = [(f"stage {i + 1}", [c.backbone[i] for c in configs]) for i in range(4)]
    stages += [(name, [c.neck[i] for c in configs]) for i, name in enumerate(NECK_NAMES)]
    for name, row in stages:
        rows += _stage_rows(name, row)
    rows.insert(1 + 4 * 4, ("SPP windows", [_joined(c.spp_kernels) for c in configs]))
    rows.append(("head channels", [_joined(c.head_channels) for c in configs]))
    rows.append(("reg_max", [str(c.reg_max) for c in configs]))
    return rows


def config_table(configs: Sequence[YoloNASConfig]) -> str:
    """The rows as an HTML table; a row in which the configs differ is bold and shaded."""
    head = "".join(f"<th>{escape(c.name)}</th>" for c in configs)
    lines = []
    for name, values in config_rows(configs):
        differ = len(set(values)) > 1
        shade = ' style="background: #fff3d6"' if differ else ""
        cells = "".join(f"<td>{f'<b>{escape(v)}</b>' if differ else escape(v)}</td>" for v in values)
        lines.append(f'<tr{shade}><td style="text-align: left">{escape(name)}</td>{cells}</tr>')
    return f"<table><tr><th></th>{head}</tr>{''.join(lines)}</table>"


def _stage_rows(name: str, stages: Sequence[StageConfig]) -> list[tuple[str, list[str]]]:
    return [
        (f"{name}: output channels", [str(s.out_channels) for s in stages]),
        (f"{name}: bottlenecks", [str(s.blocks) for s in stages]),
        (f"{name}: hidden channels", [str(s.hidden_channels) for s in stages]),
        (f"{name}: concat all", ["yes" if s.concat else "no" for s in stages]),
    ]


def _joined(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
