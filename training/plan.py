"""Estimates GPU memory and time of a distillation run.

    python training/distill.py --config training/configs/wan_14b_stage2.yaml --plan --gpus 4 --memory 140
    python training/plan.py --config training/configs/wan_14b_stage2.yaml --gpus 8 --memory 80 --references 1

Both take the same options, those of `training/planning/arguments.py`; `--plan --help` lists them. Memory
follows from counted parameters and activations, time from counted operations; the assumed hardware rates are
printed with the result.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.methods.programs import distill_parser
from training.methods.vdot_config import DistillConfig
from training.planning.arguments import PlanArguments, PlanOptions, read_options
from training.planning.plan import plan_budget, plan_text
from vdot_core.out_of_memory import memory_in_words

logger = logging.getLogger("vdot")


def plan(config: DistillConfig, arguments: PlanArguments) -> int:
    """Print the memory and time that a run needs.

    Args:
        config: The run.
        arguments: The machine, and what a sample has.

    Returns:
        Exit status: 0 if the run fits as it is configured, 1 if it does not.

    Raises:
        ValueError: The run would refuse the settings, too.
    """
    sys.stdout.write(plan_text(config, arguments))
    budget = plan_budget(config, arguments)
    return 0 if budget.fits and budget.batch == config.data.batch_size else 1


@memory_in_words("plan a smaller network, clip or batch_size")
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
