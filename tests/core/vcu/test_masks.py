"""Masks: binarized after scaling, and coarsened as VACE does, against scipy's convex hull."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from vdot_core.vcu import augment, control, cover, inpaint, layout_masks, reference
from vdot_core.vcu.grow import drop_specks


def random_mask(seed, height=24, width=32, share=0.02):
    return torch.from_numpy(np.random.default_rng(seed).random((3, height, width)) < share).float()


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), share=st.floats(0.008, 0.3))
@example(seed=7286, share=0.296875)  # with a speck
def test_hull_is_the_convex_hull(seed, share):
    mask = random_mask(seed, share=share)
    filled = augment(mask, "hull")
    for frame, hull in zip(mask, filled, strict=True):
        points = np.argwhere(drop_specks(frame.numpy() > 0)[0]).astype(float)
        if len(points) == 0:
            assert not hull.any()
            continue
        spread = points - points[0]
        if np.linalg.matrix_rank(spread) < 2:
            assert (hull >= frame).all()
            continue
        equations = ConvexHull(points).equations
        grid = np.stack(np.mgrid[: frame.shape[0], : frame.shape[1]], -1).reshape(-1, 2)
        inside = (grid @ equations[:, :2].T + equations[:, 2] <= 1e-6).all(1).reshape(frame.shape)
        assert np.array_equal(hull.numpy() > 0, inside | (frame.numpy() > 0))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), expand=st.floats(0, 2), shape=st.sampled_from(["original", "hull", "box"]))
def test_coarser_masks_cover_the_finer_ones(seed, expand, shape):
    mask = random_mask(seed)
    coarse = augment(mask, shape, expand)
    assert set(coarse.unique().tolist()) <= {0.0, 1.0}
    assert (coarse >= augment(mask, shape)).all() and (augment(mask, shape) >= mask).all()
    assert (augment(mask, "box", expand) >= augment(mask, "hull", expand)).all()
    assert (coarse.flatten(1).any(1) == mask.flatten(1).any(1)).all()


def test_expansion_by_hand():
    """A box 10 wide and 4 high grows by 30 % of its sides, at most half of the way to the border."""
    mask = torch.zeros(1, 40, 60)
    mask[0, 20:24, 4:14] = 1
    rows, columns = augment(mask, "box", 0.3)[0].nonzero().unbind(1)
    assert (columns.min(), columns.max()) == (4 - 2, 13 + 3) and (rows.min(), rows.max()) == (19, 24)
    mask = torch.zeros(1, 40, 60)
    mask[0, 8:28, 20:24] = 1
    rows, columns = augment(mask, "box", 2.0)[0].nonzero().unbind(1)
    assert (rows.min(), rows.max()) == (8 - 4, 27 + 6) and (columns.min(), columns.max()) == (20 - 8, 23 + 8)
    mask = torch.zeros(1, 40, 60)
    mask[0, :, 10:20] = 1
    rows, columns = augment(mask, "original", 1.0)[0].nonzero().unbind(1)
    assert (columns.min(), columns.max()) == (5, 29) and rows.numel() == 40 * 25


def test_original_expands_around_every_part():
    mask = torch.zeros(1, 40, 60)
    mask[0, 10, 20] = mask[0, 29, 39] = 1
    grown = augment(mask, "original", 0.1)[0]
    expected = torch.zeros(40, 60)
    expected[8:13, 18:23] = expected[27:32, 37:42] = 1
    assert torch.equal(grown, expected)


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="'oval', expected one of original"):
        augment(random_mask(0), "oval")
    with pytest.raises(ValueError, match="expand is -0\\.1"):
        augment(random_mask(0), "box", -0.1)


def test_scaled_before_binarized():
    """The mask is cut at one half of its scaled values, not scaled after cutting."""
    mask = torch.rand(5, 64, 96)
    unit = inpaint(torch.rand(5, 64, 96, 3), mask, width=48, height=32)
    assert torch.equal(unit.masks, (cover(mask[..., None], 48, 32)[..., 0] > 0.5).float())
    assert not torch.equal(unit.masks, (cover((mask > 0.5)[..., None].float(), 48, 32)[..., 0] > 0.5).float())


@settings(deadline=None, max_examples=30)
@given(
    width=st.integers(20, 70),
    height=st.integers(20, 70),
    num_frames=st.integers(1, 8),
    requested=st.one_of(st.none(), st.integers(1, 12)),
    kind=st.sampled_from(["clip", "one", "flat", "bool", "bytes"]),
)
def test_inpainting_keeps_and_grays(width, height, num_frames, requested, kind):
    """Whatever the sizes: known pixels are the fitted clip's, unknown ones gray, masks 0 or 1."""
    frames = torch.rand(num_frames, height, width, 3)
    mask = torch.rand(num_frames if kind in ("clip", "bool", "bytes") else 1, height, width)
    given_mask = {"flat": mask[0], "bool": mask > 0.5, "bytes": (mask * 255).to(torch.uint8)}.get(kind, mask)
    unit = inpaint(frames, given_mask, num_frames=requested)
    assert set(unit.masks.unique().tolist()) <= {0.0, 1.0}
    unmasked = unit.masks == 0
    used = min(num_frames, unit.num_frames)
    assert (unit.frames[~unmasked] == 0.5).all() and not unmasked[used:].any()
    fitted = cover(frames[:used], unit.width, unit.height)
    assert torch.equal(unit.frames[:used][unmasked[:used]], fitted[unmasked[:used]])


