"""Where quantizers belong: the tensors of a network, who writes them, who reads them, and which must share one scale.

Notebook 10 shows the result. The network is run once on a small image and watched, so that the rules hold for every
size: tensors that meet in a concatenation share a scale, and max-pooling keeps that of its input (NVIDIA, "Explicit
Quantization" in TensorRT's documentation).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from yolonas_lab.models.blocks import ConvAct, ConvBNAct
from yolonas_lab.models.heads import STRIDES
from yolonas_lab.models.stages import Bottleneck

IMAGE = "image"


@dataclass(frozen=True)
class ScaleGroup:
    """Tensors that share one scale: the modules that write them (IMAGE for the input) and the convolutions that read
    them, by name, in the order of computation.
    """

    writers: tuple[str, ...]
    readers: tuple[str, ...]


@torch.no_grad()
def scale_groups(model: nn.Module) -> list[ScaleGroup]:
    """Every scale that a fused or block-fused model needs: the tensors that a convolution which can be quantized
    reads, in the order of computation.
    """
    parameter = next(model.parameters())
    image = torch.zeros(1, 3, STRIDES[-1], STRIDES[-1], device=parameter.device, dtype=parameter.dtype)
    watch = _Watch()
    watch.written.append((IMAGE, watch.key(image)))
    handles = [module.register_forward_hook(hook) for module, hook in _hooks(model, watch)]
    modes = {module: module.training for module in model.modules()}
    try:
        with watch:
            model.eval()(image)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    return watch.groups()


class _Watch(TorchFunctionMode):
    """Sorts the tensors of one forward pass into sets that share a scale, by joining sets (union-find)."""

    def __init__(self) -> None:
        super().__init__()
        self.parent: dict[int, int] = {}  # a tensor's identity -> that of another of its set, or its own
        self.alive: list[Tensor] = []  # the identity of a tensor that is gone may be given to another
        self.written: list[tuple[str, int]] = []
        self.read: list[tuple[str, int]] = []

    def key(self, tensor: Tensor) -> int:
        """What stands for the tensor's set at the moment."""
        self.alive.append(tensor)
        return self.root(self.parent.setdefault(id(tensor), id(tensor)))

    def root(self, key: int) -> int:
        """What stands for the set of `key` by now."""
        while self.parent[key] != key:
            key = self.parent[key]
        return key

    def join(self, tensors: list[Tensor]) -> None:
        """From now on these tensors are of one set."""
        for tensor in tensors[1:]:
            self.parent[self.key(tensor)] = self.key(tensors[0])

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.cat:
            self.join([*args[0], out])
        return out

    def groups(self) -> list[ScaleGroup]:
        """The sets that somebody reads."""
        sets: dict[int, tuple[list[str], list[str]]] = {}
        for place, pairs in enumerate((self.written, self.read)):
            for name, key in pairs:
                sets.setdefault(self.root(key), ([], []))[place].append(name)
        return [ScaleGroup(tuple(writers), tuple(readers)) for writers, readers in sets.values() if readers]


def _hooks(model: nn.Module, watch: _Watch) -> Iterator[tuple[nn.Module, Callable[..., None]]]:
    """What to watch, and how: convolutions read and write, a residual sum writes, pooling keeps the scale."""

    def convolution(writer: str, reader: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            watch.read.append((reader, watch.key(args[0])))
            watch.written.append((writer, watch.key(out)))

        return hook

    def residual_sum(writer: str) -> Callable[..., None]:
        return lambda module, args, out: watch.written.append((writer, watch.key(out)))

    for name, module in model.named_modules():
        if isinstance(module, (ConvAct, ConvBNAct)):
            yield module, convolution(name, f"{name}.conv")
        elif isinstance(module, nn.ConvTranspose2d):
            yield module, convolution(name, name)
        elif isinstance(module, Bottleneck):
            yield module, residual_sum(name)
        elif isinstance(module, nn.MaxPool2d):
            yield module, lambda module, args, out: watch.join([args[0], out])
