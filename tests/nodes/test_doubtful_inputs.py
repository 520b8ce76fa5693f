"""Inputs that other packs' nodes give and that may mean another thing: fitted, noted, or refused in words."""

import math

import pytest
import torch

from tests.support.pack import submodule

FIT = {"width": 0, "height": 0, "length": 0}


def circle_of_points(x: float, y: float, radius: float) -> dict:
    """A person of 18 joints on a circle, as DWPose gives one without a face and hands."""
    turns = (2 * math.pi * joint / 18 for joint in range(18))
    points = [[x + radius * math.cos(turn), y + radius * math.sin(turn), 1.0] for turn in turns]
    parts = dict.fromkeys(("face_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d"))
    return {"pose_keypoints_2d": [value for point in points for value in point], **parts}


POSE = {"people": [circle_of_points(256, 256, 100)], "canvas_width": 512, "canvas_height": 512}
DRAWN = {"face": True, "hands": False}


@pytest.mark.parametrize(
    ("width", "height", "size", "radius"),
    [(832, 480, (832, 480), 162.5), (832, 0, (832, 832), 162.5), (0, 256, (256, 256), 50)],
)
def test_a_pose_of_another_shape_is_not_stretched(run, width, height, size, radius):
    outcome = run("VDOTDrawPose", keypoints=[POSE], width=width, height=height, **DRAWN)
    (frame,) = outcome.args[0]
    assert (frame.shape[1], frame.shape[0]) == size
    rows, columns = (frame.sum(-1) > 0).nonzero().T
    for places, side in ((rows, size[1]), (columns, size[0])):
        assert float(places.max() - places.min()) / 2 == pytest.approx(radius, abs=6)
        assert float(places.max() + places.min()) / 2 == pytest.approx(side / 2, abs=3)
    cropped = ["keypoints: their 512x512 scaled to 832x832 and cropped to 832x480, as a clip is"]
    assert outcome.ui["text"] == (cropped if height == 480 else [])


def test_a_pose_lies_on_the_clip_that_is_cropped_to_its_size(run):
    """One dot at the right border of the crop, drawn by both."""
    x, y = 1890, 540
    clip = torch.zeros(1, 1080, 1920, 3)
    clip[0, y - 12 : y + 12, x - 12 : x + 12] = 1
    point = [0.0] * 54
    point[:3] = x, y, 1.0
    pose = {"people": [{"pose_keypoints_2d": point}], "canvas_width": 1920, "canvas_height": 1080}
    size = {"width": 832, "height": 480}
    drawn = run("VDOTDrawPose", keypoints=pose, **size, **DRAWN, pen=4.0).args[0][0]
    seen = run("VDOTControl", frames=clip, **size, length=0).args[0].frames[0]
    middles = [(image.sum(-1) > 0.5).nonzero().float().mean(0) for image in (drawn, seen)]
    torch.testing.assert_close(*middles, atol=1.5, rtol=0)


@pytest.mark.parametrize("width", [1, 3, 7])
def test_bright_lines_on_black_are_noted(run, width):
    frames = torch.zeros(5, 240, 416, 3)
    frames[:, 100 : 100 + width] = 1
    frames[:, :, 200 : 200 + width] = 1
    note = "frames shows bright lines on black; if they are a scribble"
    said = [run("VDOTControl", frames=clip, **FIT).ui["text"] for clip in (frames, 1 - frames)]
    assert [any(line.startswith(note) for line in lines) for lines in said] == [True, False]


def test_bright_things_on_black_are_no_lines(run):
    subject = torch.zeros(5, 240, 416, 3)
    subject[:, 60:180, 150:230] = 0.9  # as of a depth map
    pose = run("VDOTDrawPose", keypoints=[POSE], width=416, height=240, **DRAWN).args[0]
    dark = torch.rand(5, 240, 416, 1).expand(-1, -1, -1, 3) * 0.4
    for frames in (subject, pose, dark):
        assert not any("lines" in line for line in run("VDOTControl", frames=frames, **FIT).ui["text"])


def test_frames_in_which_a_mask_is_lost_are_noted(run):
    mask = torch.zeros(9, 32, 48)
    mask[:5, 4:20, 4:20] = 1
    inputs = {"frames": torch.rand(9, 32, 48, 3), "mask_shape": "original", "expand": 0.0, **FIT}
    note = "mask is empty in 4 of 9 frames: these are kept as they are"
    assert note in run("VDOTMask", **inputs, mask=mask).ui["text"]
    for full in (mask[:1], mask[:5].amax(0).expand(9, -1, -1)):
        assert not any("empty" in line for line in run("VDOTMask", **inputs, mask=full).ui["text"])
    assert not any("empty" in line for line in run("VDOTMask", **inputs, mask=mask, still=True).ui["text"])


def box(left: float = 4) -> dict:
    return {"x": left, "y": 4, "width": 8, "height": 8}


