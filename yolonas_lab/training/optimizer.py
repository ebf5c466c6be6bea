"""AdamW as the published recipes use it: weight decay on the kernels only, one fused update for all of them.

Notebook 06. Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv 1711.05101.
"""

import torch
from torch import nn


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
