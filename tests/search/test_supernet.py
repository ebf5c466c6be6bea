# A network's modules are Tensor or Module to a type checker, whatever they are.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportIndexIssue=false

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.search.small_supernet import IMAGE_SIZE, SHARED, batch, images, supernet
from tests.training.tiny_training import same, tiny_config, tiny_scenes
from yolonas_lab.losses import DetectionLoss, DistillConfig, distillation_losses
from yolonas_lab.models import CONFIGS, YoloNAS
from yolonas_lab.search import largest, sample, smallest
from yolonas_lab.search.supernet import (
    SandwichLoss,
    forward_as,
    load_supernet,
    slice_state_dict,
    subnetwork,
    train_supernet,
)
from yolonas_lab.training.checkpoint import save_weights


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("YOLONAS_LAB_STATIC", "1")
    torch.set_num_threads(1)


def state_of(network, step=0):
    return SimpleNamespace(network=network, step=step)


def length(raw):
    return raw.class_logits.square().sum() + raw.box_logits.square().sum()


@pytest.mark.parametrize("config", [smallest(SHARED), sample(SHARED, np.random.default_rng(1)), largest(SHARED)])
def test_shared_weights_compute_and_learn_as_a_copy_of_them_does(config):
    network = supernet(largest(SHARED)).train()
    copied = subnetwork(network, config).train()
    shared_raw, copied_raw = forward_as(network, config, images(2)), copied(images(2))
    assert torch.allclose(shared_raw.class_logits, copied_raw.class_logits, atol=1e-6)
    assert torch.allclose(shared_raw.box_logits, copied_raw.box_logits, atol=1e-6)
    length(shared_raw).backward()
    length(copied_raw).backward()
    gradients = {name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in network.named_parameters()}
    for name, gradient in slice_state_dict(gradients, network.config, config).items():
        assert torch.allclose(gradient, copied.get_parameter(name).grad, rtol=1e-4, atol=1e-5), name
    everything = sum(gradient.abs().sum() for gradient in gradients.values())
    assert torch.isclose(everything, sum(p.grad.abs().sum() for p in copied.parameters()), rtol=1e-4)


@pytest.mark.parametrize("train", [True, False])
def test_running_as_a_part_leaves_the_supernet_as_it_was(train):
    network = supernet(largest(SHARED)).train(train)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    parts = [type(module) for module in network.modules()]
    forward_as(network, smallest(SHARED), images(2))
    assert same(before, network.state_dict()) and parts == [type(module) for module in network.modules()]
    assert all(module.training is train for module in network.modules())
    assert network.neck.up1.csp.concat and len(network.backbone.stages[1].csp.bottlenecks) == 2


def test_a_subnetwork_is_a_copy_with_classes_and_image_size():
    network = YoloNAS(largest(SHARED), 2, ["cat", "dog"])
    network.image_size = 64
    part = subnetwork(network, smallest(SHARED))
    assert part.class_names == ["cat", "dog"] and part.image_size == 64 and not part.training
    part.backbone.stem.branch1x1.weight.data.zero_()
    assert network.backbone.stem.branch1x1.weight.abs().sum() > 0


def test_the_sandwich_is_the_mean_of_four_networks_losses_by_hand():
    network, examples, config = supernet(largest(SHARED)).train(), batch(), DistillConfig(temperature=2)
    loss = SandwichLoss(SHARED, 3, seed=5, distillation=config)
    loss.start(state_of(network, step=6))
    raw = network(examples.images)
    found = loss(raw, examples)
    assert loss.networks(6) != loss.networks(0)

    detection = DetectionLoss(3)
    expected = [detection(raw, examples.targets).total]
    for part in (smallest(SHARED), *loss.networks(6)):
        student = forward_as(network, part, examples.images)
        learnt = distillation_losses(student, raw, config)
        expected.append(detection(student, examples.targets).total + learnt[0] + learnt[1])
    assert torch.isclose(found.total, torch.stack(expected).mean())
    assert torch.isclose(found.largest, expected[0]) and torch.isclose(found.smallest, expected[1])
    assert torch.isclose(found.random, torch.stack(expected[2:]).mean())


