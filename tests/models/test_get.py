"""One door to every model: names, own and foreign checkpoints, what is refused, and Deci's weights on request."""

import json
import os
import pickle

import pytest
import safetensors.torch
import torch
from file_server import running_server

import yolonas_lab as yl
from yolonas_lab.models.get import ACCEPT_VARIABLE, COCO_WEIGHTS, fetch_coco_weights


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_own_checkpoints_come_back_with_class_count_names_and_image_size(tmp_path, suffix):
    model = yl.models.get("yolo_nas_pico", num_classes=2)
    path, about = tmp_path / f"pico{suffix}", {"class_names": ["cat", "dog"], "image_size": 64}
    if suffix == ".pt":  # as our training writes it; as it ships, in half precision
        torch.save({"ema_net": model.state_dict(), **about}, path)
    else:
        halves = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
        safetensors.torch.save_file(halves, path, {"about": json.dumps(about)})
    loaded = yl.models.get("yolo_nas_pico", checkpoint_path=path)
    assert (loaded.num_classes, loaded.class_names, loaded.image_size) == (2, ["cat", "dog"], 64)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    images = torch.rand(1, 3, 64, 64)
    tolerance = 0 if suffix == ".pt" else 0.01
    torch.testing.assert_close(loaded(images).class_logits, model(images).class_logits, rtol=0, atol=tolerance)
    renamed = yl.models.get("yolo_nas_pico", checkpoint_path=path, class_names=["Katze", "Hund"])
    assert renamed.class_names == ["Katze", "Hund"]


@pytest.mark.parametrize("metadata", [None, {"about": "made by hand"}, {"about": "[1]"}])
def test_foreign_metadata_is_left_alone(tmp_path, metadata):
    model = yl.models.get("yolo_nas_pico", num_classes=2)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "pico.safetensors", metadata)
    loaded = yl.models.get("yolo_nas_pico", checkpoint_path=tmp_path / "pico.safetensors")
    assert loaded.class_names is None and loaded.image_size == model.config.image_size


class Malicious(str):
    def __reduce__(self):
        return os.mkdir, (str(self),)


@pytest.mark.parametrize("writer", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj))])
def test_a_pickle_that_runs_code_is_refused(tmp_path, writer):
    path, marker = tmp_path / "evil.pth", tmp_path / "owned"
    writer({"net": Malicious(str(marker))}, path)
    for load in (yl.models.load_official, lambda name, path: yl.models.get(name, checkpoint_path=path)):
        with pytest.raises(ValueError, match=r"evil\.pth was refused"):
            load("yolo_nas_s", path)
    assert not marker.exists()


BROKEN = {
    "cut.pth": (b"PK\x03\x04 broken off", "was refused|cannot be read"),
    "empty.pth": (b"", "was refused|cannot be read"),
    "cut.safetensors": (b"\x00\x01", "cannot be read"),
    "text.pth": (b"hello", "was refused|cannot be read"),
    "other.pth": ({"epoch": 3}, "holds no tensors"),
    "foreign.pth": ({"weight": torch.zeros(2)}, "is not a YOLO-NAS"),
    "nano.pth": ("yolo_nas_nano", "does not fit this model"),
    "nowhere.pth": (None, "does not exist"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_checkpoint_of_this_model_is_named(tmp_path, name):
    content, message = BROKEN[name]
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        torch.save(yl.models.get(content).state_dict() if isinstance(content, str) else content, tmp_path / name)
    with pytest.raises((ValueError, FileNotFoundError), match=rf"{name} ({message})"):
        yl.models.get("yolo_nas_pico", checkpoint_path=tmp_path / name)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "yolonas_s"}, ValueError, "yolonas_s.* did you mean 'yolo_nas_s'"),
        ({"name": "yolo_nas_s", "pretrained_weights": "imagenet"}, ValueError, "imagenet.*coco, scenes"),
        ({"name": "yolo_nas_s", "pretrained_weights": "coco", "checkpoint_path": "x.pth"}, ValueError, "not both"),
        ({"name": "yolo_nas_l", "pretrained_weights": "scenes"}, FileNotFoundError, "yolo_nas_l.*yolo_nas_pico"),
        ({"name": "yolo_nas_s", "pretrained_weights": "coco"}, PermissionError, "non-commercial.*accept_license=True"),
        ({"name": "yolo_nas_pico", "pretrained_weights": "coco", "accept_license": True}, ValueError, "yolo_nas_pico"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message, monkeypatch):
    monkeypatch.delenv(ACCEPT_VARIABLE, raising=False)
    with pytest.raises(error, match=message):
        yl.models.get(**arguments)


def test_coco_weights_are_fetched_once_and_a_failure_leaves_no_file_and_says_where_it_belongs(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv(ACCEPT_VARIABLE, "1")
    with running_server() as published:
        monkeypatch.setitem(COCO_WEIGHTS, "yolo_nas_s", f"{published.url}/s.pth")
        with pytest.raises(ConnectionError, match=r"/s\.pth .*404.* put the file at .*s\.pth by hand"):
            fetch_coco_weights("yolo_nas_s")
        assert not list((tmp_path / "hub").rglob("*.pth"))
        published.files["/s.pth"], published.requests[:] = b"weights" * 1000, []
        published.break_after["/s.pth"] = [3000]  # taken up again from there
        path = fetch_coco_weights("yolo_nas_s")
        assert path.read_bytes() == published.files.pop("/s.pth")
        assert fetch_coco_weights("yolo_nas_s") == path and len(published.requests) == 2
