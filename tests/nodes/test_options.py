"""Inputs that steer a task more finely: spans, masks, margins, clips, cut-outs, strengths, previews."""

import pytest
import torch

GRAY = 0.5
FIT = {"width": 0, "height": 0, "length": 0}


def unit_of(out):
    return out.args[0]


def spoken(unit):
    """Frames in which a control says something."""
    return [i for i, frame in enumerate(unit.frames) if bool((frame != GRAY).any())]


def test_a_control_guides_only_its_span(run):
    clip = torch.rand(17, 32, 32, 3)
    unit = unit_of(run("VDOTControl", frames=clip, **FIT, strength=0.7, start_frame=5, end_frame=9))
    assert spoken(unit) == [5, 6, 7, 8] and unit.strength == 0.7
    assert torch.equal(unit.frames[5:9], clip[5:9]) and bool((unit.masks == 1).all())
    open_end = unit_of(run("VDOTControl", frames=clip, **FIT, start_frame=9))
    assert spoken(open_end) == list(range(9, 17))
    joined = unit_of(
        run("VDOTCompose", units={"unit0": unit, "unit1": open_end.replace(strength=0.7), "unit2": None})
    )
    assert spoken(joined) == list(range(5, 17))
    with pytest.raises(ValueError, match="give an earlier start_frame"):
        run("VDOTControl", frames=clip, **FIT, start_frame=9, end_frame=5)


def test_depth_has_a_span_and_a_strength_too(run):
    ramp = torch.linspace(0, 1, 32).view(1, 1, 32, 1).expand(9, 32, 32, 3)
    options = {"depth": ramp, "normalization": "frame", "invert": False, **FIT}
    unit = unit_of(run("VDOTDepth", **options, strength=1.5, end_frame=5))
    assert spoken(unit) == [0, 1, 2, 3, 4] and unit.strength == 1.5


def test_masks_are_coarsened(run):
    clip, mask = torch.rand(5, 48, 48, 3), torch.zeros(5, 48, 48)
    for frame in range(5):
        mask[frame, 20:28, 8 * frame : 8 * frame + 8] = 1
    options = {"frames": clip, "mask": mask, "mask_shape": "original", "expand": 0.0, **FIT}
    plain = unit_of(run("VDOTMask", **options)).masks
    assert torch.equal(plain, mask)
    grown = unit_of(run("VDOTMask", **options, grow_px=3)).masks
    assert bool((grown >= mask).all()) and bool(grown[0, 24, 10]) and not bool(grown[0, 24, 12])
    smaller = unit_of(run("VDOTMask", **options, grow_px=-2)).masks
    assert bool((smaller <= mask).all()) and 0 < smaller.sum() < mask.sum()
    still = unit_of(run("VDOTMask", **options, still=True)).masks
    assert torch.equal(still, mask.amax(0, keepdim=True).expand(5, -1, -1))
    rounded = unit_of(run("VDOTMask", **options, blur_px=2.0)).masks
    assert set(rounded.unique().tolist()) == {0, 1} and not bool(rounded[2, 20, 16])


SIDES = {"left": 0, "right": 0, "top": 0, "bottom": 0}


def test_outpaint_by_percent_and_by_aspect(run):
    clip = torch.rand(5, 32, 32, 3)
    half = unit_of(run("VDOTOutpaint", frames=clip, **{**SIDES, "left": 50}, **FIT, mode="percent"))
    pixels = unit_of(run("VDOTOutpaint", frames=clip, **{**SIDES, "left": 16}, **FIT))
    assert half == pixels and (half.width, half.height) == (48, 32)
    wide = unit_of(
        run("VDOTOutpaint", frames=clip, **SIDES, **FIT, mode="aspect", aspect="2:1", anchor_x=0.0)
    )
    assert (wide.width, wide.height) == (64, 32) and torch.equal(wide.frames[:, :, :32], clip)
    with pytest.raises(ValueError, match="give either the aspect or the sides"):
        run("VDOTOutpaint", frames=clip, **{**SIDES, "left": 16}, **FIT, mode="aspect")
    with pytest.raises(ValueError, match="'wide', expected two numbers"):
        run("VDOTOutpaint", frames=clip, **SIDES, **FIT, mode="aspect", aspect="wide")
    for words in ("2.39", "2,39", " 2.39 ", "239/100", "239x100", "239\u00d7100", "239:100"):
        wide = unit_of(run("VDOTOutpaint", frames=clip, **SIDES, **FIT, mode="aspect", aspect=words))
        assert (wide.width, wide.height) == (80, 32), words
    for words in ("1:2:3", "", ":", "1/0", "nan", "-2"):
        with pytest.raises(ValueError, match="aspect is"):
            run("VDOTOutpaint", frames=clip, **SIDES, **FIT, mode="aspect", aspect=words)


