"""Checks that a checkpoint fits the run that resumes it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from vdot_core.text import listed

from .checkpoint import SavedStep
from .damage import PROGRESS, misfit, state_damage
from .record import changes

if TYPE_CHECKING:
    from .trainer import Trainer

logger = logging.getLogger("vdot")


def check_saved(trainer: Trainer, newest: SavedStep, progress: dict[str, Any]) -> str | None:
    """Refuse a checkpoint of other networks, seed or settings that must not change; find damage.

    Args:
        trainer: Of the run, at its first step.
        newest: The checkpoint.
        progress: What it says of its run.

    Returns:
        The reason why it cannot be used though it is this run's; None if it can.

    Raises:
        ValueError: It is of another run.
    """
    if reason := state_damage(progress):
        return reason
    config, states = trainer.config, trainer.optimizer_states()
    lacking = [n for n, s in states if "step" in s and n not in progress["optimizer_steps"]]
    if progress["network"] != trainer.method.sizes.to_dict():
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
    differences = changes(progress.get("settings", {}), trainer.settings)
    for change in differences if trainer.world.rank == 0 else ():
        logger.warning("changed since step %d: %s", newest.step, change)
    refused = ", ".join(change.key for change in differences if not change.free)
    if refused and not config.allow_changes:
        raise ValueError(
            f"{newest.path} does not fit this run: it was made with another {refused} (values above); "
            "give the same, or another out_dir, or set allow_changes true to resume with the new values"
        )
    if lacking and misfit(newest.path, trainer.tensors()) is None:
        return f"{PROGRESS} has no optimizer_steps of {listed(lacking, 1)}"
    return None
