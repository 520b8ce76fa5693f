"""The plan of a run: its budget on a machine, as a page of text."""

from __future__ import annotations

import dataclasses

from ..data.config import micro_batch_size
from ..data.producer import make_producer
from ..engine.networks import network_sizes
from ..methods.vdot_checks import check_settings
from ..methods.vdot_config import DistillConfig
from .arguments import PlanArguments
from .budget import Budget, make_budget
from .remedies import enough_gpus, remedies
from .table import disk_lines, memory_lines, remedy_lines, run_lines, time_lines
from .workload import Clip


def clip_of(config: DistillConfig, references: int = 0, contexts: int = 1) -> Clip:
    """The largest sample of a run: the configured size, or a wide clip of as many pixels as are allowed.

    Args:
        config: The run.
        references: Reference images.
        contexts: Contexts that are not merged.

    Returns:
        The clip.
    """
    data = config.data
    contexts = 0 if config.model.text_only else contexts
    if data.source == "producer":
        return Clip(*make_producer(data).largest_clip(), references, contexts)
    width, height = data.width, data.height
    if width is None or height is None:
        height = max(16, int((data.max_pixels * 480 / 832) ** 0.5) // 16 * 16)
        width = max(16, data.max_pixels // height // 16 * 16)
    return Clip(width, height, data.num_frames, references, contexts)


def plan_budget(config: DistillConfig, arguments: PlanArguments) -> Budget:
    """Estimate the memory and time of a run on a machine.

    Args:
        config: The run.
        arguments: The machine, and what a sample has.

    Returns:
        The budget.
    """
    model, clip = config.model, clip_of(config, arguments.references, arguments.contexts)
    sizes = network_sizes(model.preset, model.real_score, text_only=model.text_only)
    return make_budget(config, sizes, clip, arguments.machine)


def plan_text(config: DistillConfig, arguments: PlanArguments) -> str:
    """The plan as a page of text.

    Args:
        config: The run.
        arguments: The machine, and what a sample has.

    Returns:
        The run, the memory of a GPU by component, the time of a step, and what makes it fit if it does not.

    Raises:
        ValueError: The run would refuse the settings, too; a batch that does not divide is a note alone.
    """
    notes = check_settings(config, arguments.machine.gpus)
    budget, data = plan_budget(config, arguments), config.data
    if budget.batch == data.batch_size:
        micro_batch_size(data.batch_size, data.accumulation, data.group_size, arguments.machine.gpus)
    parts = [run_lines(budget, notes), memory_lines(budget), disk_lines(budget), time_lines(budget)]
    if not budget.fits:

        def rebuild(changed: DistillConfig, gpus: int | None = None) -> Budget:
            machine = arguments.machine
            machine = dataclasses.replace(machine, gpus=gpus) if gpus else machine
            return plan_budget(changed, dataclasses.replace(arguments, machine=machine))

        fixes = remedies(budget, rebuild)
        parts.append(remedy_lines(fixes, enough_gpus(budget, rebuild), arguments.machine.memory_gib))
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"