def test_the_largest_learns_nothing_from_being_a_teacher():
    """What reaches its predictions is the gradient of its own loss alone."""
    network, examples = supernet(largest(SHARED)).train(), batch()
    raw = network(examples.images)
    raw = raw._replace(class_logits=raw.class_logits.detach().requires_grad_(), box_logits=raw.box_logits.detach())
    loss = SandwichLoss(SHARED, 3)
    loss.start(state_of(network))
    loss(raw, examples).total.backward()
    found = raw.class_logits.grad.clone()
    raw.class_logits.grad = None
    (DetectionLoss(3)(raw, examples.targets).total / 4).backward()
    assert torch.allclose(found, raw.class_logits.grad, atol=1e-7)


def test_random_networks_follow_from_seed_and_step():
    names = [[c.name for c in SandwichLoss(SHARED, 3, seed).networks(step)] for seed in (0, 1) for step in range(8)]
    assert names == [
        [c.name for c in SandwichLoss(SHARED, 3, seed).networks(step)] for seed in (0, 1) for step in range(8)
    ]
    assert len({tuple(pair) for pair in names}) > 8 and all(len(pair) == 2 for pair in names)


def test_a_training_goes_on_bit_for_bit_and_knows_another(tmp_path):
    train_set, _ = tiny_scenes(tmp_path)
    classes = len(train_set.class_names)

    def run(folder, space=SHARED, **changes):
        network = supernet(largest(space), classes)
        config = tiny_config(steps=4, warmup_steps=1, image_size=64, out_dir=tmp_path / folder, **changes)
        return network, train_supernet(network, space, train_set, None, config)

    whole, history = run("whole")
    assert len(history.steps) == 4 and {"total", "largest", "smallest", "random"} <= history.steps[0].keys()

    class Stop(Exception): ...

    calls = []

    def stop_at_third(self, raw, examples, plain=SandwichLoss.__call__):
        calls.append(1)
        if len(calls) == 4:
            raise Stop
        return plain(self, raw, examples)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(SandwichLoss, "__call__", stop_at_third)
        run("stopped", checkpoint_every=2)
    stopped, again = run("stopped", checkpoint_every=2)
    assert same(whole.state_dict(), stopped.state_dict()) and same(history.steps, again.steps)

    fewer = dataclasses.replace(SHARED, head_channels=((8,), (8,), (8, 16)))  # its largest network is another
    with pytest.raises(ValueError, match="space"):
        run("whole", space=fewer)


def test_training_moves_the_part_that_is_trained(tmp_path):
    """A few steps on eight images: the smallest network's loss falls, and so does the largest's."""
    train_set, _ = tiny_scenes(tmp_path, train=8)
    network = supernet(largest(SHARED), len(train_set.class_names))
    history = train_supernet(network, SHARED, train_set, None, tiny_config(steps=24, batch_size=8, image_size=64))
    for name in ("largest", "smallest"):
        column = history.column(name)
        assert column[-4:].mean() < 0.9 * column[:4].mean()


def test_only_the_largest_network_of_the_space_is_trained():
    with pytest.raises(ValueError, match=r"yolo_nas_pico is not the largest network of shared"):
        train_supernet(YoloNAS(CONFIGS["yolo_nas_pico"], 3), SHARED, [], None, tiny_config())


def test_weights_come_back_from_a_file_and_others_are_refused(tmp_path):
    network = YoloNAS(largest(SHARED), 2, ["cat", "dog"]).eval()
    save_weights(tmp_path / "net.safetensors", network.half(), {"image_size": IMAGE_SIZE})
    loaded = load_supernet(tmp_path / "net.safetensors", SHARED)
    assert loaded.config == largest(SHARED) and loaded.class_names == ["cat", "dog"] and not loaded.training
    assert loaded.image_size == IMAGE_SIZE and {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert same(
        {n: t.half() if t.is_floating_point() else t for n, t in loaded.state_dict().items()}, network.state_dict()
    )
    with pytest.raises(ValueError, match="does not fit"):
        load_supernet(tmp_path / "net.safetensors")
    save_weights(tmp_path / "other.safetensors", torch.nn.Conv2d(1, 1, 1), {})
    with pytest.raises(ValueError, match="is no supernet"):
        load_supernet(tmp_path / "other.safetensors", SHARED)
