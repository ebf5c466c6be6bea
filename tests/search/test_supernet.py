"""Shared weights: what a part computes, learns and scores, against copies and against everything else silenced."""
# A network's modules are Tensor or Module to a type checker, whatever they are.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportIndexIssue=false

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.search.spaces import IMAGE_SIZE, SHARED, batch, images, seeded, supernet
from tests.training.tiny_training import same, tiny_config, tiny_scenes
from yolonas_lab.evaluate import evaluate
from yolonas_lab.losses import DetectionLoss, DistillConfig, distillation_losses
from yolonas_lab.models import CONFIGS, RepVGGBlock, YoloNAS
from yolonas_lab.models.configs import with_block
from yolonas_lab.search import LAB_SPACE, largest, sample, smallest
from yolonas_lab.search.space import with_blocks_of
from yolonas_lab.search.supernet import (
    SUPERNET_SPACE,
    SandwichLoss,
    calibration_batches,
    forward_as,
    load_supernet,
    reestimate_batch_norm,
    score,
    slice_state_dict,
    subnetwork,
    train_supernet,
    units_of,
)
from yolonas_lab.training.checkpoint import save_weights

LARGEST, NANO = largest(SUPERNET_SPACE), CONFIGS["yolo_nas_nano"]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return tiny_scenes(tmp_path_factory.mktemp("scenes"))


def different(config=LARGEST):
    """A network in which every tensor is different, BatchNorm's too."""
    network = supernet(config)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) * 0.2 + 0.4 * (tensor.ndim == 1) - 0.1 * (tensor.ndim > 1))
    return network.eval()


def test_repvgg_blocks_with_an_identity_norm_are_cut_too():
    space = with_blocks_of(LAB_SPACE, CONFIGS["yolo_nas_nano_repvgg"])
    subnetwork(different(largest(space)), smallest(space))


@pytest.mark.parametrize("seed", range(3))
def test_a_part_computes_what_the_largest_does_with_everything_else_silenced(seed):
    """The oracle: channels that a part lacks are switched off behind each BatchNorm, and no kernel is cut at all."""
    config = sample(SUPERNET_SPACE, seeded(seed))
    network, picture = different(), torch.rand(1, 3, 64, 64)
    expected = subnetwork(network, config)(picture)
    _silence(network, config)
    found = network(picture)
    assert torch.allclose(found.class_logits, expected.class_logits, rtol=1e-4, atol=1e-4)
    assert torch.allclose(found.box_logits, expected.box_logits, rtol=1e-4, atol=1e-4)


def _silence(network, config):
    units = units_of(config)
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            unit = name
            while unit and unit not in units:
                unit = unit.rpartition(".")[0]
            if unit:
                keep = units[unit][0]["map"]
                module.weight.data[keep:], module.bias.data[keep:] = 0, 0  # followed by ReLU: channels that are 0
        elif isinstance(module, nn.ConvTranspose2d):  # no BatchNorm: silenced in the kernel
            keep = units[name][0]["map"]
            module.weight.data[:, keep:], module.bias.data[keep:] = 0, 0
    stages = [*network.backbone.stages, network.neck.up1, network.neck.up2, network.neck.down1, network.neck.down2]
    for stage, want in zip(stages, [*config.backbone, *config.neck], strict=True):
        kernel = stage.csp.conv3.conv.weight.data  # (c_out, pieces · hidden, 1, 1)
        hidden, pieces = stage.csp.conv1.bn.num_features, kernel.shape[1] // stage.csp.conv1.bn.num_features
        for piece in range(pieces - 1):  # the last one is the way around
            taken = piece <= want.blocks if want.concat else piece == want.blocks
            kernel[:, piece * hidden : (piece + 1) * hidden] *= taken


@pytest.mark.parametrize(
    "config, reason",
    [
        (with_block(CONFIGS["yolo_nas_pico"], RepVGGBlock, "twin"), "stem_block is repvgg, and qarepvgg there"),
        (CONFIGS["yolo_nas_s"], "reg_max is 16, and 8 there"),
        (replace(NANO, head_channels=(24, 40, 64)), "head_channels.1 is 40, and at most 32 there"),
        (replace(NANO, stem_channels=24), "stem_channels is 24, and at most 16 there"),
    ],
)
def test_what_is_no_part_is_refused_with_the_reason(config, reason):
    with pytest.raises(ValueError, match=rf"{config.name} is no part of \w+: {reason}"):
        subnetwork(YoloNAS(LARGEST, 3), config)


def length(raw):
    return raw.class_logits.square().sum() + raw.box_logits.square().sum()


@pytest.mark.parametrize("config", [smallest(SHARED), sample(SHARED, seeded(1)), largest(SHARED)])
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
    everything = sum(gradient.abs().sum() for gradient in gradients.values())  # nothing else gets any
    assert torch.isclose(everything, sum(p.grad.abs().sum() for p in copied.parameters()), rtol=1e-4)


@pytest.mark.parametrize("train", [True, False])
def test_running_as_a_part_leaves_the_supernet_as_it_was(train):
    network = supernet(largest(SHARED)).train(train)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    forward_as(network, smallest(SHARED), images(2))
    assert same(before, network.state_dict()) and all(module.training is train for module in network.modules())
    assert network.neck.up1.csp.concat and len(network.backbone.stages[1].csp.bottlenecks) == 2