def test_a_mask_of_the_full_clip_fits_the_clip_that_was_scaled_and_cropped():
    """A picture of 1920x1080 and its clip at 832x480: both lose the same pixels at the sides."""
    frames = torch.rand(5, 270, 480, 3)
    mask = torch.zeros(270, 480)
    mask[100:200, 300:] = 1
    size = {"width": 416, "height": 240}
    loaded = cover(frames, **size)
    assert torch.equal(inpaint(loaded, mask).masks, inpaint(frames, mask, **size).masks)
    assert any(
        "480x270 scaled and cropped to the 416x240 of the clip in frames" in note
        for note in inpaint(loaded, mask).notes
    )
    with pytest.raises(ValueError, match="give both the same size"):
        inpaint(loaded, mask[:, :240])


SIZE = {"width": 48, "height": 32, "num_frames": 9}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: reference([torch.rand(20, 30, 3)] * 2, masks=[None, torch.ones(32, 32)], **SIZE),
            "reference 2's mask is 32x32, reference 2 is 30x20; give both the same size$",
        ),
        (
            lambda: reference([torch.rand(20, 30, 3)], masks=[torch.ones(5, 20, 30)], **SIZE),
            "reference 1's mask has 5 frames, reference 1 has 1; give one mask$",
        ),
        (
            lambda: reference([torch.rand(20, 30, 3)], masks=[torch.zeros(64, 64)], **SIZE),
            "reference 1's mask is 64x64, reference 1 is 30x20; .*it is empty",
        ),
        (
            lambda: control(torch.rand(9, 32, 48, 3), region=torch.ones(64, 64)),
            "region is 64x64, the clip in frames is 48x32; give both the same size$",
        ),
        (
            lambda: layout_masks([torch.ones(9, 32, 48), torch.ones(5, 32, 48)]),
            "mask 2 has 5 frames, mask 1 has 9; give both the same length, or one mask for all$",
        ),
    ],
)
def test_messages_name_what_the_mask_belongs_to(build, message):
    with pytest.raises(ValueError, match=message) as raised:
        build()
    assert "video" not in str(raised.value)


def test_notes_name_what_the_mask_belongs_to():
    unit = reference([torch.rand(32, 48, 3)], masks=[torch.ones(64, 96)], **SIZE)
    assert "reference 1's mask: 96x64 scaled to the 48x32 of reference 1" in unit.notes


def test_masks_that_do_not_belong_are_refused():
    frames = torch.rand(9, 32, 48, 3)
    with pytest.raises(
        ValueError, match="mask has 5 frames, the clip in frames has 9; give both the same length"
    ):
        inpaint(frames, torch.ones(5, 32, 48))
    with pytest.raises(ValueError, match="mask is 64x64, the clip in frames is 48x32"):
        inpaint(frames, torch.ones(9, 64, 64))
    with pytest.raises(ValueError, match=r"mask has shape \[9, 32, 48, 3\]"):
        inpaint(frames, frames)
    with pytest.raises(ValueError, match="mask ranges"):
        inpaint(frames, torch.full((32, 48), 255.0))
    unit = inpaint(frames, torch.ones(64, 96))
    assert "96x64 scaled to the 48x32 of the clip in frames" in unit.notes[0]
    assert "nothing is generated" in inpaint(frames, torch.zeros(32, 48)).notes[0]


@pytest.mark.parametrize("shape", ["hull", "box"])
def test_stray_pixels_do_not_widen_hull_or_box(shape):
    mask = torch.zeros(1, 160, 200)
    mask[:, 70:110, 90:130] = 1
    mask[:, 70:80, 90:100] = 0
    stray = mask.clone()
    stray[:, 0, 0] = stray[:, 159, 197:] = 1
    clean, result = (augment(each, shape, 0.2) for each in (mask, stray))
    assert (result >= clean).all() and (result >= stray).all()
    assert result.sum() < clean.sum() * 1.5
