"""An optimizer's moment in 8 bits and a scale per block, by torchao (Dettmers et al., ICLR 2022).

Blocks lie within rows, and rows are what FSDP spreads: codes and scales are tensors sharded as the weight is,
the numbers in them are the same on any number of processes, and a checkpoint holds them as they are.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

SMALLEST_BLOCK, LARGEST_BLOCK = 64, 256
"""Elements that share a scale: as torchao's largest, and no fewer than make a scale worth its four bytes."""


def local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor, sharing its memory; a plain tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def block_size(shape: tuple[int, ...]) -> int:
    """Elements that share a scale in a moment of a weight.

    Args:
        shape: The weight's.

    Returns:
        A power of two that divides a row; 0 where rows are too short (biases, norms): float32 is kept.
    """
    block = math.gcd(math.prod(shape[1:]), LARGEST_BLOCK)
    return block if block >= SMALLEST_BLOCK else 0


def moment_bytes(shape: tuple[int, ...], bits: int) -> int:
    """Bytes of one unsharded moment of a weight of this shape, with `bits` 8 or 32."""
    count, block = math.prod(shape), block_size(shape) if bits == 8 else 0
    return count + 4 * count // block if block else 4 * count


@lru_cache(maxsize=1)
def _state_class():
    try:
        from torchao.optim.subclass_8bit import OptimState8bit
    except ImportError as error:
        raise ValueError(
            f"optim.state_bits is 8 and torchao cannot be imported ({error}); pip install torchao, or set "
            "optim.state_bits 32"
        ) from error
    return OptimState8bit


@lru_cache(maxsize=8)
def _levels(signed: bool, device: torch.device) -> Tensor:
    """[256] the codes' values, as shares of a block's largest."""
    return _state_class().zeros((LARGEST_BLOCK,), signed, LARGEST_BLOCK, device).qmap


class EightBitMoment:
    """A running mean of a weight's gradients or of their squares, at first zero.

    Of squares the roots are stored. A weight whose gradients are a thousandth of its neighbors' has squares
    of a millionth, which the codes would round to 0, a division by zero; its root is still represented.

    Args:
        weight: The weight, replicated or sharded by rows.
        squares: True for the mean of squares.

    Raises:
        ValueError: torchao is not installed.
    """

    def __init__(self, weight: Tensor, squares: bool) -> None:
        self.squares, block = squares, block_size(tuple(weight.shape))
        assert block, f"rows of {tuple(weight.shape)} are too short for 8 bits"
        _state_class()
        self.codes = torch.zeros_like(weight, dtype=torch.uint8, requires_grad=False)
        rows = weight.detach().flatten(1)
        # Made from the weight, so that it is sharded as that is, and where that is.
        self.scales = torch.zeros_like(rows.unflatten(1, (rows.shape[1] // block, block)).amax(-1))

    def _state(self) -> Tensor:
        """torchao's tensor over this process's codes and scales, sharing their memory."""
        codes, scales = local(self.codes).view(-1), local(self.scales).view(-1)
        return _state_class()(codes, scales, _levels(not self.squares, codes.device), not self.squares)

    def read(self) -> Tensor:
        """This process's part, in float32."""
        values = self._state().dequantize().view(local(self.codes).shape)
        return values.square_() if self.squares else values

    def write(self, values: Tensor) -> None:
        """Replace this process's part."""
        self._state().copy_((values.sqrt() if self.squares else values).reshape(-1))
