"""ggml's block formats of weights, and their values in plain torch, on any device.

Shape letters: N blocks. A format stores each row of a matrix as blocks of 32 or 256 values with a scale for
each; the layouts are those of ggml-common.h and ggml-quants.c in ggml.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..text import described

_CHUNK_VALUES = 2**22  # decoded at a time, so that the temporary values stay small


@dataclass(frozen=True)
class GgmlType:
    """One format: values in a block, bytes of a block, and the dtype of a format without blocks."""

    name: str
    block_size: int
    block_bytes: int
    dtype: torch.dtype | None = None


def _k_bytes(*parts: int) -> tuple[int, int]:
    return 256, sum(parts)


GGML_TYPES = {
    0: GgmlType("F32", 1, 4, torch.float32),
    1: GgmlType("F16", 1, 2, torch.float16),
    30: GgmlType("BF16", 1, 2, torch.bfloat16),
    2: GgmlType("Q4_0", 32, 2 + 16),
    3: GgmlType("Q4_1", 32, 2 + 2 + 16),
    6: GgmlType("Q5_0", 32, 2 + 4 + 16),
    7: GgmlType("Q5_1", 32, 2 + 2 + 4 + 16),
    8: GgmlType("Q8_0", 32, 2 + 32),
    10: GgmlType("Q2_K", *_k_bytes(16, 64, 2, 2)),
    11: GgmlType("Q3_K", *_k_bytes(32, 64, 12, 2)),
    12: GgmlType("Q4_K", *_k_bytes(2, 2, 12, 128)),
    13: GgmlType("Q5_K", *_k_bytes(2, 2, 12, 32, 128)),
    14: GgmlType("Q6_K", *_k_bytes(128, 64, 16, 2)),
}
GGML_BY_NAME = {kind.name: kind for kind in GGML_TYPES.values()}
# Formats that are recognized, for the error, and not read.
UNREAD_TYPES = {
    9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S",
    22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M",
    34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
}  # fmt: skip


def num_packed_bytes(ggml_type: str, num_values: int) -> int:
    """Bytes that `num_values` values take in a format."""
    kind = GGML_BY_NAME[ggml_type]
    return num_values // kind.block_size * kind.block_bytes


def dequantize(
    packed: torch.Tensor, ggml_type: str, shape: Sequence[int], dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Decode a tensor; the values are those of ggml's own reference, computed in float32.

    Args:
        packed: uint8 of any shape, the tensor's bytes, on any device.
        ggml_type: name of its format, such as 'Q4_K'.
        shape: of the result.
        dtype: of the result.
    Returns:
        The values, on the device of `packed`.
    Raises:
        ValueError: an unknown format, or a number of bytes that is not the shape's.
    """
    kind = GGML_BY_NAME.get(ggml_type)
    if kind is None:
        raise ValueError(f"got the format {described(ggml_type)}; expected one of {', '.join(GGML_BY_NAME)}")
    num_values = math.prod(shape)
    if num_values % kind.block_size or packed.numel() != num_packed_bytes(ggml_type, num_values):
        raise ValueError(
            f"got {packed.numel()} bytes of {ggml_type} for the shape {list(shape)}; expected "
            f"{kind.block_bytes} for every {kind.block_size} values"
        )
    if kind.dtype is not None:
        return packed.reshape(-1).view(kind.dtype).reshape(shape).to(dtype)
    blocks = packed.reshape(-1, kind.block_bytes)
    values = torch.empty(blocks.shape[0], kind.block_size, dtype=dtype, device=packed.device)
    step = _CHUNK_VALUES // kind.block_size
    for start in range(0, blocks.shape[0], step):
        values[start : start + step] = _DECODERS[ggml_type](blocks[start : start + step])
    return values.view(shape)


def _half(field: torch.Tensor) -> torch.Tensor:
    """Float16 numbers of a field, [N, bytes / 2] float32."""
    return field.contiguous().view(torch.float16).float()


