import collections
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import yolonas_lab as yl
from tests.search.spaces import FIXED, TINY, every_network, seeded
from yolonas_lab.models import CONFIGS, ConvBNAct, QARepVGGBlock, RepVGGBlock, YoloNAS
from yolonas_lab.models.configs import with_block
from yolonas_lab.search import (
    FULL_SPACE,
    LAB_SPACE,
    choices_of,
    config_of,
    crossover,
    largest,
    mutate,
    neighbors,
    proxies,
    sample,
    scaled,
    size,
    smallest,
    spread_sample,
)
from yolonas_lab.search.space import why_outside, with_blocks_of

S, PICO, NANO = (CONFIGS[f"yolo_nas_{name}"] for name in ("s", "pico", "nano"))


def in_words(config):
    return tuple(choices_of(config).values())


def changed(one, other):
    return sum(a != b for a, b in zip(in_words(one), in_words(other)))


def test_the_size_of_a_space_is_the_number_of_different_networks():
    networks = every_network(TINY)
    assert len(networks) == size(TINY) == 3 * 2 * 2 * 2 == len(set(networks)) == len({c.name for c in networks})
    assert all(config in TINY for config in networks) and size(FULL_SPACE) > 10**14


@pytest.mark.parametrize(
    ("sizes", "space", "other"), [("pico nano", LAB_SPACE, FULL_SPACE), ("s m l", FULL_SPACE, LAB_SPACE)]
)
def test_sizes_and_their_twins_are_in_their_space_and_survive_their_choices(sizes, space, other):
    for config in (CONFIGS[f"yolo_nas_{name}"] for name in sizes.split()):
        assert config in space and config not in other
        for block in (RepVGGBlock, ConvBNAct):
            twin = with_block(config, block, "twin")
            choices = json.loads(json.dumps(choices_of(twin)))
            assert twin in space and list(choices) == list(space.decisions)
            assert replace(config_of(space, choices), name="twin") == twin


def test_equal_choices_have_equal_names_wherever_they_come_from():
    choices = choices_of(PICO)
    shuffled = dict(reversed(choices.items())) | {"backbone.0.concat": 0, "stem_channels": np.int64(8)}
    assert config_of(LAB_SPACE, shuffled) == config_of(LAB_SPACE, choices)
    assert config_of(LAB_SPACE, choices).name == "lab_7fb8529fe5dd"  # the same in every process and on every machine


def test_what_keeps_a_config_outside_is_named():
    assert why_outside(LAB_SPACE, replace(PICO, name="mine", image_size=64)) is None
    assert why_outside(LAB_SPACE, replace(PICO, reg_max=16)) == "reg_max is 16, and 8 everywhere in lab."
    wide = replace(PICO, head_channels=(16, 24, 40))
    for move in (mutate, lambda space, config, rng: crossover(space, PICO, config, rng)):
        with pytest.raises(ValueError, match=r"yolo_nas_pico is not in the space: head_channels\.2 is 40"):
            move(LAB_SPACE, wide, seeded())


