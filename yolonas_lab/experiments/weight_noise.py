"""What makes a kernel hard to quantize, in numbers: its noise on a grid, and how far its largest values stand out.

Notebook 10. The kernels are those into which RepVGG and QARepVGG blocks fuse; Chu et al., arXiv 2212.01593, section 3,
looks at the same ones.
"""

import math

from torch import Tensor, nn

from yolonas_lab.models import QARepVGGBlock, RepVGGBlock, YoloNAS
from yolonas_lab.quantization import QuantPolicy, quantize


def kernel_numbers(model: YoloNAS, policy: QuantPolicy) -> dict[str, float]:
    """Means over the fused kernels of an unfused model's blocks, quantized by a policy.

    weight_sqnr_db: signal-to-quantization-noise ratio. largest_over_sigma: largest magnitude over standard deviation.
    channel_spread: largest magnitude over that of the median output channel; a grid per tensor must span it.
    """
    qmodel = quantize(model, policy)
    names = [name for name, module in model.named_modules() if isinstance(module, (QARepVGGBlock, RepVGGBlock))]
    rows = [_numbers(qmodel.get_submodule(f"{name}.conv")) for name in names]
    return {metric: sum(row[metric] for row in rows) / len(rows) for metric in rows[0]}


def _numbers(conv: nn.Module) -> dict[str, float]:
    weight: Tensor = conv.weight.detach()  # type: ignore[assignment]
    rounded: Tensor = conv.weight_quantizer(weight)  # type: ignore[operator]
    largest = weight.abs().amax(dim=(1, 2, 3))  # (c_out,)
    return {
        "weight_sqnr_db": sqnr_db(weight, rounded),
        "largest_over_sigma": (weight.abs().max() / weight.std()).item(),
        "channel_spread": (largest.max() / largest.median()).item(),
    }


def sqnr_db(signal: Tensor, noisy: Tensor) -> float:
    """Power of the signal over power of the difference, in dB."""
    return 10 * math.log10(signal.double().square().sum() / (signal - noisy).double().square().sum())
