"""Quantization-aware training: a short fine-tuning in which the network feels its own rounding. Notebook 11.

Schedule: a tenth of the training, cosine down to a hundredth, as NVIDIA advises (Wu et al., arXiv 2004.09602, section
5) and as super-gradients' `modify_params_for_qat` does. Frozen BatchNorm: Krishnamoorthi, arXiv 1806.08342, section 4.
Learned scales: Esser et al., "LSQ", arXiv 1902.08153, as logarithms, which suit Adam: Jain et al., arXiv 1903.08066.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from yolonas_lab.common import unknown_name
from yolonas_lab.models.yolo_nas import YoloNAS
from yolonas_lab.quantization.layers import check_calibrated, quantizers
from yolonas_lab.training import LAB, History, Hooks, TrainConfig, TrainState, fit

SCALES = ("fixed", "learned")


def qat_recipe(config: TrainConfig, lr_ratio: float = 0.1) -> TrainConfig:
    """The recipe for fine-tuning a quantized model, from the one that trained it: a tenth of its epochs or steps and of
    its warm-up, lr times lr_ratio, and a cosine that ends at a hundredth of that.

    lr_ratio is 0.01 in both published recipes, whose trainings have 100,000 steps and more; a tenth of a few thousand
    steps is so little time that 0.1 suits it better. out_dir becomes None, because the training itself has it.
    """
    return dataclasses.replace(
        config,
        epochs=None if config.epochs is None else config.epochs / 10,
        steps=None if config.steps is None else max(1, round(config.steps / 10)),
        lr=config.lr * lr_ratio,
        warmup_steps=round(config.warmup_steps / 10),
        warmup_epochs=config.warmup_epochs / 10,
        final_lr_ratio=0.01,
        box_bias_slope=None,  # the boxes are trained
        out_dir=None,
    )


def fine_tune(
    qmodel: YoloNAS,
    train_set: Any,
    val_set: Any | None,
    config: TrainConfig | None = None,
    scales: str = "fixed",
    freeze_bn_after: float = 0.5,
    hooks: Hooks = Hooks(),
) -> History:
    """Train a calibrated quantized model with its rounding in the forward pass; it becomes the moving average, as in
    `fit`, and stays quantized.

    `config` defaults to qat_recipe(LAB). With scales="learned" the scales of weights and activations are trained too;
    zero points stay. After the share freeze_bn_after of the steps, BatchNorms that are left (in a model quantized after
    fuse_blocks) use the statistics they have then. Raises ValueError for a model that is not quantized or not
    calibrated and for bad settings, and what `fit` raises.
    """
    if scales not in SCALES:
        raise ValueError(unknown_name("scales", scales, SCALES))
    if not 0 <= freeze_bn_after <= 1:
        raise ValueError(f"freeze_bn_after is {freeze_bn_after}: give a share of the steps, from 0 to 1 (never).")
    check_calibrated(qmodel)

    def freezing(then: Any) -> Any:
        def freeze(state: TrainState) -> None:
            if state.step >= freeze_bn_after * state.total_steps:
                freeze_batch_norm(state.network)
            if then is not None:
                then(state)

        return freeze

    # What a checkpoint must agree with to go on from it, beside the config.
    qmodel.fingerprint = {  # type: ignore[assignment]
        "grids": [f"{q.name}: {q.bits} bits, {q.low} to {q.high}, axis {q.axis}" for q in quantizers(qmodel)],
        "scales": scales,
        "freeze_bn_after": freeze_bn_after,
    }
    own = dataclasses.replace(hooks, on_start=freezing(hooks.on_start), on_step=freezing(hooks.on_step))
    with learned_scales(qmodel) if scales == "learned" else nullcontext():
        return fit(qmodel, train_set, val_set, config or qat_recipe(LAB), own)


def freeze_batch_norm(network: nn.Module) -> None:
    """Put every BatchNorm in eval mode: it uses its running statistics and leaves them as they are."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


@contextmanager
def learned_scales(qmodel: nn.Module) -> Iterator[None]:
    """Inside, the scale of every quantizer in use is trained, as the exponential of a parameter; afterwards it is a
    buffer again.
    """
    learning = [quantizer for quantizer in quantizers(qmodel) if quantizer.mode == "quantize"]
    for quantizer in learning:
        scale = quantizer.scale.clone()
        del quantizer.scale
        quantizer.scale = nn.Parameter(scale)
        parametrize.register_parametrization(quantizer, "scale", Exponential())
    try:
        yield
    finally:
        for quantizer in learning:
            parametrize.remove_parametrizations(quantizer, "scale")
            scale = quantizer.scale.detach()
            del quantizer.scale
            quantizer.register_buffer("scale", scale)


class Exponential(nn.Module):
    """A positive scale as the exponential of a parameter without bounds: Adam's steps become relative changes."""

    def forward(self, log_scale: Tensor) -> Tensor:
        return log_scale.exp()

    def right_inverse(self, scale: Tensor) -> Tensor:
        """The parameter that gives this scale."""
        return scale.log()