CHOICES = choices_of(PICO)
BAD = [
    (lambda: config_of(LAB_SPACE, CHOICES | {"backbone.5.blocks": 1}), "did you mean 'backbone.3.blocks'"),
    (lambda: config_of(LAB_SPACE, {"stem_channels": 8}), "stem_block is missing; lab has plain, repvgg, qarepvgg"),
    (lambda: config_of(LAB_SPACE, CHOICES | {"stem_channels": 12}), "stem_channels is 12; lab has 8, 16"),
    (lambda: replace(TINY, stem_channels=8), "stem_channels is 8: give a tuple"),
    (lambda: replace(TINY, stem_channels=(8, 12)), r"stem_channels is \(8, 12\): .*multiples of 8"),
    (lambda: replace(TINY, stem_channels=(16, 8)), "ascending"),
    (lambda: replace(TINY, stem_block=("mbconv",)), "stem_block is .*mbconv"),
    (lambda: replace(TINY, neck=(FIXED, FIXED, FIXED, replace(FIXED, blocks=()))), r"neck\.3\.blocks is \(\)"),
    (lambda: scaled(S, 0, float("nan")), "width is 0 and depth nan"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_smallest_and_the_largest_with_fixed_block_types():
    space, twin = with_blocks_of(LAB_SPACE, NANO), CONFIGS["yolo_nas_nano_repvgg"]
    assert size(space) * 3**9 == size(LAB_SPACE) and NANO in space and twin not in space
    assert choices_of(smallest(space)) == choices_of(PICO)
    assert all(choices_of(largest(space))[d] == options[-1] for d, options in space.decisions.items())
    kinds = {type(m) for m in YoloNAS(sample(space, seeded()), 2).modules()}
    assert QARepVGGBlock in kinds and RepVGGBlock not in kinds


def test_samples_are_uniform_and_follow_from_the_seed():
    rng = seeded()
    counts = collections.Counter(sample(TINY, rng).name for _ in range(4800))
    assert len(counts) == size(TINY)
    assert all(130 < count < 270 for count in counts.values())  # 200 expected, standard deviation 14
    assert sample(LAB_SPACE, seeded(3)) == sample(LAB_SPACE, seeded(3)) != sample(LAB_SPACE, seeded(4))


def test_a_spread_sample_reaches_both_ends_which_a_uniform_one_does_not():
    macs = partial(proxies.macs, image_size=64, num_classes=6)
    configs = spread_sample(LAB_SPACE, 40, seeded())
    spread = [macs(config) for config in configs]
    uniform = [macs(sample(LAB_SPACE, seeded(i))) for i in range(40)]
    assert np.ptp(spread) > 1.3 * np.ptp(uniform)
    assert np.ptp(spread) > 0.75 * (macs(largest(LAB_SPACE)) - macs(smallest(LAB_SPACE)))
    assert np.corrcoef(range(40), spread)[0, 1] > 0.9 and all(config in LAB_SPACE for config in configs)


def test_a_mutation_changes_about_one_decision_and_never_none():
    rng = seeded()
    ones = [changed(NANO, mutate(LAB_SPACE, NANO, rng)) for _ in range(300)]
    assert min(ones) == 1 and 1.1 < np.mean(ones) < 1.7  # 1 expected, and 1 where it would have been 0


def test_a_child_takes_everything_from_its_parents_and_half_from_each():
    rng, one, other = seeded(), smallest(LAB_SPACE), largest(LAB_SPACE)
    children = [crossover(LAB_SPACE, one, other, rng) for _ in range(100)]
    for child in children:
        assert all(c in (a, b) for a, b, c in zip(in_words(one), in_words(other), in_words(child)))
    assert 0.45 < np.mean([changed(one, child) for child in children]) / len(LAB_SPACE.decisions) < 0.55


def test_neighbors_by_brute_force():
    center = smallest(TINY)
    near = {config for config in every_network(TINY) if changed(config, center) == 1}
    far = config_of(TINY, choices_of(center) | {"backbone.1.blocks": 3})  # one decision, but two steps
    assert far in near and set(neighbors(TINY, center)) == near - {far}
    config = sample(LAB_SPACE, seeded(1))
    assert all(config in neighbors(LAB_SPACE, other) for other in neighbors(LAB_SPACE, config)[::6])


@settings(max_examples=6)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_network_builds_runs_and_fuses(seed):
    model = YoloNAS(sample(LAB_SPACE, seeded(seed)), num_classes=3).eval()
    with torch.inference_mode():
        raw = model(torch.rand(2, 3, 32, 64))
        fused = yl.models.reparameterize(model)(torch.rand(1, 3, 32, 32))
    assert raw.class_logits.shape == (2, 32 + 8 + 2, 3) and raw.box_logits.shape == (2, 42, 4, 9)
    assert raw.class_logits.isfinite().all() and fused.box_logits.isfinite().all()


def test_hand_scaling_by_hand():
    small = scaled(S, width=0.25, depth=0.5)
    assert small.stem_channels == 16  # 12, up to the next multiple of 8
    assert [stage.out_channels for stage in small.backbone] == [24, 48, 96, 192]
    assert [stage.blocks for stage in small.backbone] == [1, 2, 3, 1]  # 1, 1.5, 2.5 and 1
    assert [stage.hidden_channels for stage in small.neck] == [16, 16, 16, 16]  # 16, 12, 16 and 16
    assert [stage.block for stage in small.neck] == [stage.block for stage in S.neck]
    assert "0.25 wide" in small.name and "0.5 deep" in small.name and choices_of(scaled(S, 1, 1)) == choices_of(S)
