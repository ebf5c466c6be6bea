"""What has to be known of an ONNX file before an engine is built: image input, sizes, convolutions. Notebook 13."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from yolonas_lab.deployment.graph import load_onnx

CHANNELS = 3


@dataclass(frozen=True)
class Profile:
    """The shapes (b, 3, h, w) that a plan with dynamic sizes is built for; it is fastest at the typical one."""

    smallest: tuple[int, int, int, int]
    typical: tuple[int, int, int, int]
    largest: tuple[int, int, int, int]

    def __post_init__(self) -> None:
        for name, shape in vars(self).items():
            if len(shape) != 4 or shape[0] < 1 or shape[1] != 3 or any(side < 32 or side % 32 for side in shape[2:]):
                raise ValueError(f"{name} must be (b, 3, h, w) with sides that are multiples of 32 px, but is {shape}.")
        if not all(a <= b <= c for a, b, c in zip(self.smallest, self.typical, self.largest)):
            raise ValueError(
                f"A profile must grow in no dimension downwards, but goes {self.smallest}, {self.typical}, "
                f"{self.largest}."
            )


@dataclass(frozen=True)
class EngineSource:
    """What is used of an ONNX file: the image input's name and shape (-1 where dynamic), whether it is (b, h, w, 3),
    the names of the convolutions, and the file's metadata.
    """

    path: Path
    input_name: str
    shape: tuple[int, ...]
    channels_last: bool
    convolutions: list[str]
    metadata: dict[str, str]

    @property
    def is_dynamic(self) -> bool:
        return -1 in self.shape

    def as_input(self, shape: tuple[int, int, int, int]) -> tuple[int, ...]:
        """A shape (b, 3, h, w) in the order in which this graph takes its image."""
        b, c, h, w = shape
        return (b, h, w, c) if self.channels_last else shape


def read_source(path: Path) -> EngineSource:
    """Read an ONNX file with one image input.

    Raises FileNotFoundError or ValueError naming the file for anything else.
    """
    model = load_onnx(path)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1 or len(inputs[0].type.tensor_type.shape.dim) != 4:
        raise ValueError(
            f"{path} must have one input, images with four dimensions, but has {[value.name for value in inputs]}; "
            "make it with export_onnx."
        )
    dims = inputs[0].type.tensor_type.shape.dim
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims)
    channels_last = shape[1] != CHANNELS and shape[3] == CHANNELS
    sides = shape[1:3] if channels_last else shape[2:]
    if any(side != -1 and side % 32 for side in sides):
        raise ValueError(f"{path} takes images of shape {shape}: both sides must be multiples of 32 px; export again.")
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return EngineSource(path, inputs[0].name, shape, channels_last, convolutions, metadata)
