"""What this machine can do for deployment: CPU instructions, GPU, TensorRT, onnxruntime, OpenVINO, with advice.

`python -m yolonas_lab doctor` prints it. Nothing is measured, changed or installed, and nothing has to be there.
"""

from __future__ import annotations

import platform
from importlib import import_module, metadata
from importlib.util import find_spec

from yolonas_lab.common import machine_name
from yolonas_lab.deployment.tensorrt import is_too_old

# Instructions that multiply int8 without a detour, in words -> the flags of Linux and torch that stand for them.
INT8_INSTRUCTIONS = {
    "AMX": {"amx_int8"},
    "AVX-512 VNNI": {"avx512_vnni"},
    "AVX VNNI": {"avx_vnni"},
    "dot product (NEON)": {"asimddp"},
}
VECTOR_INSTRUCTIONS = {"AVX-512": {"avx512f", "avx512_f"}, "AVX2": {"avx2"}, "NEON": {"asimd", "neon"}}
PACKAGES = {  # module -> name, and advice where it is missing
    "tensorrt": ("TensorRT", "runs engines on a machine with an NVIDIA GPU: pip install 'yolonas-lab[tensorrt]'"),
    "tensorrt_rtx": (
        "TensorRT for RTX",
        "builds engines on machines without a GPU too: pip install 'yolonas-lab[tensorrt-rtx]'",
    ),
    "onnx": ("onnx", "export needs it: pip install onnx onnxscript"),
    "onnxruntime": ("onnxruntime", "runs exports on any machine: pip install onnxruntime"),
    "openvino": ("OpenVINO", "often the fastest INT8 on x86 CPUs: pip install 'yolonas-lab[openvino]'"),
}


def doctor() -> str:
    """Look at this machine: a line for each thing that deployment may use, advice on a line of its own below."""
    flags = cpu_flags()
    vector, int8 = (
        [name for name, spellings in instructions.items() if flags & spellings]
        for instructions in (VECTOR_INSTRUCTIONS, INT8_INSTRUCTIONS)
    )
    int8_advice = "the CPU export in INT8 should pay off: measure it."
    if not int8:
        int8_advice = "INT8 gains little here, and sums saturate unless weights keep to 7 bits: use QuantPolicy.cpu()."
    found = {  # what was found, and what to do about it
        "system": (f"{platform.system()} on {platform.machine()}, Python {platform.python_version()}", ""),
        "CPU": (f"{machine_name()}; {' and '.join(vector) or 'no vector instructions known'}", ""),
        "INT8 on the CPU": (", ".join(int8) or "no VNNI, AMX or dot-product instructions", int8_advice),
        "NVIDIA GPU": _gpu(),
        **{name: _package(module, advice) for module, (name, advice) in PACKAGES.items()},
    }
    width = max(map(len, found))
    return "\n".join(
        f"{name:<{width}}  {what}" + (f"\n{'':<{width}}    {advice}" if advice else "")
        for name, (what, advice) in found.items()
    )


def cpu_flags() -> set[str]:
    """Names of the CPU's features, as Linux or else torch spells them; an empty set where neither tells."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            if lines := [line for line in file if line.startswith(("flags", "Features"))]:
                return set(lines[0].partition(":")[2].split())
    except OSError:  # not Linux
        pass
    import torch

    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # newer than the oldest torch we take
    return {name for name, value in capabilities.items() if value is True}


def _gpu() -> tuple[str, str]:
    import torch

    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}, {memory:.0f} GiB", ""
    reason = "torch has CUDA but sees no GPU: check the driver with nvidia-smi."
    if torch.version.cuda is None:
        reason = "this torch is a build without CUDA: on a machine with an NVIDIA GPU install the CUDA one."
    return "not found", f"{reason} Plans can be built (TensorRT for RTX), but not run."


def _package(module: str, advice: str) -> tuple[str, str]:
    if find_spec(module) is None:
        return "not found", advice
    if module == "onnxruntime":  # its package has one of several names
        onnxruntime = import_module(module)
        providers = (provider.removesuffix("ExecutionProvider") for provider in onnxruntime.get_available_providers())
        return f"{onnxruntime.__version__} for {', '.join(providers)}", ""
    try:
        version = metadata.version(module)
    except metadata.PackageNotFoundError:  # stubs leave an empty module of that name behind
        return "not found", advice
    too_old = "10.12 or newer is needed: pip install --upgrade tensorrt."
    return version, too_old if is_too_old(module, version) else ""
