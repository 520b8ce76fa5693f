"""Any clip is fitted by VACE's rule, against Pillow's own resampling; and everything done is reported."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vdot_core.vcu import control, cover, letterbox, outpaint, reference, snap_length, snap_size, text


def pillow_cover(frame, width, height):
    """VACE's rule by Pillow in float: scale to cover (bicubic, antialiased), crop the center."""
    old_height, old_width, _ = frame.shape
    scale = max(width / old_width, height / old_height)
    size = round(scale * old_width), round(scale * old_height)
    planes = [
        np.array(Image.fromarray(frame[..., c].numpy()).resize(size, Image.Resampling.BICUBIC))
        for c in range(3)
    ]
    scaled = np.stack(planes, -1).clip(0, 1)
    top, left = (size[1] - height) // 2, (size[0] - width) // 2
    return torch.from_numpy(scaled[top : top + height, left : left + width])


@pytest.mark.parametrize(
    "old, new",
    [
        ((85, 47), (80, 32)),
        ((200, 160), (64, 48)),
        ((33, 61), (48, 96)),
        ((50, 50), (32, 64)),
        ((64, 49), (64, 48)),
    ],
)
def test_cover_equals_pillow(old, new):
    clip = torch.rand(3, old[1], old[0], 3)
    ours = cover(clip, *new)
    assert ours.shape == (3, new[1], new[0], 3)
    for frame, source in zip(ours, clip, strict=True):
        torch.testing.assert_close(frame, pillow_cover(source, *new), atol=2e-5, rtol=0)


def test_what_fits_is_not_touched():
    clip = torch.rand(5, 32, 48, 3)
    assert cover(clip, 48, 32) is clip
    unit = control(clip)
    assert unit.frames.data_ptr() == clip.data_ptr() and unit.notes == ()


@given(width=st.integers(1, 3000), height=st.integers(1, 3000), num_frames=st.integers(1, 400))
def test_snapping(width, height, num_frames):
    new_width, new_height = snap_size(width, height)
    for old, new in ((width, new_width), (height, new_height)):
        assert new % 16 == 0 and (old - 16 < new <= old or (old < 16 and new == 16))
    length = snap_length(num_frames)
    assert length % 4 == 1 and num_frames - 4 < length <= num_frames


@settings(deadline=None, max_examples=30)
@given(
    width=st.integers(17, 70),
    height=st.integers(17, 70),
    num_frames=st.integers(1, 11),
    requested=st.one_of(st.none(), st.integers(1, 15)),
)
def test_any_clip_becomes_a_unit_and_changes_are_noted(width, height, num_frames, requested):
    unit = control(torch.rand(num_frames, height, width, 3), num_frames=requested)
    assert unit.num_frames == snap_length(requested or num_frames)
    assert (unit.width, unit.height) == snap_size(width, height)
    notes = " ".join(unit.notes)
    assert ((width, height) != (unit.width, unit.height)) == (f"{width}x{height}" in notes)
    if num_frames > unit.num_frames:
        assert f"dropped {num_frames - unit.num_frames} at the end" in notes
    if num_frames < unit.num_frames:
        free = unit.num_frames - num_frames
        assert ("last one is left free" if free == 1 else f"last {free} are left free") in notes


def test_the_note_reads_well():
    unit = control(torch.rand(80, 47, 85, 3))
    assert unit.notes == (
        "control: 80 frames -> 77 (dropped 3 at the end)",
        "control: 85x47 scaled to 80x44 and cropped to 80x32",
    )
    assert text(850, 478, 80).notes == (
        "size 850x478 -> 848x464 (multiples of 16)",
        "length 80 -> 77 frames (4n+1)",
    )


def test_a_short_control_holds_its_latent_frame_then_lets_go():
    clip = torch.rand(7, 16, 16, 3)
    unit = control(clip, num_frames=17)
    assert torch.equal(unit.frames[:7], clip)
    assert torch.equal(unit.frames[7:9], clip[6:7].expand(2, -1, -1, -1))
    assert (unit.frames[9:] == 0.5).all() and (unit.masks == 1).all()


