"""What a distillation run needs of its GPUs, worked out without one.

    python training/distill.py --config training/configs/wan_14b_stage2.yaml --plan --gpus 4 --memory 141
    python training/plan.py --config training/configs/wan_14b_stage2.yaml --gpus 8 --memory 80 --references 1

Memory follows from counted parameters and counted activations, time from counted operations; what is assumed
of the hardware is printed with the result.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.distill_config import DistillConfig
from training.planning.budget import Budget, Machine, enough_gpus, make_budget, remedies
from training.planning.phases import Rates
from training.planning.table import memory_lines, remedy_lines, run_lines, time_lines
from training.planning.workload import Clip

logger = logging.getLogger("vdot")


@dataclasses.dataclass(frozen=True)
class PlanArguments:
    """What is planned for, beside the run's own configuration.

    Attributes:
        machine: The GPUs.
        references: Reference images of a sample.
        contexts: Contexts of a sample that are not merged into one.
    """

    machine: Machine = dataclasses.field(default_factory=Machine)
    references: int = 0
    contexts: int = 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="--plan", add_help=False, allow_abbrev=False, exit_on_error=False)
    for names, kind, default, text in (
        (("--gpus", "--plan.gpus"), int, 4, "number of GPUs"),
        (("--memory", "--plan.memory_gb"), float, 141.0, "GiB of each, as nvidia-smi counts"),
        (("--gpus_per_node", "--plan.gpus_per_node"), int, 8, "GPUs that share one CPU's memory"),
        (("--tflops", "--plan.tflops"), float, 989.0, "peak of dense bf16 products, 1e12 a second"),
        (("--utilisation", "--plan.utilisation"), float, 0.4, "share of the peak that training reaches"),
        (("--references", "--plan.references"), int, 0, "reference images of a sample"),
        (("--contexts", "--plan.contexts"), int, 1, "contexts of a sample"),
    ):
        parser.add_argument(*names, type=kind, default=default, help=text)
    return parser


def split_arguments(argv: Sequence[str]) -> tuple[PlanArguments, list[str]]:
    """Take the plan's own arguments out of a command line.

    Args:
        argv: Without the program's name.

    Returns:
        The plan's arguments, and the rest.

    Raises:
        ValueError: one of them is not a number, or out of range.
    """
    try:
        own, rest = _parser().parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        raise ValueError(f"plan: {error}") from error
    if not (own.tflops > 0 and 0 < own.utilisation <= 1):
        raise ValueError(f"tflops is {own.tflops}, utilisation {own.utilisation}; give > 0 and within (0, 1]")
    rates = Rates(tflops=own.tflops, utilisation=own.utilisation)
    machine = Machine(own.gpus, own.memory, own.gpus_per_node, rates)
    return PlanArguments(machine, own.references, own.contexts), rest


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
    if data.source == "shapes" and data.groups:
        one = max(data.groups, key=lambda group: group.width * group.height * group.num_frames)
        return Clip(one.width, one.height, one.num_frames, references, contexts)
    width, height = data.width, data.height
    if width is None or height is None:
        height = max(16, int((data.max_pixels * 480 / 832) ** 0.5) // 16 * 16)
        width = max(16, data.max_pixels // height // 16 * 16)
    return Clip(width, height, data.num_frames, references, contexts)


def plan_budget(config: DistillConfig, arguments: PlanArguments) -> Budget:
    """What a run needs on a machine.

    Args:
        config: The run.
        arguments: The machine, and what a sample has.

    Returns:
        The budget.
    """
    from training.models import network_config

    clip = clip_of(config, arguments.references, arguments.contexts)
    return make_budget(config, network_config(config.model), clip, arguments.machine)


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

        found = remedies(budget, rebuild)
        parts.append(remedy_lines(found, enough_gpus(budget, rebuild), arguments.machine.memory_gib))
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def plan(config: DistillConfig, argv: Sequence[str] = ()) -> int:
    """Print what a run needs.

    Args:
        config: The run.
        argv: The plan's own arguments, such as `--gpus 4 --memory 141`.

    Returns:
        Exit status: 0 if the run fits as it is configured, 1 if it does not.

    Raises:
        ValueError: an argument is unknown or out of range.
    """
    arguments, unknown = split_arguments(argv)
    if unknown:
        raise ValueError(f"plan: unknown argument {unknown[0]}; known are\n{_parser().format_help()}")
    sys.stdout.write(plan_text(config, arguments))
    return 0 if plan_budget(config, arguments).fits else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status of `plan`, or 2 for a wrong argument."""
    from training.distill_cli import parse_command

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        arguments, rest = split_arguments(sys.argv[1:] if argv is None else argv)
        config = parse_command([word for word in rest if word != "--plan"]).config
        sys.stdout.write(plan_text(config, arguments))
        return 0 if plan_budget(config, arguments).fits else 1
    except ValueError as error:
        logger.error("%s", error)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
