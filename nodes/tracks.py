"""Parses text inputs of task nodes: boxes and paths over time, strengths over time, colors.

Shape letters: F pixel frames.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..vdot_core.text import counted, parse_json, shown, typed
from .inputs import MAX_STRENGTH

VAE_STRIDE_FRAMES = 4
SIDE_KEYS = {"width", "height", "w", "h"}
BOX_FORM = "write one line for each moment, as 0: 8, 20, 40, 52 (frame: left, top, right, bottom)"
CURVE_FORM = "write frame: strength, separated by commas, as 0: 1.0, 40: 0.5, -1: 0"


@dataclass(frozen=True)
class Rescale:
    """Numbers that were written for one size and length, in another.

    Args:
        old_length, length: frames of the video that they were written for, and of this one.
        x, y: this width and height over the old ones.
    """

    old_length: int
    length: int
    x: float = 1.0
    y: float = 1.0

    def frame(self, number: int) -> int:
        """A frame number; negative ones count from the end."""
        if self.old_length - self.length < VAE_STRIDE_FRAMES:  # equal, but for rounding to 4n+1
            return number
        ratio = (self.length - 1) / (self.old_length - 1)
        return round(number * ratio) if number >= 0 else -1 - round((-1 - number) * ratio)

    def span(self, start: int | None, end: int | None) -> tuple[int | None, int | None, list[str]]:
        """First frame that a control guides and the first that is free again, as latent frames of this video.

        Args:
            start, end: of the old video; None = its ends.

        Returns:
            The two frames, and lines that name them where they changed.

        Raises:
            ValueError: `start` is not before the end, in the numbers of the old video.
        """
        from ..vdot_core.vcu import rounded_length
        from ..vdot_core.vcu.span import guided_span

        old = rounded_length(self.old_length)[0]
        if old == self.length:
            return start, end, []
        low, high, notes = guided_span(start, end, old)
        notes = [] if end is None or end <= old else notes[:1]
        if (low, high) == (0, old):
            return None, None, notes
        first, last, _ = guided_span(self.frame(low), self.frame(high - 1) + 1, self.length)
        moved = (
            f"control: guides frames {first}..{last - 1} of {self.length} "
            f"({low}..{high - 1} of {old}, moved along)"
        )
        return first, last, [*notes, moved]

    def box(self, numbers: Sequence[float]) -> list[float]:
        """x and y in turn: a point or a box."""
        return [number * (self.x, self.y)[index % 2] for index, number in enumerate(numbers)]


def boxes_from_text(
    text: str,
    box_size: tuple[int, int],
    num_frames: int,
    *,
    first: int = 0,
    rounded: bool = True,
    rescale: Rescale | None = None,
) -> list:
    """Boxes of one or more things, as `vdot_core.vcu.layout` takes them.

    Args:
        text: a line for each moment: `frame: left, top, right, bottom`, or without `frame:` for moments
            spread evenly over the video. Two numbers are the middle of a box of `box_size`. An empty line
            begins the next thing. Or the JSON that path-drawing nodes write: a list of {"x", "y"}, or a list
            of such lists.
        box_size: width and height in pixels of a box that is carried along a path.
        num_frames: length of the video.
        first: the first frame that shows boxes; see `vdot_core.vcu.path_boxes`.
        rounded: the video's length becomes 4n+1.
        rescale: from the size and length that the text was written for.

    Returns:
        For each thing a mapping frame -> box, a list of boxes, or a tensor [F, 4].

    Raises:
        ValueError: a line is not understood; it is named.
    """
    from ..vdot_core import vcu

    things = things_from_text(text)
    if rescale is not None:
        things, box_size = [_rescaled(thing, rescale) for thing in things], tuple(rescale.box(box_size))
    total, notes = vcu.rounded_length(num_frames) if rounded else (num_frames, ())
    with vcu.rounding_named(notes):
        return [_as_boxes(thing, box_size, total, first) for thing in things]


def things_from_text(text: str) -> list:
    """The numbers of `boxes_from_text`, by thing: a dict frame -> numbers, or a list where no frame is given.

    Raises:
        ValueError: a line is not understood; it is named.
    """
    from ..vdot_core.vcu.tracks import MAX_THINGS, refuse_fractions

    text = typed(text).strip()
    things = _from_json(text) if text.startswith("[") else _from_lines(text)
    if not things:
        raise ValueError(f"boxes is empty; {BOX_FORM}")
    if len(things) > MAX_THINGS:
        raise ValueError(
            f"boxes names {counted(len(things), 'thing')}, expected at most {MAX_THINGS}; "
            "an empty line begins the next thing: give fewer of them"
        )
    for number, thing in enumerate(things, 1):
        rows = thing.values() if isinstance(thing, dict) else thing
        refuse_fractions(f"thing {number} of boxes", (side for row in rows for side in row))
    return things


def checked_before_run(parse: Callable[[str], Any], text: str | None) -> bool | str:
    """A node's `validate_inputs` for a typed text: True, or the sentence with which `parse` refuses it.

    Args:
        parse: raises ValueError for a text that is not understood.
        text: None where it comes over a link, which only the run knows.
    """
    if text is None:
        return True
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return True


def _rescaled(thing: Any, rescale: Rescale) -> Any:
    if isinstance(thing, dict):
        return {rescale.frame(frame): rescale.box(row) for frame, row in thing.items()}
    return [rescale.box(row) for row in thing]


def curve_from_text(text: str) -> dict[int, float]:
    """'0: 1.0, -1: 0.5' as {0: 1.0, -1: 0.5}.

    Raises:
        ValueError: it is empty, a part is not understood or above MAX_STRENGTH, or a frame is given twice.
    """
    points: dict[int, float] = {}
    for part in re.split(r"[,;\n]", typed(text)):
        if not part.strip():
            continue
        match = re.fullmatch(r"\s*(-?\d{1,9})\s*:\s*(\d{0,9}\.?\d{1,20})\s*", part)
        if match is None:
            raise ValueError(f"'{shown(part.strip(), 60)}' in curve is not understood; {CURVE_FORM}")
        if int(match[1]) in points:
            raise ValueError(f"curve gives frame {match[1]} twice; remove one")
        points[int(match[1])] = float(match[2])
        if points[int(match[1])] > MAX_STRENGTH:
            raise ValueError(
                f"curve has '{shown(part.strip(), 60)}', expected strengths from 0 to {MAX_STRENGTH:g}; "
                "1 is what the model was trained with"
            )
    if not points:
        raise ValueError(f"curve is empty; {CURVE_FORM}")
    return points


def numbers_from_text(text: str) -> list[int]:
    """'0, 40, -1' as [0, 40, -1].

    Raises:
        ValueError: something is not a whole number.
    """
    parts = [part.strip() for part in re.split(r"[,;\n]", typed(text)) if part.strip()]
    if not all(re.fullmatch(r"[+-]?\d{1,9}", part) for part in parts):
        raise ValueError(
            f"positions is '{shown(text, 60)}'; give whole numbers separated by commas, such as 0, 40, -1"
        )
    return list(map(int, parts))


def colors_from_text(text: str, count: int) -> list[tuple[float, ...]] | None:
    """'red, #2040ff' as (r, g, b) in [0, 1] for each of `count` things; one color serves all, none is None.

    Raises:
        ValueError: a name is unknown, or there are neither one nor `count` colors.
    """
    from PIL import ImageColor

    names = [name.strip() for name in typed(text).split(",") if name.strip()]
    colors = []
    for name in names:
        try:
            colors.append(tuple(part / 255 for part in ImageColor.getrgb(name)[:3]))
        except ValueError:
            raise ValueError(
                f"colors has '{shown(name, 60)}'; give names or #rrggbb separated by commas, such as black, "
                "#e03020"
            ) from None
    if len(colors) == 1:
        return colors * count
    if colors and len(colors) != count:
        raise ValueError(
            f"{counted(len(colors), 'color')} for {counted(count, 'thing')}; "
            "give one for all, or one for each"
        )
    return colors or None


def _from_lines(text: str) -> list[Any]:
    """Each thing as a dict frame -> numbers, or a list of numbers where no frame is given."""
    things = []
    for block in re.split(r"\n[ \t\r]*\n", text):
        lines = [line.strip() for line in block.splitlines() if line.strip()]
        if not lines:
            continue
        keyed = ":" in lines[0]
        if any((":" in line) != keyed for line in lines):
            raise ValueError(
                f"boxes has lines with and without a frame number in one thing ('{shown(lines[0], 60)}' and "
                "others); give all of them one, or none"
            )
        rows = [_numbers(line.partition(":")[2] if keyed else line, line) for line in lines]
        if len({len(row) for row in rows}) > 1:
            raise ValueError("boxes has lines of two and of four numbers in one thing; use one kind")
        things.append(_keyed(lines, rows) if keyed else rows)
    return things


def _keyed(lines: list[str], rows: list[list[float]]) -> dict[int, list[float]]:
    thing: dict[int, list[float]] = {}
    for line, row in zip(lines, rows, strict=True):
        frame = line.partition(":")[0].strip()
        if not re.fullmatch(r"-?\d{1,9}", frame):
            raise ValueError(f"line '{shown(line, 60)}' of boxes is not understood; {BOX_FORM}")
        if int(frame) in thing:
            raise ValueError(f"boxes gives frame {frame} twice for one thing; remove one of the lines")
        thing[int(frame)] = row
    return thing


def _numbers(part: str, line: str) -> list[float]:
    try:
        row = [float(number) for number in re.split(r"[,;\s]+", part.strip())]
    except ValueError:
        row = []
    if len(row) not in (2, 4) or not all(map(math.isfinite, row)):
        raise ValueError(f"line '{shown(line, 60)}' of boxes is not understood; {BOX_FORM}")
    return row


def _from_json(text: str) -> list[list[list[float]]]:
    """Paths from the JSON of path-drawing nodes."""
    try:
        paths = parse_json(text if '"' in text else text.replace("'", '"'))  # as Python writes them, too
        if paths and isinstance(paths[0], dict):
            paths = [paths]
        points = [[[float(point["x"]), float(point["y"])] for point in path] for path in paths if path]
        if any(SIDE_KEYS & point.keys() for path in paths for point in path):
            raise ValueError  # a detector's boxes: x and y are a corner, not the middle
        if not all(math.isfinite(number) for path in points for point in path for number in point):
            raise ValueError
        return points
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            'boxes begins with "[" but is no list of {"x": .., "y": ..} points; connect a path-drawing node, '
            f"or {BOX_FORM}"
        ) from None


def _as_boxes(thing: Any, box_size: tuple[int, int], num_frames: int, first: int) -> Any:
    from ..vdot_core import vcu

    rows = list(thing.values()) if isinstance(thing, dict) else thing
    if len(rows[0]) == 4:
        return thing
    return vcu.path_boxes(thing, size=box_size, num_frames=num_frames, first=first, name="boxes")
