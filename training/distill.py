"""Distil a few-step generator: `python training/distill.py --config training/configs/vdot_tiny.yaml`.

The same file runs under torchrun. Kill it and start it again with the same command: it goes on from the last
checkpoint. This file is the life cycle only; the loop is `training/trainer.py`'s, the losses `step.py`'s.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    # In place of the script's own folder, whose names would hide other packages' (`dataset`, `parallel`).
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.distill_cli import parse_command
from training.distill_config import DistillConfig

logger = logging.getLogger("vdot")


def train(config: DistillConfig) -> int:
    """Train, go on, or find that all is done; then export.

    Args:
        config: The run.

    Returns:
        The step reached.
    """
    from training import parallel
    from training.dataset import build_source, check_tasks
    from training.export import export
    from training.progress import logged_to
    from training.trainer import Trainer

    world = parallel.start(config.parallel)
    if world.rank:
        logger.setLevel(logging.WARNING)
    try:
        with logged_to(Path(config.out_dir), world.rank):
            source = build_source(
                config.data,
                seed=config.seed,
                text_only=config.model.text_only,
                need_latents=config.losses.gan,
                rank=world.rank,
                world_size=world.size,
            )
            check_tasks(config.losses.task_guidance, source.sampler.tasks, "losses.task_guidance")
            step = Trainer(config, source, world).run()
            if world.rank == 0 and step >= config.steps:
                export(config, Path(config.out_dir) / "export" / "generator.safetensors")
            world.barrier()
    finally:
        parallel.stop()
    return step


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the process's exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    try:
        argv = list(sys.argv[1:] if argv is None else argv)
        if "--plan" in argv:
            from training.plan import main as plan

            return plan(argv)
        command = parse_command(argv)
        if command.export:
            from training.export import export

            export(command.config, command.export)
            return 0
        train(command.config)
    except ValueError as error:
        # A mistake of the user's: the message says all, a traceback would hide it.
        logger.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
