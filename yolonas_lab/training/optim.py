"""AdamW as the published recipes use it: weight decay on the kernels only, one fused update for all of them.

Notebook 06. Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv 1711.05101.
"""

import math

import torch
from torch import Tensor, nn

from yolonas_lab.training.config import TrainConfig


def make_optimizer(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over the parameters of model that want gradients.

    Those with one dimension (biases, BatchNorm's scale and shift, the bottlenecks' alpha) are not decayed: they do not
    grow without need, and a BatchNorm that shrinks changes what the layer computes. Raises ValueError for a model
    without trainable parameters.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("No parameter of the model wants a gradient: set requires_grad on those to train.")
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = trainable[0].device.type in ("cpu", "cuda", "mps")
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, fused=fused)


def start_with_small_boxes(model: nn.Module, slope: float) -> None:
    """Set the bias of fresh box predictions to -slope · bin, so that untrained boxes are a few strides wide at most.

    With equal biases every side is expected in the middle of the bins, and a small detector spends its first steps on
    shrinking all boxes. Heads that a checkpoint or an earlier training filled, according to `model.load_report`, are
    left alone.
    """
    report = getattr(model, "load_report", None)
    loaded = set(report.loaded) if report is not None else set()
    for name, parameter in model.named_parameters():
        if name.endswith("box_pred.bias") and name not in loaded:
            bins = torch.arange(parameter.numel() // 4, device=parameter.device, dtype=parameter.dtype)  # (r,)
            with torch.no_grad():
                parameter.copy_((-slope * bins).repeat(4))  # (4 · r,)


# The learning rate over a training: a linear warm-up, then half a cosine. Notebook 06.
#
# Warm-up: Goyal et al., arXiv 1706.02677, section 2.2; cosine: Loshchilov and Hutter, "SGDR", arXiv 1608.03983,
# section 3, without restarts; the shapes are those of the published YOLO-NAS recipes.


def warmup_cosine(
    step: int,
    total_steps: int,
    lr: float,
    warmup_steps: int = 0,
    warmup_start_lr: float = 0.0,
    final_lr_ratio: float = 0.1,
) -> float:
    """Learning rate of step 0 … total_steps: linear from warmup_start_lr to lr, then along a cosine to
    lr · final_lr_ratio.

    The peak, lr itself, is reached at step warmup_steps. Raises ValueError for a step outside the training.
    """
    if not 0 <= step <= total_steps:
        raise ValueError(f"step is {step}, but the training has steps 0 to {total_steps}.")
    if step < warmup_steps:
        return warmup_start_lr + (lr - warmup_start_lr) * step / warmup_steps
    share = (step - warmup_steps) / max(total_steps - warmup_steps, 1)  # of the descent that is behind us
    return lr * (final_lr_ratio + (1 - final_lr_ratio) * (1 + math.cos(math.pi * share)) / 2)


# The exponential moving average of the weights: a smoother model than the one that is being trained. Notebook 06.
#
# Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; the ramp is that of the published
# YOLO-NAS recipe (super-gradients' `ema.py`, decay type "threshold").


def ema_decay(updates: int, decay: float) -> float:
    """How much of the old average is kept at update 1, 2, 3, …: min(decay, (1 + t) / (10 + t)).

    The ramp lets the average follow quickly while the weights still move fast.
    """
    return min(decay, (1 + updates) / (10 + updates))


class WeightAverage:
    """Keeps `model` equal to the moving average of the weights of `live`, BatchNorm statistics included.

    Both lists of tensors are made once, and each update is two calls over all of them: a loop over `state_dict()`
    costs several times more. Whole numbers (BatchNorm's counters) are copied. Raises ValueError for two models that do
    not have the same tensors.
    """

    def __init__(self, model: nn.Module, live: nn.Module, decay: float):
        average, trained = _tensors(model), _tensors(live)
        if {k: v.shape for k, v in average.items()} != {k: v.shape for k, v in trained.items()}:
            raise ValueError(
                "The averaged model and the trained one have different tensors; make one a copy of the other."
            )
        self.decay = decay
        averaged = [k for k, v in average.items() if v.is_floating_point()]
        copied = [k for k in average if k not in set(averaged)]
        self._average, self._live = [average[k] for k in averaged], [trained[k] for k in averaged]
        self._copies, self._originals = [average[k] for k in copied], [trained[k] for k in copied]

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Take in the weights as they are now; `updates` counts from 1."""
        lerp_all, copy_all = torch._foreach_lerp_, torch._foreach_copy_  # pyright: ignore[reportPrivateImportUsage]
        lerp_all(self._average, self._live, 1 - ema_decay(updates, self.decay))
        if self._copies:
            copy_all(self._copies, self._originals)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and saved buffers by name: the tensors themselves, no copies."""
    return model.state_dict(keep_vars=True)


# When things happen in a training: which learning rate at which step, when to evaluate and when to save.


class Plan:
    """The timetable of a training whose loader has `batches` batches per epoch and process."""

    def __init__(self, config: TrainConfig, batches: int):
        self.config = config
        self.steps_per_epoch = batches / config.accumulate
        if config.steps is not None:
            self.steps = config.steps
        else:
            assert config.epochs is not None
            self.steps = max(1, round(config.epochs * self.steps_per_epoch))
        self.warmup_steps = round(config.warmup_epochs * self.steps_per_epoch) or config.warmup_steps

    def learning_rate(self, step: int) -> float:
        """The learning rate of the update from `step` to `step` + 1."""
        c = self.config
        return warmup_cosine(step, self.steps, c.lr, self.warmup_steps, c.warmup_start_lr, c.final_lr_ratio)

    def evaluates_after(self, step: int) -> bool:
        """True at the end, and after each step that completes another evaluate_every epochs."""
        if self.config.evaluate_every is None or step == self.steps:
            return step == self.steps
        every = self.config.evaluate_every * self.steps_per_epoch
        return int(step / every) > int((step - 1) / every)

    def saves_after(self, step: int) -> bool:
        """True after each evaluation and every checkpoint_every steps."""
        return step % self.config.checkpoint_every == 0 or self.evaluates_after(step)
