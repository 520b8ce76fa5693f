"""After decoding: restores kept pixels, and crops small regions to generate them at a higher resolution.

The VAE changes every pixel a little, also those that the unit keeps. `paste_back` restores them
from the unit; `crop_region` cuts out the surroundings of a mask for separate generation, and `stitch` puts
the result back into the clip.

Shape letters: F pixel frames, H W pixels. A mask is 1 where the model generates, 0 where it keeps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..memory import chunk_length
from ..progress import steps
from .canvas import FRAMES_PER_CHUNK, as_clip, resample
from .checks import real, whole
from .grow import mask_box
from .masks import as_mask, binarize
from .unit import SIZE_MULTIPLE, VCU

MAX_FEATHER = 256
MAX_CROP_MARGIN = 10.0


@dataclass(frozen=True)
class Crop:
    """A window of a clip, the same for all frames, and the size at which it is generated.

    Attributes:
        left, top, width, height: the window, in the clip's pixels.
        source: the clip's (width, height).
        size: (width, height) to which the window was scaled, multiples of 16.
    """

    left: int
    top: int
    width: int
    height: int
    source: tuple[int, int]
    size: tuple[int, int]

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the window."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def __str__(self) -> str:
        at = f"{self.width}x{self.height} at {self.left}, {self.top} of {self.source[0]}x{self.source[1]}"
        return (
            at if self.size == (self.width, self.height) else f"{at}, scaled to {self.size[0]}x{self.size[1]}"
        )


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
    generated, _ = as_clip(generated, "generated video")
    _check_made(generated, unit)
    out = generated.clone()
    _blend(out, unit.frames.to(out), generated, unit.masks.to(out.device), feather_px)
    return out


def crop_region(
    frames: Tensor,
    mask: Tensor,
    *,
    margin: float = 0.5,
    width: int | None = None,
    height: int | None = None,
) -> tuple[Tensor, Tensor, Crop]:
    """Crop a clip around its mask, so that a small region is generated at a higher resolution.

    One window for all frames: the box of all masked pixels, with a margin, moved into the frame.

    Args:
        frames: [F, H, W, 3] float in [0, 1].
        mask: [F, H, W], or [1, H, W] or [H, W] for every frame; 1 = generate.
        margin: kept around the box, as a part of its longer side; the model sees what the region belongs to.
        width, height: size to work at; the window gets its shape where the frame has room for it, else the
            same number of pixels in the window's own shape. None = the window's own size, not scaled. Both or
            neither; made multiples of 16.
    Returns:
        The window's frames [F, h, w, 3], its mask [F, h, w] of 0 and 1, and where it was.
    Raises:
        ValueError: the mask is empty or does not fit the clip, or only one side is given.
    """
    clip, _ = as_clip(frames, "video")
    total, rows, columns = clip.shape[:3]
    soft, _ = as_mask(mask, total, rows, columns)
    crop = _window(soft, real("margin", margin, 0.0, MAX_CROP_MARGIN), _asked(width, height))
    y, x = crop.window
    part = resample(clip[:, y, x], *crop.size)
    cut = binarize(resample(soft[:, y, x, None], *crop.size)[..., 0])
    return part.contiguous(), cut.contiguous(), crop


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
    original, _ = as_clip(original, "original video")
    generated, _ = as_clip(generated, "generated video")
    _check_made(generated, unit)
    _check_crop(original, unit, crop)
    y, x = crop.window
    out = original[: len(generated)].clone()
    resized = resample(generated, crop.width, crop.height)
    mask = binarize(resample(unit.masks[..., None], crop.width, crop.height)[..., 0])
    _blend(out[:, y, x], original[: len(resized), y, x], resized, mask.to(out.device), feather_px)
    return out


def feathered(mask: Tensor, radius: int) -> Tensor:
    """Weight of the generated pixel: 1 in the mask, falling evenly with the distance to it.

    Args:
        mask: [F, H, W] of 0 and 1.
        radius: in pixels; the distance is Euclidean, exact.
    Returns:
        [F, H, W] float32, 0 beyond `radius`.
    """
    if not radius:
        return mask.float()
    from scipy import ndimage

    weights = torch.zeros(mask.shape)
    for weight, frame in zip(weights, (mask > 0).cpu().numpy(), strict=True):
        if frame.any():
            distance = torch.from_numpy(ndimage.distance_transform_edt(~frame))
            weight[distance <= radius] = (1 - distance.float() / (radius + 1))[distance <= radius]
    return weights.to(mask.device)


def _blend(out: Tensor, original: Tensor, generated: Tensor, mask: Tensor, radius: int) -> None:
    """Write the mixture into `out`, a few frames at a time; both ends exact."""
    length = chunk_length(mask[0].numel(), FRAMES_PER_CHUNK)
    for start in steps(range(0, len(out), length)):
        part = slice(start, start + length)
        weight = feathered(mask[part], radius)[..., None]
        mixed = original[part] + weight * (generated[part] - original[part])
        out[part] = torch.where(weight == 0, original[part], torch.where(weight == 1, generated[part], mixed))


def _asked(width: int | None, height: int | None) -> tuple[int, int] | None:
    if (width is None) != (height is None):
        raise ValueError(
            f"width is {width} and height is {height}; give both, or neither for the window's own"
        )
    if width is None:
        return None
    return tuple(_multiple(whole(name, side, 1)) for name, side in (("width", width), ("height", height)))


def _window(mask: Tensor, margin: float, size: tuple[int, int] | None) -> Crop:
    box = mask_box((mask > 0.5).any(0).cpu().numpy())
    if box is None:
        raise ValueError("mask is empty: nothing is over 0.5 in any frame; mark the region with 1")
    rows, columns = mask.shape[1:]
    left, top, right, bottom = box
    border = round(margin * max(right - left, bottom - top))
    width, height = right - left + 2 * border, bottom - top + 2 * border
    if size is None:
        width, height = (SIZE_MULTIPLE * math.ceil(side / SIZE_MULTIPLE) for side in (width, height))
    else:
        shape = size[0] / size[1]
        width, height = max(width, round(height * shape)), max(height, round(width / shape))
    width, height = min(width, columns), min(height, rows)
    x = min(max(0, (left + right - width) // 2), columns - width)
    y = min(max(0, (top + bottom - height) // 2), rows - height)
    return Crop(x, y, width, height, (columns, rows), _size(width, height, size))


def _size(width: int, height: int, size: tuple[int, int] | None) -> tuple[int, int]:
    """The size to generate at: the requested one, or as many pixels in the window's shape."""
    if size is None:
        return _multiple(width), _multiple(height)
    if abs(width * size[1] - height * size[0]) <= max(*size, width, height):
        return size
    scale = math.sqrt(size[0] * size[1] / (width * height))
    return _multiple(round(width * scale)), _multiple(round(height * scale))


