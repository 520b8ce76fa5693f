"""Quantized forms of a network's matrices in safetensors, as ComfyUI's layers read them.

The matrices of the blocks are stored as fp8 or int8 with factors; norms, biases, modulations, embeddings and
the head keep their dtype, as in the files that are published for ComfyUI. Source of the forms: comfy/ops.py
(`_load_quantized_module`) in ComfyUI 0.30, and comfy_kitchen/tensor in comfy-kitchen.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from ..text import shown
from .scaled import rotation
from .tensor_files import TensorSpec

FORMS = ("fp8_scaled", "int8")
_STORAGE = {"fp8_scaled": torch.float8_e4m3fn, "int8": torch.int8}
_ROTATIONS = (256, 64, 16)  # sizes of the groups of input channels that are rotated; powers of 4
# Beyond it, float32 overflows where a rotated matrix is turned back.
_MAX_SCALE = torch.finfo(torch.float32).max / 2**12
_CHUNK_VALUES = 2**22  # quantized at a time, so that float32 copies stay small


def is_block_matrix(name: str, spec: TensorSpec) -> bool:
    """True for the parameters that are quantized: matrices of the backbone's and of VACE's blocks.

    Args:
        name: Wan name.
        spec: its shape and dtype.
    """
    is_in_block = name.startswith(("blocks.", "vace_blocks."))
    return is_in_block and name.endswith(".weight") and len(spec.shape) == 2


def form_specs(form: str, name: str, spec: TensorSpec) -> dict[str, TensorSpec]:
    """Shapes and dtypes of what a matrix is stored as.

    Args:
        form: one of `FORMS`.
        name: of the matrix.
        spec: its shape.
    Returns:
        Name in the file -> shape and dtype, the weight first.
    """
    scale_shape = (spec.shape[0], 1) if form == "int8" else ()
    return {
        name: TensorSpec(spec.shape, _STORAGE[form]),
        _part(name, "weight_scale"): TensorSpec(scale_shape, torch.float32),
        _part(name, "comfy_quant"): TensorSpec((len(_settings(form, spec.shape)),), torch.uint8),
    }


def encode(
    form: str, matrices: Mapping[str, TensorSpec], stream: Iterable[tuple[str, torch.Tensor]]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Quantize the matrices in a stream of tensors, and pass the others through.

    Args:
        form: one of `FORMS`.
        matrices: names of what is quantized, with their shapes.
        stream: (name, values).
    Yields:
        (name in the file, tensor), in the order of `form_specs`.
    """
    for name, tensor in stream:
        if name not in matrices:
            yield name, tensor
            continue
        quantize = _quantize_int8 if form == "int8" else _quantize_fp8
        weight, scale = quantize(tensor)
        del tensor
        if not float(scale.amax()) <= _MAX_SCALE:  # a sum of infinities is NaN
            raise ValueError(
                f"{shown(name)} has values that overflow as {form}; keep them in bf16, or give other weights"
            )
        yield name, weight
        yield _part(name, "weight_scale"), scale
        settings = bytearray(_settings(form, tuple(weight.shape)))
        yield _part(name, "comfy_quant"), torch.frombuffer(settings, dtype=torch.uint8)


def _part(weight: str, ending: str) -> str:
    return f"{weight.removesuffix('.weight')}.{ending}"


def _settings(form: str, shape: tuple[int, ...]) -> bytes:
    """ComfyUI's settings of a layer in this form, as the bytes of its comfy_quant tensor."""
    # Without the second setting ComfyUI rounds the layer's input to fp8 too, without a factor.
    settings: dict[str, Any] = {"format": "float8_e4m3fn", "full_precision_matrix_mult": True}
    if form == "int8":
        settings = {"format": "int8_tensorwise"}
        if (size := _rotation_size(shape)) is not None:
            settings |= {"convrot": True, "convrot_groupsize": size}
    return json.dumps(settings).encode()


def _rotation_size(shape: tuple[int, ...]) -> int | None:
    return next((size for size in _ROTATIONS if shape[1] % size == 0), None)


def _row_chunks(matrix: torch.Tensor) -> Iterator[slice]:
    step = max(1, _CHUNK_VALUES // matrix.shape[1])
    return (slice(start, start + step) for start in range(0, matrix.shape[0], step))


def _quantize_fp8(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One factor for the matrix, by which its largest value is the largest of float8_e4m3fn."""
    largest = torch.finfo(torch.float8_e4m3fn).max
    extremes = torch.stack(torch.aminmax(matrix)).float()
    scale = extremes.abs().max() / largest
    scale = torch.where(scale > 0, scale, torch.ones(()))
    weight = torch.empty(matrix.shape, dtype=torch.float8_e4m3fn)
    for rows in _row_chunks(matrix):
        weight[rows] = (matrix[rows].float() / scale).clamp(-largest, largest).to(weight.dtype)
    return weight, scale


def _quantize_int8(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A factor for every row, after a rotation of groups of columns that ComfyUI applies to the input too.

    The rotation (ComfyUI's 'convrot') spreads outliers of the input over their group.
    """
    weight = torch.empty(matrix.shape, dtype=torch.int8)
    scale = torch.empty(matrix.shape[0], 1)
    size = _rotation_size(tuple(matrix.shape))
    turn = None if size is None else rotation(size)
    for rows in _row_chunks(matrix):
        values = matrix[rows].float()
        if turn is not None:
            values = (values.reshape(-1, size) @ turn.T).view_as(values)
        scale[rows] = (values.abs().amax(dim=1, keepdim=True) / 127).clamp_min(1e-30)
        weight[rows] = (values / scale[rows]).round_().clamp_(-127, 127).to(torch.int8)
    return weight, scale
