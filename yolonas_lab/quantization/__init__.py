"""Quantization: the grid, where it goes in a network, how its ranges are found, and what it costs in accuracy."""

from yolonas_lab.latency import Frontier, LayerTime, layer_latency, network_ms
from yolonas_lab.quantization.calibrate import calibrate
from yolonas_lab.quantization.calibrators import Histogram, choose_range
from yolonas_lab.quantization.fake_quant import fake_quantize, scale_and_zero_point
from yolonas_lab.quantization.insert import QuantPolicy, fold_batch_norm, for_export, quantize, scale_groups
from yolonas_lab.quantization.layers import Quantizer, float_layers, quantizable_layers, quantized_only, set_float
from yolonas_lab.quantization.qat import fine_tune, freeze_batch_norm, qat_recipe
from yolonas_lab.quantization.selective import (
    FrontierPoint,
    Sensitivity,
    float_order,
    frontier,
    random_order,
    select_layers,
    sensitivity,
)

__all__ = [
    "Frontier", "FrontierPoint", "Histogram", "LayerTime", "QuantPolicy", "Quantizer", "Sensitivity", "calibrate",
    "choose_range", "fake_quantize", "fine_tune", "float_layers", "float_order", "fold_batch_norm", "for_export",
    "freeze_batch_norm", "frontier", "layer_latency", "network_ms", "qat_recipe", "quantizable_layers", "quantize",
    "quantized_only", "random_order", "scale_and_zero_point", "scale_groups", "select_layers", "sensitivity",
    "set_float",
]  # fmt: skip
