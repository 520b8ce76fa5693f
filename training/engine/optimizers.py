"""Optimizers of a run: parameter groups, learning rates, clipping, and the state that a checkpoint stores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..distributed.world import World
from .adamw import AdamW, local
from .config import OptimConfig
from .muon import split_optimizers

# Embeddings and output layers of a transformer: AdamW updates them where Muon updates the rest.
TABLES = ("patch_embedding", "modulation", "head.head")


class Optimizer:
    """AdamW, or Muon with AdamW, of the networks that are updated together, such as the critic's two.

    Args:
        parameters: Name of a network -> name -> trained parameter.
        rates: Name of a network -> its learning rate.
        optim: Settings.
        world: The processes.

    Attributes:
        parts: PyTorch's optimizers: one, or with Muon two.

    Raises:
        ValueError: Muon is to update weights that are sharded.
    """

    def __init__(
        self,
        parameters: Mapping[str, Mapping[str, nn.Parameter]],
        rates: Mapping[str, float],
        optim: OptimConfig,
        world: World,
    ) -> None:
        self.parameters, self.optim = parameters, optim
        if optim.optimizer == "muon":
            if world.sharded:
                raise ValueError(
                    "optim.optimizer is muon and parameters are sharded, which it cannot orthogonalize; set "
                    "optimizer adamw, or parallel.fsdp false"
                )
            (name,) = parameters
            self.parts = split_optimizers(
                parameters[name].items(),
                excluded=TABLES,
                lr=rates[name],
                betas=tuple(optim.betas),
                weight_decay=optim.weight_decay,
            )
        else:
            groups = [{"params": list(parameters[name].values()), "lr": rate} for name, rate in rates.items()]
            self.parts = [
                AdamW(
                    groups,
                    betas=tuple(optim.betas),
                    weight_decay=optim.weight_decay,
                    state_bits=optim.state_bits,
                )
            ]
        self.base_rates = [[group["lr"] for group in o.param_groups] for o in self.parts]

    def set_rates(self, step: int, num_steps: int) -> None:
        """Set the learning rates of a step, from 0."""
        factor = rate_factor(self.optim, step, num_steps)
        for optimizer, rates in zip(self.parts, self.base_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor

    def rates(self) -> list[float]:
        """Learning rates now, in the order of the networks."""
        return [group["lr"] for group in self.parts[0].param_groups][: len(self.parameters)]

    def with_gradients(self) -> list[nn.Parameter]:
        """Parameters that have a gradient."""
        return [
            parameter
            for optimizer in self.parts
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for optimizer in self.parts:
            optimizer.step()

    def zero_grad(self) -> None:
        """Free the gradients."""
        for optimizer in self.parts:
            optimizer.zero_grad(set_to_none=True)

    def states(self) -> Iterator[tuple[str, dict]]:
        """`<network>.<parameter>` and the optimizer's state of it, a dict that may be written to."""
        for network, parameters in self.parameters.items():
            for name, parameter in parameters.items():
                (state,) = (o.state[parameter] for o in self.parts if parameter in o.state)
                yield f"{network}.{name}", state


def rate_factor(optim: OptimConfig, step: int, num_steps: int) -> float:
    """Learning rate of a step as a share of the configured one: linear warm-up, then the schedule."""
    if step < optim.warmup:
        return min(1.0, (step + 1) / optim.warmup)
    if optim.schedule == "constant":
        return 1.0
    if optim.schedule == "wsd":
        remaining = (num_steps - step) / max(optim.decay * num_steps, 1)
        return optim.final_lr + (1 - optim.final_lr) * min(1.0, remaining)
    progress = (step - optim.warmup) / max(num_steps - optim.warmup, 1)
    return optim.final_lr + (1 - optim.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
    """Clip by the global norm, without waiting for the device.

    Args:
        parameters: With gradients, sharded or not.
        limit: Largest norm.

    Returns:
        The norm before, a scalar, the same on every process. If it is not finite, neither are the gradients.
    """
    if not parameters:
        return torch.zeros(())
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters])
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    torch._foreach_mul_([local(p.grad) for p in parameters], (limit / norm).clamp(max=1.0))
    return norm
