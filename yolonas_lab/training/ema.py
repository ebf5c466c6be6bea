"""The exponential moving average of the weights: a smoother model than the one that is being trained. Notebook 06.

Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; the ramp is that of the published
YOLO-NAS recipe (super-gradients' `ema.py`, decay type "threshold").
"""

import torch
from torch import Tensor, nn


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
