"""Deployment: ONNX files that say how they are used, Q/DQ rules, TensorRT engines, and detectors that run them."""

from yolonas_lab.deployment.engine_report import EngineReport
from yolonas_lab.deployment.export import export_onnx
from yolonas_lab.deployment.metadata import ExportInfo
from yolonas_lab.deployment.onnx_runtime import OnnxDetector
from yolonas_lab.deployment.openvino_runtime import OpenVinoDetector
from yolonas_lab.deployment.qdq_rules import Violation, check_qdq, quantized_layers
from yolonas_lab.deployment.tensorrt import build_engine
from yolonas_lab.deployment.tensorrt_detector import TensorRTDetector

__all__ = [
    "EngineReport",
    "ExportInfo",
    "OnnxDetector",
    "OpenVinoDetector",
    "TensorRTDetector",
    "Violation",
    "build_engine",
    "check_qdq",
    "export_onnx",
    "quantized_layers",
]
