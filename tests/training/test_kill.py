"""Training killed with SIGKILL, again and again, ends with the very weights of a training left in peace."""

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
from killed_training import STEPS, train
from tiny_training import same

from yolonas_lab.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL and no fork server")

PLACES = ("before a checkpoint gets its name", "in the middle of a checkpoint", "after a checkpoint got its name")
ANYWHERE = None


@pytest.fixture
def server(monkeypatch):
    """Processes that are forked from one in which everything is imported: starting one takes no time."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killed_training"])
    return context


def start(server, folder, out_dir, place=ANYWHERE):
    ready, tell_ready = server.Pipe(duplex=False)
    process = server.Process(target=train, args=(folder, out_dir, place, tell_ready), daemon=True)
    process.start()
    return process, ready


@pytest.mark.parametrize(
    ("places", "least"),
    [
        pytest.param((*PLACES, ANYWHERE), 3, marks=pytest.mark.slow),
        pytest.param((*[ANYWHERE] * 3, *PLACES, *[ANYWHERE] * 10), 10, marks=pytest.mark.proof),
    ],
)
def test_killed_and_resumed_is_bit_identical(server, tmp_path, places, least):
    process, _ = start(server, tmp_path, tmp_path / "peace")
    process.join(60)
    assert process.exitcode == 0
    undisturbed = load_checkpoint(tmp_path / "peace" / "checkpoint.pt")
    assert undisturbed["step"] == STEPS

    rng = random.Random(0)
    out_dir, stopped_at = tmp_path / "killed", []
    for place in places:
        process, ready = start(server, tmp_path, out_dir, place)
        assert ready.poll(30), "the training did not get going"
        if place is ANYWHERE:
            time.sleep(rng.uniform(0, 3 / len(places)))
        elif place == PLACES[1]:
            assert (out_dir / "checkpoint.pt.partial").stat().st_size > 0
        process.kill()  # SIGKILL; no error where it has just finished
        process.join(30)
        if process.exitcode == 0:  # this time it was faster than the signal
            break
        assert process.exitcode == -signal.SIGKILL
        stopped_at.append(steps_in(out_dir / "log.jsonl"))
    assert len(stopped_at) >= least, f"killed at steps {stopped_at}: too few to mean anything; give it more steps"
    process, _ = start(server, tmp_path, out_dir)
    process.join(60)
    assert process.exitcode == 0
    print(f"\nkilled {len(stopped_at)} times, after steps {stopped_at} of {STEPS}")

    resumed = load_checkpoint(out_dir / "checkpoint.pt")
    for part in ("step", "net", "ema_net", "optimizer", "history"):
        assert same(resumed[part], undisturbed[part]), part
    logs = [[json.loads(line) for line in open(d / "log.jsonl")] for d in (out_dir, tmp_path / "peace")]
    assert same(*logs)
    assert sorted(p.name for p in out_dir.iterdir()) == ["best.safetensors", "checkpoint.pt", "log.jsonl"]
    best = [(d / "best.safetensors").read_bytes() for d in (out_dir, tmp_path / "peace")]
    assert best[0] == best[1]


def steps_in(log: Path) -> int:
    """The last step that the log knows; its last line may be cut off."""
    whole = [line for line in log.read_text().splitlines() if line.endswith("}")] if log.exists() else []
    return max((json.loads(line)["step"] for line in whole), default=0)
