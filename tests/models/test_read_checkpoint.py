"""What a model takes from a checkpoint: wrappers off, which tensors stay, which start anew, and that it says so."""

import pytest
import torch

import yolonas_lab as yl
from yolonas_lab.models.checkpoint import LoadReport, read_checkpoint

SIX = ["airplane", "umbrella", "phone", "knight", "anchor", "scissors"]


def transferred(name, checkpoint_path, **changes):
    with pytest.warns(UserWarning, match="Freshly initialised for the new classes.*class_pred"):
        return yl.models.get(name, checkpoint_path=checkpoint_path, **changes)


def test_wrappers_and_prefixes_are_taken_off(tmp_path):
    weights, other = {"a.weight": torch.ones(2), "b.bias": torch.zeros(1)}, {"a.weight": torch.zeros(2)}
    path = tmp_path / "checkpoint.pth"
    torch.save({"net": other, "ema_net": {f"module.{k}": v for k, v in weights.items()}, "epoch": 3}, path)
    for checkpoint in (
        path,
        str(path),
        weights,
        {"net": weights},
        *({f"{prefix}.{k}": v for k, v in weights.items()} for prefix in ("net", "net.module", "module.net")),
    ):
        tensors = read_checkpoint(checkpoint).tensors
        assert tensors.keys() == weights.keys() and all(torch.equal(tensors[k], v) for k, v in weights.items())
    assert str(path) in read_checkpoint(path).where and read_checkpoint(path).about["epoch"] == 3


def test_a_transfer_keeps_all_but_the_class_layers_and_reports_it(tmp_path):
    torch.manual_seed(3)
    before = yl.models.get("yolo_nas_pico", num_classes=12)
    torch.save(before.state_dict(), tmp_path / "pico.pt")
    model = transferred("yolo_nas_pico", tmp_path / "pico.pt", num_classes=6, class_names=SIX)
    assert (model.num_classes, model.class_names) == (6, SIX)
    theirs, ours = before.state_dict(), model.state_dict()
    kept = {name for name in ours if ".class_pred." not in name}
    assert all(torch.equal(ours[name], theirs[name]) for name in kept)
    report = model.load_report
    assert report is not None and set(report.loaded) == kept and set(report.fresh) == ours.keys() - kept
    for level in range(3):
        assert ours[f"heads.levels.{level}.class_pred.bias"].sigmoid().tolist() == pytest.approx([0.01] * 6, rel=1e-4)
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(before(images).box_logits, model(images).box_logits)

    parts = report.by_part()
    assert list(parts) == ["backbone", "neck", "head stems", "box branch", "class branch", "class layers"]
    for part, (loaded, fresh) in parts.items():
        assert (loaded, len(fresh)) == ([], 6) if part == "class layers" else (loaded and not fresh)
    assert sorted(name for loaded, _ in parts.values() for name in loaded) == sorted(report.loaded)
    assert {name.split(".")[3] for name in parts["box branch"][0]} == {"box_conv", "box_pred"}
    assert all(".stem." in name and name.startswith("heads.") for name in parts["head stems"][0])


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
