"""Reading OpenPose keypoints: ComfyUI's POSE_KEYPOINT, one dict a frame.

ComfyUI's SDPose nodes and the DWPose preprocessors give such lists, in pixels or in fractions of the canvas;
missing points have the score 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..text import counted, described, listed, shown

MAX_CANVAS = 1_000_000
MAX_PEOPLE = 1000  # in a frame
LARGEST_FRACTION = 2.0
NUM_BODY, NUM_HAND, NUM_FACE = 18, 21, 68
_FORM = "a table with a list 'people' for each frame"
_ADVICE = "connect a pose estimator, or a node that gives POSE_KEYPOINT"
BODY_25_TO_18 = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)  # BODY_25 adds a mid hip at 8


@dataclass(frozen=True)
class Person:
    """One person's keypoints as (x, y, score) rows, x and y as fractions of the canvas."""

    body: np.ndarray  # [18, 3]
    face: np.ndarray  # [68 or so, 3]
    hands: tuple[np.ndarray, np.ndarray]  # right, left: [21, 3]

    @property
    def parts(self) -> tuple[np.ndarray, ...]:
        return self.body, self.face, *self.hands


def parse_keypoints(
    keypoints: Sequence[dict[str, Any]],
    *,
    coordinates: Literal["auto", "pixels", "fractions"] = "auto",
    threshold: float = 0.3,
) -> list[list[Person]]:
    """Read OpenPose keypoints, ComfyUI's POSE_KEYPOINT.

    Args:
        keypoints: one dict a frame: "people", a list of dicts with "pose_keypoints_2d" (18 or OpenPose's 25
            points), and optionally "face_keypoints_2d", "hand_right_keypoints_2d", "hand_left_keypoints_2d",
            each a flat list of x, y, score; "canvas_width" and "canvas_height" where coordinates are in
            pixels.
        coordinates: in pixels, in fractions of the canvas, or by the clip's points (fractions where most are
            up to 2).
        threshold: points with a score above this decide that.

    Returns:
        The people of each frame.

    Raises:
        ValueError: not such a structure; names the frame and the field.
    """
    if coordinates not in ("auto", "pixels", "fractions"):
        raise ValueError(f"coordinates is {described(coordinates)}; choose 'auto', 'pixels' or 'fractions'")
    keypoints = frames_of(keypoints)
    if not isinstance(keypoints, Sequence) or isinstance(keypoints, str | bytes) or not keypoints:
        empty = isinstance(keypoints, list | tuple) and not keypoints
        got = "an empty list" if empty else _kind(keypoints)
        raise ValueError(f"keypoints is {got}, expected a list with {_FORM}; {_ADVICE}")
    frames = [_read_frame(frame, index) for index, frame in enumerate(keypoints)]
    if coordinates == "fractions" or (coordinates == "auto" and _are_fractions(frames, threshold)):
        return frames
    return [
        [_scaled(person, canvas_size(frame, index)) for person in people]
        for index, (frame, people) in enumerate(zip(keypoints, frames, strict=True))
    ]


def frames_of(keypoints: Any) -> Any:
    """A single frame, as editors of one pose give it, in a list."""
    return [keypoints] if isinstance(keypoints, dict) and "people" in keypoints else keypoints


def _are_fractions(frames: list[list[Person]], threshold: float) -> bool:
    """True if most points are fractions: a few wrong ones, or uncertain ones, do not decide it."""
    parts = [part for people in frames for person in people for part in person.parts]
    points = np.concatenate([*parts, np.zeros((0, 3))])
    reach = np.abs(points[:, :2]).max(axis=1, initial=0)
    # Some estimators put missing points into the corner.
    reach = reach[(points[:, 2] > threshold) & (reach > 0)]
    return not len(reach) or bool(np.median(reach) <= LARGEST_FRACTION)


def _kind(value: Any) -> str:
    """Description of a value in a message: of a table its first keys."""
    if value is None:
        return "missing"
    if isinstance(value, dict):
        return f"a table with {shown(listed(value, 5), 100)}" if value else "an empty table"
    return type(value).__name__


def _scaled(person: Person, canvas: tuple[int, int]) -> Person:
    body, face, right, left = (part / (*canvas, 1) for part in person.parts)
    return Person(body, face, (right, left))


def canvas_size(frame: dict[str, Any], index: int) -> tuple[int, int]:
    """Width and height of a frame's canvas."""
    size = tuple(frame.get(key) for key in ("canvas_width", "canvas_height"))
    if not all(isinstance(side, int | float) and 1 <= side <= MAX_CANVAS for side in size):
        sides = [described(side, 40) for side in size]
        raise ValueError(
            f"keypoints of frame {index} have canvas_width {sides[0]} and canvas_height {sides[1]}, expected "
            f"1 to {MAX_CANVAS} pixels; look at the node that made them, or, where they are fractions of the "
            "canvas, set width and height"
        )
    return int(size[0]), int(size[1])


