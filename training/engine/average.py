"""Averaged weights and the learning-rate helpers that the pretraining tasks share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class AveragedWeights:
    """An exponential moving average of a module's parameters, kept beside it."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.parameters = [p.detach().clone() for p in module.parameters()]

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the module; early on faster, so that it forgets the first weights."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        torch._foreach_lerp_(self.parameters, [p.detach() for p in module.parameters()], 1 - decay)

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange the module's weights with the averaged ones; a second call puts them back."""
        for mine, theirs in zip(self.parameters, module.parameters(), strict=True):
            kept = theirs.detach().clone()
            theirs.copy_(mine)
            mine.copy_(kept)

    def state_dict(self) -> dict:
        """The averages and how many updates they have seen."""
        return {"num_updates": self.num_updates, "parameters": self.parameters}

    def load_state_dict(self, state: dict) -> None:
        """Restore `state_dict`'s."""
        self.num_updates = state["num_updates"]
        for mine, saved in zip(self.parameters, state["parameters"], strict=True):
            mine.copy_(saved)


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
