"""bfloat16 is chosen where hardware has it, and what was chosen is used and recorded."""

import dataclasses
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training.distributed import precision
from training.distributed import world as parallel
from training.distributed.precision import has_bf16, uses_bf16
from training.engine.config import ParallelConfig
from training.engine.muon import orthogonalize

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def machine(monkeypatch):
    """A function: what torch says of a CPU -> that CPU is this one."""

    def pretend(capability, *flags, **variables):
        for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
        there = {"avx2": True, "l2_cache_size": 1, **dict.fromkeys(flags, True)}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: there, raising=False)
        precision._cpu_has_bf16.cache_clear()
        precision._warn_of_emulation.cache_clear()

    yield pretend
    monkeypatch.undo()
    precision._cpu_has_bf16.cache_clear()


@pytest.mark.parametrize(
    ("capability", "flags", "variables", "expected"),
    [
        ("AVX512", ["avx512_f", "avx512_bf16"], {}, True),
        ("AVX512", ["avx512_f", "amx_bf16"], {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX"}, True),
        ("DEFAULT", ["neon", "bf16"], {}, True),
        ("AVX512", ["avx512_f"], {}, False),
        ("AVX2", [], {}, False),
        ("AVX2", ["avx512_bf16", "amx_bf16"], {}, False),  # ATEN_CPU_CAPABILITY=avx2
        ("AVX512", ["avx512_bf16"], {"ONEDNN_MAX_CPU_ISA": "avx2"}, False),
        ("AVX512", ["avx512_bf16"], {"DNNL_MAX_CPU_ISA": "AVX512_CORE"}, False),
        ("DEFAULT", ["neon"], {}, False),
    ],
)
def test_a_cpu_has_bfloat16_if_its_flags_and_limits_say_so(machine, capability, flags, variables, expected):
    machine(capability, *flags, **variables)
    assert has_bf16(CPU) is expected
    assert uses_bf16("auto", CPU, "x") is expected
    assert uses_bf16(True, CPU, "x") is uses_bf16("bf16", CPU, "x") is True
    assert uses_bf16(False, CPU, "x") is uses_bf16("fp32", CPU, "x") is False


def test_before_torch_has_them_flags_are_the_kernels(machine, monkeypatch):
    machine("AVX512")
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    for line, expected in (("flags\t\t: fpu avx512f avx512_bf16 x", True), ("flags : avx512f", False)):
        monkeypatch.setattr(Path, "read_text", lambda self, text=f"processor : 0\n{line}\n": text)
        precision._cpu_has_bf16.cache_clear()
        assert has_bf16(CPU) is expected


def test_the_choice_is_logged_and_emulation_is_warned_of_once(machine, caplog):
    machine("AVX2")
    caplog.set_level(logging.INFO, "vdot")
    uses_bf16("auto", CPU, "parallel.precision")
    assert caplog.messages == ["parallel.precision auto: fp32 on cpu"]
    caplog.clear()
    for _ in range(3):
        uses_bf16(True, CPU, "teacher.bf16")
    assert len(caplog.messages) == 1
    assert "teacher.bf16 asks for bfloat16" in caplog.text and "ten times slower" in caplog.text
    machine("AVX512", "avx512_bf16")
    caplog.clear()
    uses_bf16(True, CPU, "teacher.bf16")
    assert not caplog.messages


MEASURE = """
import time, torch
from training.distributed.precision import uses_bf16
torch.set_num_threads(1)
conv, x = torch.nn.Conv3d(16, 16, 3, padding=1), torch.randn(1, 16, 5, 32, 32)
def seconds(enabled):
    times = []
    for _ in range(5):
        begun = time.process_time()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            conv(x)
        times.append(time.process_time() - begun)
    return min(times)
print(uses_bf16("auto", torch.device("cpu"), "x"), seconds(True) / seconds(False))
"""


def test_within_avx2_float32_is_chosen_and_is_the_faster():
    limits = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-c", MEASURE]
    process = subprocess.run(command, env={**os.environ, **limits}, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    bf16, ratio = process.stdout.split()
    assert bf16 == "False" and float(ratio) > 1.5, process.stdout


@pytest.mark.parametrize(("flag", "expected"), [("avx512_bf16", "bf16"), ("avx512_f", "fp32")])
def test_a_distillation_computes_in_what_was_chosen(machine, flag, expected):
    machine("AVX512", flag)
    world = parallel.start(ParallelConfig(device="cpu"))
    assert world.precision == expected
    with world.autocast():
        assert torch.is_autocast_enabled("cpu") is (expected == "bf16")
    explicit = parallel.start(dataclasses.replace(ParallelConfig(device="cpu"), precision="bf16"))
    assert explicit.precision == "bf16"


def test_muon_takes_the_faster_of_both(machine, monkeypatch):
    dtypes = []
    product = torch.baddbmm
    monkeypatch.setattr(torch, "baddbmm", lambda x, *a, **k: dtypes.append(x.dtype) or product(x, *a, **k))
    for capability, dtype in (("AVX2", torch.float32), ("AVX512", torch.bfloat16)):
        machine(capability, "avx512_bf16")
        dtypes.clear()
        assert orthogonalize(torch.randn(4, 6)).dtype == torch.float32
        assert set(dtypes) == {dtype}
