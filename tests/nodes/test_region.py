"""Boxes as masks, regions made on their own, kept pixels put back: the nodes inside the real ComfyUI."""

import pytest
import torch


def clip(height=48, width=80):
    return torch.rand(5, height, width, 3)


def mask(height=48, width=80):
    mask = torch.zeros(1, height, width)
    mask[:, 10:22, 30:44] = 1
    return mask


def fit(**more):
    return {"mask_shape": "original", "expand": 0.0, "width": 0, "height": 0, "length": 0, **more}


def test_box_mask(run):
    box = {"x": 30, "y": 10, "width": 14, "height": 12}
    (box_mask,) = run("VDOTBoxMask", image=clip(), bboxes=box, which="all").result
    assert torch.equal(box_mask, mask().expand(5, -1, -1))
    (unit,) = run("VDOTMask", frames=clip(), mask=box_mask, **fit()).result
    assert torch.equal(unit.masks, box_mask)


def test_a_face_with_a_control(run):
    """VACE's face reference is the detector's box with all that is in it; any control composes with it."""
    picture, control = clip()[:1], clip()
    box = [[{"x": 30, "y": 10, "width": 16, "height": 16}, {"x": 0, "y": 0, "width": 3, "height": 3}]]
    (face,) = run("VDOTBoxMask", image=picture, bboxes=box, which="largest").result
    (unit,) = run("VDOTControl", frames=control, width=0, height=0, length=0).result
    size = {"width": 16, "height": 16, "length": 1}
    (unit,) = run(
        "VDOTReference", images={"image0": picture}, masks={"mask0": face}, unit=unit, **size
    ).result
    assert torch.equal(unit.frames, control) and (unit.masks == 1).all()
    (canvas,) = unit.references
    expected = torch.nn.functional.interpolate(
        picture[:, 10:26, 30:46].permute(0, 3, 1, 2), size=(48, 48), mode="bilinear"
    )[0].permute(1, 2, 0)
    torch.testing.assert_close(canvas[:, 16:64], expected)
    assert (canvas[:, :16] == 1).all() and (canvas[:, 64:] == 1).all()


def test_a_character_replaced(run):
    """Poses in the masked place, the clip around it, the reference in front."""
    frames, poses = clip(), clip()
    (place,) = run("VDOTMask", frames=frames, mask=mask(), **fit(mask_shape="box")).result
    (pose,) = run("VDOTControl", frames=poses, width=0, height=0, length=0).result
    (unit,) = run("VDOTCompose", units={"unit0": place, "unit1": pose}).result
    size = {"width": 16, "height": 16, "length": 1}
    (unit,) = run("VDOTReference", images={"image0": clip()[:1]}, unit=unit, **size).result
    inside = mask().expand(5, -1, -1) > 0
    assert torch.equal(unit.masks > 0, inside) and len(unit.references) == 1
    assert torch.equal(unit.frames[inside], poses[inside])
    assert torch.equal(unit.frames[~inside], frames[~inside])


def test_paste_back(run):
    frames, video = clip(), clip()
    (unit,) = run("VDOTMask", frames=frames, mask=mask(), **fit()).result
    (result,) = run("VDOTPasteBack", images=video, unit=unit, feather_px=0).result
    inside = mask().expand(5, -1, -1) > 0
    assert torch.equal(result[inside], video[inside]) and torch.equal(result[~inside], frames[~inside])


def test_colors_match_at_the_border(run):
    frames = 0.3 + 0.4 * clip()
    (unit,) = run("VDOTMask", frames=frames, mask=mask(), **fit()).result
    tinted = {"images": frames + 0.05, "unit": unit, "feather_px": 0}
    (result,) = run("VDOTPasteBack", **tinted, match_colors=True).result
    torch.testing.assert_close(result, frames, atol=1e-5, rtol=0)


