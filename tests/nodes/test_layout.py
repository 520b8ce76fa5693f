"""Boxes, paths and tracked masks as controls; an image whose subject follows them."""

import pytest
import torch

CANVAS = {"width": 64, "height": 48, "length": 17}


def drawn(frame):
    """(left, top, right, bottom) of what is not white."""
    at = (frame < 1).any(-1).nonzero()
    (top, left), (bottom, right) = at.amin(0).tolist(), at.amax(0).tolist()
    return left, top, right + 1, bottom + 1


def test_boxes_move_from_moment_to_moment(run):
    unit = run("VDOTLayout", boxes="0: 4, 4, 20, 20\n-1: 36, 20, 52, 36", **CANVAS, colors="red").args[0]
    assert unit.kind == "control" and bool((unit.masks == 1).all())
    assert (unit.width, unit.height, unit.num_frames) == (64, 48, 17)
    # A pen of 2 reaches one pixel outside.
    assert drawn(unit.frames[0]) == (3, 3, 22, 22) and drawn(unit.frames[-1]) == (35, 19, 54, 38)
    assert drawn(unit.frames[8]) == (19, 11, 38, 30)
    assert unit.frames[0][4, 4].tolist() == [1, 0, 0] and unit.frames[0][12, 12].tolist() == [1, 1, 1]


def test_a_path_carries_a_box(run):
    options = {"box_width": 10, "box_height": 6}
    unit = run("VDOTLayout", boxes="0: 10, 10\n-1: 42, 26", **CANVAS, **options, line_width=1).args[0]
    assert drawn(unit.frames[0]) == (5, 7, 16, 14) and drawn(unit.frames[-1]) == (37, 23, 48, 30)


def test_several_things_in_their_own_colors_within_a_span(run):
    boxes = "2, 2, 12, 12\n\n30, 30, 40, 40"
    unit = run("VDOTLayout", boxes=boxes, **CANVAS, colors="red, #0000ff", end_frame=9).args[0]
    assert unit.frames[0][2, 2].tolist() == [1, 0, 0] and unit.frames[0][30, 30].tolist() == [0, 0, 1]
    assert bool((unit.frames[9:] == 0.5).all())


def test_tracked_masks_give_size_and_contours(run):
    mask = torch.zeros(9, 64, 64)
    for frame in range(9):
        mask[frame, 20:40, 4 * frame : 4 * frame + 16] = 1
    nothing = {"width": 0, "height": 0, "length": 0}
    unit = run("VDOTLayout", boxes="", **nothing, masks={"mask0": mask}, line_width=1).args[0]
    assert (unit.width, unit.height, unit.num_frames) == (64, 64, 9)
    assert drawn(unit.frames[0]) == (0, 20, 16, 40) and drawn(unit.frames[8]) == (32, 20, 48, 40)
    assert unit.frames[4][30, 24].tolist() == [1, 1, 1], "only the contour is drawn"
    with pytest.raises(ValueError, match="boxes has text and masks are connected"):
        run("VDOTLayout", boxes="1, 1, 9, 9", **nothing, masks={"mask0": mask})


def test_boxes_need_a_size(run):
    with pytest.raises(ValueError, match=r"width, height and length are 0, 48 and 17; boxes have no size"):
        run("VDOTLayout", boxes="1, 1, 9, 9", **{**CANVAS, "width": 0})
    with pytest.raises(ValueError, match="lies outside the canvas"):
        run("VDOTLayout", boxes="100, 100, 110, 110", **CANVAS)


def test_move_is_a_first_frame_and_a_layout(run):
    image, boxes = torch.rand(1, 48, 64, 3), "0: 4, 4, 20, 20\n-1: 36, 20, 52, 36"
    unit = run("VDOTMove", image=image, boxes=boxes, length=17, width=0, height=0).args[0]
    first = run("VDOTExtend", length=17, width=0, height=0, first=image).args[0]
    layout = run("VDOTLayout", boxes=boxes.replace("0:", "1:", 1), **CANVAS).args[0]
    assert unit == run("VDOTCompose", units={"unit0": first, "unit1": layout}).args[0]
    assert torch.equal(unit.frames[0], image[0]) and bool((unit.masks[0] == 0).all())
    assert drawn(unit.frames[1]) == (3, 3, 22, 22) and drawn(unit.frames[-1]) == (35, 19, 54, 38)
    path = run(
        "VDOTMove", image=image, boxes="20, 20\n44, 28", length=17, width=0, height=0, box_width=16
    ).args[0]
    assert drawn(path.frames[1])[0] == 11 and drawn(path.frames[-1])[0] == 35
    with pytest.raises(ValueError, match="image holds 2 images"):
        run("VDOTMove", image=image.repeat(2, 1, 1, 1), boxes=boxes, length=17, width=0, height=0)
