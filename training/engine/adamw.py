"""AdamW that keeps no first moment where beta1 is 0, with states in 32 or 8 bits, sharded or replicated."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .eight_bit import EightBitMoment, block_size, local

STATE_BITS = (32, 8)
MOMENTS = ("exp_avg_sq", "exp_avg")


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
        state_bits: 32, or 8: moments of all but short rows in 8 bits, by torchao (`eight_bit.py`).

    Raises:
        ValueError: a number is out of range, or torchao is needed and not installed.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.0, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        state_bits: int = 32,
    ) -> None:
        if state_bits not in STATE_BITS:
            raise ValueError(f"state_bits is {state_bits}; expected 32 or 8")
        if not (0 <= betas[0] < 1 and 0 <= betas[1] < 1):
            raise ValueError(f"betas are {betas}; expected two numbers in [0, 1)")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        names = MOMENTS if betas[0] > 0 else MOMENTS[:1]
        self._eight_bit: dict[Tensor, dict[str, EightBitMoment]] = {}
        for group in self.param_groups:
            for weight in group["params"]:
                # All state exists from the start, so that a checkpoint can be read into it.
                if state_bits == 8 and block_size(tuple(weight.shape)):
                    moments = {name: EightBitMoment(weight, name == "exp_avg_sq") for name in names}
                    self._eight_bit[weight] = moments
                    for name, moment in moments.items():
                        self.state[weight][f"{name}_codes"] = moment.codes
                        self.state[weight][f"{name}_scales"] = moment.scales
                else:
                    self.state[weight] = {n: torch.zeros_like(weight, requires_grad=False) for n in names}
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
        # A process may hold no row of a small parameter.
        weights = [weight for weight in weights if local(weight).numel()]
        full = [weight for weight in weights if weight not in self._eight_bit]
        if full:
            moments = {
                name: [local(self.state[weight][name]) for weight in full]
                for name in MOMENTS
                if name in self.state[full[0]]
            }
            _adamw(group, step, full, **moments)
        # One at a time, so that only one weight's moments exist in float32 at a time.
        for weight in weights:
            quantized = self._eight_bit.get(weight)
            if quantized is not None:
                moments = {name: [moment.read()] for name, moment in quantized.items()}
                _adamw(group, step, [weight], **moments)
                for name, moment in quantized.items():
                    moment.write(moments[name][0])


def _adamw(
    group: dict,
    step: int,
    weights: list[Tensor],
    exp_avg_sq: list[Tensor],
    exp_avg: list[Tensor] | None = None,
) -> None:
    """Update this process's parts of weights, and their moments, in place."""
    beta1, beta2 = group["betas"]
    gradients = [local(weight.grad).to(weight.dtype) for weight in weights]
    if exp_avg is not None:
        torch._foreach_lerp_(exp_avg, gradients, 1 - beta1)
    torch._foreach_mul_(exp_avg_sq, beta2)
    torch._foreach_addcmul_(exp_avg_sq, gradients, gradients, 1 - beta2)
    scale = torch._foreach_sqrt(exp_avg_sq)
    torch._foreach_div_(scale, (1 - beta2**step) ** 0.5)
    torch._foreach_add_(scale, group["eps"])
    parts = [local(weight) for weight in weights]
    torch._foreach_mul_(parts, 1 - group["lr"] * group["weight_decay"])
    directions = gradients if exp_avg is None else exp_avg
    torch._foreach_addcdiv_(parts, directions, scale, -group["lr"] / (1 - beta1**step))
