"""Deployment: ONNX files that say how they are used, the rules of Q/DQ placement, and running them without PyTorch."""

from yolonas_lab.deployment.export import export_onnx
from yolonas_lab.deployment.metadata import ExportInfo
from yolonas_lab.deployment.onnx_runtime import OnnxDetector
from yolonas_lab.deployment.qdq_rules import Violation, check_qdq, quantized_layers

__all__ = ["ExportInfo", "OnnxDetector", "Violation", "check_qdq", "export_onnx", "quantized_layers"]
