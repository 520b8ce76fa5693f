"""Weights of a file into a network that was built for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from vdot_core.checkpoints.diagnose import mismatch
from vdot_core.checkpoints.tensor_files import TensorSpec
from vdot_core.text import shown


def assign_weights(network: nn.Module, weights: Mapping[str, Tensor], path: str | Path, kind: str) -> None:
    """Give a network its weights, all of them and no others.

    Args:
        network: Built on the meta device.
        weights: Name -> tensor.
        path: File of the weights, for the error.
        kind: What the file should be, such as "a Wan 2.1 VAE".

    Raises:
        ValueError: A name or a shape differs.
    """
    specs = {name: TensorSpec.of(tensor) for name, tensor in weights.items()}
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if fault := mismatch(specs, expected):
        raise ValueError(f"{shown(path, 100)} is not {kind}: {fault}")
    network.load_state_dict(weights, assign=True)
