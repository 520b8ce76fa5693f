"""Estimates GPU memory and time of a distillation run.

    python training/distill.py --config training/configs/wan_14b_stage2.yaml --plan --gpus 4 --memory 140
    python training/plan.py --config training/configs/wan_14b_stage2.yaml --gpus 8 --memory 80 --references 1

Both take the same options, those of `training/planning/arguments.py`; `--plan --help` lists them. Memory
follows from counted parameters and activations, time from counted operations; the assumed hardware rates are
printed with the result.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.data.producer import make_producer
from training.methods.programs import distill_parser
from training.methods.vdot_config import DistillConfig
from training.planning.arguments import PlanArguments, PlanOptions, read_options
from training.planning.budget import Budget, make_budget
from training.planning.remedies import enough_gpus, remedies
from training.planning.table import memory_lines, remedy_lines, run_lines, time_lines
from training.planning.workload import Clip

logger = logging.getLogger("vdot")


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
    from training.engine.networks import network_sizes

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
    """
    budget = plan_budget(config, arguments)
    parts = [run_lines(budget), memory_lines(budget), time_lines(budget)]
    if not budget.fits:

        def rebuild(changed: DistillConfig, gpus: int | None = None) -> Budget:
            machine = arguments.machine
            machine = dataclasses.replace(machine, gpus=gpus) if gpus else machine
            return plan_budget(changed, dataclasses.replace(arguments, machine=machine))

        fixes = remedies(budget, rebuild)
        parts.append(remedy_lines(fixes, enough_gpus(budget, rebuild), arguments.machine.memory_gib))
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def plan(config: DistillConfig, arguments: PlanArguments) -> int:
    """Print the memory and time that a run needs.

    Args:
        config: The run.
        arguments: The machine, and what a sample has.

    Returns:
        Exit status: 0 if the run fits as it is configured, 1 if it does not.
    """
    sys.stdout.write(plan_text(config, arguments))
    return 0 if plan_budget(config, arguments).fits else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status of `plan`, or 2 for a wrong argument.

    Args:
        argv: `--config FILE`, overrides of its keys, the plan's options; `--plan` itself may be among them.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    argv = [word for word in (sys.argv[1:] if argv is None else argv) if word != "--plan"]
    run = distill_parser()
    run.parser.prog, run.parser.description = "python training/plan.py", __doc__
    run.parser.add_class_arguments(PlanOptions, nested_key=None)
    try:
        config, values = run.read(argv)
        return plan(config, read_options(values))
    except ValueError as error:
        logger.error("%s", error)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
