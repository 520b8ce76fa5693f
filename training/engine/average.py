"""Averaged weights of a network in training."""

from __future__ import annotations

import torch
from torch import nn


class AveragedWeights:
    """An exponential moving average of a module's parameters, stored separately.

    torch's AveragedModel holds a second copy of the module; these are tensors alone, sharded as the
    parameters are, that change places with them.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.parameters = [p.detach().clone() for p in module.parameters()]

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average toward the module; early on faster, so that it forgets the first weights."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        torch._foreach_lerp_(self.parameters, [p.detach() for p in module.parameters()], 1 - decay)

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange the module's weights with the averaged ones; a second call puts them back."""
        for mine, theirs in zip(self.parameters, module.parameters(), strict=True):
            saved = theirs.detach().clone()
            theirs.copy_(mine)
            mine.copy_(saved)

    def state_dict(self) -> dict:
        """The averages and how many updates they have seen."""
        return {"num_updates": self.num_updates, "parameters": self.parameters}

    def load_state_dict(self, state: dict) -> None:
        """Restore `state_dict`'s."""
        self.num_updates = state["num_updates"]
        for mine, saved in zip(self.parameters, state["parameters"], strict=True):
            mine.copy_(saved)
