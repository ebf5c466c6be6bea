"""S by multipliers: as it is with 1, in multiples of 8, never without bottlenecks, and every result is a network."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yolonas_lab.models import CONFIGS, YoloNAS
from yolonas_lab.search.space import choices_of, scaled

S = CONFIGS["yolo_nas_s"]


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
