"""The span of a video that a control guides, rounded to latent frames."""

from __future__ import annotations

from ..text import counted
from .checks import MAX_FRAMES, real, whole
from .unit import VAE_STRIDE

Moment = int | float | None


def guided_span(start: Moment, end: Moment, total: int) -> tuple[int, int, list[str]]:
    """First frame guided, and first frame free again.

    Both snap to the nearest border between latent frames (0, 1, 5, 9, ..), because one latent frame cannot be
    half guided; so two spans that meet neither overlap nor leave a gap.

    Args:
        start, end: frame numbers (integers) or shares of the video (floats in [0, 1]); None = its ends. An
            end beyond the video is its end.
        total: frames of the video, 4n+1.
    Returns:
        The two frame numbers, and notes.
    Raises:
        ValueError: a negative number, or `start` not before the end.
    """
    first, last = _moment("start_frame", start, total, 0.0), _moment("end_frame", end, total, float(total))
    notes = []
    if last > total:
        notes, last = (
            [f"control: end_frame {end} is past the video's {counted(total, 'frame')}: it guides to its end"],
            total,
        )
    if first >= last:
        raise ValueError(
            f"start_frame is frame {first:g}, and the control ends at frame {last:g} of {total}; "
            "give an earlier start_frame, a later end_frame or a longer clip"
        )
    borders = [0, *range(1, total + 1, VAE_STRIDE[0])]
    snapped = [min(borders, key=lambda border: abs(border - at)) for at in (first, last)]
    if snapped[0] == snapped[1]:
        # Both are nearest to one border: between them is a part of one latent frame, all of which is guided.
        place = max(border for border in borders[:-1] if border <= first)
        snapped = [place, borders[borders.index(place) + 1]]
    low, high = snapped
    if (low, high) == (first, last):
        return low, high, notes
    return low, high, [*notes, f"control: guides frames {low}..{high - 1} (rounded to latent frames)"]


def _moment(name: str, value: Moment, total: int, default: float) -> float:
    if value is None:
        return default
    if isinstance(value, float):
        return real(f"{name} as a share of the video", value, 0.0, 1.0) * total
    return float(whole(name, value, 0, MAX_FRAMES))
