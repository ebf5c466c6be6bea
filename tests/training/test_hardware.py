"""What is left to the machine: number format and memory layout, decided before the training and remembered."""

import warnings
from dataclasses import replace

import pytest
import torch
from tiny_training import same, tiny_config, tiny_model, tiny_scenes
from torch import nn

from yolonas_lab.training import COCO_S, FINE_TUNE, LAB, Hooks, fit
from yolonas_lab.training.checkpoint import load_checkpoint
from yolonas_lab.training.devices import device_type, resolve_device


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("YOLONAS_LAB_STATIC", "1")
    torch.set_num_threads(1)


@pytest.fixture
def gpu(monkeypatch):
    """As if there were a CUDA GPU; call it with True or False: whether it has bfloat16."""

    def pretend(has_bf16):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bf16)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Old GPU")

    return pretend


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


LARGE = nn.Linear(2500, 2500)  # as many weights as YOLO-NAS S, about


def test_auto_is_bf16_only_where_the_gpu_has_it(gpu, no_gpu):
    assert resolve_device(COCO_S, LARGE).precision == "32"
    gpu(has_bf16=False)
    assert resolve_device(COCO_S, LARGE).precision == "32"
    gpu(has_bf16=True)
    assert resolve_device(COCO_S, LARGE).precision == "bf16"
    assert resolve_device(replace(COCO_S, accelerator="cpu"), LARGE).precision == "32"
    assert resolve_device(replace(COCO_S, precision="32"), LARGE).precision == "32"


def test_bf16_is_refused_on_a_gpu_without_it(gpu):
    gpu(has_bf16=False)
    with pytest.raises(ValueError, match="Old GPU has no bfloat16: give precision='32' or 'auto'"):
        resolve_device(replace(FINE_TUNE, precision="bf16"), LARGE)


@pytest.mark.parametrize("accelerator", ["cuda", "mps"])
def test_an_accelerator_that_is_not_there_is_refused(no_gpu, accelerator):
    with pytest.raises(ValueError, match=f"accelerator is '{accelerator}', which this machine or this build"):
        resolve_device(replace(LAB, accelerator=accelerator), LARGE)


def test_auto_takes_the_best_device(gpu, no_gpu, monkeypatch):
    assert device_type("auto") == device_type("cpu") == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device_type("auto") == device_type("mps") == "mps"
    gpu(has_bf16=True)
    assert device_type("auto") == device_type("cuda") == "cuda"


def test_channels_last_is_for_large_images_and_networks_and_for_autocast(gpu, no_gpu):
    assert resolve_device(COCO_S, LARGE).channels_last is True
    assert resolve_device(replace(COCO_S, image_size=224), LARGE).channels_last is False
    assert resolve_device(COCO_S, nn.Linear(2, 2)).channels_last is False
    assert resolve_device(LAB, LARGE).channels_last is False
    assert resolve_device(replace(LAB, channels_last=True), LARGE).channels_last is True
    gpu(has_bf16=True)
    assert resolve_device(COCO_S, nn.Linear(2, 2)).channels_last is True
    assert resolve_device(replace(COCO_S, precision="32"), LARGE).channels_last is False
    assert resolve_device(replace(COCO_S, channels_last=False), LARGE).channels_last is False


def test_a_training_in_channels_last_learns_the_same_and_goes_on_bit_for_bit(tmp_path):
    sets = tiny_scenes(tmp_path)
    k = len(sets[0].class_names)
    seen = []

    def stop(state):
        images_first = state.network.neck.up1.csp.conv1.conv.weight
        seen.append(images_first.is_contiguous(memory_format=torch.channels_last))
        if state.step == 3:
            raise KeyboardInterrupt

    config = tiny_config(steps=5, checkpoint_every=2, channels_last=True)
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_model(k), *sets, replace(config, out_dir=tmp_path / "a"), Hooks(on_step=stop))
    assert seen == [True] * 3
    resumed, whole, usual = tiny_model(k), tiny_model(k), tiny_model(k)
    fit(resumed, *sets, replace(config, out_dir=tmp_path / "a"))
    history = fit(whole, *sets, replace(config, out_dir=tmp_path / "b"))
    assert same(resumed.state_dict(), whole.state_dict())
    a, b = (load_checkpoint(tmp_path / d / "checkpoint.pt") for d in "ab")
    assert all(same(a[part], b[part]) for part in ("net", "optimizer", "ema_net"))
    assert all(p.is_contiguous() for p in whole.parameters())  # the caller's model keeps its layout
    losses = fit(usual, *sets, replace(config, channels_last=None)).column("total")
    assert history.column("total")[0] == pytest.approx(losses[0], rel=1e-4)
    assert history.column("total") == pytest.approx(losses, rel=0.1)  # other last bits, and soon other assignments
    assert not same(whole.state_dict(), usual.state_dict())
    with pytest.raises(ValueError, match=r"channels_last \(True there, None now\)"):
        fit(tiny_model(k), *sets, replace(config, channels_last=False, out_dir=tmp_path / "a"))


def test_a_recipe_for_a_gpu_runs_on_a_processor(tmp_path):
    train_set, _ = tiny_scenes(tmp_path)
    config = replace(
        FINE_TUNE, epochs=None, steps=1, batch_size=2, image_size=64, workers=0, accelerator="cpu", live_plot=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = fit(
            tiny_model(len(train_set.class_names)), train_set, None, replace(config, out_dir=tmp_path / "out")
        )
    assert len(history.steps) == 1
    assert load_checkpoint(tmp_path / "out" / "checkpoint.pt")["identity"]["precision"] == "32"
