"""What to quantize and how finely, in one small table of settings. Notebook 10 turns them one by one.

The defaults are what TensorRT's INT8 convolutions take: NVIDIA, "Explicit Quantization" in TensorRT's documentation.
"""

from __future__ import annotations

from dataclasses import dataclass

from yolonas_lab.quantization.calibrators import WEIGHT_METHODS
from yolonas_lab.quantization.fake_quant import check_bits
from yolonas_lab.suggest import unknown_name


@dataclass(frozen=True)
class QuantPolicy:
    """How weights and activations are quantized.

    weight_bits, activation_bits: 2 … 8. per_channel: one weight scale per output channel, not one per layer.
    activation_symmetric: integers around 0 with zero-point 0, else 0 … 2^bits-1 with a zero-point. weight_calibrator:
    "max", "percentile" or "mse", how a weight's range is chosen. float_layers: layers left in float, by the
    names of `quantizable_layers`. quantize_prediction_inputs: also quantize what the prediction convolutions read
    (they themselves always stay in float); onnxruntime computes a layer in integers only if its output is quantized.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    per_channel: bool = True
    activation_symmetric: bool = True
    weight_calibrator: str = "max"
    float_layers: tuple[str, ...] = ()
    quantize_prediction_inputs: bool = False

    def __post_init__(self) -> None:
        check_bits(self.weight_bits, "weight_bits")
        check_bits(self.activation_bits, "activation_bits")
        if self.weight_calibrator not in WEIGHT_METHODS:
            raise ValueError(unknown_name("weight_calibrator", self.weight_calibrator, WEIGHT_METHODS))
        if isinstance(self.float_layers, str):
            raise ValueError(f"float_layers is the text {self.float_layers!r}: give a tuple of layer names.")
        object.__setattr__(self, "float_layers", tuple(self.float_layers))

    @classmethod
    def tensorrt(cls) -> QuantPolicy:
        """For TensorRT: symmetric int8 everywhere, weights per channel."""
        return cls()

    @classmethod
    def cpu(cls) -> QuantPolicy:
        """For CPUs: activations in 0 … 255, and weights of 7 bits, because without VNNI two products of 8-bit numbers
        overflow the 16 bits in which they are summed.
        """
        return cls(weight_bits=7, activation_symmetric=False, quantize_prediction_inputs=True)
