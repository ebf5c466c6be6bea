"""Two processes under torchrun learn from a batch what one process learns from it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from parallel_training import train
from tiny_training import tiny_config, tiny_scenes

from yolonas_lab.data import Loader
from yolonas_lab.training import LAB
from yolonas_lab.training.checkpoint import load_checkpoint
from yolonas_lab.training.devices import SharedNormalizer, make_fabric

HERE = Path(__file__).parent


def torchrun(processes, *arguments):
    """Run parallel_training.py; gloo talks over the loopback only."""
    paths = os.pathsep.join([str(HERE), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += [str(HERE / "parallel_training.py"), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode != 0) == ("explode" in arguments), done.stderr
    return done


def gradient(out_dir):
    """The gradient of the first step: AdamW's first moment is 0.1 of it then. Names of parameters are not kept."""
    state = load_checkpoint(out_dir / "checkpoint.pt")["optimizer"]["state"]
    return torch.cat([entry["exp_avg"].flatten() for entry in state.values()]).double() / 0.1


@pytest.mark.skipif(sys.platform == "win32", reason="torchrun's gloo set-up differs on Windows")
def test_two_processes_have_the_gradient_of_one_with_the_whole_batch(tmp_path):
    tiny_scenes(tmp_path)
    train(tmp_path, tmp_path / "one", 8)
    torchrun(2, tmp_path, tmp_path / "two", 4)
    one, two = gradient(tmp_path / "one"), gradient(tmp_path / "two")
    assert one.norm() > 0.1
    assert float((one - two).norm() / one.norm()) < 1e-5
    losses = [load_checkpoint(tmp_path / d / "checkpoint.pt")["history"]["steps"][0] for d in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    # and it is the shared divisor that makes it so: with own ones the gradient is another
    torchrun(2, tmp_path, tmp_path / "own", 4, "own")
    own = gradient(tmp_path / "own")
    assert float((one - own).norm() / one.norm()) > 1e-3


@pytest.mark.skipif(sys.platform == "win32", reason="torchrun's gloo set-up differs on Windows")
def test_two_processes_learn_from_a_teacher_what_one_learns(tmp_path):
    tiny_scenes(tmp_path)
    train(tmp_path, tmp_path / "one", 8, "taught")
    torchrun(2, tmp_path, tmp_path / "two", 4, "taught")
    one, two = gradient(tmp_path / "one"), gradient(tmp_path / "two")
    assert float((one - two).norm() / one.norm()) < 1e-5
    losses = [load_checkpoint(tmp_path / d / "checkpoint.pt")["history"]["steps"][0] for d in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[0]["kd_class"] > 0.1


@pytest.mark.skipif(sys.platform == "win32", reason="torchrun's gloo set-up differs on Windows")
def test_a_loss_that_explodes_in_one_process_ends_both_naming_the_images_of_both(tmp_path):
    train_set, _ = tiny_scenes(tmp_path)
    order = Loader(train_set, 4, 64, LAB.augmentation, world_size=2).order(0)
    ids = [train_set.image_ids[index] for index in order[:8]]
    shown = torchrun(2, tmp_path, tmp_path / "out", 4, "explode").stderr
    assert "no longer a usable number at step 1 (total nan, " in shown and f"image ids {ids}" in shown
    assert not (tmp_path / "out" / "checkpoint.pt").exists()


def test_the_divisor_is_each_processs_share_of_all_objects():
    class TwoProcesses:
        world_size = 2

        def all_reduce(self, value, reduce_op):
            assert reduce_op == "sum"
            return value + 3.0

    normalizer = SharedNormalizer(cast(Any, TwoProcesses()))
    assert normalizer(torch.tensor(5.0)) == 4.0
    assert normalizer(torch.tensor(-2.9)) == 0.5  # less than one object everywhere: as if it were one


def test_outside_torchrun_there_is_one_device(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "7")  # left over from something else
    assert make_fabric(tiny_config()).world_size == 1


def test_statistics_of_a_frozen_model_stay(tmp_path):
    train(tmp_path, tmp_path / "one", 8)
    net = load_checkpoint(tmp_path / "one" / "checkpoint.pt")["net"]
    assert all(np.all(v.numpy() == 0) for k, v in net.items() if k.endswith("running_mean"))
