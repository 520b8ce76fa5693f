"""Builders for what guides a new video: text, controls, depth and references. Each returns a VCU.

Shape letters: F pixel frames, H W pixels. Wherever an input does not fit it is snapped, and the VCU's notes
say how.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..signals.depth import normalize_depth, single_channel
from .canvas import (
    as_clip,
    fit_frames,
    lengthen,
    letterbox,
    snap_length,
    snap_size,
    target_length,
    target_size,
)
from .masks import as_mask, binarise, fit_mask, mask_box
from .unit import GREY, SIZE_MULTIPLE, VAE_STRIDE, VCU, built, full_mask, grey_frames

NORMALISATIONS = ("frame", "clip", "stable", "none")


def text(width: int, height: int, num_frames: int) -> VCU:
    """Nothing but the prompt: every frame grey, everything to be generated.

    Args:
        width, height: size in pixels, snapped down to multiples of 16.
        num_frames: length, snapped down to 4n+1.
    """
    width, height, num_frames, notes = _canvas(width, height, num_frames)
    return built(
        grey_frames(num_frames, height, width),
        full_mask(num_frames, height, width),
        kind="generate",
        notes=notes,
    )


def control(
    frames: Tensor,
    *,
    width: int | None = None,
    height: int | None = None,
    num_frames: int | None = None,
    region: Tensor | None = None,
    strength: float = 1.0,
) -> VCU:
    """Let a control clip guide the video: depth, pose, optical flow, grey, scribble, or boxes already drawn.

    Args:
        frames: [F, H, W, 3] float in [0, 1], drawn as VACE's annotators draw it.
        width, height: canvas; None = the clip's own size. Snapped to multiples of 16, the clip covers it.
        num_frames: length; None = the clip's own. A clip that is shorter guides the start: its last frame is
            held to the end of its latent frame, the rest is left free.
        region: [F, H, W], [1, H, W] or [H, W], 1 where this control speaks; grey elsewhere. None =
            everywhere.
        strength: scale of its context when encoded as one of several.
    Raises:
        ValueError: a shape, dtype or range is wrong.
    """
    clip, notes = as_clip(frames, "control")
    source = clip.shape[2], clip.shape[1]
    if region is not None:
        region, more = as_mask(region, clip.shape[0], source[1], source[0], "region")
        notes += more
    width, height, more = target_size(source, width, height)
    length = target_length(clip.shape[0], num_frames, "control")
    notes += [*more, *length.notes]
    clip, more = fit_frames(clip[: length.used], width, height, "control")
    held = -(-(length.used - 1) // VAE_STRIDE[0]) * VAE_STRIDE[0] + 1
    clip = lengthen(clip, length.total, "hold", upto=held)
    if region is not None:
        region = fit_mask(region[: length.used], width, height)
        region = torch.cat([region, region[-1:].expand(length.total - length.used, height, width)])
        clip = torch.where(region[..., None] > 0, clip, GREY)
    return built(
        clip,
        full_mask(length.total, height, width, clip.device),
        kind="control",
        region=region,
        strength=strength,
        notes=notes + more,
    )


def depth(
    depth: Tensor,
    *,
    normalisation: str = "frame",
    invert: bool = False,
    width: int | None = None,
    height: int | None = None,
    num_frames: int | None = None,
    region: Tensor | None = None,
    strength: float = 1.0,
) -> VCU:
    """Let depth guide the video, from any estimator's output.

    Args:
        depth: [F, H, W], [F, H, W, 1] or grey [F, H, W, 3]; any finite numbers, larger = nearer.
        normalisation: 'frame' stretches each frame to 0..1 (what VACE was trained on), 'clip' the whole clip
            at once, 'stable' also undoes the flicker of estimators that look at one frame at a time (see
            `signals.normalize_depth`), 'none' takes values in [0, 1] as they are.
        invert: the input is distance (larger = farther); turn it over, so that near is bright.
        width, height, num_frames, region, strength: as in `control`.
    Raises:
        ValueError: the values are not finite, a colour map was applied, or 'none' is given values outside [0,
            1].
    """
    if normalisation not in NORMALISATIONS:
        raise ValueError(f"normalisation is {normalisation!r}, expected one of {', '.join(NORMALISATIONS)}")
    values = torch.as_tensor(depth)
    values = values.float() / 255 if values.dtype == torch.uint8 else values
    values = values[None] if values.ndim == 2 else values
    if normalisation == "none":
        values = single_channel(values).float()
        if values.amin() < 0 or values.amax() > 1:
            raise ValueError(
                f"depth ranges from {values.amin():.4g} to {values.amax():.4g}; "
                "normalisation 'none' needs [0, 1], use 'frame', 'clip' or 'stable'"
            )
        values = 1 - values if invert else values
        frames = values[..., None].expand(*values.shape, 3)
    else:
        direction = "depth" if invert else "disparity"
        frames = normalize_depth(values, mode=normalisation, values=direction, percentiles=(0, 100))
    return control(
        frames, width=width, height=height, num_frames=num_frames, region=region, strength=strength
    )


def reference(
    images: Tensor | Sequence[Tensor],
    *,
    width: int,
    height: int,
    num_frames: int,
    masks: Sequence[Tensor] | Tensor | None = None,
) -> VCU:
    """Show the model one or more subjects (faces, objects, backgrounds) to put into the video.

    Each image is kept whole, centred on a white canvas of the video's size, and takes one latent frame of its
    own.

    Args:
        images: [N, H, W, 3] or a sequence of [H, W, 3] or [H, W, 4] of any sizes; float in [0, 1]. Alpha
            shows white.
        width, height, num_frames: the video's size and length, snapped as in `text`.
        masks: one [H, W] per image (or [N, H, W]), 1 on the subject: the subject is put on white and cropped
            to its box, as VACE was trained; None = the whole image.
    Raises:
        ValueError: no image, or a shape, dtype or range is wrong.
    """
    width, height, num_frames, notes = _canvas(width, height, num_frames)
    items = _image_list(images, "reference")
    if masks is not None:
        masks = list(masks) if not isinstance(masks, Tensor) or masks.ndim == 3 else [masks]
        if len(masks) != len(items):
            raise ValueError(f"{len(masks)} masks for {len(items)} reference images; give one mask per image")
    canvases = []
    for index, image in enumerate(items):
        name = f"reference {index + 1}"
        clip, more = as_clip(_on_white(image), name)
        notes += more
        picture = clip[0] if masks is None else _subject(clip, masks[index], name)
        canvases.append(letterbox(picture, width, height))
    return built(
        grey_frames(num_frames, height, width),
        full_mask(num_frames, height, width),
        references=tuple(canvases),
        kind="generate",
        notes=notes,
    )


def _canvas(width: int, height: int, num_frames: int) -> tuple[int, int, int, list[str]]:
    snapped, length = snap_size(width, height), snap_length(num_frames)
    notes = []
    if snapped != (width, height):
        notes.append(f"size {width}x{height} -> {snapped[0]}x{snapped[1]} (multiples of {SIZE_MULTIPLE})")
    if length != num_frames:
        notes.append(f"length {num_frames} -> {length} frames (4n+1)")
    return *snapped, length, notes


def _image_list(images: Tensor | Sequence[Tensor], name: str) -> list[Tensor]:
    if hasattr(images, "shape"):
        images = torch.as_tensor(images)
        images = [images] if images.ndim == 3 else list(images)
    flat = []
    for image in images:
        image = torch.as_tensor(image)
        flat += [image] if image.ndim == 3 else list(image)
    if not flat:
        raise ValueError(f"no {name} image was given; give at least one")
    return flat


def _on_white(image: Tensor) -> Tensor:
    """Composite an image with alpha over white, as VACE loads its files."""
    if image.ndim != 3 or image.shape[-1] != 4:
        return image
    if image.dtype == torch.uint8:
        image = image.float() / 255
    color, alpha = image[..., :3], image[..., 3:]
    return color * alpha + (1 - alpha)


def _subject(clip: Tensor, mask: Tensor, name: str) -> Tensor:
    """Put the subject of one image [1, H, W, 3] on white and crop it to its box."""
    soft, _ = as_mask(mask, 1, clip.shape[1], clip.shape[2], f"{name}'s mask")
    box = mask_box(binarise(soft)[0].bool().cpu().numpy())
    if box is None:
        raise ValueError(
            f"{name}'s mask is empty; mark the subject with 1, or give no mask to use the whole image"
        )
    left, top, right, bottom = box
    on_white = clip[0] * soft[0, ..., None] + (1 - soft[0, ..., None])
    return on_white[top:bottom, left:right]
