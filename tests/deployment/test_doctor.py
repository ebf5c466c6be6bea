"""The doctor's table: every row here, and what it says on machines that have less, more, or something else."""

import builtins
import io

import pytest
import torch

from yolonas_lab.deployment import doctor as module
from yolonas_lab.deployment.doctor import NOT_FOUND, Row, cpu_flags, doctor, table

ABOUTS = ["system", "CPU", "INT8 on the CPU", "NVIDIA GPU", "TensorRT", "TensorRT for RTX", "onnx", "onnxruntime"]


def row(about):
    [found] = [row for row in doctor() if row.about == about]
    return found


def test_every_row_is_there_on_this_machine():
    rows = doctor()
    assert [row.about for row in rows] == [*ABOUTS, "OpenVINO"]
    assert all(row.found for row in rows)
    assert all(row.advice for row in rows if row.found == NOT_FOUND)


def test_a_machine_without_any_optional_package(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    rows = [row(about) for about in (*ABOUTS[4:], "OpenVINO")]
    assert all(row.found == NOT_FOUND and "pip install " in row.advice for row in rows)


def test_stubs_without_tensorrt_count_as_nothing_and_an_old_one_is_called_old(monkeypatch):
    def missing(name):
        raise module.metadata.PackageNotFoundError

    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setattr(module.metadata, "version", missing)
    assert module._package("tensorrt").found == NOT_FOUND
    monkeypatch.setattr(module.metadata, "version", lambda name: "10.9.0.34")
    assert "pip install --upgrade tensorrt" in module._package("tensorrt").advice
    assert module._package("tensorrt_rtx").advice == ""  # counts its versions from 1


@pytest.mark.parametrize(
    ("flags", "vectors", "int8", "advice"),
    [
        ({"avx2"}, "AVX2", "no VNNI, AMX or dot-product instructions", "7 bits"),
        ({"avx2", "avx512f", "avx512_vnni"}, "AVX-512 and AVX2", "AVX-512 VNNI", "pay off"),
        ({"avx_vnni", "amx_int8"}, "no vector instructions known", "AMX, AVX VNNI", "pay off"),
        ({"asimd", "asimddp"}, "NEON", "dot product (NEON)", "pay off"),
    ],
)
def test_instructions(monkeypatch, flags, vectors, int8, advice):
    monkeypatch.setattr(module, "cpu_flags", lambda: flags)
    assert row("CPU").found.endswith(f"; {vectors}")
    assert row("INT8 on the CPU").found == int8 and advice in row("INT8 on the CPU").advice


def test_flags_from_linux_and_from_torch(monkeypatch):
    text = "processor : 0\nflags\t\t: fpu avx2 avx512_vnni\n"
    monkeypatch.setattr(builtins, "open", lambda *_, **__: io.StringIO(text))
    assert cpu_flags() == {"fpu", "avx2", "avx512_vnni"}

    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(builtins, "open", missing)
    capabilities = {"avx2": True, "avx512_f": False, "l2_cache_size": 1}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert cpu_flags() == {"avx2"}
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert cpu_flags() == set()


def test_a_gpu_or_why_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for version, reason in ((None, "a build without CUDA"), ("13.0", "nvidia-smi")):
        monkeypatch.setattr(torch.version, "cuda", version)
        assert reason in row("NVIDIA GPU").advice
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H100")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: type("P", (), {"total_memory": 80 * 2**30}))
    assert row("NVIDIA GPU") == Row("NVIDIA GPU", "H100, compute capability 9.0, 80 GiB")


def test_the_table_by_hand():
    text = table([Row("a", "1.0"), Row("longer", "not found", "get it.")])
    assert text == "a       1.0\nlonger  not found\n          get it."
