"""Checks of a user's arguments: every error names the argument, the value got and what to give instead."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import Tensor

from .. import text
from ..memory import check_size
from ..text import counted

MAX_SIDE = 16384
MAX_FRAMES = 65537
# A thousand frames at 1080p; more is a typing error, and the allocation would fail.
MAX_PIXELS = 2**31
MAX_STRENGTH = 100.0
STEP_RANGE = ("start_percent", "end_percent")


def whole(name: str, value: Any, low: int | None = None, high: int | None = None) -> int:
    """An integer within bounds; ValueError otherwise."""
    try:
        number = operator.index(value)
    except (TypeError, RuntimeError):
        number = int(value) if isinstance(value, float) and value.is_integer() else None
    if number is None or isinstance(value, bool):
        raise ValueError(
            f"{name} is {described(value)}, expected a whole number; give one{_between(low, high)}"
        )
    if (low is not None and number < low) or (high is not None and number > high):
        raise ValueError(f"{name} is {described(number)}, expected a whole number{_between(low, high)}")
    return number


def real(name: str, value: Any, low: float, high: float) -> float:
    """A finite number within bounds; ValueError otherwise."""
    number = None
    if not isinstance(value, (bool, str, bytes)):
        try:
            number = float(value)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            number = None
    if number is None or not low <= number <= high:
        got = described(value) if number is None else f"{number:g}"
        raise ValueError(f"{name} is {got}, expected a number{_between(low, high)}")
    return number


def flag(name: str, value: Any) -> bool:
    """True or False; ValueError otherwise."""
    if not isinstance(value, (bool, int)) or value not in (0, 1):
        raise ValueError(f"{name} is {described(value)}, expected True or False; give one of them")
    return bool(value)


def as_tensor(value: Any, name: str, expected: str) -> Tensor:
    """Anything array-like as a dense tensor; ValueError for what is not."""
    if isinstance(value, Tensor):
        return value
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(
            f"{name} is {described(value)}, expected {expected}; give a tensor or an array"
        ) from error


def check_volume(num_frames: int, width: int, height: int, pixel_bytes: int = 0) -> None:
    """Refuse a clip of so many pixels that no machine holds it, or not this one.

    Args:
        num_frames, width, height: of the video.
        pixel_bytes: most bytes that building it takes for each of its pixels.
    """
    if num_frames * width * height > MAX_PIXELS:
        raise ValueError(
            f"the video is {width}x{height} with {counted(num_frames, 'frame')}, "
            f"{num_frames * width * height:.1e} pixels in all, "
            f"expected at most {MAX_PIXELS:.1e}; give a smaller width, height or length"
        )
    check_size(
        num_frames * width * height * pixel_bytes,
        f"a video of {width}x{height} with {counted(num_frames, 'frame')}",
        "give a smaller width or height, or fewer frames",
    )


def as_strength(value: Any, num_latent_frames: int) -> float | tuple[float, ...]:
    """A unit's strength: one float, or, where it differs between the video's latent frames, one for each.

    Args:
        value: a number, or a sequence, array or tensor [T] of them, from 0 to MAX_STRENGTH.
        num_latent_frames: T, of the video without references.
    Raises:
        ValueError: another length, or a number that is negative, huge or not finite.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        return real("strength", value, 0.0, MAX_STRENGTH)
    if len(value) != num_latent_frames:
        raise ValueError(
            f"strength has {counted(len(value), 'number')}, the video "
            f"has {counted(num_latent_frames, 'latent frame')}; "
            "give one number, or one for every latent frame"
        )
    numbers = tuple(real(f"strength of latent frame {t}", v, 0.0, MAX_STRENGTH) for t, v in enumerate(value))
    return numbers[0] if len(set(numbers)) == 1 else numbers


def as_step_range(value: Any) -> tuple[float, float]:
    """A unit's part of the sampling steps: (start, end), each from 0 to 1.

    Raises:
        ValueError: these are not two such numbers, or the end is not after the start.
    """
    pair = as_list(value, "step_range")
    if len(pair) != 2:
        raise ValueError(
            f"step_range has {counted(len(pair), 'number')}; give a start and an end, as (0, 0.5)"
        )
    start, end = (real(name, part, 0.0, 1.0) for name, part in zip(STEP_RANGE, pair, strict=True))
    if start >= end:
        raise ValueError(
            f"start_percent is {start:g} and end_percent {end:g}; give an end_percent above the start_percent"
        )
    return start, end


def as_list(values: Any, name: str) -> list:
    """A sequence as a list; ValueError for what is none."""
    if isinstance(values, (str, bytes, dict)):
        raise ValueError(f"{name} is {described(values)}, expected a list; give one")
    try:
        return list(values)
    except TypeError as error:
        raise ValueError(f"{name} is {described(values)}, expected a list; give one") from error


def _between(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return ""
    if high is None or math.isinf(high):
        return f" of at least {low:g}"
    return f" from {low:g} to {high:g}"


def described(value: Any) -> str:
    """A value in an error: small ones as they are, others by their type."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return text.described(value)
    return f"a {type(value).__name__}"
