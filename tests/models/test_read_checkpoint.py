"""What a model takes from a checkpoint: wrappers off, which tensors stay, which start anew, and that it says so."""

import pytest
import torch

import yolonas_lab as yl
from yolonas_lab.models.checkpoint import read_checkpoint

SIX = ["airplane", "umbrella", "phone", "knight", "anchor", "scissors"]


def test_wrappers_and_prefixes_are_taken_off(tmp_path):
    weights, other = {"a.weight": torch.ones(2), "b.bias": torch.zeros(1)}, {"a.weight": torch.zeros(2)}
    path = tmp_path / "checkpoint.pth"
    torch.save({"net": other, "ema_net": {f"module.{k}": v for k, v in weights.items()}, "epoch": 3}, path)
    prefixed = [{f"{prefix}.{k}": v for k, v in weights.items()} for prefix in ("net", "net.module", "module.net")]
    for checkpoint in (path, str(path), weights, {"net": weights}, *prefixed):
        tensors = read_checkpoint(checkpoint).tensors
        assert tensors.keys() == weights.keys() and all(torch.equal(tensors[k], v) for k, v in weights.items())
    assert str(path) in read_checkpoint(path).where and read_checkpoint(path).about["epoch"] == 3


def test_a_transfer_keeps_all_but_the_class_layers_and_reports_it(tmp_path):
    before = yl.models.get("yolo_nas_pico", num_classes=12)
    torch.save(before.state_dict(), tmp_path / "pico.pt")
    with pytest.warns(UserWarning, match="Freshly initialised for the new classes.*class_pred"):
        model = yl.models.get("yolo_nas_pico", 6, checkpoint_path=tmp_path / "pico.pt", class_names=SIX)
    assert (model.num_classes, model.class_names) == (6, SIX)
    theirs, ours = before.state_dict(), model.state_dict()
    kept = {name for name in ours if ".class_pred." not in name}
    assert all(torch.equal(ours[name], theirs[name]) for name in kept)
    for level in range(3):
        assert ours[f"heads.levels.{level}.class_pred.bias"].sigmoid().tolist() == pytest.approx([0.01] * 6, rel=1e-4)

    report = model.load_report
    assert report is not None and set(report.loaded) == kept and set(report.fresh) == ours.keys() - kept
    parts = report.by_part()
    assert list(parts) == ["backbone", "neck", "head stems", "box branch", "class branch", "class layers"]
    assert [len(fresh) for _, fresh in parts.values()] == [0, 0, 0, 0, 0, 6]
    assert sorted(name for loaded, _ in parts.values() for name in loaded) == sorted(report.loaded)
    lines = str(report).splitlines()
    assert lines[0].endswith("pico.pt, tensors by part:") and lines[-2] == "class layers       0       6"
    assert lines[-1] == f"together     {len(kept):>7}       6"
