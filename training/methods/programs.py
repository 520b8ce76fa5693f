"""Parsers of the methods' programs, and configurations from values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engine.cli import RunParser
from .flow_matching_config import FineTuneConfig
from .recipes import RECIPES
from .vdot_config import DistillConfig


def distill_parser() -> RunParser[DistillConfig]:
    """The parser of `training/distill.py`."""
    run = RunParser(
        DistillConfig,
        RECIPES,
        prog="python training/distill.py",
        description="Distill a few-step generator; under torchrun it is spread over many processes.\n"
        "--plan estimates the run's GPU memory and time instead; --plan --help lists its options. --dry_run\n"
        "rehearses it on two layers with random weights.",
    )
    run.parser.add_argument(
        "--dry_run",
        action="store_true",
        help="run every kind of update once, without models or data, and end",
    )
    run.parser.add_argument("--export", help="write the newest checkpoint's generator to this file, and end")
    return run


def finetune_parser() -> RunParser[FineTuneConfig]:
    """The parser of `training/finetune.py`."""
    return RunParser(
        FineTuneConfig,
        prog="python training/finetune.py",
        description="Train a VACE transformer by flow matching; under torchrun it is spread over processes.",
    )


def distill_config(values: Mapping[str, Any]) -> DistillConfig:
    """A distillation's configuration from nested or dotted keys that differ from the defaults.

    Raises:
        ValueError: A key is unknown, or a value is of a wrong type or out of range.
    """
    return distill_parser().read_values(values)


def finetune_config(values: Mapping[str, Any]) -> FineTuneConfig:
    """As `distill_config`, of a fine-tuning."""
    return finetune_parser().read_values(values)
