"""Fusion: every block against its branches, whole models, and nothing left to fold."""

import pytest
import torch
from torch import nn

import yolonas_lab as yl
from yolonas_lab.models.blocks import ConvBNAct, QARepVGGBlock, RepVGGBlock
from yolonas_lab.models.reparameterize import fuse_blocks, reparameterize


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Make every BatchNorm and alpha non-trivial, so that a wrong fold cannot hide."""
    generator = torch.Generator().manual_seed(seed)
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for name, values in model.state_dict().items():
        module, _, leaf = name.rpartition(".")
        if values.is_floating_point() and (module in norms or leaf == "alpha"):
            low = -0.5 if leaf in ("bias", "running_mean") else 0.5
            values.copy_(torch.rand(values.shape, generator=generator, dtype=values.dtype) + low)
    return model.eval()


@pytest.mark.parametrize("block", [ConvBNAct, RepVGGBlock, QARepVGGBlock])
@pytest.mark.parametrize(("c_in", "c_out", "stride"), [(6, 6, 1), (6, 10, 1), (6, 6, 2), (3, 10, 2)])
def test_each_block_equals_its_single_convolution(block, c_in, c_out, stride):
    model = randomize(block(c_in, c_out, stride=stride).double(), seed=c_out + stride)
    fused = reparameterize(model)
    x = torch.randn(2, c_in, 9, 12, dtype=torch.float64)
    torch.testing.assert_close(fused(x), model(x), rtol=0, atol=1e-12)
    assert [type(m).__name__ for m in fused.modules() if list(m.parameters(recurse=False))] == ["InferenceConv2d"]


@pytest.mark.parametrize("name", ["yolo_nas_pico", "yolo_nas_pico_repvgg", "yolo_nas_s"])
def test_whole_models_agree_with_their_fusions(name):
    torch.manual_seed(0)
    model = randomize(yl.models.get(name, num_classes=5))
    images = torch.rand(2, 3, 64, 96)
    for dtype, px, score in ((torch.float32, 1e-3, 1e-5), (torch.float64, 1e-9, 1e-9)):
        with torch.inference_mode():
            boxes, scores = yl.models.decode(model.to(dtype)(images.to(dtype)))
            for fused in (reparameterize(model), fuse_blocks(model)):
                fused_boxes, fused_scores = yl.models.decode(fused(images.to(dtype)))
                assert (fused_boxes - boxes).abs().max() < px and (fused_scores - scores).abs().max() < score


def test_nothing_is_left_to_fold_and_the_original_is_untouched():
    model = yl.models.get("yolo_nas_pico", num_classes=3).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fused = reparameterize(model)
    assert not any(isinstance(m, nn.BatchNorm2d | QARepVGGBlock | ConvBNAct) for m in fused.modules())
    assert not fused.training and model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not {p.data_ptr() for p in fused.parameters()} & {p.data_ptr() for p in model.parameters()}


def test_fuse_blocks_leaves_exactly_the_plain_pairs():
    model = yl.models.get("yolo_nas_s")
    assert sum(isinstance(m, QARepVGGBlock) for m in model.modules()) == 37  # re-parameterizable blocks of S
    partly = fuse_blocks(model)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in partly.modules()) == 55
    assert round(sum(p.numel() for p in partly.parameters()) / 1e6, 2) == 12.18


def test_a_block_that_cannot_be_fused_is_named():
    foreign = nn.Sequential(QARepVGGBlock(4, 4), nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)))
    with pytest.raises(ValueError, match=r"1\.1 is a BatchNorm"):
        reparameterize(foreign)
