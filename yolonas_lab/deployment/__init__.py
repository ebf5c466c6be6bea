"""Deployment: ONNX files that say how they are used, Q/DQ rules, TensorRT engines, and detectors that run them."""

from yolonas_lab.deployment.benchmark import Benchmark, benchmark
from yolonas_lab.deployment.benchmark_figure import plot_waterfall
from yolonas_lab.deployment.engine_report import EngineReport
from yolonas_lab.deployment.export import export_onnx
from yolonas_lab.deployment.metadata import ExportInfo
from yolonas_lab.deployment.onnx_runtime import OnnxDetector
from yolonas_lab.deployment.openvino_runtime import OpenVinoDetector
from yolonas_lab.deployment.plan_input import Profile
from yolonas_lab.deployment.qdq_rules import Violation, check_qdq, quantized_layers
from yolonas_lab.deployment.tensorrt import build_engine, find_tensorrt
from yolonas_lab.deployment.tensorrt_detector import TensorRTDetector

__all__ = [
    "Benchmark",
    "EngineReport",
    "ExportInfo",
    "OnnxDetector",
    "OpenVinoDetector",
    "Profile",
    "TensorRTDetector",
    "Violation",
    "benchmark",
    "build_engine",
    "check_qdq",
    "export_onnx",
    "find_tensorrt",
    "plot_waterfall",
    "quantized_layers",
]
