"""Entropic optimal transport at the sizes of training: seconds, iterations, measured and predicted memory.

81 frames of 480 x 832 are 21 latent frames of 6240 points, or of 1560 with `losses.otd_pool` 2.
"""

import itertools

import torch

from benchmarks.gpu.machine import against, best_seconds, peak_bytes, reset_peak
from vdot_core.transport import entropic_ot, working_bytes
from vdot_core.transport.flash import why_not_flash

DIMS = 16
SIZES = {"cuda": ((21, 1560), (21, 6240)), "cpu": ((2, 48),)}
# The distance of real and fake scores in training, and the settings of training/configs.
DISTANCES = {"near": 0.1, "far": 1.0}
SETTINGS = {"eps": 0.05, "eps_mode": "mean_cost", "debias": True}


def measure(device: str) -> dict:
    """One row for each size, distance and backend; both backends solve the same problem."""
    reason = why_not_flash(torch.device(device), "sqeuclidean")
    backends = ("torch",) if reason else ("torch", "flash")
    rows = []
    for (frames, points), (kind, distance) in itertools.product(SIZES[device], DISTANCES.items()):
        generator = torch.Generator().manual_seed(0)
        a = torch.randn(frames, points, DIMS, generator=generator).to(device)
        b = a + distance * torch.randn(frames, points, DIMS, generator=generator).to(device)
        gradients = {}
        for backend in backends:
            row, gradients[backend] = _row(a, b, backend, device)
            rows.append({"frames": frames, "points": points, "clouds": kind, **row})
        if len(backends) == 2:
            difference = gradients["flash"] - gradients["torch"]
            rows[-1]["difference_from_torch"] = float(difference.norm() / gradients["torch"].norm())
    return {"settings": SETTINGS, "rows": rows, "flash": reason or "used"}


def _row(a: torch.Tensor, b: torch.Tensor, backend: str, device: str) -> tuple[dict, torch.Tensor]:
    def solve():
        return entropic_ot(a, b, backend=backend, **SETTINGS)

    before = reset_peak(device)
    result = solve()
    peak = peak_bytes(device)
    seconds = best_seconds(solve, device, rounds=3)
    predicted = working_bytes(
        *a.shape[:2], b.shape[1], a.shape[2], device=device, backend=backend, debias=SETTINGS["debias"]
    )
    row = {
        "backend": backend,
        "seconds": round(seconds, 5),
        "iterations": float(result.num_iter.float().mean()),
        "converged": bool(result.converged.all()),
        "marginal_error": float(result.marginal_error.max()),
        **against(None if peak is None else peak - before, predicted),
    }
    return row, result.grad_a
