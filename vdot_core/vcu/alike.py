"""Strength and part of the steps of units that are joined: a joined unit has one of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..choices import ALL_STEPS
from .unit import VCU

OWN_INPUT = "connect them to separate inputs of VDOT Encode"

Named = tuple[str, VCU]


class Settings(Protocol):
    """A unit, or the references that replace a unit's."""

    strength: float | tuple[float, ...]
    step_range: tuple[float, float]


def leading(named: Sequence[Named]) -> list[Named]:
    """The units that give a joined unit its strength and part of the steps.

    These are the units with frames, without any those with references, and without these all.
    """
    content = [item for item in named if item[1].kind != "generate"]
    return content or [item for item in named if item[1].references] or list(named)


def check_alike(named: Sequence[Named]) -> list[str]:
    """Refuse units whose strength or part of the steps would be lost when they are joined.

    Args:
        named: (what to call it, unit).
    Returns:
        A note on each reference that takes another strength or part of the steps; see `taken_settings`.
    Raises:
        ValueError: two units differ in strength or in their part of the steps.
    """
    leaders, notes = leading(named), []
    for name, unit in named:
        follows = all(unit is not leader for _, leader in leaders)
        taken = taken_settings(*leaders[0], name, unit, follows, "a composed unit", OWN_INPUT)
        if unit.references:
            notes += [f"{sentence}; to change that, {OWN_INPUT}" for sentence in taken]
    return notes


def taken_settings(
    first_name: str, first: Settings, name: str, other: Settings, follows: bool, joined: str, cure: str
) -> list[str]:
    """Strength and part of the steps that one takes of another with which it is joined.

    Args:
        first_name, first: what gives them.
        name, other: what takes them.
        follows: it may take them, if it has none of its own: strength 1, in all steps.
        joined, cure: subject and end of the refusal.
    Returns:
        A sentence on each that differs.
    Raises:
        ValueError: they differ, and one of them would be lost.
    """
    taken = []
    if other.step_range != first.step_range:
        if not follows or other.step_range != ALL_STEPS:
            raise ValueError(
                f"{first_name} acts from {percents(first.step_range)} of the steps and {name} from "
                f"{percents(other.step_range)}; {joined} has one part of them. Give both the same, or {cure}"
            )
        taken.append(f"{name} acts from {percents(first.step_range)} of the steps, as {first_name}")
    if other.strength != first.strength:
        if not follows or other.strength != 1.0:
            raise ValueError(
                f"{first_name} has strength {strength_shown(first.strength)} and {name} "
                f"{strength_shown(other.strength)}; {joined} has one strength. Give both the same, or {cure}"
            )
        taken.append(f"{name} has strength {strength_shown(first.strength)}, as {first_name}")
    return taken


def percents(step_range: tuple[float, float]) -> str:
    """A part of the steps, such as "0 % to 50 %"."""
    return " to ".join(f"{100 * part:g} %" for part in step_range)


def strength_shown(strength: float | tuple[float, ...]) -> str:
    """A unit's strength, and where it differs between latent frames, its range."""
    numbers = strength if isinstance(strength, tuple) else (strength,)
    low, high = min(numbers), max(numbers)
    return f"{low:g}" if low == high else f"{low:g} to {high:g} by latent frame"
