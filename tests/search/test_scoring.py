# A network's modules are Tensor or Module to a type checker, whatever they are.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportIndexIssue=false

import numpy as np
import pytest
import torch
from torch import nn

from tests.search.small_supernet import SHARED, images, supernet
from tests.training.tiny_training import same, tiny_scenes
from yolonas_lab.evaluate import evaluate
from yolonas_lab.search import largest, sample, smallest
from yolonas_lab.search.supernet import calibration_batches, inherited, reestimate_batch_norm, score


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("YOLONAS_LAB_STATIC", "1")
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return tiny_scenes(tmp_path_factory.mktemp("scenes"))


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


def test_a_network_in_eval_mode_then_computes_as_in_train_mode_on_one_batch():
    network, pictures = supernet(largest(SHARED)), torch.rand(32, 3, 64, 64)
    expected = network.train()(pictures).class_logits.detach()

    def off():
        with torch.no_grad():
            return (network.eval()(pictures).class_logits - expected).abs().mean().item()

    before = off()
    reestimate_batch_norm(network, [pictures])
    assert off() < 0.02 < 5 * 0.02 < before  # what is left is n / (n - 1) in the variance


def test_weights_stay_and_the_supernet_too():
    network = supernet(largest(SHARED)).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    part = inherited(network, smallest(SHARED), [images(4)])
    assert same(before, network.state_dict())
    assert torch.equal(part.heads.levels[0].class_pred.weight, network.heads.levels[0].class_pred.weight[:, :8])
    assert not torch.equal(part.backbone.stem.bn.running_mean, network.backbone.stem.bn.running_mean[:8])


def test_no_batches_are_refused():
    with pytest.raises(ValueError, match="no batches"):
        reestimate_batch_norm(supernet(largest(SHARED)), [])


def test_the_score_is_the_ap_of_the_network_and_the_same_each_time(sets):
    train_set, val_set = sets
    network, config = supernet(largest(SHARED), len(train_set.class_names)), sample(SHARED, np.random.default_rng(2))
    network.image_size = 64
    for level in network.heads.levels:  # unsure of everything: an AP above 0 by chance alone
        nn.init.zeros_(level.class_pred.bias)
    batches = calibration_batches(train_set, 64, batches=2, batch_size=4)
    found = [score(network, config, batches, val_set) for _ in range(2)]
    expected = evaluate(inherited(network, config, batches), val_set, progress=False).ap
    assert found[0] == found[1] and found[0] == pytest.approx(expected, abs=1e-3) and found[0] > 0


def test_calibration_batches_follow_from_the_seed_and_are_not_augmented(sets):
    train_set, _ = sets
    batches = calibration_batches(train_set, 64, batches=2, batch_size=4)
    assert [tuple(batch.shape) for batch in batches] == [(4, 3, 64, 64)] * 2
    assert same(batches, calibration_batches(train_set, 64, batches=2, batch_size=4))
    assert not same(batches, calibration_batches(train_set, 64, batches=2, batch_size=4, seed=1))
    pictures = {
        torch.from_numpy(sample.image).permute(2, 0, 1).float().div(255).numpy().tobytes() for sample in train_set
    }
    assert all(picture.numpy().tobytes() in pictures for batch in batches for picture in batch)


def test_too_small_a_data_set_is_refused(sets):
    with pytest.raises(ValueError, match="batches is 9: the data set has 1 to 4 of 4 images"):
        calibration_batches(sets[0], 64, batches=9, batch_size=4)
