"""Work in a mask's box, and a few frames at a time, gives what work on entire clips gives."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from vdot_core.vcu import compose, control, cover, extend, inpaint, layout, move, outpaint, paste_back
from vdot_core.vcu.grow import shrink_disc, smooth

SIZE = {"width": 48, "height": 32, "num_frames": 9}


def random_mask(seed, height=40, width=56):
    """Blobs and holes, some of them at the border."""
    rng = np.random.default_rng(seed)
    soft = ndimage.gaussian_filter(rng.standard_normal((height, width)), 1 + seed % 4)
    mask = soft > (0.02 * (seed % 3))
    mask[:, : 9 * (seed % 2)] = False
    return mask


@pytest.mark.parametrize("sigma", [0.3, 1.0, 6.0, 40.0, 128.0])
def test_smoothing_is_the_gaussian_of_the_entire_frame(sigma):
    for seed in range(12):
        mask = random_mask(seed)
        radius = int(np.ceil(3 * sigma))
        soft = ndimage.gaussian_filter(mask.astype(np.float64), sigma, mode="nearest", radius=radius)
        decided = abs(soft - 0.5) > 1e-5
        assert ((smooth(mask, sigma) == (soft > 0.5)) | ~decided).all() and decided.mean() > 0.99


@pytest.mark.parametrize("radius", [1, 3, 30])
def test_shrinking_is_the_distance_in_the_entire_frame(radius):
    for seed in range(8):
        mask = random_mask(seed)
        assert (shrink_disc(mask, radius) == (ndimage.distance_transform_edt(mask) > radius)).all()
    full = np.ones((9, 9), dtype=bool)
    assert (shrink_disc(full, radius) == full).all(), "the frame's border does not shrink a mask"


@pytest.mark.parametrize("feather_px", [0, 1, 7, 200])
def test_pasting_is_a_fade_over_the_entire_frame(feather_px):
    masks = torch.stack([torch.from_numpy(random_mask(seed, 32, 48)).float() for seed in range(9)])
    masks[4] = 0
    clip, made = torch.rand(9, 32, 48, 3), torch.rand(9, 32, 48, 3)
    unit = inpaint(clip, masks)
    out = paste_back(made, unit, feather_px=feather_px)
    for index in range(9):
        distance = torch.from_numpy(ndimage.distance_transform_edt(masks[index].numpy() == 0)).float()
        weight = (1 - distance / (feather_px + 1)).clamp(min=0) * (distance <= feather_px)
        weight = torch.zeros_like(weight) if index == 4 else weight
        expected = unit.frames[index] + weight[..., None] * (made[index] - unit.frames[index])
        torch.testing.assert_close(out[index], expected, atol=1e-6, rtol=0)


def test_a_moved_subject_is_an_image_and_a_layout_joined():
    image, boxes = torch.rand(32, 48, 3), [[4, 4, 20, 20], [20, 8, 40, 28]]
    unit = move(image, [boxes], num_frames=9)
    assert unit.kind == "extension" and unit.masks[0].max() == 0 and unit.masks[1:].min() == 1
    assert torch.equal(unit.frames[0], image)
    start = extend(image, num_frames=9)
    first, guide = unit.parts
    assert torch.equal(compose(start, control(guide.frames)).frames, unit.frames)
    still = move(image, [[4, 4, 20, 20]], num_frames=9)
    joined = compose(start, layout([4, 4, 20, 20], **SIZE))
    for result in (still, compose(still, extend(image, num_frames=9))):
        assert torch.equal(result.frames, joined.frames) and torch.equal(result.masks, joined.masks)
    addresses = {part.frames.data_ptr() for part in (unit, first, guide)}
    assert len(addresses) == 1, "one tensor for all three"


@pytest.mark.parametrize("options", [{"left": 0.5}, {"left": 16, "width": 64, "height": 32, "feather_px": 3}])
def test_frames_beyond_an_outpainted_clip_are_free(options):
    unit = outpaint(torch.rand(7, 32, 48, 3), num_frames=13, **options)
    assert (unit.frames[7:] == 0.5).all() and unit.masks[7:].min() == 1 and unit.masks[:7].min() == 0
    assert (unit.frames[:7][unit.masks[:7] > 0] == 0.5).all()


def test_frames_are_scaled_each_as_if_alone():
    clip = torch.rand(7, 30, 41, 3)
    together = cover(clip, 32, 64)
    assert torch.equal(together, torch.cat([cover(frame[None], 32, 64) for frame in clip]))
