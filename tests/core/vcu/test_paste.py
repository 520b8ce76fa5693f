"""Kept and generated pixels stay bit for bit; the fade between them is by the distance to the mask."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdot_core import scratch
from vdot_core.vcu import Crop, control, crop_region, extend, inpaint, outpaint, paste_back, stitch

FRAMES, HEIGHT, WIDTH = 5, 48, 64


def random_mask(seed, frames=FRAMES, height=HEIGHT, width=WIDTH):
    """Boxes, one a frame; the middle frame has none."""
    rng = np.random.default_rng(seed)
    mask = torch.zeros(frames, height, width)
    for frame in range(frames):
        top, left = int(rng.integers(0, height - 8)), int(rng.integers(0, width - 8))
        mask[frame, top : top + int(rng.integers(3, 20)), left : left + int(rng.integers(3, 24))] = 1
    mask[frames // 2] = 0
    return mask


def distance_to(mask):
    ndimage = pytest.importorskip("scipy.ndimage")
    far = np.full(mask.shape[1:], 1e9)
    return torch.from_numpy(
        np.stack([ndimage.distance_transform_edt(m == 0) if m.any() else far for m in mask.numpy()])
    ).float()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), feather=st.sampled_from([0, 1, 3, 8, 40]))
def test_every_pixel_is_kept_made_or_between_by_its_distance(seed, feather):
    mask, clip = random_mask(seed), torch.rand(FRAMES, HEIGHT, WIDTH, 3)
    unit, generated = inpaint(clip, mask), torch.rand(FRAMES, HEIGHT, WIDTH, 3)
    result, distance = paste_back(generated, unit, feather_px=feather), distance_to(mask)
    assert torch.equal(result[mask > 0], generated[mask > 0])
    far = distance > feather + 1e-4
    assert torch.equal(result[far], clip[far])
    weight = (1 - distance / (feather + 1)).clamp(0, 1)[..., None]
    between = ~far & (mask == 0)
    torch.testing.assert_close(
        result[between], torch.lerp(clip, generated, weight)[between], atol=1e-5, rtol=0
    )


def test_given_frames_and_clips_are_restored_exactly():
    generated, clip = torch.rand(9, 32, 32, 3), torch.rand(3, 32, 32, 3)
    result = paste_back(generated, extend(clip[:1], clip[2:], num_frames=9))
    assert torch.equal(result[0], clip[0]) and torch.equal(result[-1], clip[2])
    assert torch.equal(result[1:-1], generated[1:-1])

    clip = torch.rand(5, 32, 32, 3)
    unit = outpaint(clip, left=16, right=16)
    result = paste_back(torch.zeros(5, 32, 64, 3), unit, feather_px=4)
    assert torch.equal(result[:, :, 20:44], clip[:, :, 4:28])
    assert result[:, :, :16].max() == 0 and result[:, :, 48:].max() == 0

    unit = control(clip)
    assert torch.equal(paste_back(generated[:5], unit), generated[:5]), "a control keeps nothing"


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    margin=st.sampled_from([0.0, 0.3, 2.0]),
    size=st.sampled_from([None, (64, 48), (128, 32), (20, 90)]),
)
def test_a_window_holds_the_mask_and_lies_in_the_frame(seed, margin, size):
    mask, clip = random_mask(seed), torch.rand(FRAMES, HEIGHT, WIDTH, 3)
    size_options = {} if size is None else {"width": size[0], "height": size[1]}
    part, cut, crop = crop_region(clip, mask, margin=margin, **size_options)
    assert part.shape == (FRAMES, crop.size[1], crop.size[0], 3) and cut.shape == part.shape[:3]
    assert not any(side % 16 for side in crop.size) and set(cut.unique().tolist()) <= {0.0, 1.0}
    rows, columns = mask.amax(0).nonzero().unbind(1)
    assert 0 <= crop.left <= columns.min() and columns.max() < crop.left + crop.width <= WIDTH
    assert 0 <= crop.top <= rows.min() and rows.max() < crop.top + crop.height <= HEIGHT
    if size is None and crop.size == (crop.width, crop.height):
        y, x = crop.window
        assert torch.equal(part, clip[:, y, x]) and torch.equal(cut, mask[:, y, x])
    stretch = crop.size[0] / crop.width / (crop.size[1] / crop.height)
    assert abs(np.log(stretch)) < 0.15, "the picture is not stretched"


@pytest.mark.parametrize("size", [{}, {"width": 96, "height": 96}], ids=["own size", "enlarged"])
def test_stray_pixels_of_a_mask_do_not_widen_the_window(size):
    clip, mask = torch.rand(5, 160, 200, 3), torch.zeros(5, 160, 200)
    mask[:, 70:100, 90:130] = 1
    part, cut, crop = crop_region(clip, mask, **size)
    stray = mask.clone()
    stray[2, 0, 0] = stray[4, 159, 198:] = 1
    same_part, same_cut, same = crop_region(clip, stray, **size)
    assert same == crop and torch.equal(same_part, part) and torch.equal(same_cut, cut)
    assert same.notes == (*crop.notes, "the window is around the region, without 2 specks of the mask")
    stray[:, 10:20, 10:20] = 1
    assert crop_region(clip, stray, **size)[2].left <= 10, "a second region is none"


@pytest.mark.parametrize("size", [{}, {"width": 96, "height": 96}], ids=["own size", "enlarged"])
def test_stitching_leaves_everything_but_the_region(size):
    clip, mask = torch.rand(9, 80, 112, 3), torch.zeros(9, 80, 112)
    mask[:, 30:50, 40:60] = 1
    part, cut, crop = crop_region(clip, mask, margin=0.7, **size)
    unit = inpaint(part, cut)
    result = stitch(clip, torch.full_like(part, 0.25), unit, crop, feather_px=3)
    distance = distance_to(mask)
    assert torch.equal(result[distance > 3], clip[distance > 3])
    assert (result[mask > 0] == 0.25).all()
    assert 0.25 < result[distance == 2].sub(0.25).abs().max() + 0.25 < 1, "the fade is in between"


@pytest.mark.parametrize("feather", [0, 8])
@pytest.mark.parametrize("size", [(64, 48), (48, 64), (320, 256)])
def test_a_scaled_region_changes_nothing_farther_than_the_feather(size, feather):
    clip, mask = torch.rand(5, 160, 200, 3), random_mask(5, height=160, width=200)
    mask[:, 60:100, 70:120] = 1
    mask[:, 75:79, 120:131] = 1
    part, cut, crop = crop_region(clip, mask, margin=1.0, width=size[0], height=size[1])
    result = stitch(clip, torch.rand(part.shape), inpaint(part, cut), crop, feather_px=feather)
    far = distance_to(mask) > feather
    assert torch.equal(result[far], clip[far])


def test_what_the_unit_adds_to_a_scaled_mask_is_stitched_too():
    clip, mask = torch.rand(5, 160, 200, 3), torch.zeros(5, 160, 200)
    mask[:, 60:100, 70:120] = 1
    part, cut, crop = crop_region(clip, mask, margin=1.0, width=64, height=48)
    generated = torch.full_like(part, 0.25)
    scale = crop.width / crop.size[0]
    grown, shrunk = (
        (stitch(clip, generated, inpaint(part, cut, grow_px=pixels), crop, feather_px=0) - generated[0, 0, 0])
        .abs()
        .amax(-1)
        .lt(1e-4)
        for pixels in (4, -4)
    )
    assert grown[mask > 0].all() and not shrunk[mask == 0].any()
    outside, inside = distance_to(mask), distance_to(1 - mask)
    assert grown[(outside > 0) & (outside < 3 * scale)].all() and not grown[outside > 5.5 * scale].any()
    assert shrunk[inside > 5.5 * scale].all() and not shrunk[(inside > 0) & (inside < 3 * scale)].any()


@pytest.mark.parametrize("frame", [(39, 64), (40, 100), (70, 100), (37, 203), (20, 200), (107, 61), (20, 20)])
@pytest.mark.parametrize("size", [{}, {"width": 64, "height": 64}, {"width": 240, "height": 32}])
@pytest.mark.parametrize("part", [1.0, 0.8, 0.3])
def test_the_picture_is_not_stretched(frame, size, part):
    height, width = frame
    mask = torch.zeros(1, height, width)
    mask[:, : max(1, int(height * part)), : max(1, int(width * part))] = 1
    *_, crop = crop_region(torch.rand(1, height, width, 3), mask, margin=0.1, **size)
    stretch = crop.size[0] / crop.width / (crop.size[1] / crop.height)
    assert abs(np.log(stretch)) < (0.1 if part == 1 else 0.02), (crop, stretch)


def test_a_region_that_comes_back_unchanged_changes_nothing():
    clip, mask = torch.rand(5, 64, 96, 3), random_mask(3, height=64, width=96)
    part, cut, crop = crop_region(clip, mask)
    torch.testing.assert_close(stitch(clip, part, inpaint(part, cut), crop), clip, atol=1e-6, rtol=0)


def test_an_enlarged_region_comes_back_where_it_was():
    """A smooth picture survives being enlarged and scaled back."""
    y, x = torch.meshgrid(torch.linspace(0, 3, 80), torch.linspace(0, 4, 112), indexing="ij")
    clip = torch.stack([x.sin(), y.cos(), (x + y).sin()], -1).mul(0.4).add(0.5).expand(5, -1, -1, -1)
    mask = torch.zeros(5, 80, 112)
    mask[:, 20:60, 10:50] = 1
    part, cut, crop = crop_region(clip, mask, width=160, height=160)
    assert crop.size == (160, 160) and crop.width == crop.height
    result = stitch(clip, part, inpaint(part, cut), crop, feather_px=0)
    torch.testing.assert_close(result, clip.contiguous(), atol=4e-3, rtol=0)


def test_a_shorter_video_gives_a_shorter_clip():
    clip, mask = torch.rand(7, 48, 64, 3), torch.ones(48, 64)
    part, cut, crop = crop_region(clip, mask)
    unit = inpaint(part, cut)
    assert unit.num_frames == 5
    assert torch.equal(stitch(clip, part[:5], unit, crop), clip[:5])


def test_refusals():
    clip, mask = torch.rand(5, 48, 64, 3), torch.zeros(5, 48, 64)
    mask[:, 10:18, 10:18] = 1
    part, cut, crop = crop_region(clip, mask)
    unit = inpaint(part, cut)
    for call, words in (
        (lambda: crop_region(clip, mask * 0), "mask is empty"),
        (lambda: crop_region(clip, mask, width=64), "set both"),
        (lambda: crop_region(clip, mask, margin=-1), "margin is -1"),
        (lambda: crop_region(clip, mask[:3]), "mask has 3 frames"),
        (lambda: paste_back(part[:1], unit), "with 1 frame,"),
        (lambda: paste_back(part, unit, feather_px=1000), "feather_px is 1000"),
        (lambda: stitch(clip[:, :-16], part, unit, crop), "the crop was cut from"),
        (lambda: stitch(clip, clip, inpaint(clip, mask), crop), "the unit is 64x48, the crop"),
        (lambda: stitch(clip[:1], part, unit, crop), "original 1"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_crop_says_where():
    assert str(Crop(8, 4, 32, 16, (64, 48), (64, 32))) == "32x16 at 8, 4 of 64x48, scaled to 64x32"
    assert str(Crop(8, 4, 32, 16, (64, 48), (32, 16))) == "32x16 at 8, 4 of 64x48"


def test_colors_match_at_the_border_and_kept_pixels_stay():
    """A tint of what was generated is seen, and taken out, around the mask."""
    clip, mask = 0.3 + 0.4 * torch.rand(FRAMES, HEIGHT, WIDTH, 3), random_mask(3)
    unit, tint = inpaint(clip, mask), torch.tensor([0.05, 0.0, -0.04])
    plain = paste_back(clip + tint, unit, match_colors=False)
    matched = paste_back(clip + tint, unit, match_colors=True)
    far = distance_to(mask) > 8
    assert torch.equal(matched[far], clip[far])
    torch.testing.assert_close(matched, clip, atol=1e-5, rtol=0)
    assert (plain - clip)[mask > 0].abs().mean() > 0.02
    wrong = paste_back(1 - clip, unit, match_colors=True)
    assert ((wrong - (1 - clip))[mask > 0].abs() <= 0.1 + 1e-6).all(), "another picture moves little"
    everything = inpaint(clip, torch.ones_like(mask))
    assert torch.equal(paste_back(clip + tint, everything, match_colors=True), clip + tint)


@pytest.mark.parametrize("size", [{}, {"width": 96, "height": 96}], ids=["own size", "enlarged"])
def test_a_stitched_region_has_the_colors_of_its_clip(size):
    clip, mask = torch.full((9, 80, 112, 3), 0.5), torch.zeros(9, 80, 112)
    mask[:, 30:50, 40:60] = 1
    part, cut, crop = crop_region(clip, mask, margin=0.7, **size)
    result = stitch(clip, part + 0.06, inpaint(part, cut), crop, match_colors=True)
    torch.testing.assert_close(result, clip, atol=1e-4, rtol=0)
    far = distance_to(mask) > 8
    assert torch.equal(result[far], clip[far])


def test_long_clips_are_restored_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "IN_MEMORY", 0)
    clip, mask = torch.rand(9, 80, 112, 3), torch.zeros(9, 80, 112)
    mask[:, 30:50, 40:60] = 1
    plain = inpaint(clip, mask, mask_shape="box", expand=0.1)
    part, cut, crop = crop_region(clip, mask)
    with scratch.spilling(lambda: tmp_path):
        unit = inpaint(clip, mask, mask_shape="box", expand=0.1)
        results = paste_back(1 - clip, unit), stitch(clip, 1 - part, inpaint(part, cut), crop)
    for tensor in (unit.frames, unit.masks, *results):
        assert scratch.is_mapped(tensor)
    assert torch.equal(unit.frames, plain.frames) and torch.equal(unit.masks, plain.masks)
    assert torch.equal(results[0], paste_back(1 - clip, plain))
    assert torch.equal(results[1], stitch(clip, 1 - part, inpaint(part, cut), crop))
