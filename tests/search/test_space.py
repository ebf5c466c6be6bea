import collections
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import yolonas_lab as yl
from tests.search.small_space import FIXED, TINY, seeded
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
    sample,
    scaled,
    size,
    smallest,
)
from yolonas_lab.search.space import why_outside, with_blocks_of

S = CONFIGS["yolo_nas_s"]


def in_words(config):
    return tuple(choices_of(config).values())


def everything(space):
    names, options = zip(*space.decisions.items())
    return [config_of(space, dict(zip(names, chosen))) for chosen in itertools.product(*options)]


def test_the_size_of_a_space_by_hand():
    assert size(TINY) == 3 * 2 * 2 * 2
    assert isinstance(size(FULL_SPACE), int) and size(FULL_SPACE) > 10**14


def test_the_size_is_the_number_of_different_networks():
    networks = everything(TINY)
    assert len(networks) == size(TINY) == len(set(networks)) == len({config.name for config in networks})
    assert all(config in TINY for config in networks)


def test_the_lab_sizes_and_their_twins_are_in_the_lab_space():
    for name in ("yolo_nas_pico", "yolo_nas_nano", "yolo_nas_pico_repvgg", "yolo_nas_nano_repvgg"):
        assert CONFIGS[name] in LAB_SPACE and CONFIGS[name] not in FULL_SPACE


@pytest.mark.parametrize("name", ["yolo_nas_s", "yolo_nas_m", "yolo_nas_l"])
def test_the_published_sizes_and_their_twins_are_in_the_full_space(name):
    config = CONFIGS[name]
    assert config in FULL_SPACE and config not in LAB_SPACE
    assert with_block(config, RepVGGBlock, "twin") in FULL_SPACE
    assert with_block(config, ConvBNAct, "plain") in FULL_SPACE


@pytest.mark.parametrize("space, name", [(LAB_SPACE, "yolo_nas_nano_repvgg"), (FULL_SPACE, "yolo_nas_m")])
def test_a_config_survives_its_choices(space, name):
    config = CONFIGS[name]
    choices = json.loads(json.dumps(choices_of(config)))
    assert list(choices) == list(space.decisions)
    assert replace(config_of(space, choices), name=name) == config


def test_equal_choices_have_equal_names_wherever_they_come_from():
    choices = choices_of(CONFIGS["yolo_nas_pico"])
    one = config_of(LAB_SPACE, choices)
    shuffled = dict(reversed(choices.items())) | {"backbone.0.concat": 0, "stem_channels": np.int64(8)}
    assert config_of(LAB_SPACE, shuffled) == one
    assert one.name == "lab_7fb8529fe5dd"  # the same in every process and on every machine
    assert config_of(LAB_SPACE, choices | {"neck.3.blocks": 2}).name != one.name


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"backbone.5.blocks": 1}, "Unknown decision 'backbone.5.blocks'; did you mean 'backbone.3.blocks'"),
        ({"stem_channels": None}, "no choice for stem_channels; take one of 8, 16"),
        ({"neck.0.hidden_channels": 12}, "neck.0.hidden_channels is 12; lab has 8, 16, 24"),
        ({"neck.0.block": "mbconv"}, "neck.0.block is mbconv; lab has plain, repvgg, qarepvgg"),
    ],
)
def test_bad_choices_are_named(changes, message):
    choices = {k: v for k, v in (choices_of(CONFIGS["yolo_nas_pico"]) | changes).items() if v is not None}
    with pytest.raises(ValueError, match=message):
        config_of(LAB_SPACE, choices)


def test_what_keeps_a_config_outside_is_named():
    pico = CONFIGS["yolo_nas_pico"]
    assert why_outside(LAB_SPACE, pico) is None
    assert why_outside(LAB_SPACE, replace(pico, name="mine", image_size=64)) is None
    assert why_outside(LAB_SPACE, replace(pico, reg_max=16)) == "reg_max is 16, and 8 everywhere in lab."
    assert "spp_kernels" in str(why_outside(LAB_SPACE, replace(pico, spp_kernels=(5,))))
    wide = replace(pico, head_channels=(16, 24, 40))
    assert why_outside(LAB_SPACE, wide) == "head_channels.2 is 40; lab has 32, 48, 64."
    for move in (lambda: mutate(LAB_SPACE, wide, seeded()), lambda: neighbors(LAB_SPACE, wide)):
        with pytest.raises(ValueError, match=r"yolo_nas_pico is not in the space: head_channels\.2 is 40"):
            move()
    with pytest.raises(ValueError, match="not in the space"):
        crossover(LAB_SPACE, pico, wide, seeded())


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"stem_channels": ()}, "stem_channels is .*at least one"),
        ({"stem_channels": 8}, "stem_channels is 8: give a tuple"),
        ({"stem_channels": (8, 12)}, "stem_channels are 8, 12: give multiples of 8"),
        ({"stem_channels": (16, 8)}, "ascending"),
        ({"stem_block": ("plain", "plain")}, "each once"),
        ({"stem_block": ("mbconv",)}, "Unknown block type of stem_block 'mbconv'"),
        ({"neck": (replace(FIXED, blocks=(0, 1)), FIXED, FIXED, FIXED)}, r"neck\.0\.blocks are 0, 1"),
    ],
)
def test_impossible_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)


