"""AdamW that keeps no first moment where beta1 is 0, for sharded and whole parameters alike."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor, sharing its memory; a plain tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class AdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter, ICLR 2019), equal to torch.optim.AdamW.

    The update is elementwise, so each process treats its own part. With beta1 = 0 the first moment is the
    gradient itself: a parameter's state is one tensor of its size instead of two.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate.
        betas: Decay rates of the moments.
        eps: Added to the root of the second moment.
        weight_decay: Decoupled weight decay.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.0, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        if not (0 <= betas[0] < 1 and 0 <= betas[1] < 1):
            raise ValueError(f"betas are {betas}; expected two numbers in [0, 1)")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        names = ["exp_avg_sq"] + ["exp_avg"] * (betas[0] > 0)
        for group in self.param_groups:
            for weight in group["params"]:
                # All state exists from the start, so that a checkpoint can be read into it.
                self.state[weight] = {name: torch.zeros_like(weight, requires_grad=False) for name in names}
                self.state[weight]["step"] = 0

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            by_step: dict[int, list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    self.state[weight]["step"] += 1
                    by_step.setdefault(self.state[weight]["step"], []).append(weight)
            for step, weights in by_step.items():
                self._update(group, step, weights)

    def _update(self, group: dict, step: int, weights: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        # A process may hold no row of a small parameter.
        weights = [weight for weight in weights if local(weight).numel()]
        if not weights:
            return
        gradients = [local(weight.grad).to(weight.dtype) for weight in weights]
        squares = [local(self.state[weight]["exp_avg_sq"]) for weight in weights]
        directions = gradients
        if beta1 > 0:
            directions = [local(self.state[weight]["exp_avg"]) for weight in weights]
            torch._foreach_lerp_(directions, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        scale = torch._foreach_sqrt(squares)
        torch._foreach_div_(scale, (1 - beta2**step) ** 0.5)
        torch._foreach_add_(scale, group["eps"])
        parts = [local(weight) for weight in weights]
        torch._foreach_mul_(parts, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_addcdiv_(parts, directions, scale, -group["lr"] / (1 - beta1**step))