def test_outpaint_feathers_only_sides_with_a_margin(run):
    clip = torch.rand(5, 32, 32, 3)
    unit = unit_of(run("VDOTOutpaint", frames=clip, **{**SIDES, "left": 16}, **FIT, feather_px=4))
    unmasked = (unit.masks[0] == 0).nonzero()
    assert unmasked.amin(0).tolist() == [0, 20] and unmasked.amax(0).tolist() == [31, 47]
    assert bool((unit.frames[:, :, 16:20] == GRAY).all())


def test_one_picture_is_widened_into_a_first_frame(run):
    size = {"width": 0, "height": 0, "length": 9}
    unit = unit_of(run("VDOTOutpaint", frames=torch.rand(1, 32, 32, 3), **{**SIDES, "left": 16}, **size))
    assert unit.num_frames == 9 and bool((unit.masks[1:] == 1).all()) and 0 < unit.masks[0].mean() < 1


def test_keyframes_may_be_clips(run):
    images = {"image0": torch.rand(3, 32, 32, 3), "image1": torch.rand(2, 32, 32, 3)}
    options = {"images": images, "length": 17, "width": 0, "height": 0}
    unit = unit_of(run("VDOTKeyframes", **options, positions="4, -1", clips=True))
    assert [i for i in range(17) if unit.masks[i].sum() == 0] == [4, 5, 6, 15, 16]
    assert torch.equal(unit.frames[4:7], images["image0"])
    assert torch.equal(unit.frames[15:], images["image1"])
    with pytest.raises(ValueError, match="5 pictures for 2 positions"):
        run("VDOTKeyframes", **options, positions="4, -1")


CANVAS = {"width": 64, "height": 64, "length": 5}


def subject():
    """A red square on blue, its mask, and the same with the mask as alpha."""
    picture, mask = torch.zeros(1, 64, 64, 3), torch.zeros(1, 64, 64)
    picture[..., 2] = 1
    picture[:, 8:24, 8:24] = torch.tensor([1.0, 0, 0])
    mask[:, 8:24, 8:24] = 1
    return picture, mask, torch.cat([picture, mask[..., None]], -1)


def is_red(reference):
    return (reference - torch.tensor([1.0, 0, 0])).abs().amax(-1) < 0.01


def test_a_reference_is_cut_out_by_mask_or_alpha(run):
    picture, mask, cut = subject()
    options = {"images": {"image0": picture}, "masks": {"mask0": mask}, **CANVAS}
    (tight,) = unit_of(run("VDOTReference", **options)).references
    assert bool(is_red(tight).all()), "the crop fills the square canvas"
    (loose,) = unit_of(run("VDOTReference", **options, margin=0.5)).references
    rows = is_red(loose).any(1).nonzero().flatten()
    assert loose[0, 0].tolist() == [1, 1, 1] and 30 <= len(rows) <= 34, "half of the canvas is margin"
    (whole,) = unit_of(run("VDOTReference", **options, cut_out="whole")).references
    assert int(is_red(whole).sum()) == 16 * 16 and whole[40, 40].tolist() == [1, 1, 1]
    (alpha,) = unit_of(run("VDOTReference", images={"image0": cut}, **CANVAS, cut_out="crop")).references
    assert torch.equal(alpha, tight)
    with pytest.raises(ValueError, match="neither mask nor alpha"):
        run("VDOTReference", images={"image0": picture}, **CANVAS, cut_out="crop")


