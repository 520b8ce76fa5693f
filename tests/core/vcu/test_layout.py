"""Layouts have the pixels of VACE's annotators, which draw with OpenCV; `move` begins as VACE's does."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdot_core.vcu import layout, layout_masks, move, path_boxes

cv2 = pytest.importorskip("cv2")

SIZE = {"width": 96, "height": 64}


def rectangle(boxes, line_width=2, width=96, height=64) -> np.ndarray:
    """[H, W, 3] of 0 and 1, as LayoutBboxAnnotator draws it."""
    frame = np.full((height, width, 3), 255, dtype=np.uint8)
    for left, top, right, bottom in boxes:
        cv2.rectangle(frame, (left, top), (right, bottom), (0, 0, 0), line_width)
    return frame / 255


def test_a_box_covers_what_vaces_covers():
    frame = layout([(50, 40, 150, 160)], width=208, height=208, num_frames=1).frames[0]
    dark = (frame < 1).any(-1).nonzero()
    assert len(dark) == 1316
    assert dark.amin(0).tolist() == [39, 49] and dark.amax(0).tolist() == [161, 151]


@settings(deadline=None, max_examples=60)
@given(data=st.data(), line_width=st.one_of(st.just(2), st.integers(1, 64)))
def test_boxes_are_cv2_rectangles(data, line_width):
    left, right = sorted(data.draw(st.lists(st.integers(-40, 140), min_size=2, max_size=2, unique=True)))
    top, bottom = sorted(data.draw(st.lists(st.integers(-40, 100), min_size=2, max_size=2, unique=True)))
    box = (left, top, right, bottom)
    if right < 0 or bottom < 0 or left >= 96 or top >= 64:
        with pytest.raises(ValueError, match="outside the canvas"):
            layout([box], **SIZE, num_frames=1, line_width=line_width)
        return
    frame = layout([box], **SIZE, num_frames=1, line_width=line_width).frames[0]
    assert np.array_equal(frame.numpy(), rectangle([box], line_width))


def test_boxes_of_several_things_moving():
    tracks = [[(8, 4, 40, 30), (24, 20, 56, 46)], [(60, 10, 90, 60)]]
    frames = layout(tracks, **SIZE, num_frames=17).frames
    for number, frame in enumerate(frames):
        moving = (8 + number, 4 + number, 40 + number, 30 + number)
        assert np.array_equal(frame.numpy(), rectangle([moving, tracks[1][0]]))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), line_width=st.sampled_from([1, 2, 3, 4, 5, 7, 8, 16, 25]))
def test_contours_are_opencvs(seed, line_width):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.nn.functional.avg_pool2d(torch.rand(1, 1, 64, 96, generator=generator), 9, 1, 4)[0]
    mask = (noise > noise.median()).float()
    # A long diagonal as well, away from the border: there OpenCV clips before it rounds.
    mask[:, :, :4] = mask[:, :, -4:] = mask[:, :4] = mask[:, -4:] = 0
    mask[:, 8:28, 8:28] = torch.ones(20, 20).tril()
    contours, _ = cv2.findContours(mask[0].byte().numpy(), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    expected = cv2.drawContours(np.ones((64, 96)), contours, -1, 0, line_width)
    frame = layout_masks(mask, line_width=line_width).frames[0, ..., 0].numpy()
    margin = line_width + 1 if line_width > 4 else 0
    inside = slice(margin, 64 - margin), slice(margin, 96 - margin)
    assert np.array_equal(frame[inside], expected[inside])


def test_moves_first_box_is_in_frame_1():
    """VACE's MoveAnythingAnnotator puts the image before the frames of its layout."""
    image, first, last = torch.rand(64, 96, 3), (8, 4, 40, 30), (24, 20, 56, 46)
    for boxes in ([first, last], {0: first, -1: last}, {1: first, -1: last}):
        unit = move(image, boxes, num_frames=17)
        assert torch.equal(unit.frames[0], image) and unit.masks[:, 0, 0].tolist() == [0] + [1] * 16
        assert np.array_equal(unit.frames[1].numpy(), rectangle([first]))
        assert np.array_equal(unit.frames[16].numpy(), rectangle([last]))
        assert np.array_equal(unit.frames[6].numpy(), rectangle([(13, 9, 45, 35)]))


def test_move_takes_a_box_for_every_frame_as_it_is():
    image = torch.rand(64, 96, 3)
    every = [(number, 4, 30 + number, 40) for number in range(9)]
    for boxes in (every, dict(enumerate(every)), torch.tensor(every)):
        unit = move(image, boxes, num_frames=9)
        for number in range(1, 9):
            assert np.array_equal(unit.frames[number].numpy(), rectangle([every[number]]))


@pytest.mark.parametrize("constant_speed", [False, True])
def test_a_path_of_a_move_begins_in_frame_1(constant_speed):
    boxes = path_boxes(
        [(20, 20), (52, 36)], size=(8, 4), num_frames=17, first=1, constant_speed=constant_speed
    )
    assert boxes[0].tolist() == boxes[1].tolist() == [16, 18, 24, 22]
    assert boxes[-1].tolist() == [48, 34, 56, 38]
    keyed = path_boxes({0: (20, 20), -1: (52, 36)}, size=(8, 4), num_frames=17, first=1)
    assert torch.allclose(keyed, boxes)


def test_a_still_mask_holds_beside_tracked_ones_in_any_order():
    still, moving = torch.zeros(1, 32, 32), torch.zeros(5, 32, 32)
    still[:, 4:12, 4:12] = 1
    for frame in range(5):
        moving[frame, 16:24, 4 * frame : 4 * frame + 8] = 1
    first, last = layout_masks([still, moving]), layout_masks([moving, still])
    assert len(first.frames) == 5 and torch.equal(first.frames, last.frames)
    assert bool((first.frames[4, 4:12, 4:12] == 0).any())


def test_more_things_than_a_video_shows_are_refused():
    with pytest.raises(ValueError, match="20000 things, expected at most"):
        layout([[(1, 1, 20, 20)] * 2] * 20_000, width=64, height=64, num_frames=81)
