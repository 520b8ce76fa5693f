"""The pose control: skeletons in DWPose's drawing convention, on black.

Pixel for pixel what VACE's annotator draws (ali-vilab/VACE, vace/annotators/pose.py and dwpose/util.py): 17
limbs as ellipses at 0.6 of their color, 18 joints as discs at full color, the face as white dots; all
with a score above 0.3, on a canvas whose shorter side is 1024 pixels and whose sides are multiples of 64
(ellipses of half width 4, discs of radius 4, face dots of 3, at integer pixels), then resized to the video.
It draws for OpenCV's channel order and saves for another, so that the skeletons VACE was trained on have red
and blue exchanged (shoulders blue, nose-to-neck red, as in VACE's own figures); `colors="vace"` is that,
"openpose" is as named.

Keypoints are ComfyUI's POSE_KEYPOINT: one dict a frame, OpenPose's JSON with canvas_width and canvas_height.
"""

import colorsys
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..memory import RGB, check_size
from ..progress import steps
from ..raster import disc, ellipse, line, paint, polygon
from ..scratch import empty
from ..text import shown
from .keypoints import Person, covering, drawn_size, frames_of, parse_keypoints
from .resize import resize

CANVAS_SIDE, CANVAS_MULTIPLE = 1024, 64  # the annotator's canvas; pen sizes below are in its pixels
LIMB_HALF_WIDTH, JOINT_RADIUS, HAND_WIDTH, FACE_RADIUS = 4, 4, 2, 3
LIMB_DIM = 0.6
MAX_REACH = 8
LEAST_PEN, MOST_PEN = 0.1, 16.0
PEN_SIDE = 256  # pixels; a skeleton drawn thinner vanishes in the VAE

