"""Checkpoints: read back as written, refused with a reason, and never a way to run code."""

import errno
import pickle

import pytest
import torch
from tiny_training import same

from yolonas_lab.training.checkpoint import cannot_write, check_same_training, load_checkpoint, save_checkpoint

CONTENT = {
    "step": 3,
    "net": {
        "weight": torch.arange(6.0).view(2, 3),
        "kernel": torch.rand(2, 3, 3, 3).to(memory_format=torch.channels_last),
    },
    "history": {"steps": [{"total": 1.5}], "seconds": 0.25},
    "identity": {"classes": ["a", "b"], "lr": 0.1, "grad_clip": None},
}


def test_what_was_saved_is_loaded_bit_for_bit(tmp_path):
    save_checkpoint(tmp_path / "c.pt", CONTENT)
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert loaded.pop("format") == 1 and same(loaded, CONTENT)
    assert loaded["net"]["kernel"].stride() == CONTENT["net"]["kernel"].stride()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"some text", pickle.dumps({"format": 1})])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"c\.pt is not a (readable )?checkpoint.*delete it to start anew") as caught:
        load_checkpoint(tmp_path / "c.pt")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_cut_off_anywhere_is_refused(tmp_path):
    save_checkpoint(tmp_path / "c.pt", CONTENT)
    whole = (tmp_path / "c.pt").read_bytes()
    for share in (0.1, 0.5, 0.9, 0.999):
        (tmp_path / "c.pt").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match="delete it to start anew"):
            load_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize("content", [{"net": {}}, {"format": 2}, torch.zeros(1)])
def test_one_of_another_program_or_version_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(ValueError, match="not a checkpoint of this version"):
        load_checkpoint(tmp_path / "c.pt")


class Code:
    def __reduce__(self):
        return exec, ("raise SystemExit('code from a checkpoint ran')",)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save({"format": 1, "net": Code()}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path / "c.pt")


def test_each_difference_between_two_trainings_is_named(tmp_path):
    saved = {"lr": 0.1, "classes": ["a"] * 40, "batch_size": 8}
    check_same_training(tmp_path, saved, dict(saved))
    with pytest.raises(ValueError) as caught:
        check_same_training(tmp_path, saved, {"lr": 0.2, "classes": ["b"], "batch_size": 8, "new": 1})
    message = str(caught.value)
    assert "lr (0.1 there, 0.2 now)" in message and "new (None there, 1 now)" in message
    assert "batch_size" not in message and "…" in message and len(message) < 400  # a long list is cut


def test_a_write_that_failed_says_why_and_what_is_left(tmp_path):
    error = cannot_write(tmp_path / "c.pt", OSError(errno.ENOSPC, "No space left on device"), "nothing is lost")
    assert error.errno == errno.ENOSPC
    assert str(error).endswith("c.pt could not be written (No space left on device): make room, then run again to go "
                               "on; nothing is lost.")  # fmt: skip
    assert "(first line)" in str(cannot_write(tmp_path, RuntimeError("first line\nsecond"), "x"))
    assert "(RuntimeError)" in str(cannot_write(tmp_path, RuntimeError(), "x"))
