"""The machine: GPU, driver and versions, and the rates that the other parts are compared with."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import time

import torch

PACKAGES = ("torch", "triton", "flash-sinkhorn", "torchao", "diffusers", "numpy")


def measure(device: str) -> dict:
    """Names, versions, memory, and the speed of bf16 products and of copies."""
    figures = {"python": sys.version.split()[0], "cores": os.cpu_count(), "versions": _versions()}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        figures |= {
            "gpu": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_gib": round(properties.total_memory / 2**30, 2),
            "driver": _driver(),
            "cudnn": torch.backends.cudnn.version(),
        }
    x = torch.randn(8192 if device == "cuda" else 128, 8192, device=device, dtype=torch.bfloat16)
    copy = best_seconds(lambda: x.clone(), device)
    figures["bf16_tflops"] = round(bf16_tflops(device), 4)
    figures["memory_gb_s"] = round(2 * x.numel() * x.element_size() / copy / 1e9, 3)
    return figures


def bf16_tflops(device: str) -> float:
    """Speed of a large product in bf16, 1e12 operations a second; predictions of time start from it."""
    size = 8192 if device == "cuda" else 128
    x = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    return 2 * size**3 / best_seconds(lambda: x @ x, device) / 1e12


def best_seconds(call, device: str, rounds: int = 10) -> float:
    """Shortest time of a call after a first one."""
    times = []
    for _ in range(rounds + 1):
        synchronize(device)
        begin = time.perf_counter()
        call()
        synchronize(device)
        times.append(time.perf_counter() - begin)
    return min(times[1:])


def synchronize(device: str) -> None:
    """Wait until a device has done its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def reset_peak(device: str) -> int:
    """Forget the peak of memory so far; returns the bytes in use."""
    if device != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def peak_bytes(device: str) -> int | None:
    """Most bytes of tensors since reset_peak(); None on a CPU, where nobody counts."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else None


def gib(num_bytes: float | None) -> float | None:
    """Bytes in GiB, for a table."""
    return None if num_bytes is None else round(num_bytes / 2**30, 3)


def against(measured: int | None, predicted: float) -> dict:
    """Measured and predicted memory in GiB, and their ratio."""
    ratio = None if measured is None or not predicted else round(measured / predicted, 3)
    return {"peak_gib": gib(measured), "predicted_gib": gib(predicted), "peak_by_predicted": ratio}


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _driver() -> str | None:
    if not shutil.which("nvidia-smi"):
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=20)
    return run.stdout.strip().splitlines()[0] if run.returncode == 0 and run.stdout.strip() else None
