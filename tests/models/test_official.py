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
    reference = np.load(REFERENCE)
    with torch.inference_mode():
        for m, kind in ((model, ""), (yl.models.reparameterize(model), "fused_")):
            boxes, scores = yl.models.decode(m(reference_images()))
            rows = torch.from_numpy(reference["rows"])
            assert np.abs(boxes[0, rows].numpy() - reference[f"{kind}boxes"]).max() < 1e-3
            assert np.abs(scores[0, rows].numpy() - reference[f"{kind}scores"]).max() < 1e-5


@pytest.mark.parametrize("name", OFFICIAL_NAMES)
def test_layout_maps_one_to_one_onto_our_tensors(name):
    model = yl.models.get(name)
    ours = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    layout = yl.models.official_layout(name)
    theirs = {our_key(key): shape for key, shape in layout.items() if ".rbr_reparam." not in key}
    assert theirs == ours
    placeholders = sum(int(np.prod(shape)) for key, shape in layout.items() if ".rbr_reparam." in key)
    total = placeholders + sum(p.numel() for p in model.parameters())
    assert round(total / 1e6, 2) == {"yolo_nas_s": 19.05, "yolo_nas_m": 51.18, "yolo_nas_l": 66.98}[name]


def test_wrappers_and_prefixes_are_taken_off(official_s, tmp_path):
    bare = yl.models.load_official("yolo_nas_s", official_s)
    zeros = {k: torch.zeros_like(v) for k, v in official_s.items()}
    wrapped = {"net": zeros, "ema_net": {f"module.{k}": v for k, v in official_s.items()}, "epoch": 3, "acc": 0.4}
    path = tmp_path / "checkpoint.pth"
    torch.save(wrapped, path)
    prefixed = {f"net.module.{k}": v for k, v in official_s.items()}
    for checkpoint in (
        path,
        str(path),
        {"net": official_s},
        prefixed,
        {f"module.net.{k}": v for k, v in official_s.items()},
    ):
        model = yl.models.load_official("yolo_nas_s", checkpoint)
        assert all(torch.equal(v, model.state_dict()[k]) for k, v in bare.state_dict().items())
        assert not model.training and model.class_names is not None and model.class_names[0] == "person"


def test_another_class_count_leaves_the_class_layers_fresh(official_s):
    with pytest.warns(UserWarning, match=r"heads\.levels\.0\.class_pred\.weight"):
        model = yl.models.load_official("yolo_nas_s", official_s, num_classes=3)
    assert model.state_dict()["heads.levels.0.class_pred.bias"].tolist() == pytest.approx([-4.595] * 3, abs=1e-3)
    report = model.load_report
    assert report is not None and len(report.fresh) == 6 and all(".class_pred." in key for key in report.fresh)
    expected = convert(official_s)
    state = model.state_dict()
    assert all(torch.equal(state[k], expected[k].reshape(state[k].shape)) for k in report.loaded)
    assert set(report.loaded) | set(report.fresh) == set(state)


def test_placeholders_do_not_change_the_output(official_s):
    changed = {k: torch.full_like(v, 9.0) if ".rbr_reparam." in k else v for k, v in official_s.items()}
    images = torch.rand(1, 3, 64, 64)
    a = yl.models.load_official("yolo_nas_s", official_s)(images)
    b = yl.models.load_official("yolo_nas_s", changed)(images)
    without = {k: v for k, v in official_s.items() if ".rbr_reparam." not in k}
    c = yl.models.load_official("yolo_nas_s", without)(images)
    assert torch.equal(a.class_logits, b.class_logits) and torch.equal(a.class_logits, c.class_logits)


def test_misfits_are_refused_and_named(official_s):
    missing = {k: v for k, v in official_s.items() if k != "neck.neck3.conv.bn.bias"}
    with pytest.raises(ValueError, match=r"1 missing \(neck\.down1\.downsample\.bn\.bias\)"):
        yl.models.load_official("yolo_nas_s", missing)
    with pytest.raises(ValueError, match=r"1 unknown \(backbone\.surprise\)"):
        yl.models.load_official("yolo_nas_s", {**official_s, "backbone.surprise": torch.zeros(1)})
    with pytest.raises(ValueError, match="of another shape"):
        yl.models.load_official("yolo_nas_m", official_s)
    with pytest.raises(ValueError, match="did you mean 'yolo_nas_s'"):
        yl.models.load_official("yolo_nas_xs", official_s)
    with pytest.raises(ValueError, match="not in the official YOLO-NAS layout"):
        yl.models.load_official("yolo_nas_s", {"conv.weight": torch.zeros(1)})
    broken = dict(official_s)
    broken["neck.neck3.conv.bn.bias"] = torch.full((96,), float("nan"))
    with pytest.raises(ValueError, match="NaN or infinite"):
        yl.models.load_official("yolo_nas_s", broken)