def drawn_size(frame: dict[str, Any], width: int | None, height: int | None) -> tuple[int, int]:
    """Width and height of a drawing: of a None, the canvas's, or in its shape where the other is given."""
    if width is not None and height is not None:
        return width, height
    across, down = canvas_size(frame, 0)
    if width is None and height is None:
        return across, down
    if width is None:
        return max(1, round(across * height / down)), height
    return width, max(1, round(down * width / across))


def covering(people: list[Person], frame: dict[str, Any], width: int, height: int) -> list[Person]:
    """People of a canvas that is scaled and cropped to cover a drawing, as every clip is."""
    if (fit := _fit(frame, width, height)) is None:
        return people
    shares = np.array([fit[0] / width, fit[1] / height, 1.0])
    shift = np.array([(1 - shares[0]) / 2, (1 - shares[1]) / 2, 0.0])
    parts = ((part * shares + shift for part in person.parts) for person in people)
    return [Person(body, face, (right, left)) for body, face, right, left in parts]


def fit_lines(keypoints: Sequence[dict[str, Any]], width: int | None, height: int | None) -> list[str]:
    """A note where the canvas is cropped to another shape."""
    size = drawn_size(keypoints[0], width, height)
    if (fit := _fit(keypoints[0], *size)) is None:
        return []
    canvas, scaled = canvas_size(keypoints[0], 0), f"{round(fit[0])}x{round(fit[1])}"
    return [
        f"keypoints: their {canvas[0]}x{canvas[1]} scaled to {scaled} and cropped to {size[0]}x{size[1]}, as "
        "a clip is"
    ]


def _fit(frame: dict[str, Any], width: int, height: int) -> tuple[float, float] | None:
    """Width and height to which a canvas of another shape is scaled; None where nothing is cropped."""
    canvas = frame.get("canvas_width"), frame.get("canvas_height")
    if not all(isinstance(side, int | float) and 1 <= side <= MAX_CANVAS for side in canvas):
        return None  # fractions of a canvas of unknown shape
    # One pixel of slack: a scaled size keeps its shape up to rounding.
    if abs(canvas[0] * height - canvas[1] * width) <= max(*canvas, width, height):
        return None
    scale = max(width / canvas[0], height / canvas[1])
    return canvas[0] * scale, canvas[1] * scale


def _read_frame(frame: Any, index: int) -> list[Person]:
    if not isinstance(frame, dict) or not isinstance(frame.get("people"), list):
        raise ValueError(f"keypoints of frame {index} are {_kind(frame)}, expected {_FORM}; {_ADVICE}")
    if len(frame["people"]) > MAX_PEOPLE:
        raise ValueError(
            f"keypoints of frame {index} hold {len(frame['people'])} people, expected at most "
            f"{MAX_PEOPLE}; look at the node that made them"
        )
    return [_read_person(person, index) for person in frame["people"]]


def _read_person(person: Any, index: int) -> Person:
    if not isinstance(person, dict):
        raise ValueError(
            f"a person of frame {index} is {_kind(person)}, expected a table with 'pose_keypoints_2d'; "
            f"{_ADVICE}"
        )
    body = _read_points(person, "pose_keypoints_2d", index)
    if len(body) == 25:
        body = body[list(BODY_25_TO_18)]
    if len(body) not in (0, NUM_BODY):
        raise ValueError(
            f"pose_keypoints_2d of frame {index} has {counted(len(body), 'point')}; give 18 (or 25), "
            "each x, y, score"
        )
    # Beyond 68 landmarks, OpenPose repeats the two pupils, which the body draws as eyes.
    face = _read_points(person, "face_keypoints_2d", index)[:NUM_FACE]
    hands = [_read_points(person, f"hand_{side}_keypoints_2d", index) for side in ("right", "left")]
    for hand in hands:
        if len(hand) not in (0, NUM_HAND):
            raise ValueError(
                f"a hand of frame {index} has {counted(len(hand), 'point')}; give 21, each x, y, score"
            )
    return Person(body if len(body) else np.zeros((NUM_BODY, 3)), face, (hands[0], hands[1]))


def _read_points(person: dict[str, Any], field: str, index: int) -> np.ndarray:
    """[n, 3] of a flat or nested list; [0, 3] where the field is missing."""
    raw = person.get(field)
    if raw is None:
        return np.zeros((0, 3))
    try:
        points = np.asarray(raw, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{field} of frame {index} is not a list of numbers; give x, y, score for each point"
        ) from error
    if points.size % 3:
        raise ValueError(
            f"{field} of frame {index} has {counted(points.size, 'number')}; give x, y, score for each point"
        )
    points = points.reshape(-1, 3)
    if not np.isfinite(points[~(points[:, 2] <= 0)]).all():
        raise ValueError(
            f"{field} of frame {index} has NaN or infinite numbers; give missing points the score 0"
        )
    return points
