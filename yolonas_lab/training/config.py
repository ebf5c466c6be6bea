"""What a training is: every number that decides its outcome, three recipes to start from, and their timetable.

Notebook 06. COCO_S and FINE_TUNE are super-gradients' `coco2017_yolo_nas_s` and `roboflow_yolo_nas_s`; LAB is ours.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yolonas_lab.common import check_image_size, decisive, unknown_name
from yolonas_lab.data.augment import Augmentation
from yolonas_lab.training.optim import warmup_cosine

# What has always been in the stored fingerprints of trainings; a field added later enters only where it is not at its
# default, see `common.decisive`.
FIRST_FIELDS = (
    "epochs", "steps", "batch_size", "accumulate", "image_size", "lr", "warmup_steps", "warmup_epochs",
    "warmup_start_lr", "final_lr_ratio", "weight_decay", "grad_clip", "ema_decay", "box_bias_slope", "precision",
    "accelerator", "seed",
)  # fmt: skip
FIRST_AUGMENTATIONS = (
    "translate", "scale", "rotation", "channel_swap", "hsv", "hue", "saturation", "value", "flip", "mosaic", "mixup",
    "pad_value", "min_visible", "min_side",
)  # fmt: skip
# These do not change the weights; what channels_last was resolved to does, see `checkpoint.fingerprint_of`.
FREE_FIELDS = (
    "evaluate_every", "checkpoint_every", "log_every", "workers", "cache", "out_dir", "live_plot", "channels_last",
)  # fmt: skip
ACCELERATORS = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "32", "bf16")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of `fit`; change some of a recipe's with dataclasses.replace(LAB, steps=800).

    Give epochs or steps. A step is one update of the weights; it sees batch_size · accumulate images per process.
    What LAB, COCO_S and FINE_TUNE below do not name is as here.
    """

    epochs: float | None = None
    steps: int | None = None
    batch_size: int = 8  # images per process
    accumulate: int = 1  # batches whose gradients are averaged before each step
    image_size: int = 64  # px, the side of the square that images are fitted into
    lr: float = 5e-3  # AdamW's learning rate at its peak
    warmup_steps: int = 50
    warmup_epochs: float = 0.0  # instead of warmup_steps, for recipes that count so
    warmup_start_lr: float = 1e-6
    final_lr_ratio: float = 0.1  # the cosine ends at lr times this
    weight_decay: float = 1e-5  # not on biases, BatchNorm and the bottlenecks' alpha
    grad_clip: float | None = None  # largest norm of the whole gradient; None: no clipping
    ema_decay: float = 0.98
    box_bias_slope: float | None = None  # start fresh box heads near small boxes: bias -slope · bin; None: leave them
    augmentation: Augmentation = field(default_factory=Augmentation.none)
    precision: str = "32"  # or "bf16": autocast to bfloat16; or "auto": bf16 on a CUDA GPU that has it, else 32
    channels_last: bool | None = None  # the three colors of a pixel side by side in memory; None: where that is faster
    accelerator: str = "auto"  # "cpu", "cuda", "mps", or "auto": the best one there is
    seed: int = 0  # of the data's order and augmentation; weights are initialised by whoever made the model
    workers: int = 0  # processes that load data; 0: the training's own
    cache: bool = False  # keep all decoded images in memory
    evaluate_every: float | None = 1.0  # epochs between two evaluations; None: only at the end
    checkpoint_every: int = 250  # steps; one is also written after each evaluation
    log_every: int = 10  # steps between two looks at the losses on a GPU, each of which waits for it
    out_dir: str | Path | None = None  # folder for checkpoint, best weights and log; None: no files
    live_plot: bool = True  # in a running notebook, draw the curves while training

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                f"epochs is {self.epochs} and steps is {self.steps}: give one of them, None for the other."
            )
        check_image_size(self.image_size)
        positive = ("epochs", "steps", "lr", "grad_clip", "evaluate_every", "batch_size", "accumulate")
        positive += ("checkpoint_every", "log_every")
        others = ("warmup_steps", "warmup_epochs", "warmup_start_lr", "final_lr_ratio", "weight_decay", "workers")
        for name in (*positive, *others, "box_bias_slope"):
            value = getattr(self, name)
            if value is not None and not (0 <= value < math.inf and (value or name not in positive)):
                raise ValueError(f"{name} is {value}: give {'a number above 0' if name in positive else '0 or more'}.")
        if self.lr >= 1:
            raise ValueError(f"lr is {self.lr:g}: AdamW moves every weight by about that; give something like 0.005.")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}: give a number from 0 (no averaging) to below 1.")
        for name, choices in (("precision", PRECISIONS), ("accelerator", ACCELERATORS)):
            if getattr(self, name) not in choices:
                raise ValueError(unknown_name(name, getattr(self, name), choices))

    def decisive(self) -> dict[str, Any]:
        """The fields that decide the weights, as plain values by name: what a checkpoint must agree with."""
        settings = decisive(self, FIRST_FIELDS, free=(*FREE_FIELDS, "augmentation"))
        augmentation = decisive(self.augmentation, FIRST_AUGMENTATIONS)
        return settings | {f"augmentation.{name}": value for name, value in augmentation.items()}


class Plan:
    """The timetable of a training whose loader has `batches` batches per epoch and process."""

    def __init__(self, config: TrainConfig, batches: int):
        self.config = config
        self.steps_per_epoch = batches / config.accumulate
        self.steps = config.steps or max(1, round((config.epochs or 0) * self.steps_per_epoch))
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


LAB = TrainConfig(
    steps=1600,
    weight_decay=1e-4,
    grad_clip=10.0,
    box_bias_slope=0.5,
    augmentation=Augmentation.lab(),
    cache=True,
    accelerator="cpu",
)
"""Minutes on a laptop's processor, from scratch: a lab model on generated scenes."""

COCO_S = TrainConfig(
    epochs=300,
    batch_size=32,  # on each of 8 GPUs
    image_size=640,
    lr=2e-4,
    warmup_steps=1000,
    weight_decay=1e-5,
    ema_decay=0.9997,
    augmentation=Augmentation.coco(),
    precision="auto",
    workers=8,
    checkpoint_every=1000,
    log_every=50,
)
"""YOLO-NAS S on COCO as published (which does not claim to reproduce the published weights), for 8 GPUs."""

FINE_TUNE = TrainConfig(
    epochs=100,
    batch_size=16,
    image_size=640,
    lr=5e-4,
    warmup_epochs=3,
    weight_decay=1e-4,
    ema_decay=0.9,
    augmentation=Augmentation.coco(),
    precision="auto",
    workers=4,
)
"""From COCO weights to your own classes on one GPU: the recipe published for the Roboflow-100 data sets."""
