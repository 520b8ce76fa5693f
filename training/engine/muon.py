"""Muon: momentum whose matrices are orthogonalized, for the convolutions of a short training run.

Each weight is seen as a matrix [out, rest]; a Newton-Schulz iteration replaces its momentum by the nearest
orthogonal matrix (K. Jordan et al., 2024), scaled to the size of an AdamW update (arXiv 2502.16982), so that
both take the same learning rate. Everything else in the model is AdamW's.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..distributed.precision import has_bf16
from .adamw import AdamW

# Coefficients of the quintic iteration that drives all singular values near 1 in five rounds.
_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalize(matrices: Tensor, rounds: int = 5) -> Tensor:
    """Nearly U V^T of each matrix's singular value decomposition U S V^T.

    Args:
        matrices: [..., M, N] float.
        rounds: Newton-Schulz rounds.

    Returns:
        [..., M, N], singular values within about 0.7 .. 1.2.
    """
    shape = matrices.shape
    x = matrices.flatten(0, -3) if matrices.dim() > 2 else matrices[None]
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    if has_bf16(x.device):
        x = x.bfloat16()  # enough for a direction, and a few times faster
    wide = shape[-2] <= shape[-1]
    x = x if wide else x.mT.contiguous()
    for _ in range(rounds):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        x = torch.baddbmm(x, polynomial, x, beta=_A)
    return (x if wide else x.mT).reshape(shape).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Muon for weights of two or more dimensions.

    Args:
        params: Weights [out, ...].
        lr: Learning rate, on AdamW's scale.
        momentum: Nesterov momentum.
        weight_decay: Decoupled weight decay.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-3, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            for weight in group["params"]:
                # All state exists from the start, so that a checkpoint can be read into it.
                self.state[weight]["momentum"] = torch.zeros_like(weight, requires_grad=False)

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """Update every weight that has a gradient."""
        for group in self.param_groups:
            for weights in _by_shape(group["params"]):
                # One batched product for all weights of a shape: small ones alone leave a CPU idle.
                directions = torch.stack([self._direction(w, group["momentum"]) for w in weights])
                scale = 0.2 * max(directions.shape[-2:]) ** 0.5
                updates = [u.view_as(w) for u, w in zip(orthogonalize(directions), weights, strict=True)]
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(weights, updates, alpha=-group["lr"] * scale)

    def _direction(self, weight: Tensor, momentum: float) -> Tensor:
        """Nesterov's step for one weight, as a matrix."""
        average = self.state[weight]["momentum"].mul_(momentum).add_(weight.grad)
        return weight.grad.add(average, alpha=momentum).flatten(1)


def _by_shape(weights: Iterable[Tensor]) -> list[list[Tensor]]:
    """The weights that have a gradient, those of one shape together."""
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for weight in weights:
        if weight.grad is not None:
            by_shape.setdefault(weight.shape, []).append(weight)
    return list(by_shape.values())


def split_optimizers(
    named: Iterable[tuple[str, Tensor]],
    *,
    excluded: tuple[str, ...],
    lr: float = 0.0,
    betas: tuple[float, float],
    weight_decay: float,
) -> list[torch.optim.Optimizer]:
    """AdamW for vectors, tables and the first and last layers; Muon for every other weight.

    Args:
        named: Names and parameters to train.
        excluded: Parts of names whose weights AdamW updates too: embeddings and output layers.
        lr: Learning rate of both.
        betas: AdamW's.
        weight_decay: Of both, on weights of two or more dimensions only.

    Returns:
        [AdamW, Muon].
    """
    matrices, tables, vectors = [], [], []
    for name, parameter in named:
        if parameter.dim() < 2 or parameter[0].numel() < 2:
            vectors.append(parameter)
        elif any(part in name for part in excluded):
            tables.append(parameter)
        else:
            matrices.append(parameter)
    groups = [{"params": tables}, {"params": vectors, "weight_decay": 0.0}]
    adamw = AdamW(groups, lr=lr, betas=betas, weight_decay=weight_decay)
    return [adamw, Muon(matrices, lr=lr, weight_decay=weight_decay)]