def test_crop_and_stitch(run):
    frames = clip(96, 160)
    output = run("VDOTCrop", frames=frames, mask=mask(96, 160), margin=0.5, width=0, height=0)
    part, cut, crop = output.result
    assert output.ui["text"] == [str(crop)] and part.shape == (5, 32, 32, 3) and cut.shape == (5, 32, 32)
    (unit,) = run("VDOTMask", frames=part, mask=cut, **fit()).result
    video = torch.zeros_like(part)
    (result,) = run("VDOTStitch", original=frames, images=video, unit=unit, crop=crop, feather_px=0).result
    inside = mask(96, 160).expand(5, -1, -1) > 0
    assert not result[inside].any() and torch.equal(result[~inside], frames[~inside])
    inputs = {"images": video, "unit": unit, "crop": crop, "feather_px": 0}
    assert run("VDOTStitch", original=frames, **inputs).ui["text"] == []
    longer = run("VDOTStitch", original=torch.cat([frames, frames[:1]]), **inputs)
    assert longer.ui["text"] == ["original has 6 frames, the region 5: 1 frame left out at the end"]
    assert torch.equal(longer.args[0], result)


def test_boxes_beside_the_picture_are_said(run):
    inside, beside = ({"x": x, "y": 10, "width": 14, "height": 12} for x in (30, 500))
    out = run("VDOTBoxMask", image=clip(), bboxes=[[inside], [beside], [], [inside], [inside]], which="all")
    assert out.ui["text"] == ["no box inside the picture in 2 frames: the mask is empty there"]
    assert run("VDOTBoxMask", image=clip(), bboxes=inside, which="all").ui["text"] == []


def test_drawn_boxes_move_and_join_the_detectors(run):
    drawn = "0: 0, 0, 8, 8\n-1: 32, 0, 40, 8"
    found = {"x": 0, "y": 20, "width": 4, "height": 4}
    masks = run("VDOTBoxMask", image=clip(), which="all", bboxes=found, boxes=drawn).args[0]
    for frame, left in enumerate((0, 8, 16, 24, 32)):
        expected = torch.zeros_like(masks[frame])
        expected[:8, left : left + 8] = expected[20:24, :4] = 1
        assert torch.equal(masks[frame], expected), frame
    assert torch.equal(
        run("VDOTBoxMask", image=clip(), which="all", boxes=drawn).args[0][:, :8], masks[:, :8]
    )
    with pytest.raises(ValueError, match="no box; draw one"):
        run("VDOTBoxMask", image=clip(), which="all")


def test_a_thin_mask_that_vanishes_is_said(run):
    """A line of one pixel, at a third of its size."""
    frames, line = torch.rand(5, 144, 192, 3), torch.zeros(5, 144, 192)
    line[:3, 70] = 1
    small = {"width": 64, "height": 48}
    for out, name in (
        (run("VDOTMask", frames=frames, mask=line, **fit(**small)), "mask"),
        (run("VDOTCrop", frames=frames, mask=line, margin=0.5, **small), "mask"),
        (run("VDOTControl", frames=frames, region=line, **small, length=0), "region"),
    ):
        assert any(t.startswith(f"{name}: in 3 frames nothing of it is left at ") for t in out.ui["text"])
    whole = run("VDOTMask", frames=frames, mask=line, **fit())
    assert not any("nothing of it" in text for text in whole.ui["text"])


def test_companions_a_frame_off_are_fitted_and_said(run):
    """81 masks for 80 frames and 17 for 18 happen daily."""
    frames, box = clip(), [{"x": 30, "y": 10, "width": 14, "height": 12}]
    boxes = run("VDOTBoxMask", image=frames, bboxes=[box] * 4, which="all")
    part = run("VDOTCrop", frames=frames, mask=mask().expand(6, -1, -1), margin=0.5, width=0, height=0)
    unit = run("VDOTMask", frames=frames, mask=mask().expand(4, -1, -1), **fit())
    region = run("VDOTControl", frames=frames, region=mask().expand(4, -1, -1), width=0, height=0, length=0)
    for out, words in (
        (boxes, "the list of boxes has 4 frames, the clip has 5: its last frame is held"),
        (part, "mask has 6 frames, the clip in frames has 5: its last frame is dropped"),
        (unit, "mask has 4 frames, the clip in frames has 5: its last frame is held"),
        (region, "region has 4 frames, the clip in frames has 5: its last frame is held"),
    ):
        assert any(line.startswith(words) for line in out.ui["text"]), words
    assert torch.equal(boxes.args[0], mask().expand(5, -1, -1))
