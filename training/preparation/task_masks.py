"""Masks and layouts of tasks, drawn for each clip by its name: the same in every run.

Masks are 1 (white) = generate, as docs/TASKS.md says. Letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vdot_core import vcu

from .clip_files import load, write_frames, write_mask
from .config import PrepareConfig
from .stage import Row, draw, out_path

LAYOUT_CRF = 10
OVERLAP = 0.05  # of a moved mask that may lie on the subject
KEPT_PART = (0.15, 0.45)  # of a clip's frames that a continuation keeps


def subject_masks(row: Row, file: str, config: PrepareConfig) -> Tensor:
    """A written mask: [F, H, W] of 0 and 1."""
    frames = load(out_path(config, file), config.clips.frame_rate, row["trim"]["num_frames"])
    return (frames.mean(-1) > 0.5).float()


def write_inpainting(row: Row, subject: str | None, task: str, config: PrepareConfig) -> str:
    """The subject in one of the shapes of mask augmentation, or without subject a box that moves."""
    settings = config.tasks

    def number(what: str) -> float:
        return draw(settings.seed, row["id"], task, what)

    if subject is None:
        mask = moving_box(row, [number(str(index)) for index in range(6)])
    else:
        shapes = settings.mask_shapes
        shape = shapes[int(number("shape") * len(shapes))]
        mask = vcu.augment(
            subject_masks(row, subject, config), shape=shape, expand=settings.mask_expand * number("expand")
        )
    return _write(row, task, mask, config)


def moving_box(row: Row, numbers: list[float]) -> Tensor:
    """[F, H, W]: a box of 20 to 50 % of each side that moves in a straight line.

    Args:
        row: A clip's row after `trim`.
        numbers: Six in [0, 1): its size, and its place at the start and at the end.
    """
    clip = row["trim"]
    count, height, width = clip["num_frames"], clip["height"], clip["width"]
    wide, tall = (round((0.2 + 0.3 * n) * side) for n, side in zip(numbers[:2], (width, height), strict=True))
    mask = torch.zeros(count, height, width)
    for index in range(count):
        part = index / max(1, count - 1)
        x, y = (numbers[2 + axis] * (1 - part) + numbers[4 + axis] * part for axis in (0, 1))
        left, top = round(x * (width - wide)), round(y * (height - tall))
        mask[index, top : top + tall, left : left + wide] = 1
    return mask


def write_removal(row: Row, subject: str, config: PrepareConfig) -> str | None:
    """The subject's shape over the background beside it: the real clip has nothing there to remove.

    Returns:
        The file; None where there is no such place.
    """
    masks = subject_masks(row, subject, config)
    width, height = masks.shape[2], masks.shape[1]
    steps = [(part * sign * width, 0) for part in (0.3, 0.4, 0.5, 0.6) for sign in (1, -1)]
    steps += [(0, part * sign * height) for part in (0.3, 0.5) for sign in (1, -1)]
    for dx, dy in steps:
        moved = shifted(masks, round(dx), round(dy))
        if moved.sum() >= 0.7 * masks.sum() and (moved * masks).sum() <= OVERLAP * moved.sum():
            return _write(row, "removal", moved, config)
    return None


def shifted(masks: Tensor, dx: int, dy: int) -> Tensor:
    """Masks [F, H, W] moved by pixels; what leaves the frame is gone."""
    out = torch.zeros_like(masks)
    height, width = masks.shape[1:]
    rows, columns = slice(max(0, dy), min(height, height + dy)), slice(max(0, dx), min(width, width + dx))
    from_rows, from_columns = (
        slice(max(0, -dy), min(height, height - dy)),
        slice(max(0, -dx), min(width, width - dx)),
    )
    out[:, rows, columns] = masks[:, from_rows, from_columns]
    return out


def write_kept(row: Row, kind: str, config: PrepareConfig) -> str:
    """A mask that keeps a part of the clip.

    Args:
        row: A clip's row after `trim`.
        kind: outpainting (an inner rectangle of all frames), firstclip, lastclip, firstlastclip (frames of
            the ends), keyframes (three frames), or expand (an inner rectangle of the first frame).
        config: All settings.
    """
    clip = row["trim"]
    count, height, width = clip["num_frames"], clip["height"], clip["width"]

    def number(what: str) -> float:
        return draw(config.tasks.seed, row["id"], kind, what)

    mask = torch.ones(count, height, width)
    if kind in ("outpainting", "expand"):
        sides = [round((0.1 + 0.25 * number(side)) * (width if side in ("left", "right") else height))
                 for side in ("left", "top", "right", "bottom")]  # fmt: skip
        # One or two sides of four stay at the border.
        for side in range(4):
            if number(f"keep{side}") < 0.35:
                sides[side] = 0
        if not any(sides):
            sides = [round(0.2 * width), 0, round(0.2 * width), 0]
        left, top, right, bottom = sides
        frames = slice(0, count) if kind == "outpainting" else slice(0, 1)
        mask[frames, top : height - bottom, left : width - right] = 0
    elif kind == "keyframes":
        mask[[0, round((0.3 + 0.4 * number("middle")) * (count - 1)), count - 1]] = 0
    else:
        low, high = KEPT_PART
        # Whole latent frames.
        length = vcu.snap_length(max(1, round((low + (high - low) * number("length")) * count)))
        if kind in ("firstclip", "firstlastclip"):
            mask[:length] = 0
        if kind in ("lastclip", "firstlastclip"):
            mask[-length:] = 0
    return _write(row, kind, mask, config)


def write_layout(row: Row, subject: str, config: PrepareConfig) -> str:
    """The subject's box, drawn on white in each frame."""
    masks = subject_masks(row, subject, config)
    boxes = []
    for mask in masks:
        rows, columns = mask.nonzero(as_tuple=True)
        boxes.append([int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1])
    count, height, width = masks.shape
    unit = vcu.layout([boxes], width=width, height=height, num_frames=count)
    file = f"layouts/{row['id']}.mp4"
    write_frames(out_path(config, file), unit.frames, config.clips.frame_rate, LAYOUT_CRF)
    return file


def _write(row: Row, task: str, mask: Tensor, config: PrepareConfig) -> str:
    file = f"masks/{row['id']}.{task}.mp4"
    write_mask(out_path(config, file), mask, config.clips.frame_rate)
    return file
