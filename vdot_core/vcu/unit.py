"""The video condition unit (VCU): frames, masks and references that say what to generate and what to keep.

Shape letters: F pixel frames, H W pixels, T latent frames.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..choices import ALL_STEPS
from ..text import counted
from .checks import MAX_FRAMES, MAX_STRENGTH, as_list, as_step_range, as_strength, described, real, whole

VAE_STRIDE = (4, 8, 8)
PATCH_SIZE = (1, 2, 2)
SIZE_MULTIPLE = VAE_STRIDE[1] * PATCH_SIZE[1]
GRAY = 0.5
KINDS = ("generate", "control", "repaint", "extension")
# Resampling and half precision overshoot [0, 1] by rounding only; anything more is a wrong range.
RANGE_TOLERANCE = 1e-3

logger = logging.getLogger("vdot")


@dataclass(frozen=True, eq=False)
class VCU:
    """One task for the model, in the form VACE was trained on.

    Make one with a builder (`text`, `control`, `inpaint`, ..), which fits any clip; the constructor only
    checks.
    The tensors are shared, not copied: treat them as read-only.

    Args:
        frames: [F, H, W, 3] float in [0, 1]; 0.5 (gray) where nothing is known. F is 4n+1, H and W multiples
            of 16.
        masks: [F, H, W] float in [0, 1]; 1 = generate, 0 = keep. Binarized at > 0.5 when encoded.
        references: images [H', W', 3] float in [0, 1] of things to show; letterboxed on white when encoded.
        kind: meaning of the frames: 'generate', 'control', 'repaint' (inpainting and outpainting) or
            'extension'; the rule for `compose`.
        region: [F, H, W] of 0 and 1, where a control applies; None = everywhere.
        strength: scale of this unit's context in the network, kept apart when encoded as one of several
            contexts: one float, or a tuple with one for each latent frame of the video (references not
            counted), which becomes a float where all are the same.
        notes: what was changed to make the input fit, one sentence each; not part of equality.
        parts: the units a composition was made from, so that composing again starts from them.
        step_range: part of the sampling in which the unit's context acts, as (start, end): from 0, the first
            step, to 1; the end is exclusive. ComfyUI's percents.

    Raises:
        ValueError: a shape, length, size, dtype or range is wrong.
    """

    frames: Tensor
    masks: Tensor
    references: tuple[Tensor, ...] = ()
    kind: str = "repaint"
    region: Tensor | None = None
    strength: float | tuple[float, ...] = 1.0
    notes: tuple[str, ...] = ()
    parts: tuple[VCU, ...] = ()
    step_range: tuple[float, float] = ALL_STEPS

    def __post_init__(self):
        for name in ("references", "notes", "parts"):
            object.__setattr__(self, name, tuple(as_list(getattr(self, name), name)))
        _check_shape("frames", self.frames, "[F, H, W, 3]", lambda s: len(s) == 4 and s[3] == 3)
        num_frames, height, width, _ = self.frames.shape
        if num_frames < 1 or num_frames % VAE_STRIDE[0] != 1:
            raise ValueError(
                f"frames has {counted(num_frames, 'frame')}, expected 4n+1 (1, 5, .., 81); "
                "a builder fits the clip"
            )
        if height < SIZE_MULTIPLE or width < SIZE_MULTIPLE or height % SIZE_MULTIPLE or width % SIZE_MULTIPLE:
            raise ValueError(
                f"frames are {width}x{height}, expected multiples of {SIZE_MULTIPLE}; a builder fits the clip"
            )
        self._check_mask("masks", self.masks)
        if self.region is not None:
            self._check_mask("region", self.region)
        if not isinstance(self.kind, str) or self.kind not in KINDS:
            raise ValueError(f"kind is {described(self.kind)}, expected one of {', '.join(KINDS)}")
        _check_range("frames", self.frames)
        for index, image in enumerate(self.references):
            _check_shape(f"reference {index + 1}", image, "[H, W, 3]", lambda s: len(s) == 3 and s[2] == 3)
            _check_range(f"reference {index + 1}", image)
        object.__setattr__(self, "strength", as_strength(self.strength, self.num_latent_frames))
        object.__setattr__(self, "step_range", as_step_range(self.step_range))

    def _check_mask(self, name: str, mask: Tensor) -> None:
        _check_shape(name, mask, "[F, H, W]", lambda s: len(s) == 3)
        if mask.shape[0] != self.num_frames:
            raise ValueError(
                f"{name} has {counted(mask.shape[0], 'frame')}, frames has {self.num_frames}; "
                "give both the same length"
            )
        if mask.shape[1:] != self.frames.shape[1:3]:
            raise ValueError(
                f"{name} is {mask.shape[2]}x{mask.shape[1]}, frames are {self.width}x{self.height}; "
                "give both the same size"
            )
        _check_range(name, mask)

    @property
    def num_frames(self) -> int:
        return self.frames.shape[0]

    @property
    def height(self) -> int:
        return self.frames.shape[1]

    @property
    def width(self) -> int:
        return self.frames.shape[2]

    @property
    def num_latent_frames(self) -> int:
        """Latent frames of the video itself, without references."""
        return num_latent_frames(self.num_frames)

    @property
    def strengths(self) -> tuple[float, ...]:
        """The strength of each latent frame of the video."""
        if isinstance(self.strength, tuple):
            return self.strength
        return (self.strength,) * self.num_latent_frames

    def scaled(self, factor: float, name: str = "factor") -> VCU:
        """A copy with every strength multiplied by a factor.

        Args:
            factor: from 0 to 100.
            name: what to call it in messages.
        Raises:
            ValueError: the factor or the product is no such number.
        """
        scaled = self.scaled_over_time([factor] * self.num_latent_frames, name)
        return scaled if isinstance(self.strength, tuple) else self.replace(strength=scaled.strengths[0])

    def scaled_over_time(self, factors: Sequence[float], name: str) -> VCU:
        """A copy with the strength of each latent frame multiplied by its factor.

        Args:
            factors: T numbers from 0 to 100.
            name: what to call them in messages.
        Raises:
            ValueError: a factor or a product is no such number.
        """
        factors = [real(name, factor, 0.0, MAX_STRENGTH) for factor in factors]
        strengths = [own * factor for own, factor in zip(self.strengths, factors, strict=True)]
        if max(strengths) > MAX_STRENGTH:
            raise ValueError(
                f"{name} times the unit's own strength is {max(strengths):g}, expected at most "
                f"{MAX_STRENGTH:g}; give a smaller {name}"
            )
        return self.replace(strength=as_strength(strengths, self.num_latent_frames))

    def __eq__(self, other) -> bool:
        if not isinstance(other, VCU):
            return NotImplemented
        return (
            self.kind == other.kind
            and self.strength == other.strength
            and self.step_range == other.step_range
            and len(self.references) == len(other.references)
            and _same(self.frames, other.frames)
            and _same(self.masks, other.masks)
            and (self.region is None) == (other.region is None)
            and (self.region is None or _same(self.region, other.region))
            and all(_same(a, b) for a, b in zip(self.references, other.references, strict=True))
        )

    def __hash__(self) -> int:
        return hash(
            (self.kind, self.strength, self.step_range, tuple(self.frames.shape), len(self.references))
        )

    def __str__(self) -> str:
        references = f", {counted(len(self.references), 'reference')}" if self.references else ""
        return f"{self.kind} {self.width}x{self.height}, {counted(self.num_frames, 'frame')}{references}"

    def replace(self, **changes) -> VCU:
        """A copy with some fields changed, checked again."""
        shared = {name: changes[name] for name in ("strength", "step_range") if name in changes}
        # A still among the parts of a video has strengths of fewer latent frames.
        fits = isinstance(shared.get("strength", 1.0), (int, float)) or all(
            part.num_frames == self.num_frames for part in self.parts
        )
        if self.parts and "parts" not in changes and not (fits and changes.keys() <= {"notes", *shared}):
            # The parts no longer add up to this unit; composing it again must start from what it is now.
            changes["parts"] = ()
        elif self.parts and shared:
            changes["parts"] = tuple(part.replace(**shared) for part in self.parts)
        return dataclasses.replace(self, **changes)


def num_latent_frames(num_frames: int) -> int:
    """Latent frames of a clip: the first frame alone, then one for every four."""
    return (num_frames - 1) // VAE_STRIDE[0] + 1


def gray_frames(num_frames: int, height: int, width: int, device: torch.device | str | None = None) -> Tensor:
    """A gray clip [F, H, W, 3], where nothing is known; stored as one value."""
    return torch.full((1, 1, 1, 1), GRAY, device=device).expand(num_frames, height, width, 3)


def full_mask(num_frames: int, height: int, width: int, device: torch.device | str | None = None) -> Tensor:
    """A mask [F, H, W] that generates everything; stored as one value."""
    return torch.ones(1, 1, 1, device=device).expand(num_frames, height, width)


def dense(tensor: Tensor) -> Tensor:
    """A tensor without its repetitions: dimensions that `expand` stretched are cut to one."""
    return tensor[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in tensor.stride())]


def strength_curve(points: Mapping[int, float], num_frames: int, name: str = "points") -> tuple[float, ...]:
    """A strength for each latent frame, drawn through a few points in time.

    Args:
        points: frame number -> strength; linear between them, constant before the first and after the last.
            Negative numbers count from the end (-1 = last frame).
        num_frames: length of the video, 4n+1.
        name: what to call the points in messages.
    Returns:
        One float per latent frame: the curve at the middle of its frames.
    Raises:
        ValueError: no point, a frame outside the video or given twice, or a strength that is no such number.
    """
    total = whole("num_frames", num_frames, 1, MAX_FRAMES)
    if not isinstance(points, Mapping) or not points:
        raise ValueError(
            f"{name} is empty or no mapping; give frame numbers and strengths, as {0: 1.0, -1: 0.0}"
        )
    keys = sorted(moments(points, total, name))
    values = dict(zip(moments(points, total, name), points.values(), strict=True))
    heights = [real(f"{name} at frame {key}", values[key], 0.0, MAX_STRENGTH) for key in keys]
    stride = VAE_STRIDE[0]
    middles = [0.0] + [1 + stride * t + (stride - 1) / 2 for t in range(num_latent_frames(total) - 1)]
    return tuple(np.interp(middles, keys, heights).tolist())


def moments(points: Mapping[int, object], total: int, name: str) -> list[int]:
    """The keys of a mapping as frame numbers from 0, in their order; ValueError where one is out or twice."""
    places: dict[int, object] = {}
    for key in points:
        place = whole(f"a frame number of {name}", key, -total, total - 1)
        place += total if place < 0 else 0
        if place in places:
            raise ValueError(
                f"{name} is given twice at frame {place} ({places[place]} and {key}); remove one"
            )
        places[place] = key
    return list(places)


def built(frames: Tensor, masks: Tensor, *, notes: tuple[str, ...] | list[str] = (), **fields) -> VCU:
    """Make the VCU that a builder returns, and log its notes."""
    for note in notes:
        logger.info("%s", note)
    return VCU(frames=frames, masks=masks, notes=tuple(notes), **fields)


def _same(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.shape == b.shape and bool(torch.equal(a, b.to(a.device))))


def _check_shape(name: str, value: Tensor, expected: str, fits) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} is a {type(value).__name__}, expected a torch tensor {expected}")
    if not fits(value.shape):
        raise ValueError(f"{name} has shape {list(value.shape)}, expected {expected}")
    if not value.is_floating_point():
        raise ValueError(
            f"{name} has dtype {value.dtype}, expected float in [0, 1]; use a builder, which converts it"
        )
    if value.numel() == 0:
        raise ValueError(f"{name} is empty (shape {list(value.shape)}); give at least one pixel")


def _check_range(name: str, value: Tensor) -> None:
    low, high = (float(v) for v in torch.aminmax(dense(value.detach())))
    if not (low >= -RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):
        if low != low or high != high:
            raise ValueError(f"{name} holds NaN; expected numbers in [0, 1]. Look at the node that made it")
        raise ValueError(
            f"{name} ranges from {low:.4g} to {high:.4g}, expected [0, 1]; "
            "divide 0..255 by 255, map -1..1 by (x + 1) / 2"
        )
