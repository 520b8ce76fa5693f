"""Compares two JSON values: equal to the last bit, equal to a tolerance, or what differs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

HASH = "sha256"  # keys of hashes of float bits, which another CPU or torch may round otherwise
SHOWN = 4


@dataclass
class Comparison:
    """The comparison of an item with its recording.

    Attributes:
        differences: What differs by more than the tolerance, or must not differ at all.
        bits: Places where floats or hashes of floats differ.
        added: Keys that the recording does not have.
    """

    differences: list[str] = field(default_factory=list)
    bits: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """True if no bit differs."""
        return not self.differences and not self.bits

    def describe(self, rtol: float) -> str:
        """One line for a person."""
        more = f"; new: {', '.join(self.added[:SHOWN])}" if self.added else ""
        if self.differences:
            rest = len(self.differences) - SHOWN
            text = "; ".join(self.differences[:SHOWN])
            return f"DIFFERENT: {text}{f'; and {rest} more' if rest > 0 else ''}{more}"
        return (f"equal to {rtol:g} (bits differ)" if self.bits else "bit-equal") + more


def compare(recorded: Any, now: Any, rtol: float, atol: float) -> Comparison:
    """Compare a value with its recording.

    Args:
        recorded, now: JSON values; keys that only `now` has are no difference.
        rtol, atol: How far floats may be apart; strings, integers and all else must be equal.
    """
    result = Comparison()
    _compare(recorded, now, "", rtol, atol, result)
    return result


def _compare(recorded: Any, now: Any, place: str, rtol: float, atol: float, result: Comparison) -> None:
    if isinstance(recorded, dict) and isinstance(now, dict):
        result.added += [f"{place}{key}" for key in now.keys() - recorded.keys()]
        for key, value in recorded.items():
            where = f"{place}{key}"
            if key not in now:
                result.differences.append(f"{where} is missing")
            elif key == HASH and value != now[key]:
                result.bits.append(where)
            else:
                _compare(value, now[key], f"{where}.", rtol, atol, result)
    elif isinstance(recorded, (list, tuple)) and isinstance(now, (list, tuple)):
        if len(recorded) != len(now):
            result.differences.append(f"{place[:-1]} has {len(now)} entries, recorded {len(recorded)}")
            return
        for number, (one, other) in enumerate(zip(recorded, now, strict=True)):
            _compare(one, other, f"{place}{number}.", rtol, atol, result)
    elif recorded == now and type(recorded) is type(now):
        return
    elif isinstance(recorded, float) and isinstance(now, float):
        result.bits.append(place[:-1])
        if not math.isclose(recorded, now, rel_tol=rtol, abs_tol=atol):
            result.differences.append(f"{place[:-1]} is {now!r}, recorded {recorded!r}")
    else:
        result.differences.append(f"{place[:-1]} is {_short(now)}, recorded {_short(recorded)}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
