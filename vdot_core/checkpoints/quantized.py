"""Scaled fp8: weights stored as fp8 with a scale factor, as ComfyUI and Kijai publish them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ..dtypes import FP8_DTYPES
from ..text import shown
from .tensor_files import TensorSpec

_SCALES = (".scale_weight", ".weight_scale")
# Scales of activations matter only to fp8 matrix products; the weights' values do not depend on them.
_IGNORED = (".scale_input", ".input_scale", ".comfy_quant")
_MARKERS = ("scaled_fp8",)
_UNREAD = (".weight_scale_2", ".pre_quant_scale", ".qweight", ".qzeros", ".absmax", ".quant_map")


@dataclass(frozen=True)
class Quantization:
    """The quantization that a file's keys describe.

    Args:
        scales: Wan weight name -> Wan name of its scale.
        helpers: every name that is part of the quantization and no parameter of the network.
        problem: why the weights cannot be read; empty where they can.
    """

    scales: dict[str, str] = field(default_factory=dict)
    helpers: frozenset[str] = frozenset()
    problem: str = ""


def find_quantization(specs: Mapping[str, TensorSpec]) -> Quantization:
    """Separate quantization keys from parameters.

    Args:
        specs: Wan name -> shape and dtype, quantization keys included.
    Returns:
        The scales found; `problem` names a scheme that is not read (nvfp4, int8, block scales).
    """
    scales, helpers = {}, set()
    for name, spec in specs.items():
        if name.endswith(_UNREAD):
            return Quantization(
                problem=f"its weights are quantized in a way that is not read ({shown(name)})"
            )
        if name.endswith(_IGNORED) or name in _MARKERS:
            helpers.add(name)
        elif name.endswith(_SCALES):
            helpers.add(name)
            weight = name.rpartition(".")[0] + ".weight"
            if weight not in specs:
                return Quantization(
                    problem=f"{shown(name, 80)} scales {shown(weight, 80)}, which the file does not hold"
                )
            problem = _check_scale(name, spec, specs[weight])
            if problem:
                return Quantization(problem=problem)
            scales[weight] = name
    integers = [n for n, s in specs.items() if n not in helpers and not s.dtype.is_floating_point]
    if integers:
        kind = specs[integers[0]].dtype
        return Quantization(problem=f"{shown(integers[0])} is {kind}, a quantization that is not read")
    return Quantization(scales, frozenset(helpers))


def _check_scale(name: str, scale: TensorSpec, weight: TensorSpec) -> str:
    if weight.dtype not in FP8_DTYPES:
        return f"{shown(name)} scales a weight of {weight.dtype}; only fp8 weights with scales are read"
    if not scale.dtype.is_floating_point or scale.num_elements not in (1, weight.shape[0]):
        return f"{shown(name)} is {shown(list(scale.shape))}; one factor, or one per output channel, is read"
    return ""


def expand_scaled(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return the float32 values of a scaled fp8 weight [out, ...]; scale has 1 or `out` factors."""
    factors = scale.float().reshape(-1)
    if factors.numel() > 1:
        factors = factors.reshape(-1, *[1] * (weight.ndim - 1))
    return weight.float() * factors