def test_a_box_for_each_frame_in_one_list_is_noted(run):
    image = torch.rand(3, 32, 48, 3)
    flat = run("VDOTBoxMask", image=image, which="all", bboxes=[box(4), box(14), box(24)])
    assert flat.ui["text"] == [
        "3 boxes for as many frames: all are in every frame; for one in each, give a list for each frame"
    ]
    assert float(flat.args[0][0].sum()) == 3 * 64
    for boxes in ([[box(4)], [box(14)], [box(24)]], [box(), box(20)], box()):
        assert not run("VDOTBoxMask", image=image, which="all", bboxes=boxes).ui["text"]


def test_frames_without_a_box_may_be_nothing(run):
    image = torch.rand(3, 32, 48, 3)
    masks = run("VDOTBoxMask", image=image, which="all", bboxes=[[box()], None, box()]).args[0]
    assert masks.flatten(1).sum(1).tolist() == [64, 0, 64]
    nothing = run("VDOTBoxMask", image=image, which="all", bboxes=[None] * 3)
    assert not nothing.args[0].any() and nothing.ui["text"][0].startswith("no box inside the picture in 3 fr")
    with pytest.raises(ValueError, match="a box is a table of x1, y1, x2, y2, expected x, y, width"):
        run("VDOTBoxMask", image=image, which="all", bboxes=[{"x1": 1, "y1": 1, "x2": 3, "y2": 3}])


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        ("VDOTGray", {"weights": "vace"}),
        ("VDOTLines", {"threshold": 0.25, "thickness": 1.5, "softness": 0.5}),
        ("VDOTFlow", {"estimator": "dis", "scale": "frame"}),
    ],
)
def test_gray_clips_have_signals(run, node, inputs):
    gray = torch.rand(3, 32, 48, 1)
    one, three = (run(node, frames=frames, **inputs).args[0] for frames in (gray, gray.repeat(1, 1, 1, 3)))
    assert torch.equal(one, three)


def test_frames_without_motion_are_noted(run):
    still = torch.rand(1, 32, 48, 3).repeat(3, 1, 1, 1)
    lines = run("VDOTFlow", frames=still, estimator="dis", scale="frame").ui["text"]
    assert any(line.startswith("no motion in 3 of 3 frames") for line in lines)


def test_units_that_bring_no_pictures_from_a_frame_on_are_noted(run):
    clip = torch.rand(5, 32, 48, 3)
    control = run("VDOTControl", frames=clip, **FIT).args[0]
    size = {"width": 48, "height": 32, "length": 5}
    pictures = run("VDOTReference", images={"image0": clip[:1]}, **size)
    both = run("VDOTReference", images={"image0": clip[:1]}, **size, unit=control)
    empty, unused = "references holds no picture: from frame 8 on", "of references only the pictures are used"
    for unit, expected in ((control, [empty, unused]), (both.args[0], [unused]), (pictures.args[0], [])):
        lines = run("VDOTFromFrame", frame=8, references=unit).ui["text"]
        assert len(lines) == len(expected) and all(map(str.startswith, lines, expected))


def test_a_batch_of_videos_is_refused_by_its_number(run):
    unit = run("VDOTControl", frames=torch.rand(5, 32, 48, 3), **FIT).args[0]
    with pytest.raises(ValueError, match="as of a batch of 2 videos of 5 one after the other; give them one"):
        run("VDOTPasteBack", images=torch.rand(10, 32, 48, 3), unit=unit, feather_px=4)


def test_depth_with_one_range_for_the_clip_is_noted_where_each_frame_is_stretched(run):
    """As VDOT Normalize Depth gives it, whose steadiness would be lost."""
    depth = torch.rand(5, 32, 48, 1).expand(-1, -1, -1, 3).clone()
    inputs = {"invert": False, **FIT}
    for normalization, scale, noted in (("frame", 0.5, True), ("frame", 1.0, False), ("none", 0.5, False)):
        clip = depth.clone()
        clip[2] *= scale
        lines = run("VDOTDepth", depth=clip, normalization=normalization, **inputs).ui["text"]
        assert any("'frame' stretches each to all of it" in line for line in lines) == noted


def test_one_position_for_a_batch_names_the_switch(run):
    inputs = {"images": {"image0": torch.rand(3, 32, 48, 3)}, "positions": "4", "length": 17, "width": 0}
    with pytest.raises(ValueError, match="3 pictures for 1 position; turn clips on for one position"):
        run("VDOTKeyframes", **inputs, height=0)
    run("VDOTKeyframes", **inputs, height=0, clips=True)


def test_a_size_that_a_unit_overrules_is_noted(run):
    sizes = submodule("vdot_core.vcu").SIZES
    unit = run("VDOTText", width=48, height=32, length=5).args[0]
    inputs = {"images": {"image0": torch.rand(1, 32, 48, 3)}, "width": 64, "height": 64, "length": 9}
    note = "size is not used: the video has the unit's size and length"
    assert note in run("VDOTReference", **inputs, unit=unit, size=sizes["480p"]).ui["text"]
    assert note not in run("VDOTReference", **inputs, unit=unit).ui["text"]
