"""Factors of low-rank changes in memory, written to LoRA files and read from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...networks import WanVaceConfig, expected_shapes
from ...text import counted, shown
from ..safetensors_files import write_safetensors
from ..targets import checked_path
from ..tensor_files import TensorSpec
from .names import pair_keys
from .read import read_lora

Factors = dict[str, tuple[Tensor, Tensor]]
"""Wan's name of a linear layer's weight -> (up [out, R], down [R, in]); the change is up @ down."""


def save_factors(
    path: str | Path, factors: Mapping[str, tuple[Tensor, Tensor]], metadata: Mapping[str, str] | None = None
) -> None:
    """Write factors as a LoRA file for ComfyUI, under the names of `names.pair_keys`.

    Args:
        path: the `.safetensors` file to write; an existing one is replaced, complete, in one step.
        factors: see `Factors`; of one dtype.
        metadata: strings for the header.
    Raises:
        ValueError: a path that cannot be written.
    """
    tensors = {}
    for name, pair in factors.items():
        tensors |= dict(zip(pair_keys(name, "comfyui"), pair, strict=True))
    specs = {key: TensorSpec.of(tensor) for key, tensor in tensors.items()}
    header = {"format": "pt", **(metadata or {})}
    write_safetensors(checked_path(path), specs, iter(tensors.items()), header)


def load_factors(path: str | Path, config: WanVaceConfig) -> Factors:
    """Read a LoRA file's factors; the scale alpha / rank is multiplied into `up`.

    Args:
        path: a LoRA in any form that `read_lora` reads.
        config: sizes of the network that it changes.
    Returns:
        The factors, float32.
    Raises:
        ValueError: no LoRA of this network, or one that also changes norms or biases.
    """
    specs = {name: TensorSpec(shape, torch.float32) for name, shape in expected_shapes(config).items()}
    lora = read_lora(path, specs)
    full = [name for name, update in lora.updates.items() if update.full]
    if full or lora.unknown:
        names = [*full, *lora.unknown]
        raise ValueError(
            f"{shown(path)} has {counted(len(names), 'change')} that no pair of factors holds, such as "
            f"{shown(names[0])}; give a LoRA of linear layers alone, or a merged checkpoint"
        )
    factors = {}
    for name, update in lora.updates.items():
        up, down = (factor.float() for factor in update.factors())
        factors[name] = (up * update.scale, down)
    return factors
