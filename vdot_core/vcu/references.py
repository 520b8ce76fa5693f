"""The builder of references: images of subjects to put into the video.

Shape letters: H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..memory import RGB, check_size
from ..progress import steps
from ..text import counted
from .canvas import as_clip, find_flat, to_unit_range
from .checks import as_list, as_tensor, flag, real
from .grow import drop_specks, mask_box
from .masks import as_mask, binarize
from .scaling import letterbox
from .tasks import canvas_of
from .transparency import find_doubts, subject_mask
from .unit import VAE_STRIDE, VCU, built, full_mask, gray_frames

MAX_MARGIN = 4.0
MANY = 8
"""References that are no mistake."""
LETTERBOXES = 3  # while one is drawn: scaled, clamped, and placed


def reference(
    images: Tensor | Sequence[Tensor],
    *,
    width: int,
    height: int,
    num_frames: int,
    masks: Sequence[Tensor | None] | Tensor | None = None,
    crop: bool | None = None,
    margin: float = 0.0,
    mask_is: str = "subject",
    names: Sequence[str] | None = None,
) -> VCU:
    """Show the model one or more subjects (faces, objects, backgrounds) to put into the video.

    Each image is fitted onto the center of a white canvas of the video's size, and takes one latent frame.
    They keep the order given.

    Args:
        images: [N, H, W, 3] or a sequence of [H, W, 3] or [H, W, 4] of any sizes; float in [0, 1]. Alpha
            shows white.
        width, height, num_frames: the video's size and length, snapped as in `text`.
        masks: one [H, W] per image (or [N, H, W]), 1 on the subject: the subject is put on white and cropped
            to its box, as VACE was trained; None = the full image.
        crop: crop to the box of the subject, of mask and alpha, without stray pixels (`drop_specks`);
            None = where there is a mask.
        margin: white left around a cropped subject, as a part of its box's longer side.
        mask_is: 'subject': masks are 1 on the subject; 'transparent': 1 where there is nothing, as ComfyUI's
            Load Image gives them.
        names: what to call each image in messages; None = 'reference 1', ..
    Raises:
        ValueError: no image, nothing to crop to, or a shape, dtype or range is wrong.
    """
    width, height, num_frames, notes = canvas_of(width, height, num_frames)
    margin = real("margin", margin, 0.0, MAX_MARGIN)
    items = _image_list(images)
    cutouts = [None] * len(items) if masks is None else _mask_list(masks, len(items))
    check_size(
        (len(items) + LETTERBOXES) * width * height * RGB,
        f"{counted(len(items), 'reference')} on a canvas of {width}x{height}",
        "give a smaller width or height, or fewer pictures",
    )
    if len(items) > MANY:
        many, room = counted(len(items), "reference"), counted(VAE_STRIDE[0] * len(items), "frame")
        notes.append(f"{many} take as much of the network as {room} of video; of a clip, give one picture")
    names = [f"reference {index + 1}" for index in range(len(items))] if names is None else names
    canvases = []
    for image, mask, name in zip(steps(items), cutouts, names, strict=True):
        if mask is not None:
            mask, more = subject_mask(mask, mask_is, name)
            notes += more
        picture, subject, more = _on_white(image, mask, name, mask_is)
        notes += more
        if mask is not None if crop is None else flag("crop", crop):
            picture, more = _cropped(picture, subject, margin, name)
            notes += more
        canvases.append(letterbox(picture, width, height))
    return built(
        gray_frames(num_frames, height, width),
        full_mask(num_frames, height, width),
        references=tuple(canvases),
        kind="generate",
        notes=notes,
    )


def _image_list(images: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """Every image on its own, batches taken apart."""
    expected = "images [H, W, 3] float in [0, 1]"
    if hasattr(images, "shape"):
        images = [images]
    flat = []
    for image in as_list(images, "images"):
        image = as_tensor(image, f"reference {len(flat) + 1}", expected)
        flat += list(image) if image.ndim == 4 else [image]
    if not flat:
        raise ValueError("no reference image was given; give at least one")
    return flat


def _mask_list(masks: Sequence[Tensor | None] | Tensor, count: int) -> list[Tensor | None]:
    if getattr(masks, "ndim", None) == 2:
        masks = [masks]
    masks = as_list(masks, "masks")
    if len(masks) != count:
        raise ValueError(
            f"{counted(len(masks), 'mask')} for {counted(count, 'reference image')}; give one mask per image"
        )
    return masks


def _on_white(
    image: Tensor, mask: Tensor | None, name: str, mask_is: str
) -> tuple[Tensor, Tensor | None, list[str]]:
    """The image [H, W, 3] on white outside its alpha and mask, and what is left of it [H, W] (None = all)."""
    subject, notes = None, []
    if image.ndim == 3 and image.shape[-1] == 4 and image.numel():
        subject, notes = to_unit_range(image[..., 3], f"{name}'s alpha")
        image = image[..., :3]
    clip, more = as_clip(image, name)
    if len(clip) != 1:
        raise ValueError(f"{name} holds {counted(len(clip), 'image')}, expected one; give them one by one")
    picture = clip[0]
    notes += more + find_flat(clip, name)
    if mask is not None:
        soft, more = as_mask(mask, 1, *picture.shape[:2], f"{name}'s mask", owner=name)
        notes += more + find_doubts(picture, soft[0], mask_is, name)
        subject = soft[0] if subject is None else soft[0] * subject
    elif subject is None:
        notes += find_doubts(picture, None, mask_is, name)
    if subject is not None:
        if not subject.any():
            notes.append(f"{name}: its mask or alpha hides all of it, so the reference is plain white")
        picture = (picture * subject[..., None] + (1 - subject[..., None])).clamp(0, 1)
    return picture, subject, notes


def _cropped(picture: Tensor, subject: Tensor | None, margin: float, name: str) -> tuple[Tensor, list[str]]:
    """The subject's box, with white around it, and a note where stray pixels were not part of the box."""
    if subject is None:
        raise ValueError(f"{name} has neither mask nor alpha to crop to; give a mask, or set cut_out to auto")
    mask = binarize(subject).bool().cpu().numpy()
    box, notes = mask_box(mask), []
    if box is None and subject.any():
        raise ValueError(
            f"{name}'s subject is nowhere more than half opaque in its mask, expected one to crop to; give a "
            "mask that is white on the subject, or set cut_out to whole"
        )
    if box is None:
        raise ValueError(
            f"{name}'s mask or alpha is empty, or marks only what is transparent; make the subject white in "
            "it, set mask_is to what the mask marks, or give no mask to use the full picture"
        )
    body, num_specks = drop_specks(mask)
    if (smaller := mask_box(body)) != box:
        box = smaller
        notes.append(f"{name}: cropped to its subject, without {counted(num_specks, 'speck')} around it")
    left, top, right, bottom = box
    part = picture[top:bottom, left:right]
    border = round(margin * max(part.shape[:2]))
    if not border:
        return part, notes
    check_size(
        (part.shape[0] + 2 * border) * (part.shape[1] + 2 * border) * RGB,
        f"{name} of {part.shape[1]}x{part.shape[0]} with a margin of {border} pixels",
        "give a smaller margin or a smaller picture",
    )
    canvas = torch.ones(part.shape[0] + 2 * border, part.shape[1] + 2 * border, 3, device=part.device)
    canvas[border:-border, border:-border] = part
    return canvas, notes
