"""Checks that a checkpoint fits the run that resumes it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vdot_core.text import listed

from .checkpoint import SavedStep
from .config import RunConfig
from .damage import PROGRESS, misfit, state_damage
from .record import changes

logger = logging.getLogger("vdot")
HELD_OUT = ("validation.rows", "validation.fraction")


@dataclass(frozen=True)
class Resuming:
    """The run that a checkpoint must fit, at its first step.

    Attributes:
        config: Its configuration.
        settings: Its settings by dotted key; see `record.settings`.
        network: Sizes of its networks.
        tensors: Every tensor that it needs, by name.
        optimizer_states: Name of each parameter that is trained -> its optimizer's state.
        logs: True for the process that logs.
    """

    config: RunConfig
    settings: Mapping[str, Any]
    network: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    optimizer_states: Sequence[tuple[str, Mapping[str, Any]]]
    logs: bool


def check_saved(run: Resuming, newest: SavedStep, progress: dict[str, Any]) -> str | None:
    """Refuse a checkpoint of other networks, seed or settings that must not change; find damage.

    Args:
        run: What resumes.
        newest: The checkpoint.
        progress: What it says of its run.

    Returns:
        The reason why it cannot be used though it is this run's; None if it can.

    Raises:
        ValueError: It is of another run.
    """
    if reason := state_damage(progress):
        return reason
    config = run.config
    lacking = [n for n, s in run.optimizer_states if "step" in s and n not in progress["optimizer_steps"]]
    if progress["network"] != run.network:
        raise ValueError(
            f"{newest.path} holds networks of other sizes, {progress['network']}; it does not fit this "
            "run: give the configuration it was made with, or another out_dir"
        )
    for key, value, saved in (
        ("seed", config.seed, progress["seed"]),
        ("optim.state_bits", config.optim.state_bits, progress.get("state_bits", 32)),
    ):
        if value != saved:
            raise ValueError(
                f"{key} is {value}, and {newest.path} was made with {saved}; give it, or another out_dir"
            )
    if run.logs and not progress.get("settings"):
        logger.warning("%s does not say its settings: no change of them is noticed", newest.path)
    differences = changes(progress.get("settings", {}), run.settings)
    for change in differences if run.logs else ():
        logger.warning("changed since step %d: %s", newest.step, change)
    held_out = [str(change) for change in differences if change.key in HELD_OUT]
    if held_out and config.validation.every:
        raise ValueError(
            f"{newest.path} was trained without the clips that its run held out, and {listed(held_out)} "
            "chooses others, which it has seen; give the same, or another out_dir"
        )
    if any(change.key == "validation.every" and not change.before and change.now for change in differences):
        raise ValueError(
            f"{newest.path} was trained on all clips, so that none is left to be held out for validation; "
            "set validation.every 0, or give another out_dir"
        )
    refused = listed((change.key for change in differences if not change.free), 4)
    reason = misfit(newest.path, run.tensors)
    if reason and refused:
        raise ValueError(
            f"{newest.path} does not fit this run: it was made with another {refused} (values above), and "
            f"{reason}; give the same, or another out_dir: with other weights allow_changes does not help"
        )
    if refused and not config.allow_changes:
        raise ValueError(
            f"{newest.path} does not fit this run: it was made with another {refused} (values above); "
            "give the same, or another out_dir, or set allow_changes true to resume with the new values"
        )
    if lacking and reason is None:
        return f"{PROGRESS} has no optimizer_steps of {listed(lacking, 1)}"
    return None
