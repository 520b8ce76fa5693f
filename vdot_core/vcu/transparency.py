"""Transparent pictures that arrive as RGB and a mask: what the mask marks, and signs of the wrong choice.

ComfyUI's Load Image drops the alpha channel: what was transparent becomes opaque, usually black, and its MASK
is white there. As the mask of a subject it is inverted.

Shape letters: H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..choices import MASK_MEANINGS
from .canvas import to_unit_range
from .checks import as_tensor, described

FLAT = 2 / 255  # a codec or a resize moves a flat color by less
SOLID = 0.99  # above this, no color of an antialiased outline is left
MOST = 0.5
NEARLY_ALL = 0.9


def subject_mask(mask: Tensor, meaning: str, name: str) -> tuple[Tensor | None, list[str]]:
    """The mask of the subject, from a mask that marks it or what is transparent around it.

    Args:
        mask: [H, W] or [1, H, W] float in [0, 1], bool or uint8.
        meaning: one of MASK_MEANINGS.
        name: what to call the picture in messages.
    Returns:
        The mask, 1 on the subject, and notes. None where nothing is transparent: Load Image's MASK of an
        opaque picture is empty, and of another size than the picture.
    Raises:
        ValueError: the meaning is unknown, or the mask is no array in [0, 1].
    """
    if not isinstance(meaning, str) or meaning not in MASK_MEANINGS:
        raise ValueError(f"mask_is is {described(meaning)}, expected one of {', '.join(MASK_MEANINGS)}")
    if meaning == "subject":
        return mask, []
    mask, notes = to_unit_range(as_tensor(mask, f"{name}'s mask", "[H, W] float in [0, 1]"), f"{name}'s mask")
    if not mask.any():
        return None, [
            *notes,
            f"{name}: its mask is empty, so nothing is transparent: the full picture is used",
        ]
    return 1 - mask, notes


def find_doubts(picture: Tensor, subject: Tensor | None, meaning: str, name: str) -> list[str]:
    """Notes where a picture looks like a transparent one whose mask is missing or inverted.

    Args:
        picture: [H, W, 3] float in [0, 1], before anything is cut out.
        subject: [H, W] float in [0, 1], 1 on what is used; None = all.
        meaning: what the caller said the mask is, one of MASK_MEANINGS.
        name: what to call the picture.
    """
    if subject is None:
        black = picture.amax(-1) == 0
        if not _surrounds(black, MOST):
            return []
        return [
            f"{name} lies on plain black, as a transparent picture does after Load Image; to cut it out, "
            "connect Load Image's MASK and set mask_is to transparent"
        ]
    solid = subject > SOLID
    flat = _surrounds(solid, 0.0) and bool((_spread(picture[solid]) <= FLAT).all())
    if not flat and not _surrounds(solid, NEARLY_ALL):
        return []
    other = next(choice for choice in MASK_MEANINGS if choice != meaning)
    return [
        f"{name}: the mask keeps the picture's surroundings and cuts a hole into it; if that hole is the "
        f"subject, set mask_is to {other}"
    ]


def _surrounds(part: Tensor, share: float) -> bool:
    """True if a part [H, W] holds two corners and more than this share of the border, but not everything."""
    if bool(part.all()):
        return False
    corners = part[[0, 0, -1, -1], [0, -1, 0, -1]]
    border = torch.cat([part[0], part[-1], part[1:-1, 0], part[1:-1, -1]])
    return int(corners.sum()) >= 2 and float(border.float().mean()) > share


def _spread(colors: Tensor) -> Tensor:
    """[3]: how far the colors [N, 3] lie apart in each channel."""
    return colors.amax(0) - colors.amin(0)
