"""The builders' further options: margins, clips at moments, spans, masks, layouts, cut-outs, strength."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdot_core.vcu import (
    augment,
    compose,
    control,
    cover,
    depth,
    extend,
    inpaint,
    keyframes,
    layout,
    layout_masks,
    move,
    outpaint,
    path_boxes,
    reference,
)


def kept_box(unit, frame=0):
    rows, columns = (unit.masks[frame] == 0).nonzero().unbind(1)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


# Outpainting
def test_a_float_margin_is_a_part_of_the_side():
    clip = torch.rand(5, 32, 64, 3)
    assert outpaint(clip, left=0.25, top=0.5) == outpaint(clip, left=16, top=16)
    with pytest.raises(ValueError, match=r"1600 percent of the clip's side, expected 0 to 800; .*of pixels"):
        outpaint(clip, left=16.0)


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(17, 90), st.integers(17, 90)),
    aspect=st.sampled_from([1.0, 16 / 9, "9:16", "4:3", 2.39]),
    anchor=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_aspect_is_reached_and_the_clip_kept(size, aspect, anchor):
    clip = torch.rand(1, size[1], size[0], 3) * 0.4
    ratio = (lambda a, b: a / b)(*map(float, aspect.split(":"))) if isinstance(aspect, str) else aspect
    if abs(ratio * size[1] - size[0]) < 1 or abs(size[0] / ratio - size[1]) < 1:
        return
    unit = outpaint(clip, aspect=aspect, anchor=anchor)
    left, top, right, bottom = kept_box(unit)
    assert abs(unit.width - ratio * unit.height) <= 16 * (1 + ratio) + 1
    assert (left, right) == (0, unit.width) or (top, bottom) == (0, unit.height)
    assert torch.equal(unit.frames[:, top:bottom, left:right], cover(clip, right - left, bottom - top))


def test_size_alone_fits_the_clip_inside():
    clip = torch.rand(5, 32, 32, 3)
    unit = outpaint(clip, width=96, height=32)
    assert kept_box(unit) == (32, 0, 64, 32) and torch.equal(unit.frames[:, :, 32:64], clip)
    assert kept_box(outpaint(clip, width=96, height=32, anchor=(0, 0))) == (0, 0, 32, 32)
    assert kept_box(outpaint(clip, width=96, height=32, anchor=(1, 1))) == (64, 0, 96, 32)
    assert kept_box(outpaint(clip, width=64, height=128)) == (0, 32, 64, 96)
    with pytest.raises(ValueError, match="nothing to outpaint"):
        outpaint(clip, width=64, height=64)


def test_one_side_of_a_size_leaves_the_other_as_the_clips_own():
    clip = torch.rand(5, 40, 32, 3)
    for width, height, same in ((96, None, (96, 40)), (None, 96, (32, 96)), (16, None, (16, 40))):
        unit = outpaint(clip, width=width, height=height)
        assert unit == outpaint(clip, width=same[0], height=same[1])
        assert (unit.width, unit.height) == tuple(side // 16 * 16 for side in same)
    assert kept_box(outpaint(clip, width=96)) == (35, 0, 61, 32), "40 rows fill the 32 there are"
    with pytest.raises(ValueError, match=r"asked for is the clip's; give .* width and height"):
        outpaint(clip[:, :32], width=32)
    assert outpaint(clip, width=96, left=16) == outpaint(clip, width=96, height=80, left=16), (
        "with its margins"
    )


def test_aspect_and_sides_exclude_each_other():
    clip = torch.rand(5, 32, 32, 3)
    with pytest.raises(ValueError, match="aspect and left are given"):
        outpaint(clip, left=8, aspect=2.0)


@settings(deadline=None, max_examples=40)
@given(sides=st.tuples(*[st.sampled_from([0, 16, 32])] * 4).filter(any), feather=st.integers(0, 15))
def test_feather_reaches_in_where_there_is_a_margin(sides, feather):
    left, right, top, bottom = sides
    clip = torch.rand(5, 32, 48, 3) * 0.4
    margins = {"left": left, "right": right, "top": top, "bottom": bottom}
    unit = outpaint(clip, **margins, feather_px=feather)
    x0, y0 = left + feather * (left > 0), top + feather * (top > 0)
    x1, y1 = left + 48 - feather * (right > 0), top + 32 - feather * (bottom > 0)
    assert kept_box(unit) == (x0, y0, x1, y1)
    center = unit.masks == 0
    assert torch.equal(unit.frames[:, y0:y1, x0:x1], clip[:, y0 - top : y1 - top, x0 - left : x1 - left])
    assert (unit.frames[~center] == 0.5).all() and center.sum() == 5 * (x1 - x0) * (y1 - y0)
    with pytest.raises(ValueError, match="nothing would be kept"):
        outpaint(clip, left=16, right=16, feather_px=24)


# Keyframes
def test_keyframes_may_be_clips():
    image, clip, end = torch.rand(16, 32, 3), torch.rand(4, 16, 32, 3), torch.rand(3, 16, 32, 3)
    unit = keyframes([image, clip, end], [0, 4, -1], num_frames=17)
    assert (unit.masks[:, 0, 0] == 0).nonzero().flatten().tolist() == [0, 4, 5, 6, 7, 14, 15, 16]
    assert torch.equal(unit.frames[4:8], clip) and torch.equal(unit.frames[14:], end)
    assert (unit.frames[8:14] == 0.5).all()
    for indices, words in (
        ([4, 2, -1], "keyframe 1 and keyframe 2 are both at frame 4; move"),
        ([0, 11, -1], "keyframe 2 and keyframe 3 are both at frame 14"),
        ([0, 14, 1], "keyframe 2 .4 frames at position 14. covers frames 14..17, the video has 0..16"),
        ([0, 4, -16], "keyframe 3 .3 frames at position -16. covers frames -1..1"),
        ([0, 4, 0.5], "index 3 is 0.5, expected a whole number"),
    ):
        with pytest.raises(ValueError, match=words):
            keyframes([image, clip, end], indices, num_frames=17)


def test_keyframes_and_extension_agree():
    first, last = torch.rand(5, 16, 32, 3), torch.rand(3, 16, 32, 3)
    assert extend(first, last, num_frames=17) == keyframes([first, last], [0, -1], num_frames=17)


# Spans of controls
@settings(deadline=None, max_examples=60)
@given(latents=st.integers(1, 8), cut=st.one_of(st.floats(0.001, 0.999), st.integers(1, 28)))
def test_spans_that_meet_share_the_video(latents, cut):
    """Whole latent frames, each guided by exactly one of two controls that meet."""
    total = 4 * latents + 1
    if isinstance(cut, int) and cut >= total:
        return
    a, b = torch.full((total, 16, 16, 3), 0.1), torch.full((total, 16, 16, 3), 0.9)
    first, second = control(a, end=cut), control(b, start=cut)
    guided = [unit.frames[:, 0, 0, 0] != 0.5 for unit in (first, second)]
    for unit, speaks in zip((first, second), guided, strict=True):
        region = unit.masks if unit.region is None else unit.region
        assert (unit.masks == 1).all() and torch.equal(region[:, 0, 0] > 0, speaks)
        by_latent = [speaks[:1]] + [speaks[i : i + 4] for i in range(1, total, 4)]
        assert all(part.all() or not part.any() for part in by_latent)
    if (guided[0] ^ guided[1]).all():
        joined = compose(first, second)
        assert torch.equal(joined.frames[:, 0, 0, 0], torch.where(guided[0], 0.1, 0.9))
    else:  # the cut is nearest to an end of the video, and each must guide something
        position = cut * total if isinstance(cut, float) else cut
        assert position < 1 or position > total - 2.5


def test_spans_in_words():
    clip = torch.rand(17, 16, 16, 3)
    unit = control(clip, start=0.3, end=0.7)
    assert (unit.frames[:, 0, 0, 0] != 0.5).nonzero().flatten().tolist() == list(range(5, 13))
    assert unit.notes == ("control: guides frames 5..12 (rounded to latent frames)",)
    assert control(clip, start=0, end=17) == control(clip, start=0.0, end=1.0) == control(clip)
    late = control(clip, end=80)
    assert late == control(clip)
    assert late.notes == ("control: end_frame 80 is past the video's 17 frames: it guides to its end",)
    assert depth(clip[..., 0], end=9).region[:, 0, 0].tolist() == [1.0] * 9 + [0.0] * 8
    half = torch.zeros(16, 16)
    half[:8] = 1
    unit = control(clip, region=half, end=9)
    assert torch.equal(unit.region[:9], half.expand(9, -1, -1)) and unit.region[9:].sum() == 0
    for options, words in (
        ({"start": 0.7, "end": 0.3}, "start_frame is frame 11.9, and the control ends at frame 5.1 of 17"),
        ({"start": 1.5}, "start_frame as a share of the video is 1.5"),
        ({"start": 17}, "start_frame is frame 17, and the control ends at frame 17 of 17"),
    ):
        with pytest.raises(ValueError, match=words):
            control(clip, **options)


# Masks
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), radius=st.integers(0, 9))
def test_growing_is_by_a_disc(seed, radius):
    """As distances by SciPy say; shrinking is growing of what is not masked; a border is no edge."""
    ndimage = pytest.importorskip("scipy.ndimage")
    mask = torch.rand(2, 30, 40, generator=torch.Generator().manual_seed(seed)) > 0.97
    mask[1] = torch.nn.functional.max_pool2d(mask[1][None].float(), 9, 1, 4)[0] > 0
    distance = np.stack([ndimage.distance_transform_edt(~m) if m.any() else m + 99 for m in mask.numpy()])
    assert np.array_equal(augment(mask.float(), grow_px=radius).numpy() > 0, distance <= radius)
    inside = np.stack([ndimage.distance_transform_edt(m) if not m.all() else m * 99 for m in mask.numpy()])
    assert np.array_equal(augment(mask.float(), grow_px=-radius).numpy() > 0, inside > radius)


def test_blur_rounds_and_still_holds():
    mask = torch.zeros(3, 40, 60)
    mask[0, 10:30, 10:40] = mask[2, 20:35, 30:50] = 1
    ndimage = pytest.importorskip("scipy.ndimage")
    smooth = np.stack([ndimage.gaussian_filter(m, 3.0, truncate=3.0, mode="nearest") for m in mask.numpy()])
    assert ((augment(mask, blur_px=3.0).numpy() > 0) != (smooth > 0.5)).sum() <= 2
    union = augment(mask, "box", still=True)
    expected = torch.zeros(40, 60)
    expected[10:35, 10:50] = 1
    assert torch.equal(union, expected.expand(3, -1, -1))
    for options in ({"grow_px": 3}, {"shape": "hull", "expand": 0.3}, {"blur_px": 2.0}):
        one = mask[:1]
        assert torch.equal(
            augment(one.expand(4, -1, -1), **options), augment(one, **options).expand(4, -1, -1)
        )
    clip = torch.rand(3, 40, 60, 3)
    unit = inpaint(clip, mask, width=60, height=40, num_frames=1, grow_px=2)
    assert unit == inpaint(clip, augment(mask, grow_px=2), width=60, height=40, num_frames=1)
    for options, words in (
        ({"grow_px": 0.5}, "grow_px is 0.5, expected a whole number"),
        ({"blur_px": -1}, "blur_px is -1"),
        ({"blur_px": float("nan")}, "blur_px is nan"),
    ):
        with pytest.raises(ValueError, match=words):
            inpaint(clip, mask, **options)


# Layouts
def test_keyed_boxes_stand_still_outside_their_keys():
    keyed = {4: [0, 0, 8, 8], -5: [16, 8, 24, 16]}
    unit = layout(keyed, width=48, height=16, num_frames=17)
    every = [[min(max(f - 4, 0), 8) * 2, min(max(f - 4, 0), 8), 0, 0] for f in range(17)]
    boxes = torch.tensor([[x, y, x + 8, y + 8] for x, y, _, _ in every])
    assert unit == layout(boxes, width=48, height=16, num_frames=17)
    both = layout([keyed, [24, 0, 48, 16]], width=48, height=16, num_frames=17, colors=[(1, 0, 0), (0, 0, 1)])
    assert both.frames[0, 0, 0].tolist() == [1, 0, 0] and both.frames[9, 0, 47].tolist() == [0, 0, 1]
    leaving = layout({0: [0, 0, 8, 8], -1: [60, 0, 68, 8]}, width=48, height=16, num_frames=17)
    assert (leaving.frames[-1] == 1).all()
    for boxes, words in (
        ({16: [0, 0, 8, 8], -1: [0, 0, 9, 9]}, "box 1 is given twice at frame 16 .16 and -1."),
        ({17: [0, 0, 8, 8]}, "a frame number of box 1 is 17"),
        ({}, "box 1 has no frame"),
        ([[0, 0, float("nan"), 8]], "NaN"),
        ([["a", 0, 1, 8]], "box 1 is"),
    ):
        with pytest.raises(ValueError, match=words):
            layout(boxes, width=48, height=16, num_frames=17)


def test_a_path_carries_a_box():
    points = [(10, 10), (20, 10), (20, 50)]
    boxes = path_boxes(points, size=(8, 4), num_frames=5)
    assert boxes[:, :2].tolist() == [[6, 8], [11, 8], [16, 8], [16, 28], [16, 48]]
    assert ((boxes[:, 2:] - boxes[:, :2]) == torch.tensor([8, 4])).all()
    even = path_boxes(points, size=(8, 4), num_frames=51, constant_speed=True)
    steps = even.diff(dim=0).norm(dim=1) / 2**0.5
    assert torch.allclose(steps, torch.ones(50), atol=1e-3)
    keyed = path_boxes({0: (10, 10), 2: (20, 10), -1: (20, 50)}, size=(8, 4), num_frames=5)
    assert torch.equal(keyed, boxes)
    unit = move(torch.rand(64, 64, 3), boxes, num_frames=5)
    assert torch.equal(unit.frames[1:], layout(boxes, width=64, height=64, num_frames=5).frames[1:])


def test_layout_masks_by_shape_and_color():
    mask = torch.zeros(5, 32, 48)
    mask[:, 4:20, 8:24] = 1
    mask[:, 10:12, 10:12] = 0  # a hole has no contour
    unit = layout_masks([mask, mask.flip(2)], colors=[(1, 0, 0), (0, 0, 1)], line_width=1)
    assert unit.frames[0, 4, 8].tolist() == [1, 0, 0] and unit.frames[0, 4, 24].tolist() == [0, 0, 1]
    outline = (unit.frames[0] < 1).any(-1)
    assert int(outline.sum()) == 2 * 4 * 15
    with pytest.raises(ValueError, match="mask 2 is empty in every frame"):
        layout_masks([mask, torch.zeros(5, 32, 48)])


# References
def test_alpha_crops_where_asked_and_margins_are_white():
    image = torch.zeros(40, 40, 4)
    image[10:30, 5:35, 3] = 1
    size = {"width": 64, "height": 64, "num_frames": 1}
    whole = reference(image, **size).references[0]
    cropped = reference(image, crop=True, **size).references[0]
    by_mask = reference(image[..., :3], masks=image[..., 3], **size).references[0]
    assert torch.equal(cropped, by_mask) and (cropped < 0.5).sum() > (whole < 0.5).sum()
    roomy = reference(image, crop=True, margin=0.5, **size).references[0]
    rows = (roomy[..., 0] < 0.5).any(1).nonzero().flatten()
    columns = (roomy[..., 0] < 0.5).any(0).nonzero().flatten()
    assert len(columns) == 32 and abs(len(rows) - 64 * 20 / 60) <= 1 and (roomy[0] == 1).all()
    with pytest.raises(ValueError, match="reference 1 has neither mask nor alpha"):
        reference(image[..., :3], crop=True, **size)
    two = reference([image, torch.rand(8, 8, 3)], masks=[image[..., 3], None], **size).references
    assert torch.equal(two[0], cropped) and two[1].min() < 0.5
