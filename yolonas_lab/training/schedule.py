"""The learning rate over a training: a linear warm-up, then half a cosine. Notebook 06.

Warm-up: Goyal et al., arXiv 1706.02677, section 2.2; cosine: Loshchilov and Hutter, "SGDR", arXiv 1608.03983,
section 3, without restarts; the shapes are those of the published YOLO-NAS recipes.
"""

import math


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
