"""Random initial weights for training from scratch, as in Wan and VACE."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


@torch.no_grad()
def initialize_weights(network: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw every parameter of a WanVace at random, in the order of `named_parameters`.

    Linear layers and patch embeddings are Xavier-uniform with zero biases, the embeddings of text and time
    normal(0.02), modulation tables normal(1 / sqrt(D)), norms the identity. The head and VACE's
    projections into and out of its branch are zero: a new network predicts 0, and contexts have no effect.

    Args:
        network: the network; its parameters must hold memory.
        generator: makes the draw reproducible on any device, for numbers are drawn where the generator lives.

    Raises:
        ValueError: a parameter is on the meta device.
    """
    for name, parameter in network.named_parameters():
        if parameter.is_meta:
            raise ValueError(f"{name} is on the meta device; call network.to_empty(device=...) first")
        parameter.copy_(_drawn(name, parameter, generator))


def _drawn(name: str, parameter: Tensor, generator: torch.Generator | None) -> Tensor:
    device = generator.device if generator is not None else parameter.device
    values = torch.zeros(parameter.shape, device=device)
    module, _, kind = name.rpartition(".")
    leaf = module.rpartition(".")[2]
    if kind == "modulation":
        return values.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)
    if leaf in ("norm_q", "norm_k", "norm3"):
        return values.fill_(1.0 if kind == "weight" else 0.0)
    if kind == "bias" or leaf in ("before_proj", "after_proj") or module == "head.head":
        return values
    if module.startswith(("text_embedding.", "time_embedding.")):
        return values.normal_(std=0.02, generator=generator)
    bound = math.sqrt(6.0 / (parameter.shape[0] + parameter[0].numel()))
    return values.uniform_(-bound, bound, generator=generator)
