"""AccWanInit: start the second stage from VACE with its Wan part taken from the few-step T2V network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch

from .diagnose import mismatch
from .layouts import VACE_ROOTS, strip_wrappers
from .tensor_files import TensorSpec

Weights = TypeVar("Weights", torch.nn.Module, Mapping[str, torch.Tensor])


@torch.no_grad()
def acc_wan_init(vace: Weights, wan: torch.nn.Module | Mapping[str, torch.Tensor]) -> Weights:
    """Overwrite the Wan part of a VACE network by a Wan network's weights, in place (VDOT's AccWanInit).

    Every parameter outside the VACE branch is replaced (embeddings, blocks, head). Values are converted to
    the dtype and device of `vace`.

    Args:
        vace: a VACE network, or its state dict under Wan's names.
        wan: the stage-1 text-to-video network, or its state dict.
    Returns:
        `vace` itself.
    Raises:
        ValueError: `vace` has no VACE branch, `wan` has one, a name or shape differs; nothing changes then.
    """
    targets, sources = _tensors(vace), _tensors(wan)
    branch = [name for name in targets if name.startswith(VACE_ROOTS)]
    if not branch:
        raise ValueError(
            "the network to initialize has no VACE branch; give the VACE network first, then Wan's"
        )
    extra = [name for name in sources if name.startswith(VACE_ROOTS)]
    if extra:
        raise ValueError(
            f"the Wan network has a VACE branch ({extra[0]}, ...); give stage 1's text-to-video network"
        )
    expected = {name: tuple(tensor.shape) for name, tensor in targets.items() if name not in set(branch)}
    specs = {name: TensorSpec.of(tensor) for name, tensor in sources.items()}
    fault = mismatch(specs, expected)
    if fault:
        raise ValueError(f"the Wan network does not fit the VACE network: {fault}")
    empty = [name for name in expected if targets[name].is_meta or sources[name].is_meta]
    if empty:
        raise ValueError(
            f"{len(empty)} parameters have no values (meta device), such as {empty[0]}; load them first"
        )
    for name in expected:
        targets[name].copy_(sources[name])
    return vace


def _tensors(weights: torch.nn.Module | Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    table = weights.state_dict() if isinstance(weights, torch.nn.Module) else weights
    return {strip_wrappers(name): tensor for name, tensor in table.items()}