# OpenPose's COCO-18 order: nose, neck, right shoulder elbow wrist, left shoulder elbow wrist, right hip knee
# ankle, left hip knee ankle, right eye, left eye, right ear, left ear
LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
COLORS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0),
    (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255),
    (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip
HAND_BONES = tuple(
    (0 if i % 4 == 0 else i, i + 1) for i in range(20)
)  # five fingers of four bones from the wrist
HAND_JOINT_COLOR = (0, 0, 255)


def draw_pose(
    keypoints: Sequence[dict[str, Any]],
    *,
    width: int | None = None,
    height: int | None = None,
    threshold: float = 0.3,
    face: bool = True,
    hands: bool = False,
    colors: Literal["vace", "openpose"] = "vace",
    pen: float = 1.0,
    coordinates: Literal["auto", "pixels", "fractions"] = "auto",
) -> Tensor:
    """Draw the pose control video.

    Args:
        keypoints: see `parse_keypoints`.
        width, height: of the video in pixels; of a None, the first frame's canvas, or in its shape. A canvas
            of another shape is scaled and cropped to cover the video.
        threshold: keypoints are drawn whose score is above this.
        face, hands: whether to draw them; VACE was trained on body and face.
        colors: "vace" as VACE was trained (red and blue exchanged), "openpose" as other tools show
            skeletons.
        pen: multiplies all widths, in integer pixels of the canvas; 1 is the annotator's, whose limbs are 9
            pixels wide at a shorter side of 1024.
        coordinates: see `parse_keypoints`.

    Returns:
        [F, H, W, 3] float32 in [0, 1].

    Raises:
        ValueError: see `parse_keypoints`; no size known; a parameter out of its range.
    """
    keypoints = frames_of(keypoints)
    people = parse_keypoints(keypoints, coordinates=coordinates, threshold=threshold)
    _check_reach(people, threshold)
    width, height = drawn_size(keypoints[0], width, height)
    _check_drawing(width, height, threshold, colors, pen)
    people = [covering(crowd, frame, width, height) for crowd, frame in zip(people, keypoints, strict=True)]
    sides = [_canvas_side(side, min(width, height)) for side in (width, height)]
    _check_memory(len(people), width, height, *sides)
    out = empty((len(people), height, width, 3)).zero_()
    for index in steps(range(len(people))):
        crowd = people[index]
        if not crowd:
            continue
        canvas = np.zeros((sides[1], sides[0], 3), dtype=np.uint8)
        _draw_frame(canvas[..., ::-1] if colors == "vace" else canvas, crowd, pen, threshold, face, hands)
        out[index] = torch.from_numpy(resize(canvas, width, height)).float() / 255
    return out


def usual_pen(height: int, width: int) -> float:
    """1, as the model was trained; in a picture with a side below `PEN_SIDE` as thick as at that size."""
    return min(max(1.0, PEN_SIDE / min(height, width)), MOST_PEN)


def _canvas_side(side: int, shorter: int) -> int:
    return max(1, round(side * CANVAS_SIDE / shorter / CANVAS_MULTIPLE)) * CANVAS_MULTIPLE


def _check_drawing(width: int, height: int, threshold: float, colors: str, pen: float) -> None:
    if not (0 < width <= 8192 and 0 < height <= 8192):
        raise ValueError(f"size is {width}x{height}; give a width and height from 1 to 8192 pixels")
    if not 0 <= threshold < 1:
        raise ValueError(
            f"threshold is {threshold}; give a score from 0 up to, not including, 1 (0.3 is usual)"
        )
    if colors not in ("vace", "openpose"):
        raise ValueError(f"colors is '{shown(colors, 60)}'; choose 'vace' or 'openpose'")
    if not LEAST_PEN <= pen <= MOST_PEN:
        raise ValueError(f"pen is {pen}; give a factor from {LEAST_PEN:g} to {MOST_PEN:g}")


def _check_reach(people: list[list[Person]], threshold: float) -> None:
    """Refuse points so far outside of the canvas that they are another unit's, or garbage."""
    for index, crowd in enumerate(people):
        for part in (part for person in crowd for part in person.parts):
            points = part[part[:, 2] > threshold, :2]
            if np.abs(points).max(initial=0) > MAX_REACH:
                x, y = points[np.abs(points).max(1).argmax()]
                raise ValueError(
                    f"frame {index} has a keypoint at {x:.3g}, {y:.3g} times the canvas's width and height, "
                    f"expected at most {MAX_REACH} times; look at the node that made the keypoints"
                )


def _check_memory(num_frames: int, width: int, height: int, canvas_width: int, canvas_height: int) -> None:
    """The video; a canvas, and while it is resized its rows and then its columns, each twice."""
    canvas, rows, frame = canvas_width * canvas_height, canvas_width * height, width * height
    check_size(
        num_frames * frame * RGB + canvas * 3 + 2 * RGB * (rows + frame),
        f"drawing {num_frames} poses of {width}x{height} on a canvas of {canvas_width}x{canvas_height}",
        "give a smaller width or height, of a shape nearer to a square",
    )


def _draw_frame(
    canvas: np.ndarray, crowd: list[Person], pen: float, threshold: float, face: bool, hands: bool
) -> None:
    """Draw into [H, W, 3] uint8: limbs, then joints, then hands, then faces, as the annotator layers them."""
    height, width = canvas.shape[:2]
    scale = np.array([width, height, 1.0])
    bodies = [person.body * scale for person in crowd]
    for (start, end), color in zip(LIMBS, COLORS, strict=False):
        dim = [int(LIMB_DIM * level) for level in color]
        for body in bodies:
            if min(body[start, 2], body[end, 2]) > threshold:
                outline = _limb(body[start, :2], body[end, :2], round(LIMB_HALF_WIDTH * pen))
                paint(canvas, polygon(outline), dim)
    for joint, color in enumerate(COLORS):
        for body in bodies:
            if body[joint, 2] > threshold:
                paint(canvas, disc(_pixel(body[joint]), round(JOINT_RADIUS * pen)), color)
    # The annotator has everyone's left hands first.
    for side in (1, 0) if hands else ():
        for person in crowd:
            _hand(canvas, person.hands[side] * scale, pen, threshold)
    for points in [person.face * scale for person in crowd] if face else []:
        for point in points:
            if _visible(point, threshold):
                paint(canvas, disc(_pixel(point), round(FACE_RADIUS * pen)), (255, 255, 255))


def _pixel(point: np.ndarray) -> tuple[int, int]:
    """Truncated, as the annotator does."""
    return int(point[0]), int(point[1])


def _visible(point: np.ndarray, threshold: float) -> bool:
    """Of a hand or a face; the annotator takes what is in the first row or column, or beyond, as missing."""
    return point[2] > threshold and min(_pixel(point)) > 0


def _limb(start: np.ndarray, end: np.ndarray, half_width: int) -> np.ndarray:
    """An ellipse from joint to joint: center, half length and angle are integers."""
    dx, dy = start - end
    center = _pixel((start + end) / 2)
    return ellipse(center, (int(math.hypot(dx, dy) / 2), half_width), int(math.degrees(math.atan2(dy, dx))))


def _hand(canvas: np.ndarray, hand: np.ndarray, pen: float, threshold: float) -> None:
    """Bones in rainbow order and blue joints."""
    width = max(1, round(HAND_WIDTH * pen))
    for index, (start, end) in enumerate(HAND_BONES if len(hand) else ()):
        if _visible(hand[start], threshold) and _visible(hand[end], threshold):
            color = [round(255 * level) for level in colorsys.hsv_to_rgb(index / len(HAND_BONES), 1, 1)]
            for spans in line(_pixel(hand[start]), _pixel(hand[end]), width):
                paint(canvas, spans, color)
    for point in hand:
        if _visible(point, threshold):
            paint(canvas, disc(_pixel(point), round(JOINT_RADIUS * pen)), HAND_JOINT_COLOR)
