"""Combining units into one, by the rules VACE was trained with (its CompositionAnnotator)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations, groupby

import torch
from torch import Tensor

from ..memory import MASK, RGB
from ..progress import steps
from ..scratch import empty
from .alike import check_alike, leading
from .checks import check_volume
from .lengths import fit_units
from .masks import binarize
from .scaling import FRAMES_PER_CHUNK
from .unit import GRAY, VCU, built, dense

FOLD_ORDER = ("extension", "repaint", "control")
# The same clip in two codecs differs by about one 8-bit level; more is another picture.
SAME_PIXEL = 1.5 / 255
# Every pair is compared, and a unit that is given twice has its parts twice.
MAX_PARTS = 100


def compose(*units: VCU, names: Sequence[str] | None = None) -> VCU:
    """Combine units into one. The order in which they are given matters only among units of one kind.

    They are folded in the order extension, repaint, control (masks 0/1, 1 = generate):
    extension + X: frames X*mE + E*(1-mE), mask mE*mX; repaint + repaint: frames A*(1-mB) + B*mB, mask the
    union; repaint + control: frames R*(1-mR) + C*mR, mask mR; control + control: each in its own region.
    A 'generate' unit (text, reference) brings only its references, which take the strength and the part of
    the steps of the other units; references are concatenated in the order given. A unit composed before takes
    part with the units it was made from.

    Args:
        units: one or more, of one size and length. 'generate' units may differ in length, and controls by
            one latent frame; they are fitted.
        names: what to call each unit in messages; None = 'unit 1', ..
    Returns:
        The combined unit; `parts` holds what it was made from.
    Raises:
        ValueError: there are more than `MAX_PARTS`, sizes, lengths, strengths or parts of the steps differ
            (a reference of strength 1 that acts in all steps goes with any), controls overlap, or two
            extensions, or two repaints, keep different pixels. The two units that clash are named by number
            and kind.
    """
    if not units:
        raise ValueError("nothing to compose; give at least one unit")
    names = [f"unit {number}" for number in range(1, len(units) + 1)] if names is None else names
    for name, unit in zip(names, units, strict=True):
        if not isinstance(unit, VCU):
            raise ValueError(f"{name} is a {type(unit).__name__}, expected a VCU; make it with a builder")
    named = [item for name, unit in zip(names, units, strict=True) for item in _named_parts(name, unit)]
    if len(named) > MAX_PARTS:
        raise ValueError(
            f"the units were made from {len(named)} in all, expected at most {MAX_PARTS}; compose fewer"
        )
    named, fitted = fit_units(named)
    parts = [part for _, part in named]
    if len(parts) == 1:
        return parts[0]
    content = [item for item in named if item[1].kind != "generate"]
    notes = list(dict.fromkeys(note for part in parts for note in part.notes))
    notes += fitted + _check_shapes(named, content) + check_alike(named)

    if len(content) > 1:
        first = content[0][1]
        check_volume(first.num_frames, first.width, first.height, RGB + MASK)
    base = _fold(content) if content else parts[0]
    kinds = {unit.kind for _, unit in content}
    _, leader = leading(named)[0]
    kind = next((k for k in ("repaint", "extension", "control") if k in kinds), "generate")
    return built(
        base.frames,
        base.masks,
        references=tuple(image for part in parts for image in part.references),
        kind=kind,
        region=base.region if kind == "control" else None,
        strength=leader.strength,
        step_range=leader.step_range,
        notes=notes,
        parts=tuple(parts),
    )


def _named_parts(name: str, unit: VCU) -> list[tuple[str, VCU]]:
    """The units that one was made from, as errors call them by what the caller gave."""
    if not unit.parts:
        return [(f"{name} ({unit})", unit)]
    return [(f"{name}, part {place} ({part})", part) for place, part in enumerate(unit.parts, 1)]


def _check_shapes(named: list[tuple[str, VCU]], content: list[tuple[str, VCU]]) -> list[str]:
    """Refuse units of different size or length; notes on 'generate' units of another length."""
    first_name, first = (content or named)[0]
    notes = []
    for name, unit in named:
        if (unit.width, unit.height) != (first.width, first.height):
            raise ValueError(f"{first_name} and {name} differ in size; give both the same width and height")
        if unit.num_frames == first.num_frames:
            continue
        if unit.kind != "generate" or not content:
            raise ValueError(f"{first_name} and {name} differ in length; give both the same number of frames")
        notes.append(f"{name}: takes the length of {first_name}")
    return notes


@dataclass(frozen=True)
class _Layer:
    """Some frames of a unit: masks of 0 and 1, gray where a repaint or an extension generates."""

    frames: Tensor
    masks: Tensor
    region: Tensor | None = None


def _fold(content: list[tuple[str, VCU]]) -> VCU:
    """Combine the units of each kind, then the kinds, extension first; a few frames at a time."""
    for kind in FOLD_ORDER:
        # All pairs are checked before merging, so that a clash names both units in any order.
        for a, b in combinations([item for item in content if item[1].kind == kind], 2):
            _CLASHES[kind](a, b)
    units = sorted((unit for _, unit in content), key=lambda unit: FOLD_ORDER.index(unit.kind))
    last = units[-1]
    if len(units) == 1:
        return _binary(last)
    parts = [slice(start, start + FRAMES_PER_CHUNK) for start in range(0, last.num_frames, FRAMES_PER_CHUNK)]
    out: _Layer | None = None
    for part in steps(parts):
        layer = _folded(units, part)
        if out is None:
            fields = (layer.frames, layer.masks, layer.region)
            shapes = [None if field is None else (last.num_frames, *field.shape[1:]) for field in fields]
            out = _Layer(
                *(f if f is None else empty(s, f.device) for f, s in zip(fields, shapes, strict=True))
            )
        out.frames[part], out.masks[part] = layer.frames, layer.masks
        if out.region is not None:
            out.region[part] = layer.region
    return last.replace(
        frames=out.frames, masks=out.masks, region=out.region, references=(), notes=(), parts=()
    )


def _folded(units: list[VCU], part: slice) -> _Layer:
    """The combination of units, in the order of folding, in some frames."""
    combined = None
    for kind, same in groupby(units, key=lambda unit: unit.kind):
        layer = reduce(_MERGES[kind], (_layer(unit, part) for unit in same))
        combined = layer if combined is None else _over(combined, layer)
    return combined


def _layer(unit: VCU, part: slice) -> _Layer:
    frames, masks = unit.frames[part], binarize(unit.masks[part])
    if unit.kind != "control":
        frames = frames.masked_fill(masks[..., None] > 0, GRAY)
    return _Layer(frames, masks, None if unit.region is None else binarize(unit.region[part]))


def _over(base: _Layer, other: _Layer) -> _Layer:
    """Extension + X and repaint + control: what the first keeps stays, the other fills the rest."""
    return _Layer(_where(base.masks, other.frames, base.frames), base.masks * other.masks)


def _extensions_clash(a: tuple[str, VCU], b: tuple[str, VCU]) -> None:
    (name_a, first), (name_b, second) = a, b
    frame = _first_difference(first, second)
    if frame is not None:
        raise ValueError(f"{name_a} and {name_b} both give frame {frame}, and differ there; keep one of them")


def _repaints_clash(a: tuple[str, VCU], b: tuple[str, VCU]) -> None:
    (name_a, first), (name_b, second) = a, b
    frame = _first_difference(first, second)
    if frame is not None:
        raise ValueError(
            f"{name_a} and {name_b} keep pixels of different clips, as in frame {frame}; "
            "repaint the same clip"
        )


def _controls_clash(a: tuple[str, VCU], b: tuple[str, VCU]) -> None:
    (name_a, first), (name_b, second) = a, b
    if first.region is None or second.region is None or _overlap(first.region, second.region):
        raise ValueError(
            f"{name_a} and {name_b} are controls of the same region; VACE was trained on separate ones. "
            "Give each its own region, or connect them to separate inputs of VDOT Encode"
        )


def _overlap(first: Tensor, second: Tensor) -> bool:
    """True if two regions [F, H, W] share a pixel; frame by frame, to spare memory."""
    return any(bool(((one > 0.5) & (other > 0.5)).any()) for one, other in zip(first, second, strict=True))


def _two_extensions(first: _Layer, second: _Layer) -> _Layer:
    return _Layer(_where(first.masks, second.frames, first.frames), first.masks * second.masks)


def _two_repaints(first: _Layer, second: _Layer) -> _Layer:
    masks = first.masks * (1 - second.masks) + second.masks
    return _Layer(_where(second.masks, second.frames, first.frames), masks)


def _two_controls(first: _Layer, second: _Layer) -> _Layer:
    frames = _where(second.region, second.frames, first.frames)
    return _Layer(frames, second.masks, first.region + second.region)


_CLASHES = {"extension": _extensions_clash, "repaint": _repaints_clash, "control": _controls_clash}
_MERGES = {"extension": _two_extensions, "repaint": _two_repaints, "control": _two_controls}


def _binary(unit: VCU) -> VCU:
    """The unit with masks of 0 and 1, and gray where a repaint or an extension generates.

    Builders give both already; a copy is made only of what a caller made otherwise, because clips are large.
    """
    masks = _cut(unit.masks)
    region = None if unit.region is None else _cut(unit.region)
    frames = unit.frames
    if unit.kind != "control" and not all(
        bool((frame[mask > 0] == GRAY).all()) for frame, mask in zip(frames, masks, strict=True)
    ):
        frames = torch.where(masks[..., None] > 0, GRAY, frames)
    return unit.replace(frames=frames, masks=masks, region=region, references=(), notes=(), parts=())


def _cut(mask: Tensor) -> Tensor:
    """`binarize`, or the mask itself where it is 0 and 1 already."""
    values = dense(mask)
    if all(bool(((part == 0) | (part == 1)).all()) for part in values):
        return mask
    return binarize(mask)


def _where(mask: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    return torch.where(mask[..., None] > 0, inside, outside)


def _first_difference(first: VCU, second: VCU) -> int | None:
    """The first frame in which two units keep different pixels; None where there is none."""
    # Frame by frame: the differences of all frames are as large as the clip.
    for index, (one, other) in enumerate(zip(first.frames, second.frames, strict=True)):
        both = (first.masks[index] <= 0.5) & (second.masks[index] <= 0.5)
        if bool(both.any()) and bool((((one - other).abs().amax(-1) > SAME_PIXEL) & both).any()):
            return index
    return None
