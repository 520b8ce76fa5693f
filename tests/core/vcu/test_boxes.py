"""Boxes in every form that ComfyUI's nodes give them, as masks."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from vdot_core.vcu import box_masks, reference

SIZE = {"width": 40, "height": 30, "num_frames": 3}


def box(x, y, width, height, **more):
    return {"x": x, "y": y, "width": width, "height": height, **more}


def drawn(*boxes):
    mask = torch.zeros(30, 40)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = 1
    return mask


def test_every_form():
    one = box(3, 4, 10, 20, label="person", score=0.9)
    same = drawn((3, 4, 13, 24)).expand(3, -1, -1)
    for form in (one, [one], [[one]], [[one]] * 3, ((one,),) * 3):
        assert torch.equal(box_masks(form, **SIZE), same)
    assert not box_masks([], **SIZE).any() and not box_masks([[], [], []], **SIZE).any()
    moving = box_masks([[one], [], [box(0, 0, 2, 2), box(38, 28, 9, 9)]], **SIZE)
    assert torch.equal(
        moving, torch.stack([drawn((3, 4, 13, 24)), drawn(), drawn((0, 0, 2, 2), (38, 28, 40, 30))])
    )


def test_one_of_several():
    detections = [box(1, 1, 4, 4), box(10, 10, 12, 9), box(30, 2, 5, 5)]
    assert torch.equal(box_masks(detections, **SIZE, which="largest")[0], drawn((10, 10, 22, 19)))
    assert torch.equal(box_masks(detections, **SIZE, which="first")[0], drawn((1, 1, 5, 5)))


@given(st.floats(-60, 60), st.floats(-60, 60), st.floats(0, 80), st.floats(0, 80))
def test_a_pixel_that_a_box_touches_is_inside(x, y, width, height):
    assume(min(x, y) < 0 or max(x + width, y + height) > 1)  # else these are parts of the picture
    mask = box_masks(box(x, y, width, height), width=40, height=30)[0].numpy() > 0
    columns = (np.arange(40) + 1 > x) & (np.arange(40) < x + width)
    rows = (np.arange(30) + 1 > y) & (np.arange(30) < y + height)
    if width and height:
        assert np.array_equal(mask, rows[:, None] & columns)


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([[box(0, 0, 1, 1)]] * 2, "boxes for 2 frames, the clip has 3"),
        ([(1, 2, 3, 4)] * 3, "a box is 1"),
        ([{"x": 1, "y": 2}], "a box is"),
        (box(float("nan"), 0, 1, 1), "x is nan"),
        (box(0, 0, -1, 1), "width is -1"),
        ([[box(0.1, 0.2, 0.5, 0.6)], [], []], "boxes: coordinates from 0.1 to 0.8 are parts"),
        ("boxes", "boxes is 'boxes'"),
        (3, "boxes is 3"),
    ],
)
def test_refusals(boxes, words):
    with pytest.raises(ValueError, match=words):
        box_masks(boxes, **SIZE)


def test_a_face_is_its_box_on_white():
    """VACE's face reference: the detector's box with its content."""
    picture = torch.rand(30, 40, 3)
    mask = box_masks(box(10, 5, 16, 16), width=40, height=30)
    (canvas,) = reference(picture, masks=mask, width=32, height=16, num_frames=5).references
    assert torch.equal(canvas[:, 8:24], picture[5:21, 10:26])
    assert (canvas[:, :8] == 1).all() and (canvas[:, 24:] == 1).all()


def test_boxes_for_all_frames_are_read_once():
    """A detector's list for a long clip, which took a minute."""
    read = []

    class Counted(dict):
        def __getitem__(self, key):
            read.append(key)
            return super().__getitem__(key)

    masks = box_masks([Counted(box(3, 4, 10, 20))], width=40, height=30, num_frames=81)
    assert len(read) == 4 and torch.equal(masks, drawn((3, 4, 13, 24)).expand(81, -1, -1))
    with pytest.raises(ValueError, match="200000 boxes, expected at most"):
        box_masks([box(3, 4, 10, 20)] * 200_000, width=40, height=30, num_frames=81)
