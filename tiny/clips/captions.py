"""Exact captions of drawn clips, in several phrasings."""

from __future__ import annotations

from collections.abc import Sequence

DIRECTIONS = ("right", "lower right", "down", "lower left", "left", "upper left", "up", "upper right")


def _to(direction: str) -> str:
    return direction if direction in ("up", "down") else f"to the {direction}"


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def motion_phrase(path: str, direction: str, spin: bool, *, finite: bool) -> str:
    """Words for one object's motion.

    Args:
        path: A shape's 'still', 'linear', 'bounce' or 'circle'; a figure's 'walk', 'run', 'wave' or 'jump'.
        direction: One of `DIRECTIONS`; used where the object goes somewhere.
        spin: True if the object rotates while moving.
        finite: A finite verb ("moves up") rather than a participle ("moving up").

    Returns:
        The phrase, with no leading or trailing space.
    """
    verbs = {
        "still": ("stands still", "standing still"),
        "linear": (f"moves {_to(direction)}", f"moving {_to(direction)}"),
        "bounce": ("bounces around", "bouncing around"),
        "circle": ("moves in a circle", "moving in a circle"),
        "walk": (f"walks {_to(direction)}", f"walking {_to(direction)}"),
        "run": (f"runs {_to(direction)}", f"running {_to(direction)}"),
        "wave": ("waves a hand", "waving a hand"),
        "jump": ("jumps up and down", "jumping up and down"),
    }
    if path not in verbs:
        raise ValueError(f"path is {path!r}; expected one of {tuple(verbs)}")
    phrase = verbs[path][0 if finite else 1]
    if spin and path == "still":
        return "spins in place" if finite else "spinning in place"
    return f"{phrase} and {'spins' if finite else 'spinning'}" if spin else phrase


def phrasings(objects: Sequence, background: str, pan: str | None) -> tuple[str, ...]:
    """All true captions of a clip, short to long.

    Args:
        objects: Items with `size_name`, `color`, `shape`, `path`, `direction` and `spin`, nearest last.
        background: Words for the background, e.g. 'plain gray background'.
        pan: Direction in which the background drifts, or None.

    Returns:
        A tuple of captions; every word in each is true of the pixels.
    """
    names = [_article(f"{o.color} {o.shape}") for o in objects]
    sized = [_article(f"{o.size_name} {o.color} {o.shape}") for o in objects]
    finite = [motion_phrase(o.path, o.direction, o.spin, finite=True) for o in objects]
    going = [motion_phrase(o.path, o.direction, o.spin, finite=False) for o in objects]
    over = _article(background)
    drift = f", the background drifts {_to(pan)}" if pan else ""
    if len(objects) == 1:
        return (
            f"{names[0]}",
            f"{names[0]} {going[0]}",
            f"{names[0]} on {over}",
            f"{names[0]} {finite[0]} over {over}{drift}",
            f"{sized[0]} {going[0]} over {over}{drift}",
            f"a video of {sized[0]} that {finite[0]} in front of {over}{drift}",
            f"{background}, {objects[0].color} {objects[0].shape} {going[0]}{drift}",
        )
    both = " and ".join(names)
    return (
        both,
        f"{both} on {over}",
        f"{names[0]} {going[0]} and {names[1]} {going[1]}",
        f"{names[0]} {finite[0]} and {names[1]} {finite[1]} over {over}{drift}",
        f"{sized[0]} {going[0]} and {sized[1]} {going[1]} over {over}{drift}",
        f"a video of {sized[1]} in front of {sized[0]} on {over}{drift}",
    )


def figure_phrasings(figure, background: str, pan: str | None) -> tuple[str, ...]:
    """All true captions of a clip that shows one stick figure; arguments as for `phrasings`."""
    name = _article(f"{figure.color} {figure.shape}")
    sized = _article(f"{figure.size_name} {figure.color} {figure.shape}")
    finite = motion_phrase(figure.path, figure.direction, False, finite=True)
    going = motion_phrase(figure.path, figure.direction, False, finite=False)
    over = _article(background)
    drift = f", the background drifts {_to(pan)}" if pan else ""
    return (
        f"{name}",
        f"{name} {going}",
        f"{name} on {over}",
        f"{name} {going} on {over}{drift}",
        f"{sized} {finite} in front of {over}{drift}",
        f"{sized} {going} over {over}{drift}",
        f"{background}, {figure.color} {figure.shape} {going}{drift}",
    )
