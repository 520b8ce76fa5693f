"""After decoding: restores kept pixels, and puts a separately generated region back into its clip.

The VAE changes every pixel a little, also those that the unit keeps. `paste_back` restores them from the
unit; `stitch` puts back what `crop_region` cut out.

Shape letters: F pixel frames, H W pixels. A mask is 1 where the model generates, 0 where it keeps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..progress import steps
from ..text import counted
from .canvas import as_clip
from .checks import whole
from .crop import Crop, scaled_mask
from .grow import mask_box
from .masks import binarize
from .scaling import scaled_chunks
from .unit import VCU

MAX_FEATHER = 256


def paste_back(generated: Tensor, unit: VCU, *, feather_px: int = 8) -> Tensor:
    """Restore a unit's kept pixels in a decoded video.

    Inside the mask every pixel is the generated one, and farther than `feather_px` from it every pixel is
    the unit's, bit for bit; between them one fades into the other. The fade is outside the mask, because
    the original under the mask is not known. A frame without mask is the unit's.

    Args:
        generated: [F, H, W, 3] float, of the unit's length and size.
        unit: the unit that the video was made from.
        feather_px: width of the fade in pixels; 0 = a hard edge.
    Returns:
        [F, H, W, 3] float32.
    Raises:
        ValueError: the video's length or size is not the unit's.
    """
    feather_px = whole("feather_px", feather_px, 0, MAX_FEATHER)
    generated, _ = as_clip(generated, "images")
    _check_made(generated, unit)
    out = torch.empty_like(generated)
    for index in steps(range(len(out))):
        out[index] = unit.frames[index].to(out)
        _blend(out[index], generated[index], unit.masks[index].to(out.device), feather_px)
    return out


def stitch(original: Tensor, generated: Tensor, unit: VCU, crop: Crop, *, feather_px: int = 8) -> Tensor:
    """Put a generated window back into its clip.

    As in `paste_back`, pixels farther than `feather_px` from the mask stay the original's, bit for bit,
    however the window was scaled. The fade ends at the window.

    Args:
        original: [F, H, W, 3] float in [0, 1], the clip that `crop_region` cut.
        generated: [F', h, w, 3] float, the decoded video; a shorter one gives a shorter result.
        unit: the unit that the video was made from: the window's frames and mask, at the window's size.
        crop: from `crop_region`.
        feather_px: width of the fade, in pixels of the original.
    Returns:
        [F', H, W, 3] float32.
    Raises:
        ValueError: a length or size is not the crop's.
    """
    feather_px = whole("feather_px", feather_px, 0, MAX_FEATHER)
    original, _ = as_clip(original, "original")
    generated, _ = as_clip(generated, "images")
    _check_made(generated, unit)
    _check_crop(original, unit, crop)
    y, x = crop.window
    out = original[: len(generated)].clone()
    mask_of = _full_size_masks(unit, crop)
    for part, chunk in scaled_chunks(generated, crop.width, crop.height):
        for frame, pixels, mask in zip(out[part], chunk, mask_of(part), strict=True):
            _blend(frame[y, x], pixels, mask.to(out.device), feather_px)
    return out


def feathered(mask: Tensor, radius: int) -> Tensor:
    """Weight of the generated pixel: 1 in the mask, falling evenly with the distance to it.

    Args:
        mask: [F, H, W] of 0 and 1.
        radius: in pixels; the distance is Euclidean, exact.
    Returns:
        [F, H, W] float32, 0 beyond `radius`.
    """
    weights = torch.zeros(mask.shape, device=mask.device)
    for weight, frame in zip(weights, mask, strict=True):
        window = _reach(frame, radius)
        if window is not None:
            weight[window] = _fade(frame[window], radius)
    return weights


def _reach(mask: Tensor, radius: int) -> tuple[slice, slice] | None:
    """Rows and columns of a frame's mask and of the fade around it; None for an empty mask."""
    box = mask_box((mask > 0).cpu().numpy())
    if box is None:
        return None
    left, top, right, bottom = box
    return slice(max(0, top - radius), bottom + radius), slice(max(0, left - radius), right + radius)


def _fade(mask: Tensor, radius: int) -> Tensor:
    """`feathered` of one frame [H, W] that has a mask."""
    if not radius:
        return (mask > 0).float()
    from scipy import ndimage

    distance = torch.from_numpy(ndimage.distance_transform_edt((mask == 0).cpu().numpy()))
    weight = (1 - distance.float() / (radius + 1)).masked_fill_(distance > radius, 0.0)
    return weight.to(mask.device)


def _blend(frame: Tensor, generated: Tensor, mask: Tensor, radius: int) -> None:
    """Fade the generated frame into [H, W, 3] around a mask; both ends exact."""
    window = _reach(mask, radius)
    if window is None:
        return
    weight = _fade(mask[window], radius)[..., None]
    original, generated = frame[window], generated[window]
    mixed = original + weight * (generated - original)
    mixed = torch.where(weight == 0, original, torch.where(weight == 1, generated, mixed))
    frame[window] = mixed


def _full_size_masks(unit: VCU, crop: Crop) -> Callable[[slice], Tensor]:
    """The unit's mask at the window's own size, by frames: the cropped one, or what the unit made of it.

    A mask that was scaled to the unit's size and back has another outline.
    """

    def scaled(part: slice) -> Tensor:
        return scaled_mask(unit.masks[part], crop.width, crop.height)

    if crop.size == (crop.width, crop.height) or crop.mask is None:
        return scaled
    soft = crop.mask[: unit.num_frames]

    def full(part: slice) -> Tensor:
        return binarize(soft[part].to(unit.masks.device))

    grown = shrunk = True
    for part in (slice(index, index + 1) for index in range(unit.num_frames)):
        own, cropped = binarize(unit.masks[part]), scaled_mask(soft[part].to(unit.masks.device), *crop.size)
        grown = grown and bool((own >= cropped).all())
        shrunk = shrunk and bool((own <= cropped).all())
    if grown and shrunk:
        return full
    if grown:
        return lambda part: torch.maximum(full(part), scaled(part))
    return (lambda part: torch.minimum(full(part), scaled(part))) if shrunk else scaled


def _check_made(generated: Tensor, unit: VCU) -> None:
    if tuple(generated.shape[:3]) != tuple(unit.masks.shape):
        got, expected = generated.shape, unit.masks.shape
        raise ValueError(
            f"the generated video (images) is {got[2]}x{got[1]} with {counted(got[0], 'frame')}, its unit "
            f"{expected[2]}x{expected[1]} with {expected[0]}; give the unit that the video was made from, "
            "and the video as decoded"
        )


def _check_crop(original: Tensor, unit: VCU, crop: Crop) -> None:
    size = original.shape[2], original.shape[1]
    if size != crop.source:
        raise ValueError(
            f"original is {size[0]}x{size[1]}, the crop was cut from "
            f"{crop.source[0]}x{crop.source[1]}; give the same clip to both"
        )
    if (unit.width, unit.height) != crop.size:
        raise ValueError(
            f"the unit is {unit.width}x{unit.height}, the crop {crop.size[0]}x{crop.size[1]}; "
            "leave width and height of the unit at 0, and set them where the crop is made"
        )
    if unit.num_frames > len(original):
        raise ValueError(
            f"the generated video (images) has {counted(unit.num_frames, 'frame')}, original "
            f"{len(original)}; give the full original, or a unit no longer than it"
        )
