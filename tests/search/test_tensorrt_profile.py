import json
from dataclasses import replace

import pytest
from small_space import TINY

from yolonas_lab.models import CONFIGS
from yolonas_lab.search import Layer, network_layers, smallest, tensorrt_table


def profile_rows(config, merge=True):
    """As trtexec writes them: each convolution takes 1 ms for each million MACs; with merge those that read the same
    map run as one layer.
    """
    rows: list[dict] = [{"count": 200}]
    layers = {n: layer for n, layer in network_layers(config, 64, 6).items() if layer.macs}
    for name, layer in layers.items():
        node, ms = f"{name}/{'ConvTranspose' if layer.kind == 'upsample' else 'Conv'}", layer.macs / 1e6
        other = name.replace("csp.conv1.", "csp.conv2.").replace("class_pred", "box_pred")
        if merge and name.endswith(("csp.conv2.conv", "box_pred")):
            continue
        if merge and other != name:
            node, ms = f"{node} + {name}/Relu || {other}/Conv", ms + layers[other].macs / 1e6
        rows.append({"name": f"{node} + {name}/Relu", "timeMs": 200 * ms, "averageMs": 2 * ms, "medianMs": ms})
    rows.append({"name": "Reformatting CopyNode for Input Tensor 0", "timeMs": 1.0, "averageMs": 5, "medianMs": 5})
    return rows


@pytest.mark.parametrize("merge", [True, False])
def test_a_profile_of_tensorrt_becomes_a_table(tmp_path, merge):
    path, config = tmp_path / "profile.json", CONFIGS["yolo_nas_nano"]
    path.write_text(json.dumps(profile_rows(config, merge)))
    table = tensorrt_table(path, config, 64, "NVIDIA T4", num_classes=6)
    layers = network_layers(config, 64, 6).values()
    assert (table.machine, table.engine, table.image_size) == ("NVIDIA T4", "tensorrt", 64)
    assert set(table.layers) == {layer for layer in layers if layer.macs}
    for layer, ms in table.layers.items():
        assert ms == pytest.approx(layer.macs / 1e6)
    assert table.total_ms(layers) == pytest.approx(sum(layer.macs for layer in layers) / 1e6)


def test_a_profile_without_a_median_gives_its_mean(tmp_path):
    path, config = tmp_path / "profile.json", smallest(TINY)
    rows = profile_rows(config)
    for row in rows:
        row.pop("medianMs", None)
    path.write_text(json.dumps(rows))
    table = tensorrt_table(path, config, 64, "NVIDIA T4", 6)
    assert table.layers[Layer("conv", 3, 8, 3, 2, 64)] == pytest.approx(2 * 3 * 8 * 9 * 32 * 32 / 1e6)


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "is not a layer profile"),
        ('{"a": 1}', "holds no layers"),
        ("3", "is not a layer profile"),
        ('[{"name": "x"}]', "is not a layer profile"),
        ('[{"count": 3}]', "holds no layers"),
    ],
)
def test_another_file_is_no_profile(tmp_path, content, message):
    path = tmp_path / "profile.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"profile\.json {message}"):
        tensorrt_table(path, smallest(TINY), 64, "NVIDIA T4")


def test_the_profile_of_another_network_is_refused(tmp_path):
    path, config = tmp_path / "profile.json", smallest(TINY)
    path.write_text(json.dumps(profile_rows(config)))
    deeper = replace(config, backbone=tuple(replace(stage, blocks=2) for stage in config.backbone))
    with pytest.raises(ValueError, match=r"no layer for the convolution backbone\.stages\.0\.csp\.bottlenecks\.1"):
        tensorrt_table(path, deeper, 64, "NVIDIA T4", 6)
