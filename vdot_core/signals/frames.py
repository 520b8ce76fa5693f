"""Checks and chunking that all signals share.

Shape letters: F frames, H W pixels.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..memory import RGB, check_size
from ..progress import steps
from ..scratch import empty
from ..text import counted

OVERSHOOT = 0.1  # bicubic resizing rings past [0, 1] by a few per cent: clamped, not refused


def check_result(shape: Sequence[int], pixel_bytes: int = RGB) -> None:
    """Refuse a clip [F, H, W, ...] whose signal does not fit into memory.

    Args:
        shape: of the clip.
        pixel_bytes: most that a pixel of the signal takes at one time.

    Raises:
        ValueError: gives the size and the free memory.
    """
    num_frames, height, width = shape[:3]
    check_size(
        num_frames * height * width * pixel_bytes,
        f"a control of {width}x{height} with {counted(num_frames, 'frame')}",
        "give smaller or fewer frames",
    )


def check_floats(values: Any, what: str, expected: str) -> None:
    """Refuse anything but a tensor of floats, which is `expected`."""
    if not isinstance(values, Tensor):
        raise ValueError(f"{what} is {type(values).__name__}; give a float tensor {expected}")
    if not values.is_floating_point():
        kind = str(values.dtype).removeprefix("torch.")
        raise ValueError(f"{what} holds {kind} numbers, expected float; convert it")


def check_frames(frames: Tensor, *, minimum: int = 1, what: str = "frames", pixel_bytes: int = RGB) -> None:
    """Refuse a clip that is not `[F, H, W, 3]` float in [0, 1].

    Args:
        frames: the clip to check.
        minimum: least number of frames.
        what: name of the input in messages.
        pixel_bytes: as for `check_result`.

    Raises:
        ValueError: the signal does not fit into memory;
            wrong type, shape, length or range, NaN or infinity; says what was got and what to do.
    """
    check_floats(frames, what, "[F, H, W, 3] in [0, 1]")
    shape = list(frames.shape)
    if frames.ndim == 4 and shape[-1] == 4:
        raise ValueError(f"{what} has shape {shape}, with an alpha channel; drop it first")
    if frames.ndim != 4:
        raise ValueError(
            f"{what} has shape {shape}; give [F, H, W, 3]: frames, height, width, red-green-blue"
        )
    if shape[-1] != 3:
        raise ValueError(
            f"{what} has {counted(shape[-1], 'channel')}, expected red, green and blue last; look at the "
            "node that made it"
        )
    if 0 in shape:
        raise ValueError(f"{what} has shape {shape}: it is empty; give at least one frame with pixels")
    if shape[0] < minimum:
        raise ValueError(
            f"{what} has {counted(shape[0], 'frame')}; this needs at least {minimum}: give a longer clip"
        )
    check_result(shape, pixel_bytes)
    for index, frame in enumerate(frames):  # frame by frame: no temporary of the clip's size
        low, high = (float(value) for value in frame.aminmax())
        if not (low > float("-inf") and high < float("inf")):
            raise ValueError(
                f"{what} has NaN or infinite values in frame {index}; repair the clip before using it"
            )
        if low < -OVERSHOOT or high > 1 + OVERSHOOT:
            raise ValueError(
                f"{what} has values from {low:g} to {high:g} in frame {index}; they must be in [0, 1] "
                "(divide 8-bit images by 255)"
            )


def map_chunks(
    function: Callable[[Tensor], Tensor],
    frames: Tensor,
    *,
    size: int,
    device: torch.device | str | None = None,
) -> Tensor:
    """Apply `function` to a few frames at a time, so that temporaries stay small however long the clip is.

    Args:
        function: takes [f, H, W, 3] float32 in [0, 1] on `device`, gives [f, H, W] or [f, H, W, 3].
        frames: [F, H, W, 3] float.
        size: frames a chunk.
        device: where `function` runs; the clip's own when None. The result is on the clip's device.

    Returns:
        [F, H, W, 3] float32 in [0, 1]; a single channel is repeated.
    """
    out = empty(frames.shape, frames.device)
    for start in steps(range(0, len(frames), size)):
        chunk = (
            frames[start : start + size].to(device=device or frames.device, dtype=torch.float32).clamp(0, 1)
        )
        result = function(chunk)
        out[start : start + size] = result if result.ndim == 4 else result.unsqueeze(-1)
    return out


def spread(num_frames: int, limit: int) -> Iterator[int]:
    """At most `limit` frame indices, evenly spread over a clip, both ends included."""
    count = min(num_frames, limit)
    return (round(i * (num_frames - 1) / max(count - 1, 1)) for i in range(count))