@pytest.mark.parametrize(
    "frames, words",
    [
        (torch.rand(5, 3, 32, 32), "32 channels, expected red, green and blue last"),
        (torch.rand(0, 32, 32, 3), "empty"),
        (torch.rand(5, 32, 32, 3) * 255, "divide"),
        (torch.rand(5, 32, 32, 3).mul(2).sub(1), "(x + 1) / 2"),
        (torch.full((5, 32, 32, 3), float("nan")), "NaN"),
        (torch.ones(5, 32, 32, 3, dtype=torch.int64), "int64"),
    ],
)
def test_wrong_clips_are_refused_in_words(frames, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        control(frames)


def test_accepts_bytes_half_alpha_and_overshoot():
    frames = torch.rand(5, 16, 16, 3)
    levels = (frames * 255).round().to(torch.uint8)
    torch.testing.assert_close(control(levels).frames, levels.float() / 255)
    torch.testing.assert_close(control(levels.numpy()).frames, levels.float() / 255)
    assert control(frames.half()).frames.dtype == torch.float32
    unit = control(frames * 1.05)
    assert unit.frames.max() <= 1 and "clipped" in unit.notes[0]
    unit = control(torch.cat([frames, frames[..., :1]], -1))
    assert torch.equal(unit.frames, frames) and "alpha" in unit.notes[0]


@settings(deadline=None, max_examples=40)
@given(width=st.integers(1, 200), height=st.integers(1, 200))
def test_references_are_complete_and_on_white(width, height):
    """The full image is inside the canvas, centered, its aspect kept; all else is white."""
    canvas = letterbox(torch.zeros(height, width, 3), 64, 48)
    dark = canvas[..., 0] < 0.5
    rows, columns = dark.any(1).nonzero().flatten(), dark.any(0).nonzero().flatten()
    inner_height, inner_width = len(rows), len(columns)
    assert dark.sum() == inner_height * inner_width and (canvas[~dark] == 1).all()
    scale = min(48 / height, 64 / width)
    assert abs(inner_height - height * scale) <= 1 and abs(inner_width - width * scale) <= 1
    assert abs(rows[0] - (48 - 1 - rows[-1])) <= 1 and abs(columns[0] - (64 - 1 - columns[-1])) <= 1


def test_reference_sources():
    """Alpha shows white; a mask cuts the subject out, on white, cropped to its box."""
    image = torch.zeros(40, 40, 4)
    image[10:30, 5:35, 3] = 1
    canvas = reference(image, width=64, height=64, num_frames=1).references[0]
    assert (canvas[:15] == 1).all() and (canvas[18:46, 10:54] == 0).all()

    mask = torch.zeros(40, 40)
    mask[10:30, 5:35] = 1
    canvas = reference(torch.zeros(40, 40, 3), masks=mask, width=64, height=64, num_frames=1).references[0]
    rows = (canvas[..., 0] < 0.5).any(1).nonzero().flatten()
    assert len(rows) == int(20 * 64 / 30) and (canvas[rows] == 0).all()

    with pytest.raises(ValueError, match="mask or alpha is empty"):
        reference(torch.zeros(8, 8, 3), masks=torch.zeros(8, 8), width=64, height=64, num_frames=1)
    with pytest.raises(ValueError, match="at least one"):
        reference([], width=64, height=64, num_frames=1)
    with pytest.raises(ValueError, match="one mask per image"):
        reference([torch.zeros(8, 8, 3)] * 2, masks=torch.ones(8, 8), width=64, height=64, num_frames=1)


@settings(deadline=None, max_examples=40)
@given(
    size=st.tuples(st.integers(20, 60), st.integers(20, 60)),
    pads=st.tuples(*[st.integers(0, 20)] * 4).filter(any),
    target=st.one_of(st.none(), st.tuples(st.sampled_from([32, 48, 64]), st.sampled_from([32, 48, 64]))),
)
def test_outpaint_keeps_the_clip_and_grays_the_margin(size, pads, target):
    left, right, top, bottom = pads
    clip = torch.full((5, size[1], size[0], 3), 0.9)
    where = {} if target is None else {"width": target[0], "height": target[1]}
    unit = outpaint(clip, left=left, right=right, top=top, bottom=bottom, **where)
    center = unit.masks == 0
    assert torch.allclose(unit.frames[center], torch.tensor(0.9)) and (unit.frames[~center] == 0.5).all()
    assert set(unit.masks.unique().tolist()) <= {0.0, 1.0}
    if target is None:
        assert center.sum() == 5 * size_kept(size, pads)
        # A margin is only where one was asked for, and never smaller than asked.
        columns, rows = center[0].any(0).nonzero().flatten(), center[0].any(1).nonzero().flatten()
        got = (columns[0], unit.width - 1 - columns[-1], rows[0], unit.height - 1 - rows[-1])
        assert all(
            (want == 0 and have == 0) or (want and have >= want) for want, have in zip(pads, got, strict=True)
        )


def size_kept(size, pads):
    width = size[0] if pads[0] + pads[1] else size[0] // 16 * 16
    height = size[1] if pads[2] + pads[3] else size[1] // 16 * 16
    return width * height


def test_outpaint_needs_a_margin():
    with pytest.raises(ValueError, match="nothing to outpaint"):
        outpaint(torch.rand(5, 32, 32, 3))
    with pytest.raises(ValueError, match="left is -1"):
        outpaint(torch.rand(5, 32, 32, 3), left=-1)