def test_the_smallest_and_the_largest():
    pico, nano = CONFIGS["yolo_nas_pico"], CONFIGS["yolo_nas_nano"]
    least, most = (choices_of(f(with_blocks_of(LAB_SPACE, pico))) for f in (smallest, largest))
    assert least == choices_of(pico)
    numbers = [d for d, value in least.items() if not isinstance(value, str)]
    assert all(int(least[d]) <= int(choices_of(nano)[d]) <= int(most[d]) for d in numbers)
    assert all(choices_of(largest(LAB_SPACE))[d] == options[-1] for d, options in LAB_SPACE.decisions.items())


def test_block_types_can_be_fixed():
    nano, twin = CONFIGS["yolo_nas_nano"], CONFIGS["yolo_nas_nano_repvgg"]
    space = with_blocks_of(LAB_SPACE, nano)
    assert size(space) * 3**9 == size(LAB_SPACE)
    assert nano in space and twin not in space and twin in with_blocks_of(LAB_SPACE, twin)
    kinds = [type(m) for m in YoloNAS(sample(space, seeded()), 2).modules()]
    assert QARepVGGBlock in kinds and RepVGGBlock not in kinds
    with pytest.raises(ValueError, match=r"backbone\.0\.block is qarepvgg; tiny has plain"):
        with_blocks_of(replace(TINY, stem_block=("plain", "qarepvgg")), nano)


def test_samples_are_uniform():
    rng = seeded()
    counts = collections.Counter(sample(TINY, rng).name for _ in range(4800))
    assert len(counts) == size(TINY)
    assert all(130 < count < 270 for count in counts.values())  # 200 expected, standard deviation 14


def test_samples_are_deterministic():
    assert [sample(LAB_SPACE, seeded(3)) for _ in range(2)] == [sample(LAB_SPACE, seeded(3))] * 2
    assert sample(LAB_SPACE, seeded(3)) != sample(LAB_SPACE, seeded(4))


def changed(one, other):
    return sum(a != b for a, b in zip(in_words(one), in_words(other)))


def test_a_mutation_changes_about_as_much_as_asked_and_never_nothing():
    rng, config = seeded(), CONFIGS["yolo_nas_nano"]
    ones = [changed(config, mutate(LAB_SPACE, config, rng)) for _ in range(300)]
    assert min(ones) == 1 and 1.1 < np.mean(ones) < 1.7  # 1 expected, and 1 where it would have been 0
    assert min(changed(config, mutate(LAB_SPACE, config, rng, rate=0.0)) for _ in range(50)) == 1
    assert changed(config, mutate(LAB_SPACE, config, rng, rate=1.0)) == len(LAB_SPACE.decisions)


def test_a_space_of_one_network_has_nothing_to_mutate():
    one = replace(TINY, backbone=(FIXED,) * 4, head_channels=((16,), (16,), (16,)), stem_block=("plain",))
    assert size(one) == 1 and neighbors(one, smallest(one)) == []
    with pytest.raises(ValueError, match="single network"):
        mutate(one, smallest(one), seeded())


def test_a_child_takes_everything_from_its_parents_and_half_from_each():
    rng = seeded()
    one, other = smallest(LAB_SPACE), largest(LAB_SPACE)
    children = [crossover(LAB_SPACE, one, other, rng) for _ in range(100)]
    for child in children:
        assert all(c in (a, b) for a, b, c in zip(in_words(one), in_words(other), in_words(child)))
    assert 0.45 < np.mean([changed(one, child) for child in children]) / len(LAB_SPACE.decisions) < 0.55
    assert changed(crossover(LAB_SPACE, one, one, rng), one) == 0