def test_a_mask_belongs_to_the_picture_of_its_number(run):
    picture, mask, _ = subject()
    images = {"image0": torch.rand(1, 64, 64, 3), "image1": picture}
    unit = unit_of(run("VDOTReference", images=images, masks={"mask1": mask}, **CANVAS))
    torch.testing.assert_close(unit.references[0], images["image0"][0])
    assert bool(is_red(unit.references[1]).all())
    with pytest.raises(ValueError, match="mask3 has no picture"):
        run("VDOTReference", images=images, masks={"mask3": mask}, **CANVAS)


def test_masks_are_counted_by_order_only_in_one_batch_for_all_pictures(run):
    picture, mask, _ = subject()
    three, masks = picture.expand(3, -1, -1, -1), mask.expand(3, -1, -1)
    for images in ({"image0": three}, {"image0": three[:1], "image1": None, "image2": three[:2]}):
        unit = unit_of(run("VDOTReference", images=images, masks={"mask0": masks}, **CANVAS))
        assert all(bool(is_red(reference).all()) for reference in unit.references)
    for images in ({"image0": three[:2]}, {"image0": picture, "image1": three[:2]}):
        singles = {f"mask{index}": mask for index in range(len(images) + 1)}
        unit = unit_of(run("VDOTReference", images=images, masks=singles, **CANVAS))
        assert all(bool(is_red(reference).all()) for reference in unit.references)
    with pytest.raises(ValueError, match="image0 holds 3 pictures and mask0 1 mask; connect as many"):
        run("VDOTReference", images={"image0": three}, masks={"mask0": mask, "mask1": mask}, **CANVAS)
    for images, masks in (
        ({"image0": three[:1], "image1": None, "image2": picture}, {"mask0": mask, "mask1": mask}),
        ({"image0": picture}, {"mask1": mask}),
    ):
        with pytest.raises(ValueError, match="mask1 has no picture with its number"):
            run("VDOTReference", images=images, masks=masks, **CANVAS)
    with pytest.raises(ValueError, match="image1 holds 1 picture and mask1 3 masks; connect as many"):
        images = {"image0": three[:2], "image1": picture}
        run("VDOTReference", images=images, masks={"mask1": mask.expand(3, -1, -1)}, **CANVAS)


def test_strength_over_time_multiplies_the_units_own(run):
    control = unit_of(run("VDOTControl", frames=torch.rand(17, 32, 32, 3), **FIT, strength=0.5))
    unit = unit_of(run("VDOTStrength", unit=control, curve="0: 1, -1: 0"))
    assert unit.strength[0] == 0.5 and len(unit.strength) == 5
    assert list(unit.strength) == sorted(unit.strength, reverse=True) and unit.strength[-1] < 0.1
    assert torch.equal(unit.frames, control.frames)
    with pytest.raises(ValueError, match="'half' in curve is not understood"):
        run("VDOTStrength", unit=control, curve="half")


def test_preview_shows_the_unit(run):
    clip, mask = torch.ones(9, 64, 64, 3) * torch.tensor([0.0, 1, 0]), torch.zeros(1, 64, 64)
    mask[:, :, 32:] = 1
    options = {"mask_shape": "original", "expand": 0.0, **FIT}
    unit = unit_of(run("VDOTMask", frames=clip, mask=mask, **options))
    out = run("VDOTPreviewUnit", unit=unit, columns=3)
    image = out.args[0]
    assert image.ndim == 4 and image.shape[0] == 1 and image.shape[-1] == 3
    green = (image[0] - torch.tensor([0.0, 1, 0])).abs().amax(-1) < 0.02
    assert 0.1 < green.float().mean() < 0.6, "the kept half of three frames"
    wider = run("VDOTPreviewUnit", unit=unit, columns=6).args[0]
    assert wider.shape[2] > image.shape[2]
    images = out.ui.as_dict()["images"]
    assert len(images) == 1 and images[0]["type"] == "temp"
