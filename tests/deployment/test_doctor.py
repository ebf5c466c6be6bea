"""The doctor's table: every line here, and what it says on machines that have less, more, or something else."""

import builtins
import io

import pytest
import torch

from yolonas_lab.deployment import doctor as module
from yolonas_lab.deployment.doctor import PACKAGES, cpu_flags, doctor


def line(about: str) -> str:
    """What the table says about something, with the advice below it."""
    found = doctor().partition(f"{about} ")[2].splitlines()
    return "\n".join([found[0], *(text for text in found[1:2] if text.startswith("      "))]).strip()


def test_a_machine_without_any_optional_package(monkeypatch):
    abouts = ["system", "CPU", "INT8 on the CPU", "NVIDIA GPU", *(name for name, _ in PACKAGES.values())]
    assert [row.split("  ")[0] for row in doctor().splitlines() if row[0] != " "] == abouts
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert all(f"not found\n{'':<20}{advice}" in doctor() for _, advice in PACKAGES.values())


def test_stubs_without_tensorrt_count_as_nothing_and_an_old_one_is_called_old(monkeypatch):
    def missing(name):
        raise module.metadata.PackageNotFoundError

    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setattr(module.metadata, "version", missing)
    assert module._package("tensorrt", "get it") == ("not found", "get it")
    monkeypatch.setattr(module.metadata, "version", lambda name: "10.9.0.34")
    assert "pip install --upgrade tensorrt" in module._package("tensorrt", "")[1]
    assert module._package("tensorrt_rtx", "") == ("10.9.0.34", "")  # counts its versions from 1


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
    assert f"; {vectors}\n" in doctor()
    found, advised = line("INT8 on the CPU").splitlines()
    assert found == int8 and advice in advised


def test_flags_from_linux_and_from_torch(monkeypatch):
    monkeypatch.setattr(builtins, "open", lambda *_, **__: io.StringIO("processor : 0\nflags\t\t: fpu avx2\n"))
    assert cpu_flags() == {"fpu", "avx2"}

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
        assert reason in line("NVIDIA GPU")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H100")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: type("P", (), {"total_memory": 80 * 2**30}))
    assert line("NVIDIA GPU") == "H100, compute capability 9.0, 80 GiB"
