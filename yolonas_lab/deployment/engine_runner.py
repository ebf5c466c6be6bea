"""One TensorRT engine on one GPU: torch tensors in and out by name, on a stream of its own, as a CUDA graph if wanted.

Notebook 13. TensorRT's calls are the same in version 10, 11 and TensorRT for RTX: set_input_shape, set_tensor_address,
execute_async_v3.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor


class EngineRunner:
    """Runs an engine with one input. Tensors keep their place in GPU memory for as long as the shape stays.

    cuda_graph records the launches of all kernels once per shape and replays them, which saves the CPU's part of the
    time; it shows with small images and batches.
    """

    def __init__(
        self,
        trt: ModuleType,
        engine: Any,
        device: torch.device | str = "cuda",
        cuda_graph: bool = False,
    ):
        self._trt, self._engine, self.device = trt, engine, torch.device(device)
        self._context = engine.create_execution_context()
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        is_input = {name: engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        if sum(is_input.values()) != 1:
            raise ValueError(f"The engine must have one input, but has {sum(is_input.values())} among {names}.")
        [self.input_name] = [name for name in names if is_input[name]]
        self.output_names = [name for name in names if not is_input[name]]
        self._stream = torch.cuda.Stream(self.device)  # the default stream would make TensorRT wait after each run
        self._use_graph = cuda_graph
        self._graph: Any = None  # a torch.cuda.CUDAGraph of the last shape
        self._buffers: dict[str, Tensor] = {}

    def shape_range(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The smallest and the largest input shape that the engine was built for."""
        if -1 not in (fixed := _dims(self._engine.get_tensor_shape(self.input_name))):
            return fixed, fixed
        smallest, _, largest = self._engine.get_tensor_profile_shape(self.input_name, 0)
        return _dims(smallest), _dims(largest)

    def input_dtype(self) -> torch.dtype:
        """The type that the engine's input has."""
        return self._dtype(self.input_name)

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs by name, on the GPU, for an input of the engine's type and a shape that it was built for.

        Raises ValueError for another shape.
        """
        self._check_shape(tuple(images.shape))
        if not self._buffers or self._buffers[self.input_name].shape != images.shape:
            self._prepare(tuple(images.shape))
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            self._buffers[self.input_name].copy_(images, non_blocking=True)
            self._launch()
        torch.cuda.current_stream(self.device).wait_stream(self._stream)
        return {name: self._buffers[name].clone() for name in self.output_names}  # the next run overwrites its own

    def _prepare(self, shape: tuple[int, ...]) -> None:
        """Tell the engine this input shape, and give all tensors their places."""
        self._graph = None
        self._context.set_input_shape(self.input_name, shape)
        for name in (self.input_name, *self.output_names):
            dims = _dims(self._context.get_tensor_shape(name))
            self._buffers[name] = torch.empty(dims, dtype=self._dtype(name), device=self.device)
            self._context.set_tensor_address(name, self._buffers[name].data_ptr())

    def _launch(self) -> None:
        if not self._use_graph:
            self._execute()
            return
        if self._graph is None:
            self._graph = self._record()
        self._graph.replay()

    def _record(self) -> Any:
        self._execute()  # once outside: TensorRT finishes its preparations for a new shape in the first run
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            self._execute()
        return graph

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise RuntimeError("TensorRT could not start the engine; its log above says why.")

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        smallest, largest = self.shape_range()
        fits = len(shape) == len(smallest) and all(a <= n <= b for a, n, b in zip(smallest, shape, largest))
        if not fits:
            span = f"{smallest}" if smallest == largest else f"{smallest} to {largest}"
            raise ValueError(
                f"The engine was built for images of shape {span}, not {shape}: build it with a profile that reaches "
                "there, or leave image_size out."
            )

    def _dtype(self, name: str) -> torch.dtype:
        import numpy as np

        return torch.from_numpy(np.empty(0, self._trt.nptype(self._engine.get_tensor_dtype(name)))).dtype


def _dims(shape: Any) -> tuple[int, ...]:
    """TensorRT's Dims as a tuple."""
    return tuple(shape[axis] for axis in range(len(shape)))
