"""What a model takes from a checkpoint of other classes: which tensors stay, which start anew, and that it says so."""

import copy
import re
import warnings
from dataclasses import replace

import pytest
import torch
from reference import reference_state_dict

import yolonas_lab as yl
from yolonas_lab.models.checkpoint import LoadReport
from yolonas_lab.models.official import convert
from yolonas_lab.training import LAB, Hooks, fit

SIX = ["airplane", "umbrella", "phone", "knight", "anchor", "scissors"]


def transferred(name, checkpoint_path, **changes):
    with pytest.warns(UserWarning, match="Freshly initialised for the new classes.*class_pred"):
        return yl.models.get(name, checkpoint_path=checkpoint_path, **changes)


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A file in super-gradients' layout with 80 classes."""
    path = tmp_path_factory.mktemp("official") / "yolo_nas_s_coco.pth"
    torch.save({"net": reference_state_dict("yolo_nas_s")}, path)
    return path


def test_from_80_official_classes_to_6_all_but_the_class_layers_is_kept(official):
    torch.manual_seed(3)
    model = transferred("yolo_nas_s", official, num_classes=6, class_names=SIX)
    assert (model.num_classes, model.class_names) == (6, SIX)
    theirs, ours = convert(torch.load(official)["net"]), model.state_dict()
    kept = {name for name in ours if ".class_pred." not in name}
    assert all(torch.equal(ours[name], theirs[name].reshape(ours[name].shape)) for name in kept)
    assert model.load_report is not None and set(model.load_report.loaded) == kept
    assert set(model.load_report.fresh) == {
        f"heads.levels.{level}.class_pred.{kind}" for level in range(3) for kind in ("weight", "bias")
    }
    for level in range(3):
        assert ours[f"heads.levels.{level}.class_pred.weight"].shape[0] == 6
        assert ours[f"heads.levels.{level}.class_pred.bias"].sigmoid().tolist() == pytest.approx([0.01] * 6, rel=1e-4)


def test_the_boxes_of_a_transferred_model_are_those_of_the_checkpoint(official):
    before, after = (
        yl.models.get("yolo_nas_s", checkpoint_path=official),
        transferred("yolo_nas_s", official, num_classes=6),
    )
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(before(images).box_logits, after(images).box_logits)
        assert after(images).class_logits.shape == (1, 84, 6)


@pytest.mark.parametrize("official_layout", [True, False])
def test_the_report_names_the_tensors_of_each_part(official, official_layout, tmp_path):
    name, path = "yolo_nas_s", official
    if not official_layout:
        name, path = "yolo_nas_pico", tmp_path / "pico.pt"
        torch.save(yl.models.get(name, num_classes=12).state_dict(), path)
    report = transferred(name, path, num_classes=6).load_report
    assert report is not None
    parts = report.by_part()
    assert list(parts) == ["backbone", "neck", "head stems", "box branch", "class branch", "class layers"]
    for part, (loaded, fresh) in parts.items():
        assert (loaded, len(fresh)) == ([], 6) if part == "class layers" else (loaded and not fresh)
    assert sorted(name for loaded, _ in parts.values() for name in loaded) == sorted(report.loaded)
    box_branch = {re.sub(r"\d", "n", tensor).split(".")[3] for tensor in parts["box branch"][0]}
    assert box_branch == {"box_conv", "box_pred"}
    assert all(".stem." in tensor and tensor.startswith("heads.") for tensor in parts["head stems"][0])


def test_the_report_as_text():
    report = LoadReport("pico.pt", ("backbone.a", "backbone.b", "neck.a", "extra"), ("heads.levels.0.class_pred.bias",))
    assert str(report).splitlines() == [
        "pico.pt, tensors by part:",
        "              loaded   fresh",
        "backbone           2       0",
        "neck               1       0",
        "class layers       0       1",
        "other              1       0",
        "together           4       1",
    ]


def test_a_training_from_other_classes_keeps_the_boxes_it_learned_to_start_with(tmp_path):
    """All the way: train on one domain, take its checkpoint to the other's classes, train on."""
    sets = {}
    for domain in ("scenes_pretrain", "scenes"):
        made = yl.data.make_scenes(tmp_path / domain, train=8, val=0, image_size=64, domain=domain)
        sets[domain] = yl.data.CocoDataset(made.images_dir("train"), made.annotations("train"))
    config = replace(LAB, steps=2, batch_size=4, evaluate_every=None)
    model = yl.models.get("yolo_nas_pico", num_classes=12)
    fit(model, sets["scenes_pretrain"], None, replace(config, out_dir=tmp_path / "run"))

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the checkpoint's own classes: nothing to warn of
        same = yl.models.get("yolo_nas_pico", checkpoint_path=tmp_path / "run" / "checkpoint.pt")
    assert same.class_names == sets["scenes_pretrain"].class_names
    other = transferred("yolo_nas_pico", tmp_path / "run" / "checkpoint.pt", num_classes=6)
    assert other.class_names is None
    started = {}
    fit(
        other,
        sets["scenes"],
        None,
        config,
        Hooks(on_start=lambda s: started.update(copy.deepcopy(s.network.state_dict()))),
    )
    trained = model.state_dict()
    for level in range(3):  # box_bias_slope is for fresh box heads only
        name = f"heads.levels.{level}.box_pred.bias"
        assert torch.equal(started[name], trained[name])
    assert other.class_names == SIX
