"""Deployment: ONNX files that say how they are used, Q/DQ rules, TensorRT engines, and detectors that run them."""

from yolonas_lab.deployment.benchmark import Benchmark, benchmark, plot_waterfall
from yolonas_lab.deployment.detectors import OnnxDetector, OpenVinoDetector, TensorRTDetector
from yolonas_lab.deployment.engine_report import EngineReport
from yolonas_lab.deployment.export import ExportInfo, export_onnx
from yolonas_lab.deployment.qdq_rules import Violation, check_qdq, quantized_layers
from yolonas_lab.deployment.tensorrt import Profile, build_engine, find_tensorrt

__all__ = [
    "Benchmark", "EngineReport", "ExportInfo", "OnnxDetector", "OpenVinoDetector", "Profile", "TensorRTDetector",
    "Violation", "benchmark", "build_engine", "check_qdq", "export_onnx", "find_tensorrt", "plot_waterfall",
    "quantized_layers",
]  # fmt: skip
