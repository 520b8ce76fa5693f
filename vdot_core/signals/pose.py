"""The pose control: skeletons in DWPose's drawing convention, on black.

What VACE's annotator draws (ali-vilab/VACE, vace/annotators/pose.py and dwpose/util.py): 17 limbs as ellipses
at 0.6 of their colour, 18 joints as discs at full colour, the face as white dots; everything with a score
above 0.3, on a canvas whose shorter side is 1024 pixels (ellipses of half width 4, discs of radius 4, face
dots of 3), then shrunk to the video. It draws for OpenCV's channel order and saves for another, so that the
skeletons VACE was trained on have red and blue exchanged (shoulders blue, nose-to-neck red, as in VACE's own
figures); `colours="vace"` is that, "openpose" is as named.

Keypoints are ComfyUI's POSE_KEYPOINT: one dict a frame, OpenPose's JSON with canvas_width and canvas_height.
"""

import colorsys
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from .keypoints import Person, canvas_size, parse_keypoints

if TYPE_CHECKING:
    from PIL import ImageDraw

REFERENCE_SIDE = 1024  # the annotator's canvas; pen sizes below are in its pixels
LIMB_HALF_WIDTH, JOINT_RADIUS, HAND_HALF_WIDTH, FACE_RADIUS = 4.0, 4.0, 1.0, 3.0
LIMB_DIM = 0.6
RIM = 0.35  # PIL fills every pixel that an outline touches: measured, this much too far out
DRAWING_SIDE = 1536  # drawn at least this large and averaged: antialiased, and thin pens keep their weight

# OpenPose's COCO-18 order: nose, neck, right shoulder elbow wrist, left shoulder elbow wrist, right hip knee
# ankle, left hip knee ankle, right eye, left eye, right ear, left ear
LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
COLOURS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0),
    (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255),
    (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip
HAND_BONES = tuple(
    (0 if i % 4 == 0 else i, i + 1) for i in range(20)
)  # five fingers of four bones from the wrist
HAND_JOINT_COLOUR = (0, 0, 255)


def draw_pose(
    keypoints: Sequence[dict[str, Any]],
    *,
    width: int | None = None,
    height: int | None = None,
    threshold: float = 0.3,
    face: bool = True,
    hands: bool = False,
    colours: Literal["vace", "openpose"] = "vace",
    pen: float = 1.0,
    coordinates: Literal["auto", "pixels", "fractions"] = "auto",
) -> Tensor:
    """Draw the pose control video.

    Args:
        keypoints: see `parse_keypoints`.
        width, height: of the video in pixels; the first frame's canvas when None.
        threshold: keypoints are drawn whose score is above this.
        face, hands: whether to draw them; VACE was trained on body and face.
        colours: "vace" as VACE was trained (red and blue exchanged), "openpose" as other tools show
            skeletons.
        pen: multiplies all widths; 1 is the annotator's, whose limbs are 8 pixels wide at a shorter side of
            1024.
        coordinates: see `parse_keypoints`.

    Returns:
        [F, H, W, 3] float32 in [0, 1].

    Raises:
        ValueError: see `parse_keypoints`; no size known; a parameter out of its range.
    """
    from PIL import Image, ImageDraw

    people = parse_keypoints(keypoints, coordinates=coordinates)
    if width is None or height is None:
        canvas = canvas_size(keypoints[0], 0)
        width, height = width or canvas[0], height or canvas[1]
    _check_drawing(width, height, threshold, colours, pen)
    factor = max(2, math.ceil(DRAWING_SIDE / min(width, height)))
    size = (width * factor, height * factor)
    unit = pen * min(size) / REFERENCE_SIDE
    out = torch.zeros(len(people), height, width, 3)
    for index, crowd in enumerate(people):
        if not crowd:
            continue
        image = Image.new("RGB", size)
        _draw_frame(ImageDraw.Draw(image), crowd, size, unit, threshold, face, hands)
        pixels = torch.from_numpy(np.array(image.reduce(factor))).float() / 255
        out[index] = pixels.flip(-1) if colours == "vace" else pixels
    return out


def _check_drawing(width: int, height: int, threshold: float, colours: str, pen: float) -> None:
    if not (0 < width <= 8192 and 0 < height <= 8192):
        raise ValueError(f"size is {width}x{height}; give a width and height from 1 to 8192 pixels")
    if not 0 <= threshold < 1:
        raise ValueError(
            f"threshold is {threshold}; give a score from 0 up to, not including, 1 (0.3 is usual)"
        )
    if colours not in ("vace", "openpose"):
        raise ValueError(f"colours is {colours!r}; choose 'vace' or 'openpose'")
    if not 0.1 <= pen <= 16:
        raise ValueError(f"pen is {pen}; give a factor from 0.1 to 16")


def _draw_frame(
    draw: "ImageDraw.ImageDraw",
    crowd: list[Person],
    size: tuple[int, int],
    unit: float,
    threshold: float,
    face: bool,
    hands: bool,
) -> None:
    """Everyone's limbs, then joints, then hands, then faces, as the annotator layers them."""
    scale = np.array([*size, 1.0])
    bodies = [person.body * scale for person in crowd]
    for (start, end), colour in zip(LIMBS, COLOURS, strict=False):
        dim = tuple(int(LIMB_DIM * level) for level in colour)
        for body in bodies:
            if min(body[start, 2], body[end, 2]) > threshold:
                _limb(draw, body[start, :2], body[end, :2], LIMB_HALF_WIDTH * unit, dim)
    for joint, colour in enumerate(COLOURS):
        for body in bodies:
            _dot(draw, body[joint], JOINT_RADIUS * unit, colour, threshold)
    for hand in [hand * scale for person in crowd for hand in person.hands] if hands else []:
        _hand(draw, hand, unit, threshold)
    for points in [person.face * scale for person in crowd] if face else []:
        for point in points:
            _dot(draw, point, FACE_RADIUS * unit, (255, 255, 255), threshold)


def _limb(
    draw: "ImageDraw.ImageDraw", start: np.ndarray, end: np.ndarray, half_width: float, colour: tuple
) -> None:
    """A filled ellipse from joint to joint."""
    along = (end - start) / 2
    length = float(np.hypot(*along))
    if length == 0:
        return
    across = np.array([-along[1], along[0]]) * ((half_width - RIM) / length)
    angles = np.linspace(0, 2 * math.pi, 72, endpoint=False)[:, None]
    outline = (start + end) / 2 + np.cos(angles) * along + np.sin(angles) * across
    draw.polygon([tuple(point) for point in outline], fill=colour)


def _dot(
    draw: "ImageDraw.ImageDraw", point: np.ndarray, radius: float, colour: tuple, threshold: float
) -> None:
    x, y, score = point
    if score > threshold:
        radius -= RIM
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _hand(draw: "ImageDraw.ImageDraw", hand: np.ndarray, unit: float, threshold: float) -> None:
    """Bones in rainbow order and blue joints."""
    for index, (start, end) in enumerate(HAND_BONES if len(hand) else ()):
        if min(hand[start, 2], hand[end, 2]) > threshold:
            colour = tuple(int(255 * level) for level in colorsys.hsv_to_rgb(index / len(HAND_BONES), 1, 1))
            ends = [tuple(hand[start, :2]), tuple(hand[end, :2])]
            draw.line(ends, fill=colour, width=max(1, round(2 * HAND_HALF_WIDTH * unit)))
    for point in hand:
        _dot(draw, point, JOINT_RADIUS * unit, HAND_JOINT_COLOUR, threshold)
