"""A training step written the obvious way: what test_bench_step.py compares the library's step with."""

import copy
import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1] / "losses"))  # where the per-image loss lies beside its own tests

from per_image_loss import per_image_loss_vectorised_over_points  # pyright: ignore[reportMissingImports]

from yolonas_lab.training.optim import ema_decay


class StraightforwardStep:
    """Per-image assignment and loss, AdamW parameter by parameter, moving average over state_dict()."""

    def __init__(self, model, lr=1e-3, weight_decay=1e-4):
        self.network, self.average, self.updates = copy.deepcopy(model).train(), copy.deepcopy(model), 0
        groups = [
            {"params": [p for p in self.network.parameters() if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in self.network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=lr, foreach=False, fused=False)

    def __call__(self, batch):
        total, *parts = self.losses(batch)
        total.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        self.update_average()
        return [float(part.detach()) for part in (total, *parts)]

    def losses(self, batch):
        return per_image_loss_vectorised_over_points(self.network(batch.images), batch.targets)

    @torch.no_grad()
    def update_average(self):
        self.updates += 1
        decay = ema_decay(self.updates, 0.98)
        live = self.network.state_dict()
        for name, average in self.average.state_dict().items():
            if average.is_floating_point():
                average.mul_(decay).add_(live[name], alpha=1 - decay)
            else:
                average.copy_(live[name])