def test_neighbors_by_brute_force():
    center = config_of(TINY, choices_of(smallest(TINY)) | {"backbone.1.blocks": 1})
    near = {config for config in everything(TINY) if changed(config, center) == 1}
    far = config_of(TINY, choices_of(center) | {"backbone.1.blocks": 3})
    assert set(neighbors(TINY, center)) == near - {far}
    assert changed(far, center) == 1  # one decision, but two steps


def test_neighbors_are_mutual():
    config = sample(LAB_SPACE, seeded(1))
    near = neighbors(LAB_SPACE, config)
    assert len(near) == len(set(near))
    assert all(config in neighbors(LAB_SPACE, other) for other in near[::6])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_network_builds_runs_and_fuses_to_the_same(seed):
    config = sample(LAB_SPACE, seeded(seed))
    torch.manual_seed(0)
    model = YoloNAS(config, num_classes=3).eval()
    with torch.inference_mode():
        raw = model(torch.rand(2, 3, 32, 64))
        fused = yl.models.reparameterize(model)(torch.rand(1, 3, 32, 32))
    assert raw.class_logits.shape == (2, 32 + 8 + 2, 3)
    assert raw.box_logits.shape == (2, 42, 4, 9)
    assert raw.class_logits.isfinite().all() and fused.box_logits.isfinite().all()


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_full_size_network_builds_and_runs(seed):
    config = sample(FULL_SPACE, seeded(seed))
    with torch.device("meta"):  # shapes alone
        raw = YoloNAS(config, num_classes=80)(torch.rand(1, 3, 640, 640))
    assert raw.class_logits.shape == (1, 8400, 80) and raw.box_logits.shape == (1, 8400, 4, 17)


@pytest.mark.parametrize("extreme", [smallest, largest])
@pytest.mark.parametrize("kind", ["plain", "repvgg", "qarepvgg"])
def test_the_corners_of_the_lab_space_train(extreme, kind):
    choices = choices_of(extreme(LAB_SPACE))
    choices |= {decision: kind for decision in choices if decision.endswith("block")}
    model = YoloNAS(config_of(LAB_SPACE, choices), num_classes=2).train()
    raw = model(torch.rand(2, 3, 32, 32))
    (raw.class_logits.sum() + raw.box_logits.square().sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_one_leaves_everything_as_it_is():
    assert choices_of(scaled(S, 1, 1)) == choices_of(S)


def test_a_quarter_by_hand():
    small = scaled(S, width=0.25, depth=0.5)
    assert small.stem_channels == 16  # 12, up to the next multiple of 8
    assert [stage.out_channels for stage in small.backbone] == [24, 48, 96, 192]
    assert [stage.hidden_channels for stage in small.backbone] == [8, 16, 24, 48]
    assert [stage.blocks for stage in small.backbone] == [1, 2, 3, 1]  # 1, 1.5, 2.5 and 1
    assert [stage.hidden_channels for stage in small.neck] == [16, 16, 16, 16]  # 16, 12, 16 and 16
    assert small.head_channels == (16, 32, 64)
    assert [stage.block for stage in small.neck] == [stage.block for stage in S.neck]
    assert "0.25 wide" in small.name and "0.5 deep" in small.name


@given(width=st.floats(0.01, 2), depth=st.floats(0.01, 2))
def test_channels_are_multiples_of_8_and_no_stage_is_empty(width, depth):
    config = scaled(S, width, depth)
    channels = [config.stem_channels, *config.head_channels]
    for before, stage in zip((*S.backbone, *S.neck), (*config.backbone, *config.neck)):
        channels += [stage.out_channels, stage.hidden_channels]
        assert stage.blocks >= 1 and abs(stage.blocks - max(1, before.blocks * depth)) <= 0.5
        assert 0 <= stage.out_channels - before.out_channels * width < 8 + 1e-9
    assert all(count >= 8 and count % 8 == 0 for count in channels)


@given(width=st.sampled_from((0.1, 0.25, 0.3)), depth=st.sampled_from((0.2, 1.0)))
@settings(max_examples=3, deadline=None)
def test_it_builds_and_runs(width, depth):
    with torch.no_grad():
        assert YoloNAS(scaled(S, width, depth), 3).eval()(torch.rand(1, 3, 64, 64)).class_logits.shape == (1, 84, 3)


@pytest.mark.parametrize("multiplier", [0, -1, float("nan"), float("inf")])
def test_a_multiplier_that_leaves_nothing_is_refused(multiplier):
    with pytest.raises(ValueError, match="width is"):
        scaled(S, multiplier, 1)
    with pytest.raises(ValueError, match="depth is"):
        scaled(S, 1, multiplier)
