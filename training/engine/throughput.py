"""Peak speeds of known GPUs, for the share of them that a run reaches (MFU)."""

from __future__ import annotations

import torch

# Dense bf16 matrix products with fp32 accumulation, 1e12 operations a second, from NVIDIA's data sheets and
# architecture white papers. The first name that is part of the device's counts.
PEAK_TFLOPS = (
    ("B200", 2250.0),
    ("H200", 989.0),
    ("GH200", 989.0),
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.0),
    ("H800", 989.0),
    ("H20", 148.0),
    ("A100", 312.0),
    ("A800", 312.0),
    ("L40S", 362.0),
    ("RTX 6000 Ada", 364.2),
    ("RTX A6000", 154.8),
    ("A10G", 70.0),
    ("L4", 121.0),
    ("RTX 5090", 209.5),
    ("RTX 4090", 165.2),
    ("RTX 3090 Ti", 80.0),
    ("RTX 3090", 71.0),
)


def device_name(device: torch.device) -> str:
    """The GPU's name, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def peak_tflops(name: str, precision: str) -> float | None:
    """Peak speed of a device.

    Args:
        name: Its name, as torch gives it, such as NVIDIA H200.
        precision: bf16 or fp32, of the run.

    Returns:
        1e12 operations a second; None where it is not known, or the precision is not the table's.
    """
    if precision != "bf16" or "Laptop" in name:  # clocked lower, by its maker's choice
        return None
    return next((peak for part, peak in PEAK_TFLOPS if f" {part} " in f" {name} ".replace("-", " ")), None)
