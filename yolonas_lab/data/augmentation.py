"""How training images are changed at random, as numbers: three presets side by side. Notebook 06 shows what each does.

The published recipe: super-gradients 3.7.1, `coco_detection_yolo_nas_dataset_params.yaml`.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed at random; the presets are `none()`, `lab()` and `coco()`.

    Probabilities are named after what they switch on: hsv, channel_swap, flip, mosaic, mixup.
    """

    translate: float = 0.0  # up to this fraction of the side, left or right, up or down
    scale: tuple[float, float] = (1.0, 1.0)  # smallest and largest factor
    rotation: float = 0.0  # up to this many degrees, either way
    channel_swap: float = 0.0  # probability that red and blue change places
    hsv: float = 0.0  # probability of a change of color: each of the next three then takes part with probability 1/2
    hue: float = 0.0  # up to this many degrees, either way
    saturation: float = 0.0  # up to this many of 255 levels, either way
    value: float = 0.0  # up to this many of 255 levels, either way
    flip: float = 0.0  # probability of left-right
    mosaic: float = 0.0  # probability that three other images are put around this one
    mixup: float = 0.0  # probability that another image is blended in, half and half
    pad_value: int = 114  # 0 … 255, where no image is
    min_visible: float = 0.1  # a box of which less is left in the picture is dropped
    min_side: float = 2.0  # px; a moved box that is narrower or lower is dropped

    @staticmethod
    def none() -> "Augmentation":
        """Images are fitted into the network's square, nothing else."""
        return Augmentation()

    @staticmethod
    def lab() -> "Augmentation":
        """For small generated scenes: gentle, upright (a turned box is no longer tight), colors nearly kept."""
        return Augmentation(
            translate=0.1, scale=(0.8, 1.25), hsv=0.5, hue=10, saturation=30, value=30, flip=0.5
        )  # fmt: skip

    @staticmethod
    def coco() -> "Augmentation":
        """The published COCO recipe; here images are scaled about the center, there about their left top corner."""
        return Augmentation(
            translate=0.25,
            scale=(0.5, 1.5),
            channel_swap=0.5,
            hsv=0.5,
            hue=36,
            saturation=30,
            value=30,
            flip=0.5,
            mixup=0.5,
        )

    def __post_init__(self) -> None:
        for name in ("channel_swap", "hsv", "flip", "mosaic", "mixup", "min_visible"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give a number from 0 to 1.")
        for name in ("translate", "rotation", "hue", "saturation", "value", "min_side"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}: give the largest change, 0 or more.")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise ValueError(f"scale is {self.scale}: give the smallest and the largest factor, such as (0.5, 1.5).")
        if not (isinstance(self.pad_value, int) and 0 <= self.pad_value <= 255):
            raise ValueError(f"pad_value is {self.pad_value}: give a whole number from 0 to 255.")
