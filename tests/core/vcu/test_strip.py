"""The strip is small, shows frames, mask and references, and its bar says what is kept, guided and free."""

import io

import numpy as np
import torch
from PIL import Image

from vdot_core.vcu import (
    compose,
    control,
    crop_region,
    extend,
    inpaint,
    layout,
    reference,
    strip,
    text,
    window_strip,
)

KEPT, GUIDED, FREE = (45, 178, 160), (96, 140, 246), (245, 158, 11)


def opened(unit):
    """Pixels [H, W, 4] of the unit's strip, and the strip."""
    drawn = strip(unit)
    assert len(drawn.webp) < 16_000  # noise; drawn pictures take 2 to 5 kB
    picture = Image.open(io.BytesIO(drawn.webp))
    assert picture.format == "WEBP" and picture.width <= 482
    return np.asarray(picture.convert("RGBA")).astype(int), drawn


def nearest(pixels, colors=(KEPT, GUIDED, FREE)):
    """Number of the color nearest to each pixel."""
    distances = [np.abs(pixels[..., :3] - np.array(color)).sum(-1) for color in colors]
    return np.argmin(distances, axis=0)


def test_the_bar_says_when_frames_are_kept_guided_and_free():
    clip = torch.rand(21, 48, 80, 3)
    unit = compose(extend(clip[:5], num_frames=21), control(clip, start=13))
    pixels, drawn = opened(unit)
    bar = nearest(pixels[-3])
    at = [bar[round(len(bar) * (frame + 0.5) / 21)] for frame in (0, 3, 7, 11, 15, 19)]
    assert at == [0, 0, 2, 2, 1, 1] and drawn.frames == (0, 4, 8, 12, 16, 20)


def test_masked_pixels_are_hatched_and_kept_ones_are_as_they_are():
    clip = torch.zeros(5, 64, 96, 3)
    clip[..., 2] = 1.0
    mask = torch.zeros(64, 96)
    mask[:, 48:] = 1
    pixels, drawn = opened(inpaint(clip, mask))
    cell = pixels[4:40, 4:80]
    assert len(drawn.frames) == 5
    assert cell[:, :36, 2].min() > 200 and cell[:, :36, 0].max() < 60
    assert cell[:, 46:, 0].min() > 120 and cell[:, 46:].std() > 10


def test_a_thin_outline_is_in_every_frame_of_a_large_video():
    unit = layout([{0: (80, 100, 240, 420), 80: (560, 100, 720, 420)}], width=832, height=480, num_frames=81)
    pixels, drawn = opened(unit)
    width = (pixels.shape[1] + 4) // len(drawn.frames)
    for number in range(len(drawn.frames)):
        cell = pixels[2:40, number * width : (number + 1) * width - 4, :3].mean(-1)
        assert (cell.min(1) < 225).sum() > 20, "the box's sides are missing"


def test_references_follow_and_extreme_shapes_have_a_strip():
    unit = reference(torch.rand(5, 20, 10, 3), width=80, height=48, num_frames=13)
    assert opened(unit)[1].num_references == 3
    for size in ((16, 1280, 5), (1280, 16, 1), (16, 16, 801)):
        assert opened(text(*size))[0].size


def test_a_crops_window_is_bright_and_framed_where_it_was_cut():
    frames = torch.full((9, 100, 200, 3), 0.8)
    mask = torch.zeros(9, 100, 200)
    mask[:, 30:50, 120:150] = 1
    crop = crop_region(frames, mask, margin=0.2)[2]
    drawn = window_strip(frames, mask, crop)
    pixels = np.asarray(Image.open(io.BytesIO(drawn.webp)).convert("RGB")).astype(int)
    assert drawn.frames == (0, 4, 8)
    scale = (pixels.shape[1] + 4) / 3 - 4
    left, right, top, bottom = (
        round(side * scale / 200)
        for side in (crop.left, crop.left + crop.width, crop.top, crop.top + crop.height)
    )
    assert pixels[top + 3 : top + 5, left + 4 : right - 4].mean() > 190
    assert pixels[:, : left - 3].mean() < 110 and pixels[bottom + 3 : 78, :right].mean() < 110
    inside = pixels[round(32 * scale / 200) : round(48 * scale / 200), left + 6 : right - 6]
    assert (inside[..., 0] > inside[..., 2] + 30).mean() > 0.3, "the mask is not hatched"
