"""Plans on disk: the header by hand, and every way in which a plan does not belong here."""

import json

import pytest
import torch

from yolonas_lab.deployment.engine_report import (
    PlanCard,
    PlanHeader,
    card_path,
    check_gpu,
    check_version,
    read_card,
    read_plan,
    write_plan,
)


def plan_bytes(tag=b"vtrt", version=(1, 7, 1, 116), size=64):
    return (tag + bytes(20) + bytes(version)).ljust(size, b"\0")


def card(content=b"", **changes):
    known = {"gpu": "", "compute_capability": "", "metadata": {"a": "b"}, "convolutions": {"stem/Conv": "Int8"}}
    return PlanCard(plan_bytes=len(content), **known | changes)


def test_what_is_written_is_read(tmp_path):
    content = plan_bytes()
    write_plan(tmp_path / "m.plan", content, card(content))
    assert card_path(tmp_path / "m.plan") == tmp_path / "m.plan.json"
    assert read_plan(tmp_path / "m.plan") == (content, PlanHeader("tensorrt_rtx", "1.7.1.116"))
    assert read_card(tmp_path / "m.plan") == card(content)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.plan", "m.plan.json"]


def test_the_header_of_either_tensorrt(tmp_path):
    (tmp_path / "m.plan").write_bytes(plan_bytes(b"ftrt", (10, 13, 0, 35)))
    assert read_plan(tmp_path / "m.plan")[1] == PlanHeader("tensorrt", "10.13.0.35")


@pytest.mark.parametrize("content", [b"", b"vtrt", b"PK\3\4 a zip file, say, and long enough for a header"])
def test_what_is_no_plan(tmp_path, content):
    (tmp_path / "m.plan").write_bytes(content)
    with pytest.raises(ValueError, match=r"m\.plan is not a TensorRT plan; build one"):
        read_plan(tmp_path / "m.plan")


def test_a_plan_that_is_missing_or_cut_short(tmp_path):
    with pytest.raises(ValueError, match=r"There is no plan .*nowhere\.plan: build it with build_engine"):
        read_plan(tmp_path / "nowhere.plan")
    content = plan_bytes(size=100)
    write_plan(tmp_path / "m.plan", content, card(content))
    (tmp_path / "m.plan").write_bytes(content[:70])
    with pytest.raises(ValueError, match="damaged: it has 70 bytes, and had 100"):
        read_plan(tmp_path / "m.plan")


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"plan_bytes": 1}), json.dumps({"other": 1})])
def test_a_card_that_is_missing_or_not_one(tmp_path, text):
    with pytest.raises(ValueError, match=r"There is no .*m\.plan\.json: copy it together"):
        read_card(tmp_path / "m.plan")
    card_path(tmp_path / "m.plan").write_text(text)
    with pytest.raises(ValueError, match=r"m\.plan\.json is not what build_engine writes"):
        read_card(tmp_path / "m.plan")


def test_a_plan_belongs_to_one_module_and_version():
    header = PlanHeader("tensorrt", "10.13.0.35")
    check_version("m.plan", header, "tensorrt", "10.13.0.35")
    check_version("m.plan", PlanHeader("tensorrt", "10.13.0.0"), "tensorrt", "10.13.0")
    with pytest.raises(ValueError, match=r"built by tensorrt 10\.13\.0\.35, and 11\.0\.0\.1 is installed"):
        check_version("m.plan", header, "tensorrt", "11.0.0.1")
    with pytest.raises(ValueError, match=r"cannot be loaded by tensorrt_rtx: install tensorrt,"):
        check_version("m.plan", header, "tensorrt_rtx", "10.13.0.35")


def test_a_plan_needs_the_kind_of_gpu_that_it_was_built_on(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"runs only on an NVIDIA GPU .* OnnxDetector"):
        check_gpu("m.plan", card())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 6))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A10")
    check_gpu("m.plan", card())  # built without a GPU
    check_gpu("m.plan", card(gpu="RTX 3090", compute_capability="8.6"))
    with pytest.raises(ValueError, match=r"built on T4 \(compute capability 7\.5\), and this GPU is A10 \(8\.6\)"):
        check_gpu("m.plan", card(gpu="T4", compute_capability="7.5"))
