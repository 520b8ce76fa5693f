"""Chooses between bfloat16 and float32 by what the device computes in hardware."""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from pathlib import Path

import torch

logger = logging.getLogger("vdot")
# Names of the instructions: torch's own, and those of /proc/cpuinfo on x86 and ARM.
INSTRUCTIONS = {"avx512_bf16", "amx_bf16", "bf16"}
# Settings of oneDNN's variable that hide them.
ISA_WITHOUT_BF16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"}


def uses_bf16(choice: bool | str, device: torch.device, key: str) -> bool:
    """Resolve a configured precision on a device.

    Args:
        choice: True or "bf16", False or "fp32", or "auto": bfloat16 where the device has it in hardware.
        device: Device of the networks.
        key: The configuration's name for it, for the log.

    Returns:
        True to compute in bfloat16. On a CPU without it, a warning is logged once.
    """
    if choice == "auto":
        bf16 = has_bf16(device)
        logger.info("%s auto: %s on %s", key, "bf16" if bf16 else "fp32", device.type)
        return bf16
    bf16 = choice in (True, "bf16")
    if bf16 and not has_bf16(device):
        _warn_of_emulation(key, device.type)
    return bf16


def has_bf16(device: torch.device) -> bool:
    """Tell whether a device multiplies bfloat16 in hardware.

    CPUs are asked by their flags, within the limits that ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA set.
    Where no flags can be read (macOS and Windows before torch 2.11) the answer is no.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and _cpu_has_bf16()


@lru_cache
def _cpu_has_bf16() -> bool:
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", ""))
    if limit.upper() in ISA_WITHOUT_BF16 or not torch.backends.mkldnn.is_available():
        return False
    flags = _cpu_flags()
    # An x86 CPU has these instructions in 512 bits only.
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return "bf16" in flags or (wide and bool(flags & INSTRUCTIONS))


def _cpu_flags() -> set[str]:
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # since torch 2.11
    if capabilities is not None:
        return {name for name, value in capabilities().items() if value is True}
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return {word for line in lines if line.startswith(("flags", "Features")) for word in line.split()}


@lru_cache
def _warn_of_emulation(key: str, device_type: str) -> None:
    logger.warning(
        "%s asks for bfloat16, which this %s has no instructions for: emulated, it is about ten times slower "
        "than float32; set it to auto",
        key,
        device_type.upper(),
    )