def _unpack(field: torch.Tensor, bits: int, width: int) -> torch.Tensor:
    """Values of `bits` bits, [N, values]: `width` bytes hold the lowest bits of `width` values, then more."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=field.device)
    groups = field.reshape(field.shape[0], -1, 1, width)
    return ((groups >> shifts.view(1, 1, -1, 1)) & (2**bits - 1)).reshape(field.shape[0], -1)


def _fifth_bits(field: torch.Tensor) -> torch.Tensor:
    """Bit j of 32 is the fifth bit of value j, [N, 32], shifted to its place."""
    return _unpack(field, 1, 1) << 4


def _scales_and_minima(field: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eight scales and eight minima of 6 bits each, packed in 12 bytes; [N, 8] twice, float32."""
    first, second, rest = field.split(4, dim=1)
    scales = torch.cat([first & 63, (rest & 15) | ((first >> 2) & 48)], dim=1)
    minima = torch.cat([second & 63, (rest >> 4) | ((second >> 2) & 48)], dim=1)
    return scales.float(), minima.float()


def _scaled(scale: torch.Tensor, values: torch.Tensor, minimum: torch.Tensor | None = None) -> torch.Tensor:
    """values [N, 256] times a factor for each equal part of the block, less a minimum."""
    parts = values.reshape(*scale.shape, -1).float() * scale.unsqueeze(-1)
    if minimum is not None:
        parts = parts - minimum.unsqueeze(-1)
    return parts.flatten(1)


def _q4_0(blocks: torch.Tensor) -> torch.Tensor:
    scale, low = blocks.split((2, 16), dim=1)
    return _half(scale) * (_unpack(low, 4, 16).float() - 8)


def _q4_1(blocks: torch.Tensor) -> torch.Tensor:
    scale, minimum, low = blocks.split((2, 2, 16), dim=1)
    return _half(scale) * _unpack(low, 4, 16).float() + _half(minimum)


def _q5_0(blocks: torch.Tensor) -> torch.Tensor:
    scale, high, low = blocks.split((2, 4, 16), dim=1)
    return _half(scale) * ((_unpack(low, 4, 16) | _fifth_bits(high)).float() - 16)


def _q5_1(blocks: torch.Tensor) -> torch.Tensor:
    scale, minimum, high, low = blocks.split((2, 2, 4, 16), dim=1)
    return _half(scale) * (_unpack(low, 4, 16) | _fifth_bits(high)).float() + _half(minimum)


def _q8_0(blocks: torch.Tensor) -> torch.Tensor:
    scale, values = blocks.split((2, 32), dim=1)
    return _half(scale) * values.view(torch.int8).float()


def _q2_k(blocks: torch.Tensor) -> torch.Tensor:
    scales, low, scale, minimum = blocks.split((16, 64, 2, 2), dim=1)
    factors, minima = _half(scale) * (scales & 15).float(), _half(minimum) * (scales >> 4).float()
    return _scaled(factors, _unpack(low, 2, 32), minima)


def _q3_k(blocks: torch.Tensor) -> torch.Tensor:
    high, low, scales, scale = blocks.split((32, 64, 12, 2), dim=1)
    scales = _unpack(scales[:, :8], 4, 8) | (_unpack(scales[:, 8:], 2, 4) << 4)
    values = _unpack(low, 2, 32).float() - 4 * (1 - _unpack(high, 1, 32).float())
    return _scaled(_half(scale) * (scales.float() - 32), values)


def _q4_k(blocks: torch.Tensor) -> torch.Tensor:
    scale, minimum, scales, low = blocks.split((2, 2, 12, 128), dim=1)
    factors, minima = _scales_and_minima(scales)
    return _scaled(_half(scale) * factors, _unpack(low, 4, 32), _half(minimum) * minima)


def _q5_k(blocks: torch.Tensor) -> torch.Tensor:
    scale, minimum, scales, high, low = blocks.split((2, 2, 12, 32, 128), dim=1)
    factors, minima = _scales_and_minima(scales)
    values = _unpack(low, 4, 32) | (_unpack(high, 1, 32) << 4)
    return _scaled(_half(scale) * factors, values, _half(minimum) * minima)


def _q6_k(blocks: torch.Tensor) -> torch.Tensor:
    low, high, scales, scale = blocks.split((128, 64, 16, 2), dim=1)
    values = (_unpack(low, 4, 64) | (_unpack(high, 2, 32) << 4)).float() - 32
    return _scaled(_half(scale) * scales.contiguous().view(torch.int8).float(), values)


_DECODERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
