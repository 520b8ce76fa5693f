"""What `--plan` is asked, beside the run's own configuration: the one list of its options."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

from .budget import Machine
from .phases import Rates


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


# Option, older spelling, default, help. The type is the default's.
OPTIONS = (
    ("gpus", "plan.gpus", Machine.gpus, "number of GPUs"),
    ("memory", "plan.memory_gb", Machine.memory_gib, "GiB of each: nvidia-smi's MiB by 1024"),
    ("gpus_per_node", "plan.gpus_per_node", Machine.gpus_per_node, "GPUs that share one CPU's memory"),
    ("references", "plan.references", PlanArguments.references, "reference images of a sample"),
    ("contexts", "plan.contexts", PlanArguments.contexts, "contexts of a sample that are not merged"),
    ("tflops", "plan.tflops", Rates.tflops, "peak of dense bf16 products, 1e12 a second"),
    ("utilisation", "plan.utilisation", Rates.utilisation, "share of the peak that training reaches, 0 to 1"),
    ("interconnect", None, Rates.interconnect_gb_s, "between GPUs, GB/s per GPU and direction"),
    ("host", None, Rates.host_gb_s, "from GPU to CPU memory, GB/s per GPU, for offloaded states"),
    ("host_memory", None, Rates.host_memory_gb_s, "a node's CPU memory, GB/s, for an offloaded optimiser"),
)


def plan_parser() -> argparse.ArgumentParser:
    """The parser of the plan's own options."""
    parser = argparse.ArgumentParser(
        prog="--plan", usage=argparse.SUPPRESS, add_help=False, allow_abbrev=False, exit_on_error=False
    )
    group = parser.add_argument_group("with --plan")
    for name, older, default, text in OPTIONS:
        names = [f"--{name}"] + ([f"--{older}"] if older else [])
        group.add_argument(
            *names, dest=name, type=type(default), default=default, help=f"{text} (default: {default})"
        )
    return parser


def plan_help() -> str:
    """The plan's options, their units and defaults."""
    return plan_parser().format_help()


def split_arguments(argv: Sequence[str]) -> tuple[PlanArguments, list[str]]:
    """Take the plan's own options out of a command line.

    Args:
        argv: Without the program's name.

    Returns:
        The plan's arguments, and the rest.

    Raises:
        ValueError: one of them is not a number, or out of range.
    """
    try:
        own, rest = plan_parser().parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        raise ValueError(f"plan: {error}") from error
    rates = Rates(own.tflops, own.utilisation, own.interconnect, own.host, own.host_memory)
    machine = Machine(own.gpus, own.memory, own.gpus_per_node, rates)
    return PlanArguments(machine, own.references, own.contexts), rest


def option_of(word: str) -> str | None:
    """The plan's option that a word of a command line is, such as `--gpus=4`; None if it is none."""
    name = word.partition("=")[0].removeprefix("--")
    return next((option for option, older, *_ in OPTIONS if name in (option, older)), None)
