"""The doctor's table: every row here, and what it says on machines that have less, more, or something else."""

import builtins
import io

import pytest
import torch

from yolonas_lab.deployment import doctor as module
from yolonas_lab.deployment.doctor import Row, cpu_flags, doctor, table

ABOUTS = ["system", "CPU", "INT8 on the CPU", "NVIDIA GPU", "TensorRT", "TensorRT for RTX", "onnx", "onnxruntime"]


def row(about):
    [found] = [row for row in doctor() if row.about == about]
    return found


def test_every_row_is_there_on_this_machine():
    rows = doctor()
    assert [row.about for row in rows] == [*ABOUTS, "OpenVINO"]
    assert all(row.found for row in rows)
    assert all(row.advice for row in rows if row.found == module.NOT_FOUND)


def test_a_machine_without_any_optional_package(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for about, command in (
        ("TensorRT", "pip install 'yolonas-lab[tensorrt]'"),
        ("TensorRT for RTX", "pip install 'yolonas-lab[tensorrt-rtx]'"),
        ("onnx", "pip install onnx onnxscript"),
        ("onnxruntime", "pip install onnxruntime"),
        ("OpenVINO", "pip install 'yolonas-lab[openvino]'"),
    ):
        assert row(about).found == module.NOT_FOUND and command in row(about).advice


def test_stubs_without_tensorrt_count_as_nothing(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setattr(
        module.metadata, "version", lambda name: (_ for _ in ()).throw(module.metadata.PackageNotFoundError)
    )
    assert module._package("tensorrt").found == module.NOT_FOUND


def test_an_old_tensorrt_is_called_old(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setattr(module.metadata, "version", lambda name: "10.9.0.34")
    assert module._package("tensorrt") == Row(
        "TensorRT", "10.9.0.34", "10.12 or newer is needed: pip install --upgrade tensorrt."
    )
    assert module._package("tensorrt_rtx").advice == ""  # counts its versions from 1


@pytest.mark.parametrize(
    ("flags", "found", "advice"),
    [
        ({"avx2"}, "no VNNI, AMX or dot-product instructions", "7 bits"),
        ({"avx2", "avx512f", "avx512_vnni"}, "AVX-512 VNNI", "pay off"),
        ({"avx_vnni", "amx_int8"}, "AMX, AVX VNNI", "pay off"),
        ({"asimd", "asimddp"}, "dot product (NEON)", "pay off"),
        (set(), "no VNNI, AMX or dot-product instructions", "measure"),
    ],
)
def test_int8_instructions(monkeypatch, flags, found, advice):
    monkeypatch.setattr(module, "cpu_flags", lambda: flags)
    assert row("INT8 on the CPU").found == found and advice in row("INT8 on the CPU").advice


def test_vector_instructions(monkeypatch):
    monkeypatch.setattr(module, "cpu_flags", lambda: {"avx2", "avx512_f"})
    assert row("CPU").found.endswith("; AVX-512 and AVX2")
    monkeypatch.setattr(module, "cpu_flags", set)
    assert row("CPU").found.endswith("; no vector instructions known")


def test_flags_from_linux_and_from_torch(monkeypatch):
    text = "processor : 0\nflags\t\t: fpu avx2 avx512_vnni\n"
    monkeypatch.setattr(builtins, "open", lambda *_, **__: io.StringIO(text))
    assert cpu_flags() == {"fpu", "avx2", "avx512_vnni"}

    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(builtins, "open", missing)
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_f": False, "l2_cache_size": 1}, raising=False
    )
    assert cpu_flags() == {"avx2"}
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert cpu_flags() == set()


def test_a_gpu_or_why_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "a build without CUDA" in row("NVIDIA GPU").advice
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "nvidia-smi" in row("NVIDIA GPU").advice
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H100")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: type("P", (), {"total_memory": 80 * 2**30}))
    assert row("NVIDIA GPU") == Row("NVIDIA GPU", "H100, compute capability 9.0, 80 GiB")


def test_the_table_by_hand():
    text = table([Row("a", "1.0"), Row("longer", "not found", "get it.")])
    assert text == "a       1.0\nlonger  not found\n          get it."
