"""Purpose of a checkpoint, as far as it says: the steps to sample it with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .info import CheckpointInfo

DISTILLED_BY, TRAINED_BY = "training/distill.py", "trained_by"
_SCHEDULE = re.compile(r"(\d{1,3}) steps, shift (\d{1,3}(?:\.\d{1,4})?), renoise")
_VDOT_NAME = re.compile(r"(?<![a-z])vdot(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Purpose:
    """Preset and numbers to sample a network with.

    Args:
        preset: of `vdot_core.sampling.PRESETS`.
        reason: why, as "a VDOT file" in "released (a VDOT file)".
        steps, shift: other numbers than the preset's; None = the preset's.
    """

    preset: str
    reason: str
    steps: int | None = None
    shift: float | None = None

    @property
    def numbers(self) -> dict[str, float]:
        """Arguments of the preset's schedule."""
        numbers = {"steps": self.steps, "shift": self.shift}
        return {name: value for name, value in numbers.items() if value is not None}


UNDISTILLED = Purpose("vace", "nothing in its file says that it is distilled")


def purpose_of(info: CheckpointInfo) -> Purpose:
    """Purpose of a network: by an export's metadata, else as a VDOT release by name or content."""
    exported = purpose_of_metadata(info.metadata)
    if exported is not None:
        return exported
    names = [info.path.name, *(file.name for file in info.files)]
    if info.layout.startswith("vdot-pt") or any(map(_VDOT_NAME.search, names)):
        return Purpose("released", "a VDOT file")
    return UNDISTILLED


def purpose_of_metadata(metadata: Mapping[str, str]) -> Purpose | None:
    """Purpose that the exporting program wrote into a file; None for other files.

    Args:
        metadata: strings of a safetensors header.
    """
    program = metadata.get(TRAINED_BY)
    if program is None:
        return None
    match = _SCHEDULE.fullmatch(metadata.get("schedule", ""))
    if program != DISTILLED_BY or match is None:
        return Purpose("vace", "trained, not distilled, by its metadata")
    return Purpose("trained", "distilled so, by its metadata", int(match[1]), float(match[2]))
