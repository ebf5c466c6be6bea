"""Training killed with SIGKILL, again and again, ends with the very weights of a training left in peace."""

import json
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import lightning_fabric  # noqa: F401  (what fit imports when it needs it: loaded once, before processes are forked)
import pycocotools.cocoeval  # noqa: F401
import pytest
import torch
from tiny_training import same, tiny_config, tiny_model, tiny_scenes
from tqdm import tqdm

from yolonas_lab.training import Hooks, fit
from yolonas_lab.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL and no fork server")
STEPS = 60


def train(folder, out_dir, ready):
    """In a process of its own: train to the end, telling the pipe `ready` after each step."""
    os.environ["YOLONAS_LAB_STATIC"] = "1"
    tqdm.set_lock(threading.RLock())  # its own would be a semaphore that a killed process leaves behind
    torch.set_num_threads(1)
    train_set, val_set = tiny_scenes(folder)
    config = tiny_config(
        steps=STEPS, accumulate=2, evaluate_every=10, checkpoint_every=4, out_dir=out_dir, batch_size=4
    )
    fit(tiny_model(6), train_set, val_set, config, Hooks(on_step=lambda _: ready.send(True)))


@pytest.fixture
def start(monkeypatch, tmp_path):
    """Start a training in a process that is forked from one in which everything is imported: it takes no time."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]))
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["test_kill"])

    def started(out_dir):
        ready, tell_ready = server.Pipe(duplex=False)
        process = server.Process(target=train, args=(tmp_path, out_dir, tell_ready), daemon=True)
        process.start()
        return process, ready

    return started


@pytest.mark.parametrize("kills", [pytest.param(4, marks=pytest.mark.slow), pytest.param(16, marks=pytest.mark.proof)])
def test_killed_and_resumed_is_bit_identical(start, tmp_path, kills):
    process, pipe = start(tmp_path / "peace")
    process.join(60)
    assert process.exitcode == 0
    rng, out_dir, killed = random.Random(0), tmp_path / "killed", 0
    for _ in range(kills):
        process, pipe = start(out_dir)
        assert pipe.poll(30), "the training did not get going"
        time.sleep(rng.uniform(0, 3 / kills))
        process.kill()  # SIGKILL; no error where it has just finished
        process.join(30)
        if process.exitcode == 0:  # this time it was faster than the signal
            break
        assert process.exitcode == -signal.SIGKILL
        killed += 1
    assert killed >= 2, f"killed {killed} times: too few to mean anything; give it more steps"
    process, pipe = start(out_dir)
    process.join(60)
    assert process.exitcode == 0

    resumed, undisturbed = (load_checkpoint(folder / "checkpoint.pt") for folder in (out_dir, tmp_path / "peace"))
    assert resumed["step"] == STEPS
    for part in ("step", "net", "ema_net", "optimizer", "history"):
        assert same(resumed[part], undisturbed[part]), part
    assert same(*([json.loads(line) for line in open(d / "log.jsonl")] for d in (out_dir, tmp_path / "peace")))
    assert sorted(p.name for p in out_dir.iterdir()) == ["best.safetensors", "checkpoint.pt", "log.jsonl"]
    best = [(d / "best.safetensors").read_bytes() for d in (out_dir, tmp_path / "peace")]
    assert best[0] == best[1]
