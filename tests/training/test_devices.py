"""What is left to the machine is decided before the training; two processes learn what one learns."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from parallel_training import train
from tiny_training import tiny_config, tiny_scenes
from torch import nn

from yolonas_lab.training import COCO_S, LAB
from yolonas_lab.training.checkpoint import load_checkpoint
from yolonas_lab.training.devices import make_fabric, resolve_device, shared_normalizer

HERE = Path(__file__).parent
LARGE = nn.Linear(2500, 2500)  # as many weights as YOLO-NAS S, about


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def gpu(no_gpu, monkeypatch):
    """As if there were a CUDA GPU; call it with True or False: whether it has bfloat16."""

    def pretend(has_bf16):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bf16)

    return pretend


def test_auto_is_bf16_only_where_the_gpu_has_it(gpu):
    assert resolve_device(COCO_S, LARGE).precision == "32"
    gpu(has_bf16=False)
    assert resolve_device(COCO_S, LARGE).precision == "32"
    gpu(has_bf16=True)
    assert resolve_device(COCO_S, LARGE).precision == "bf16"
    assert resolve_device(replace(COCO_S, accelerator="cpu"), LARGE).precision == "32"
    assert resolve_device(replace(COCO_S, precision="32"), LARGE).precision == "32"


@pytest.mark.parametrize("accelerator", ["cuda", "mps"])
def test_an_accelerator_that_is_not_there_is_refused(no_gpu, accelerator):
    with pytest.raises(ValueError, match=f"accelerator is '{accelerator}', which this machine or this build"):
        resolve_device(replace(LAB, accelerator=accelerator), LARGE)


def test_channels_last_is_for_large_images_and_networks_and_for_autocast(gpu):
    assert resolve_device(COCO_S, LARGE).channels_last is True
    assert resolve_device(replace(COCO_S, image_size=224), LARGE).channels_last is False
    assert resolve_device(COCO_S, nn.Linear(2, 2)).channels_last is False
    assert resolve_device(replace(LAB, channels_last=True), LARGE).channels_last is True
    gpu(has_bf16=True)
    assert resolve_device(COCO_S, nn.Linear(2, 2)).channels_last is True
    assert resolve_device(replace(COCO_S, precision="32"), LARGE).channels_last is False
    assert resolve_device(replace(COCO_S, channels_last=False), LARGE).channels_last is False


def test_outside_torchrun_there_is_one_device(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "7")  # left over from something else
    assert make_fabric(tiny_config()).world_size == 1


def test_the_divisor_is_each_processs_share_of_all_objects():
    class TwoProcesses:
        world_size = 2

        def all_reduce(self, value, reduce_op):
            assert reduce_op == "sum"
            return value + 3.0

    normalizer = shared_normalizer(cast(Any, TwoProcesses()))
    assert normalizer is not None and normalizer(torch.tensor(5.0)) == 4.0
    assert normalizer(torch.tensor(-2.9)) == 0.5  # less than one object everywhere: as if it were one


def first_step(out_dir):
    """The gradient of the first step, of which AdamW's first moment is a tenth then, and its losses."""
    content = load_checkpoint(out_dir / "checkpoint.pt")
    moments = torch.cat([entry["exp_avg"].flatten() for entry in content["optimizer"]["state"].values()])
    return moments.double() / 0.1, content["history"]["steps"][0]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="torchrun's gloo set-up differs on Windows")
def test_two_processes_learn_from_boxes_and_a_teacher_what_one_learns_from_the_whole_batch(tmp_path):
    tiny_scenes(tmp_path)
    train(tmp_path, tmp_path / "one", 8)
    paths = os.pathsep.join([str(HERE), *filter(None, sys.path)])  # gloo talks over the loopback only:
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(HERE / "parallel_training.py"), str(tmp_path), str(tmp_path / "two"), "4"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (one, losses), (two, others) = first_step(tmp_path / "one"), first_step(tmp_path / "two")
    assert one.norm() > 0.1 and float((one - two).norm() / one.norm()) < 1e-5
    assert losses == pytest.approx(others, rel=1e-5) and losses["kd_class"] > 0.1
