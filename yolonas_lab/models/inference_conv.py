"""A convolution that computes what nn.Conv2d computes, by the fastest CPU route for its size. Notebook 03 measures
it.

At one thread PyTorch routes many convolutions past oneDNN to an im2col that copies the input. In inference this layer
calls oneDNN itself for large maps, and for small ones writes a 1×1 convolution as the matrix product that it is. Both
want channels_last.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Below this many input values a oneDNN call costs more than the convolution (measured on lab models at 96 px against
# S at 640 px).
ONEDNN_WORTHWHILE = 50_000


class InferenceConv2d(nn.Conv2d):
    """An nn.Conv2d (one group, no dilation, zero padding) with a faster CPU path in float32 inference; elsewhere
    exactly nn.Conv2d.

    Fast only under `torch.inference_mode()` or `no_grad()`; training, autocast, export, compilation and GPUs see a
    plain nn.Conv2d.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not takes_fast_path(x):
            return super().forward(x)
        if x.numel() >= ONEDNN_WORTHWHILE:
            return torch.mkldnn_convolution(x, self.weight, self.bias, self.padding, self.stride, (1, 1), 1)  # type: ignore[arg-type]
        if self.kernel_size == (1, 1) and self.stride == (1, 1):
            y = F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)  # (b, h, w, c_out)
            return y.permute(0, 3, 1, 2)  # (b, c_out, h, w), channels_last in memory
        return super().forward(x)


def takes_fast_path(x: Tensor) -> bool:
    """True for float32 CPU inference outside autocast, tracing, export and compilation."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
    )