def _multiple(side: int) -> int:
    return max(SIZE_MULTIPLE, side // SIZE_MULTIPLE * SIZE_MULTIPLE)


def _check_made(generated: Tensor, unit: VCU) -> None:
    if tuple(generated.shape[:3]) != tuple(unit.masks.shape):
        got, expected = generated.shape, unit.masks.shape
        raise ValueError(
            f"the generated video is {got[2]}x{got[1]} with {got[0]} frames, its unit "
            f"{expected[2]}x{expected[1]} with {expected[0]}; give the unit that the video was made from, "
            "and the video as decoded"
        )


def _check_crop(original: Tensor, unit: VCU, crop: Crop) -> None:
    size = original.shape[2], original.shape[1]
    if size != crop.source:
        raise ValueError(
            f"the original video is {size[0]}x{size[1]}, the crop was cut from "
            f"{crop.source[0]}x{crop.source[1]}; give the same clip to both"
        )
    if (unit.width, unit.height) != crop.size:
        raise ValueError(
            f"the unit is {unit.width}x{unit.height}, the crop {crop.size[0]}x{crop.size[1]}; "
            "leave width and height of the unit at 0, and set them where the crop is made"
        )
    if unit.num_frames > len(original):
        raise ValueError(
            f"the generated video has {unit.num_frames} frames, the original {len(original)}; "
            "give the full original, or a unit no longer than it"
        )
