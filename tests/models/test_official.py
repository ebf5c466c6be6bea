"""Official checkpoints: outputs as super-gradients', every tensor in its place, and what does not fit is named."""

import numpy as np
import pytest
import torch
from reference import REFERENCE, reference_images, reference_state_dict

import yolonas_lab as yl
from yolonas_lab.models.official import OFFICIAL_NAMES, convert, our_key


@pytest.fixture(scope="module")
def official_s():
    return reference_state_dict("yolo_nas_s")


def test_outputs_equal_super_gradients(official_s):
    model = yl.models.load_official("yolo_nas_s", official_s)
    assert not model.training and model.class_names is not None and model.class_names[0] == "person"
    reference = np.load(REFERENCE)
    with torch.inference_mode():
        for m, kind in ((model, ""), (yl.models.reparameterize(model), "fused_")):
            boxes, scores = yl.models.decode(m(reference_images()))
            rows = torch.from_numpy(reference["rows"])
            assert np.abs(boxes[0, rows].numpy() - reference[f"{kind}boxes"]).max() < 1e-3
            assert np.abs(scores[0, rows].numpy() - reference[f"{kind}scores"]).max() < 1e-5


@pytest.mark.parametrize("name", OFFICIAL_NAMES)
def test_layout_maps_one_to_one_onto_our_tensors(name):
    with torch.device("meta"):
        model = yl.models.get(name)
    ours = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    layout = yl.models.official_layout(name)
    theirs = {our_key(key): shape for key, shape in layout.items() if ".rbr_reparam." not in key}
    assert theirs == ours
    placeholders = sum(int(np.prod(shape)) for key, shape in layout.items() if ".rbr_reparam." in key)
    parameters = sum(p.numel() for p in model.parameters())
    published = {"yolo_nas_s": (12.88, 19.05), "yolo_nas_m": (33.86, 51.18), "yolo_nas_l": (44.53, 66.98)}
    assert (round(parameters / 1e6, 2), round((parameters + placeholders) / 1e6, 2)) == published[name]


@pytest.mark.parametrize("from_file", [True, False])
def test_another_class_count_leaves_the_class_layers_fresh(official_s, from_file, tmp_path):
    torch.save(checkpoint := {"net": official_s}, tmp_path / "s.pth")
    with pytest.warns(UserWarning, match=r"heads\.levels\.0\.class_pred\.weight"):
        model = yl.models.load_official("yolo_nas_s", tmp_path / "s.pth" if from_file else checkpoint, num_classes=3)
    report, expected, state = model.load_report, convert(official_s), model.state_dict()
    assert report is not None and len(report.fresh) == 6 and all(".class_pred." in key for key in report.fresh)
    assert all(torch.equal(state[k], expected[k].reshape(state[k].shape)) for k in report.loaded)
    assert set(report.loaded) | set(report.fresh) == set(state)


def test_misfits_are_refused_and_named(official_s):
    name, bias = "yolo_nas_s", "neck.neck3.conv.bn.bias"
    missing = {k: v for k, v in official_s.items() if k != bias}
    cases = [
        (name, missing, r"1 missing \(neck\.down1\.downsample\.bn\.bias\)"),
        (name, {**official_s, "backbone.surprise": torch.zeros(1)}, r"1 unknown \(backbone\.surprise\)"),
        ("yolo_nas_m", official_s, "of another shape"),
        ("yolo_nas_xs", official_s, "did you mean 'yolo_nas_s'"),
        (name, {"conv.weight": torch.zeros(1)}, "not in the official YOLO-NAS layout"),
        (name, {**official_s, bias: torch.full((96,), float("nan"))}, "NaN or infinite"),
    ]
    for model, state_dict, message in cases:
        with pytest.raises(ValueError, match=message):
            yl.models.load_official(model, state_dict)
