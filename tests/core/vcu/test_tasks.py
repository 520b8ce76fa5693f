"""Frames, masks and references of each builder (VACE's conventions)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdot_core.vcu import control, depth, extend, keyframes, layout, move, reference, text


def test_text_is_gray_and_free():
    unit = text(64, 48, 9)
    assert unit.kind == "generate" and (unit.frames == 0.5).all() and (unit.masks == 1).all()
    with pytest.raises(ValueError, match="length is 0"):
        text(64, 48, 0)
    with pytest.raises(ValueError, match="size is 0x48"):
        text(0, 48, 9)


def test_control_speaks_in_its_region_only():
    frames = torch.rand(5, 32, 48, 3)
    region = torch.zeros(32, 48)
    region[:, :20] = 1
    unit = control(frames, region=region)
    assert torch.equal(unit.frames[:, :, :20], frames[:, :, :20]) and (unit.frames[:, :, 20:] == 0.5).all()
    assert (unit.masks == 1).all() and torch.equal(unit.region, region.expand(5, -1, -1))
    longer = control(frames[:2], region=region, num_frames=9)
    assert torch.equal(
        longer.frames[2:5], frames[1:2].expand(3, -1, -1, -1).where(region[..., None] > 0, 0.5)
    )
    assert (longer.frames[5:] == 0.5).all() and longer.region.shape == (9, 32, 48)


def test_depth_stretches_each_frame_or_the_clip():
    raw = torch.rand(5, 32, 48) * torch.tensor([1.0, 2, 3, 4, 5])[:, None, None] + 7
    per_frame = depth(raw).frames
    assert torch.allclose(per_frame.amin((1, 2, 3)), torch.zeros(5))
    assert torch.allclose(per_frame.amax((1, 2, 3)), torch.ones(5))
    low, high = raw.amin((1, 2), keepdim=True), raw.amax((1, 2), keepdim=True)
    torch.testing.assert_close(per_frame, ((raw - low) / (high - low))[..., None].expand(-1, -1, -1, 3))
    clip = depth(raw, normalization="clip").frames
    torch.testing.assert_close(clip[..., 0], (raw - raw.min()) / (raw.max() - raw.min()))
    torch.testing.assert_close(depth(raw, invert=True).frames, 1 - per_frame)
    gray = (raw - raw.min()) / (raw.max() - raw.min())
    torch.testing.assert_close(
        depth(gray[..., None].expand(-1, -1, -1, 3), normalization="none").frames, clip
    )


def test_stable_depth_undoes_the_jumps_of_single_frames():
    still = torch.rand(1, 32, 48).expand(9, -1, -1)
    jumping = still * (1 + torch.rand(9, 1, 1)) + torch.rand(9, 1, 1)
    frames = depth(jumping, normalization="stable").frames
    assert frames.diff(dim=0).abs().max() < 1e-3
    assert depth(jumping, normalization="clip").frames.diff(dim=0).abs().max() > 0.1


def test_depth_of_a_wall_is_finite():
    assert (depth(torch.full((5, 16, 16), 3.0)).frames == 0).all()
    assert (depth(torch.full((5, 16, 16), 3.0), invert=True).frames == 0).all()


@pytest.mark.parametrize(
    "values, options, words",
    [
        (torch.rand(5, 16, 16, 3), {}, "in colors"),
        (torch.full((5, 16, 16), float("inf")), {}, "infinite"),
        (torch.rand(5, 16, 16) * 9 + 1, {"normalization": "none"}, "'stable'"),
        (
            torch.rand(5, 16, 16),
            {"normalization": "min-max"},
            "'min-max', expected one of frame, clip, stable",
        ),
        (torch.rand(5, 16, 16, 2), {}, "without alpha"),
    ],
)
def test_depth_that_makes_no_sense_is_refused(values, options, words):
    with pytest.raises(ValueError, match=words):
        depth(values, **options)


@settings(deadline=None, max_examples=40)
@given(before=st.integers(0, 6), after=st.integers(0, 6), num_frames=st.integers(13, 20))
def test_extension_keeps_what_is_given(before, after, num_frames):
    first, last = torch.rand(before, 16, 32, 3), torch.rand(after, 16, 32, 3)
    given_clips = {"first": first if before else None, "last": last if after else None}
    if not before + after:
        with pytest.raises(ValueError, match="nothing to extend"):
            extend(**given_clips, num_frames=num_frames)
        return
    unit = extend(**given_clips, num_frames=num_frames)
    total = unit.num_frames
    assert total % 4 == 1 and total <= num_frames
    assert torch.equal(unit.frames[:before], first) and torch.equal(unit.frames[total - after :], last)
    assert (unit.frames[before : total - after] == 0.5).all()
    expected = torch.ones(total)
    expected[:before] = 0
    expected[total - after :] = 0
    assert torch.equal(unit.masks, expected[:, None, None].expand(-1, 16, 32))


def test_extension_limits():
    clip = torch.rand(5, 16, 32, 3)
    with pytest.raises(ValueError, match="10 frames given for a video of 9; nothing is left"):
        extend(clip, clip, num_frames=9)
    unit = extend(clip[0], torch.rand(3, 40, 70, 3), num_frames=9)
    assert unit.masks[:, 0, 0].tolist() == [0, 1, 1, 1, 1, 1, 0, 0, 0]
    assert unit.notes == ("last: 70x40 scaled to 32x18 and cropped to 32x16",)


def test_keyframes_are_where_they_were_put():
    images = [torch.rand(16, 32, 3), torch.rand(16, 32, 3), torch.rand(50, 90, 3)]
    unit = keyframes(images, [4, -1, 0], num_frames=9)
    assert unit.masks[:, 3, 3].tolist() == [0, 1, 1, 1, 0, 1, 1, 1, 0]
    assert torch.equal(unit.frames[4], images[0]) and torch.equal(unit.frames[8], images[1])
    assert "keyframe 3: 90x50" in unit.notes[0]
    assert unit == keyframes([images[i] for i in (1, 0, 2)], torch.tensor([8, 4, 0]), num_frames=9)


@pytest.mark.parametrize(
    "indices, words",
    [
        ([0, 0], "keyframe 1 and keyframe 2 are both at frame 0"),
        ([8, -1], "keyframe 1 and keyframe 2 are both at frame 8"),
        ([0, 9], "keyframe 2 is at position 9, the video has frames 0..8"),
        ([0], "2 keyframes for 1 position"),
    ],
)
def test_keyframes_that_clash_are_refused(indices, words):
    with pytest.raises(ValueError, match=words):
        keyframes(torch.rand(2, 16, 32, 3), indices, num_frames=9)


def test_layout_draws_boxes_on_white():
    unit = layout([[8, 4, 24, 14], [24, 4, 40, 14]], width=48, height=16, num_frames=5)
    assert unit.kind == "control" and (unit.masks == 1).all()
    for index, frame in enumerate(unit.frames):
        expected = torch.ones(16, 48, 3)
        left = 8 + 4 * index
        # A pen of 2 paints one pixel outside, one on and one inside of the box; its corners are round.
        expected[3:16, left - 1 : left + 18] = 0
        expected[6:13, left + 2 : left + 15] = 1
        for y in (3, 15):
            expected[y, [left - 1, left + 17]] = 1
        assert torch.equal(frame, expected)
    red = layout(torch.tensor([[8, 4, 24, 14]]), width=48, height=16, num_frames=5, colors=[(1, 0, 0)])
    assert red.frames[:, 4, 8].tolist() == [[1, 0, 0]] * 5
    two = layout(
        [torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[8.0, 8, 99, 99]])], width=48, height=16, num_frames=1
    )
    assert (two.frames[0, 0, 0] == 0).all() and (two.frames[0, 8, 20] == 0).all()
    for boxes, words in (
        ([[8, 4, 8, 14]], "no area"),
        ([[60, 4, 70, 14]], "outside the canvas"),
        ([[8, 4]], "expected \\[K, 4\\]"),
    ):
        with pytest.raises(ValueError, match=words):
            layout(boxes, width=48, height=16, num_frames=5)


def test_move_starts_from_the_image():
    image = torch.rand(16, 48, 3)
    boxes = [[8, 4, 24, 14], [24, 4, 40, 14]]
    unit = move(image, boxes, num_frames=5)
    assert torch.equal(unit.frames[0], image)
    guide = layout({1: boxes[0], 4: boxes[1]}, width=48, height=16, num_frames=5)
    assert torch.equal(unit.frames[1:], guide.frames[1:])
    assert unit.masks[:, 0, 0].tolist() == [0, 1, 1, 1, 1]


def test_reference_unit_is_free_elsewhere():
    unit = reference(torch.rand(2, 30, 40, 3), width=50, height=40, num_frames=8)
    assert [tuple(image.shape) for image in unit.references] == [(32, 48, 3)] * 2
    assert (unit.frames == 0.5).all() and (unit.masks == 1).all() and unit.num_frames == 5
    assert len(unit.notes) == 2
