"""What every room needs: files that are whole or not there, fingerprints, progress bars, timing, clear refusals."""

import json
import math
import os

import numpy as np
import pytest
from torch import nn

from yolonas_lab import common
from yolonas_lab.common import fingerprint, time_side_by_side, weights_digest, write_atomically, write_bytes, write_json


def test_bytes_text_and_json_are_written_and_the_path_returned(tmp_path):
    (tmp_path / "a.bin.partial").write_bytes(b"a longer leftover of a killed process")
    assert write_bytes(tmp_path / "a.bin", b"\r\n").read_bytes() == b"\r\n"
    path = write_atomically(tmp_path / "a.txt", lambda file: file.write("é\n"), text=True)
    assert path == tmp_path / "a.txt" and path.read_bytes().decode() == "é\n"  # newlines as given on every system
    assert json.loads(write_json(str(tmp_path / "a.json"), {"é": [1, None]}).read_text("utf-8")) == {"é": [1, None]}
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"ap": math.nan})
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "a.json", "a.txt"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_leaves_what_was_there(tmp_path, error):
    path = write_bytes(tmp_path / "a.bin", b"before")

    def fail(file):
        file.write(b"half")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, fail)
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == ["a.bin"]


def test_the_old_content_is_there_until_all_of_the_new_is_on_the_disk(tmp_path, monkeypatch):
    path, order = write_bytes(tmp_path / "a.bin", b"before"), []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(common.os, "fsync", lambda file: order.append(("sync", path.read_bytes())) or fsync(file))

    def rename(source, target):
        order.append(("rename", path.read_bytes()))
        assert source.read_bytes() == b"after"
        replace(source, target)

    monkeypatch.setattr(common.os, "replace", rename)
    write_bytes(path, b"after")
    assert order[:2] == [("sync", b"before"), ("rename", b"before")]
    assert os.name == "nt" or order[2:] == [("sync", b"after")]  # the folder


def test_a_fingerprint_sees_content_and_not_the_order_of_keys():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1}) != fingerprint({"a": 1, "b": [3]})
    assert fingerprint("abc") == fingerprint(b"abc") == "ba7816bf" + fingerprint("abc")[8:]  # as sha256sum says
    assert fingerprint("abc", digits=8) == "ba7816bf"
    model = nn.BatchNorm1d(2)
    digests = {weights_digest(m) for m in (model, nn.BatchNorm1d(3), nn.BatchNorm1d(2).double(), nn.Sequential(model))}
    nn.init.constant_(model.weight, 2)
    assert len(digests | {weights_digest(model)}) == 5  # values, names and types count


@pytest.mark.parametrize("static", ["0", "1"])
def test_items_pass_through_and_the_bar_is_hidden_in_static_mode(monkeypatch, capsys, static):
    monkeypatch.setattr(common, "SHOWN_AFTER", 0)
    monkeypatch.setenv("YOLONAS_LAB_STATIC", static)
    assert list(common.progress((i for i in "abc"), "counting sheep", total=3)) == ["a", "b", "c"]
    with common.progress_bar(2, "drawing", "image") as bar:
        bar.update()
    shown = capsys.readouterr().err
    assert ("counting sheep" in shown) == ("drawing" in shown) == (static == "0")


def test_candidates_alternate_warmup_is_thrown_away_and_the_runs_that_lead_in_are_not_timed():
    calls, looks = [], iter(range(1000))
    ways = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    clock = lambda: calls.append("|") or next(looks)  # noqa: E731
    timings = time_side_by_side(ways, rounds=2, warmup=1, clock=clock, lead_in=2)
    assert "".join(calls) == "aa|abb|b" + 2 * "aa|a|bb|b|"  # the clock is read around each run that counts
    assert timings["a"].median_ms == 1000  # this clock advances one second per look
    with pytest.raises(ValueError, match="0 candidates"):
        time_side_by_side({})


def test_median_and_quartiles_by_hand():
    looks = iter([0.0, 0.010, 0.0, 0.020, 0.0, 0.090])  # three runs of 10, 20 and 90 ms
    timing = time_side_by_side({"a": lambda: None}, rounds=3, warmup=0, clock=lambda: next(looks))["a"]
    assert (timing.low_ms, timing.median_ms, timing.high_ms) == pytest.approx((15, 20, 55))
    assert str(timing) == "a: 20.0 ms (quartiles 15.0 to 55.0)"


def test_an_unknown_name_gets_the_nearest_one_and_all_choices():
    said = common.unknown_name("model", "yolo_nas_z", ("yolo_nas_s", "pico"))
    assert "'yolo_nas_z'; did you mean 'yolo_nas_s'? choose one of: yolo_nas_s, pico" in said
    assert "did you mean" not in common.unknown_name("model", 7, ("yolo_nas_s",))


@pytest.mark.parametrize("bad", [0, -32, 33, 96.0, "96", None, True, np.nan])
def test_image_sizes_are_multiples_of_32(bad):
    assert common.check_image_size(96) == 96
    with pytest.raises(ValueError, match=rf"side is {bad!r}: .* 32 px"):
        common.check_image_size(bad, "side")
