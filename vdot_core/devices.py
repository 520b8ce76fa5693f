"""Where to compute."""

from __future__ import annotations

import torch

from .text import shown


def check_device(device: torch.device | str) -> None:
    """ValueError where nothing can be computed on a device: no such one, no driver, or no values on it."""
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = shown(str(error).partition("\n")[0], 160)
        raise ValueError(f"device '{shown(device, 40)}' cannot be used ({reason}); give cpu") from error
