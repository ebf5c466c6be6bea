"""What moves the weights: AdamW, its learning rate over a training, and their moving average. Notebook 06.

AdamW: Loshchilov and Hutter, arXiv 1711.05101. Warm-up: Goyal et al., arXiv 1706.02677, section 2.2; cosine without
restarts: arXiv 1608.03983, section 3. Averaged weights: Polyak and Juditsky, "Acceleration of Stochastic Approximation
by Averaging", 1992. All as in the published YOLO-NAS recipes (super-gradients).
"""

import math

import torch
from torch import nn


def make_optimizer(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over the parameters of model that want gradients, one fused update for all of them.

    Those with one dimension (biases, BatchNorm's scale and shift, the bottlenecks' alpha) are not decayed: they do not
    grow without need, and a BatchNorm that shrinks changes what the layer computes.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, fused=True)


def start_with_small_boxes(model: nn.Module, slope: float) -> None:
    """Set the bias of fresh box predictions to -slope · bin, so that untrained boxes are a few strides wide at most.

    With equal biases every side is expected in the middle of the bins, and a small detector spends its first steps on
    shrinking all boxes. Heads that a checkpoint or an earlier training filled, according to `model.load_report`, are
    left alone.
    """
    loaded = set(getattr(getattr(model, "load_report", None), "loaded", ()))
    for name, parameter in model.named_parameters():
        if name.endswith("box_pred.bias") and name not in loaded:
            bins = torch.arange(parameter.numel() // 4, device=parameter.device, dtype=parameter.dtype)  # (r,)
            with torch.no_grad():
                parameter.copy_((-slope * bins).repeat(4))  # (4 · r,)


def warmup_cosine(
    step: int,
    total_steps: int,
    lr: float,
    warmup_steps: int = 0,
    warmup_start_lr: float = 0.0,
    final_lr_ratio: float = 0.1,
) -> float:
    """Learning rate of step 0 … total_steps: linear from warmup_start_lr to lr, which is reached at step warmup_steps,
    then along a cosine to lr · final_lr_ratio.

    >>> [warmup_cosine(step, 30, lr=0.2, warmup_steps=10) for step in (0, 5, 10)]
    [0.0, 0.1, 0.2]
    """
    if step < warmup_steps:
        return warmup_start_lr + (lr - warmup_start_lr) * step / warmup_steps
    share = (step - warmup_steps) / max(total_steps - warmup_steps, 1)  # of the descent that is behind us
    return lr * (final_lr_ratio + (1 - final_lr_ratio) * (1 + math.cos(math.pi * share)) / 2)


def ema_decay(updates: int, decay: float) -> float:
    """How much of the old average is kept at update 1, 2, 3, …: min(decay, (1 + t) / (10 + t)).

    The ramp lets the average follow quickly while the weights still move fast.

    >>> [ema_decay(t, 0.98) for t in (8, 10_000)]
    [0.5, 0.98]
    """
    return min(decay, (1 + updates) / (10 + updates))


class WeightAverage:
    """Keeps `model` equal to the moving average of the weights of `live`, BatchNorm statistics included.

    The two have the same tensors, listed once; an update is two calls over all of them, for a loop over `state_dict()`
    costs several times more. Whole numbers (BatchNorm's counters) are copied.
    """

    def __init__(self, model: nn.Module, live: nn.Module, decay: float):
        self.decay = decay
        average, trained = model.state_dict(keep_vars=True), live.state_dict(keep_vars=True)  # no copies
        averaged = [name for name, tensor in average.items() if tensor.is_floating_point()]
        copied = average.keys() - set(averaged)
        self._average, self._live = [average[name] for name in averaged], [trained[name] for name in averaged]
        self._copies, self._originals = [average[name] for name in copied], [trained[name] for name in copied]

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Take in the weights as they are now; `updates` counts from 1."""
        lerp_all, copy_all = torch._foreach_lerp_, torch._foreach_copy_  # pyright: ignore[reportPrivateImportUsage]
        lerp_all(self._average, self._live, 1 - ema_decay(updates, self.decay))
        if self._copies:
            copy_all(self._copies, self._originals)
