"""What shared weights cost: a network cut out in each step against a plain one; a supernet's step; a score."""
# A network's modules are Tensor or Module to a type checker, whatever they are.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportIndexIssue=false

from types import SimpleNamespace

import pytest
import torch

from tests.training.tiny_training import tiny_scenes
from yolonas_lab.common import time_side_by_side
from yolonas_lab.data.loader import Loader
from yolonas_lab.models import CONFIGS, YoloNAS
from yolonas_lab.search import largest, smallest
from yolonas_lab.search.supernet import (
    SUPERNET_SPACE,
    SUPERNET_WEIGHTS,
    SandwichLoss,
    calibration_batches,
    forward_as,
    load_supernet,
    score,
)


@pytest.mark.bench
def test_shared_weights_against_plain_ones(capsys):
    torch.set_num_threads(1)
    network, images = YoloNAS(largest(SUPERNET_SPACE), 6).train(), torch.rand(8, 3, 64, 64)
    configs = {"smallest": smallest(SUPERNET_SPACE), "nano": CONFIGS["yolo_nas_nano"], "largest": network.config}

    for name, config in configs.items():
        found = _plain_and_shared(network, config, images)
        ratio = found["shared"].median_ms / found["plain"].median_ms
        with capsys.disabled():
            print(f"\n{name}: {found['plain']}, {found['shared']}, ratio {ratio:.2f}")


def _plain_and_shared(network, config, images):
    plain = YoloNAS(config, 6).train()

    def step(raw):
        (raw.class_logits.square().mean() + raw.box_logits.square().mean()).backward()

    ways = {"plain": lambda: step(plain(images)), "shared": lambda: step(forward_as(network, config, images))}
    return time_side_by_side(ways, rounds=15)


@pytest.mark.bench
def test_a_step_of_the_supernet_and_a_score(capsys, tmp_path):
    torch.set_num_threads(1)
    train_set, val_set = tiny_scenes(tmp_path, train=128, val=200)
    network = YoloNAS(largest(SUPERNET_SPACE), len(train_set.class_names)).train()
    batch = next(Loader(train_set, 8, 64).batches(0))
    loss = SandwichLoss(SUPERNET_SPACE, network.num_classes)
    state = SimpleNamespace(network=network, step=0)
    loss.start(state)  # type: ignore[arg-type]  (what it needs of a TrainState)

    def step():
        loss(network(batch.images), batch).total.backward()
        state.step += 1

    supernet = load_supernet() if SUPERNET_WEIGHTS.is_file() else YoloNAS(largest(SUPERNET_SPACE), network.num_classes)
    supernet.image_size = 64
    batches, nano = calibration_batches(train_set, 64), CONFIGS["yolo_nas_nano"]
    steps = time_side_by_side({"a supernet's step": step}, 20)
    scores = time_side_by_side({"a score": lambda: score(supernet, nano, batches, val_set)}, 5)
    with capsys.disabled():
        print("", *(steps | scores).values(), sep="\n")
