"""An engine that computes on the CPU behind the classes of TensorRT for RTX: a call that those lack raises.

It reads and writes at the addresses it is given, as a real one does, so that a wrong buffer shows.
"""

import ctypes
import math
from contextlib import nullcontext
from unittest.mock import MagicMock, create_autospec

import numpy as np
import torch

POINTS, CLASSES = 5, 3  # of each image


class FakeEngine:
    """images (b, 3, 32, 32) -> boxes (b, 5, 4), all the sum of the image's pixels, and scores (b, 5, 3), its mean."""

    def __init__(self, trt, shape=(1, 3, 32, 32), profiles=(), dtype=None, outputs=("boxes", "scores")):
        """shape has -1 where it is open; profiles are pairs of the smallest and the largest shape."""
        self.trt, self.outputs, self.profiles = trt, outputs, list(profiles)
        self.addresses: dict[str, int] = {}
        self.shape, self.runs, self.profile = None, 0, 0
        self.engine = create_autospec(trt.ICudaEngine, instance=True)
        self.engine.num_io_tensors = 1 + len(outputs)
        self.engine.num_optimization_profiles = len(self.profiles)
        self.engine.get_tensor_name.side_effect = lambda index: ("images", *outputs)[index]
        self.dtype = dtype or trt.float32
        self.engine.get_tensor_dtype.side_effect = lambda name: self.dtype if name == "images" else trt.float32
        self.engine.get_tensor_shape.side_effect = lambda name: shape
        self.engine.get_tensor_profile_shape.side_effect = self._profile_shape
        self.context = create_autospec(trt.IExecutionContext, instance=True)
        self.engine.create_execution_context.return_value = self.context
        self.context.set_optimization_profile_async.side_effect = self._set_profile
        self.context.set_input_shape.side_effect = self._set_shape
        self.context.get_tensor_shape.side_effect = self._shape_of
        self.context.set_tensor_address.side_effect = self.addresses.__setitem__
        self.context.execute_async_v3.side_effect = self._run

    def _profile_shape(self, name, profile):
        smallest, largest = self.profiles[profile]
        return [smallest, smallest, largest]

    def _set_profile(self, profile, stream):
        assert isinstance(stream, int)
        self.profile, self.shape = profile, None
        return True

    def _set_shape(self, name, shape):
        assert name == "images"
        if self.profiles:
            low, high = self.profiles[self.profile]
            assert all(a <= n <= b for a, n, b in zip(low, shape, high)), f"{shape} is not in profile {self.profile}"
        self.shape = shape
        return True

    def _shape_of(self, name):
        assert self.shape is not None
        return {"images": self.shape, "boxes": (self.shape[0], POINTS, 4)}.get(name, (self.shape[0], POINTS, CLASSES))

    def _array(self, name):
        dtype = np.dtype(self.trt.nptype(self.dtype if name == "images" else self.trt.float32))
        shape = self._shape_of(name)
        content = (ctypes.c_byte * (math.prod(shape) * dtype.itemsize)).from_address(self.addresses[name])
        return np.frombuffer(memoryview(content), dtype).reshape(shape)

    def _run(self, stream):
        assert isinstance(stream, int)
        self.runs += 1
        images = self._array("images").astype(np.float64)
        for name, value in zip(self.outputs, (images.sum((1, 2, 3)), images.mean((1, 2, 3)))):
            self._array(name)[:] = value[:, None, None]
        return True


class FakeGraph:
    """A CUDA graph that remembers nothing: replaying is counted."""

    replays = 0

    def replay(self):
        type(self).replays += 1


def pretend_gpu(monkeypatch):
    """Let torch's streams be stand-ins, so that a runner works on CPU tensors."""
    stream = MagicMock(cuda_stream=0)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream: nullcontext())
    monkeypatch.setattr(FakeGraph, "replays", 0)