def test_the_sandwich_is_the_mean_of_four_networks_losses_by_hand():
    network, examples = supernet(largest(SHARED)).train(), batch()
    loss = SandwichLoss(SHARED, 3, seed=5)
    loss.start(SimpleNamespace(network=network, step=6))
    raw = network(examples.images)
    found = loss(raw, examples)
    assert loss.networks(6) == SandwichLoss(SHARED, 3, seed=5).networks(6) != loss.networks(0)

    detection = DetectionLoss(3)
    expected = [detection(raw, examples.targets).total]
    for part in (smallest(SHARED), *loss.networks(6)):
        student = forward_as(network, part, examples.images)
        learnt = distillation_losses(student, raw, DistillConfig())
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
    loss.start(SimpleNamespace(network=network, step=0))
    loss(raw, examples).total.backward()
    found = raw.class_logits.grad.clone()
    raw.class_logits.grad = None
    (DetectionLoss(3)(raw, examples.targets).total / 4).backward()
    assert torch.allclose(found, raw.class_logits.grad, atol=1e-7)


@pytest.mark.slow
def test_a_training_goes_on_bit_for_bit_and_knows_another(sets, tmp_path):
    train_set, _ = sets

    def run(folder, space=SHARED, **changes):
        network = supernet(largest(space), len(train_set.class_names))
        config = tiny_config(steps=4, warmup_steps=1, image_size=64, out_dir=tmp_path / folder, **changes)
        return network, train_supernet(network, space, train_set, None, config)

    whole, history = run("whole")
    assert len(history.steps) == 4 and {"total", "largest", "smallest", "random"} <= history.steps[0].keys()

    def stop_at_fourth(self, raw, examples, plain=SandwichLoss.__call__):
        if self.state.step == 3:
            raise KeyboardInterrupt
        return plain(self, raw, examples)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SandwichLoss, "__call__", stop_at_fourth)
        run("stopped", checkpoint_every=2)
    stopped, again = run("stopped", checkpoint_every=2)
    assert same(whole.state_dict(), stopped.state_dict()) and same(history.steps, again.steps)

    fewer = replace(SHARED, head_channels=((8,), (8,), (8, 16)))  # its largest network is another
    with pytest.raises(ValueError, match="space"):
        run("whole", space=fewer)
    with pytest.raises(ValueError, match=r"shared_\w+ is not the largest network of lab"):
        train_supernet(whole, SUPERNET_SPACE, train_set, None, tiny_config())


def test_weights_come_back_from_a_file_and_others_are_refused(tmp_path):
    network = YoloNAS(largest(SHARED), 2, ["cat", "dog"]).eval()
    save_weights(tmp_path / "net.safetensors", network.half(), {"image_size": IMAGE_SIZE})
    loaded = load_supernet(tmp_path / "net.safetensors", SHARED)
    assert loaded.config == largest(SHARED) and loaded.class_names == ["cat", "dog"] and not loaded.training
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert all(torch.equal(p.half(), q) for p, q in zip(loaded.parameters(), network.parameters(), strict=True))
    part = subnetwork(loaded, smallest(SHARED))
    assert part.class_names == ["cat", "dog"] and part.image_size == IMAGE_SIZE and not part.training
    with pytest.raises(ValueError, match="does not fit"):
        load_supernet(tmp_path / "net.safetensors")
    save_weights(tmp_path / "other.safetensors", torch.nn.Conv2d(1, 1, 1), {})
    with pytest.raises(ValueError, match=r"other.safetensors does not fit"):
        load_supernet(tmp_path / "other.safetensors", SHARED)


def test_statistics_of_two_batches_by_hand():
    layer = nn.BatchNorm2d(1, momentum=0.03)
    network = nn.Sequential(layer)
    layer.running_mean.fill_(9.0)
    layer.num_batches_tracked.fill_(5)  # of a training, which must not count
    ones, threes = torch.ones(2, 1, 2, 2), torch.tensor([1.0, 5.0]).reshape(2, 1, 1, 1).expand(2, 1, 2, 2)
    reestimate_batch_norm(network, [ones, threes])
    assert layer.running_mean.item() == pytest.approx((1 + 3) / 2)
    assert layer.running_var.item() == pytest.approx((0 + 4 * 8 / 7) / 2)  # unbiased, as PyTorch keeps it
    assert layer.momentum == 0.03 and not network.training


def test_the_score_is_the_ap_of_the_network_and_the_same_each_time(sets):
    train_set, val_set = sets
    network, config = supernet(largest(SHARED), len(train_set.class_names)), sample(SHARED, seeded(2))
    network.image_size = 64
    for level in network.heads.levels:  # unsure of everything: an AP above 0 by chance alone
        nn.init.zeros_(level.class_pred.bias)
    batches = calibration_batches(train_set, 64, batches=2, batch_size=4)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = [score(network, config, batches, val_set) for _ in range(2)]
    assert same(before, network.state_dict())
    part = subnetwork(network, config)
    reestimate_batch_norm(part, batches)
    expected = evaluate(part, val_set, progress=False).ap
    assert found[0] == found[1] and found[0] == pytest.approx(expected, abs=1e-3) and found[0] > 0


def test_calibration_batches_follow_from_the_seed_and_are_not_augmented(sets):
    train_set, _ = sets
    batches = calibration_batches(train_set, 64, batches=2, batch_size=4)
    assert [tuple(batch.shape) for batch in batches] == [(4, 3, 64, 64)] * 2
    assert same(batches, calibration_batches(train_set, 64, batches=2, batch_size=4))
    assert not same(batches, calibration_batches(train_set, 64, batches=2, batch_size=4, seed=1))
    pictures = {torch.from_numpy(s.image).permute(2, 0, 1).float().div(255).numpy().tobytes() for s in train_set}
    assert all(picture.numpy().tobytes() in pictures for batch in batches for picture in batch)
    with pytest.raises(ValueError, match="batches is 9: the data set has 1 to 4 of 4 images"):
        calibration_batches(train_set, 64, batches=9, batch_size=4)
