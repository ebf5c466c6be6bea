import json
import os
import pickle

import pytest
import safetensors.torch
import torch

import yolonas_lab as yl


def test_names():
    assert yl.models.get("yolo_nas_pico").num_classes == 80
    with pytest.raises(ValueError, match="did you mean 'yolo_nas_s'"):
        yl.models.get("yolonas_s")
    with pytest.raises(ValueError, match="choose one of: coco, scenes"):
        yl.models.get("yolo_nas_s", pretrained_weights="imagenet")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_own_checkpoints_load_with_their_class_count(tmp_path, suffix):
    model = yl.models.get("yolo_nas_pico", num_classes=4)
    path = tmp_path / f"pico{suffix}"
    if suffix == ".pt":
        torch.save({"model": model.state_dict()}, path)
    else:
        safetensors.torch.save_file(model.state_dict(), path)
    loaded = yl.models.get("yolo_nas_pico", checkpoint_path=path)
    assert loaded.num_classes == 4
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(loaded(images).class_logits, model(images).class_logits)
    with pytest.warns(UserWarning, match="Freshly initialised"):
        transferred = yl.models.get("yolo_nas_pico", num_classes=9, checkpoint_path=path)
    assert transferred.num_classes == 9
    assert transferred.load_report is not None and len(transferred.load_report.fresh) == 6
    with pytest.raises(ValueError, match="does not fit this model"):
        yl.models.get("yolo_nas_nano", checkpoint_path=path)


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("writer", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj))])
def test_a_pickle_that_runs_code_is_refused(tmp_path, writer):
    path, marker = tmp_path / "evil.pth", tmp_path / "owned"
    writer({"net": Malicious(str(marker))}, path)
    with pytest.raises(ValueError, match=r"evil\.pth was refused"):
        yl.models.get("yolo_nas_s", checkpoint_path=path)
    with pytest.raises(ValueError, match=r"evil\.pth was refused"):
        yl.models.load_official("yolo_nas_s", path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut.pth", b"PK\x03\x04 broken off", "cannot be read"),
        ("empty.pth", b"", "cannot be read"),
        ("cut.safetensors", b"\x00\x01", "cannot be read"),
        ("text.pth", b"hello", "refused|cannot be read"),
    ],
)
def test_broken_files_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        yl.models.get("yolo_nas_pico", checkpoint_path=path)
    assert name in str(caught.value)


def test_other_wrong_arguments(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth does not exist"):
        yl.models.get("yolo_nas_s", checkpoint_path=tmp_path / "nowhere.pth")
    with pytest.raises(ValueError, match="not both"):
        yl.models.get("yolo_nas_s", pretrained_weights="coco", checkpoint_path="x.pth")
    torch.save({"epoch": 3}, tmp_path / "no_tensors.pth")
    with pytest.raises(ValueError, match="holds no tensors"):
        yl.models.get("yolo_nas_s", checkpoint_path=tmp_path / "no_tensors.pth")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="not a YOLO-NAS checkpoint"):
        yl.models.get("yolo_nas_s", checkpoint_path=tmp_path / "other.pth")
    with pytest.raises(FileNotFoundError, match="no 'scenes' weights for yolo_nas_l"):
        yl.models.get("yolo_nas_l", pretrained_weights="scenes")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_class_names_and_image_size_come_with_a_trained_checkpoint(tmp_path, suffix):
    model = yl.models.get("yolo_nas_pico", num_classes=2)
    path = tmp_path / f"pico{suffix}"
    about = {"class_names": ["cat", "dog"], "image_size": 64}
    if suffix == ".pt":
        torch.save({"ema_net": model.state_dict(), **about}, path)
    else:
        halves = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
        safetensors.torch.save_file(halves, path, {"about": json.dumps(about)})
    loaded = yl.models.get("yolo_nas_pico", checkpoint_path=path)
    assert loaded.class_names == ["cat", "dog"] and loaded.image_size == 64
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    renamed = yl.models.get("yolo_nas_pico", checkpoint_path=path, class_names=["Katze", "Hund"])
    assert renamed.class_names == ["Katze", "Hund"]
    with pytest.warns(UserWarning, match="Freshly initialised"):
        assert yl.models.get("yolo_nas_pico", 5, checkpoint_path=path).class_names is None


def test_foreign_metadata_is_left_alone(tmp_path):
    path = tmp_path / "pico.safetensors"
    model = yl.models.get("yolo_nas_pico", num_classes=2)
    safetensors.torch.save_file(model.state_dict(), path, {"about": "made by hand"})
    loaded = yl.models.get("yolo_nas_pico", checkpoint_path=path)
    assert loaded.class_names is None and loaded.image_size == model.config.image_size
