"""Learning rates of the pretraining tasks, and the measure of a reconstruction."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cosine_lr(step: int, steps: int, lr: float, lr_end: float, warmup: int = 0) -> float:
    """Learning rate of a step: rising to `lr` in `warmup` steps, then falling by a cosine to `lr_end`."""
    if step < warmup:
        return lr * (step + 1) / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    return lr_end + (lr - lr_end) * 0.5 * (1 + math.cos(math.pi * progress))


def set_lr(optimizers: list[torch.optim.Optimizer], lr: float) -> None:
    """Give every group of every optimizer this learning rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr


def psnr(mse: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of mean squared errors of values in [0, 1]."""
    return -10 * torch.log10(mse.clamp_min(1e-10))
