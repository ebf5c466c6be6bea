"""Checkpoints: read back as written, refused with a reason, and never a way to run code."""

import pytest
import torch
from tiny_training import same, tiny_config

from yolonas_lab.training import LAB, History, TrainState, WeightAverage, make_optimizer
from yolonas_lab.training.checkpoint import fingerprint_of, load_checkpoint, restore, save


def state(seed, step=0):
    torch.manual_seed(seed)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
    average = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
    optimizer = make_optimizer(network, 0.1, 0.0)
    network(torch.rand(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    made = {"classes": ["a", "b"], "lr": 0.1, "grad_clip": None}
    history = History([{"step": s, "total": 1.5} for s in range(1, step + 1)], [], 0.25)
    return TrainState(average, network, optimizer, WeightAverage(average, network, 0.9), history, made, step)


def parts(state: TrainState):
    held = (state.model, state.network, state.optimizer)
    return [part.state_dict() for part in held], vars(state.history), state.step


def test_what_was_saved_is_restored_bit_for_bit(tmp_path):
    written, read = state(0, step=3), state(1)
    restore(read, tmp_path / "new" / "folder")  # there is nothing yet but the folder
    assert read.step == 0 and (tmp_path / "new" / "folder").is_dir()
    save(written, tmp_path, image_size=64)
    restore(read, tmp_path)
    assert same(parts(read), parts(written))
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)  # as earlier versions wrote it
    assert content["format"] == 1 and content["class_names"] == ["a", "b"] and content["image_size"] == 64
    assert [*content] == [
        "format", "step", "net", "ema_net", "optimizer", "history", "identity", "class_names", "image_size",
    ]  # fmt: skip
    assert content["identity"] == written.fingerprint and [*content["history"]] == ["steps", "evaluations", "seconds"]


def test_each_difference_between_two_trainings_is_named(tmp_path):
    save(state(0), tmp_path, image_size=64)
    other = state(0)
    other.fingerprint = {"classes": ["c"] * 40, "lr": 0.2, "grad_clip": None, "new": 1}
    with pytest.raises(ValueError) as caught:
        restore(other, tmp_path)
    message = str(caught.value)
    assert "lr (0.1 there, 0.2 now)" in message and "new (None there, 1 now)" in message
    assert "grad_clip" not in message and "…" in message and str(tmp_path / "checkpoint.pt") in message


def test_a_fingerprint_names_what_was_not_always_a_setting_only_where_it_is_used(model, train_set):
    plain = fingerprint_of(model, train_set, tiny_config(), 1)
    assert plain.keys() - LAB.decisive().keys() == {"model", "classes", "training images", "processes"}
    assert fingerprint_of(model, train_set, tiny_config(channels_last=True), 1) == plain | {"channels_last": True}
    taught = fingerprint_of(model, train_set, tiny_config(), 1, teacher=model)
    assert taught.keys() - plain.keys() == {"teacher", "distillation"} and "yolo_nas_pico " in taught["teacher"]
    model.fingerprint = {"grids": 3}
    assert fingerprint_of(model, train_set, tiny_config(), 2)["grids"] == 3


class Code:
    def __reduce__(self):
        return exec, ("raise SystemExit('code from a checkpoint ran')",)


REFUSED = [b"", b"PK\x03\x04 cut off", b"some text", {"net": {}}, {"format": 2}, torch.zeros(1)]


@pytest.mark.parametrize("content", [*REFUSED, {"format": 1, "net": Code()}, 0.1, 0.5, 0.999])
def test_a_file_that_is_no_checkpoint_is_cut_off_or_has_code_is_refused(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    if isinstance(content, float):
        save(state(0), tmp_path, image_size=64)
        path.write_bytes(path.read_bytes()[: int(content * path.stat().st_size)])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=r"checkpoint\.pt is not a readable checkpoint of this version"):
        load_checkpoint(path)
