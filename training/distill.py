"""Distil a few-step generator: `python training/distill.py --config tiny/configs/vdot_tiny.yaml`.

The same file runs under torchrun. Kill it and start it again with the same command: it goes on from the last
checkpoint. This file is the life cycle only; the loop is `training/engine/trainer.py`'s,
the losses `training/methods/vdot.py`'s.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):
    # In place of the script's own folder, whose names would hide other packages' (`dataset`, `parallel`).
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.engine.cli import parse_command
from training.engine.config import DistillConfig

if TYPE_CHECKING:
    from training.engine.trainer import Trainer

logger = logging.getLogger("vdot")


@contextmanager
def ready(config: DistillConfig) -> Iterator[Trainer]:
    """Set a run up: join the other processes, open the samples, build the networks, read a checkpoint.

    Args:
        config: The run.

    Yields:
        What trains.

    Raises:
        ValueError: A file, a key or the machine does not fit; only before it yields.
    """
    from training.data import build_source, check_tasks
    from training.distributed import world as parallel
    from training.engine.progress import logged_to
    from training.engine.trainer import Trainer

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
                skipped_file=Path(config.out_dir) / "skipped.txt",
                rank=world.rank,
                world_size=world.size,
            )
            check_tasks(config.losses.task_guidance, source.sampler.tasks, "losses.task_guidance")
            yield Trainer(config, source, world)
    finally:
        parallel.stop()


def train(trainer: Trainer) -> int:
    """Train, or find that all is done; then export.

    Args:
        trainer: Of a run that is set up.

    Returns:
        The step reached.
    """
    from training.engine.export import export

    step, config = trainer.run(), trainer.config
    if trainer.world.rank == 0 and step >= config.steps:
        export(config, Path(config.out_dir) / "export" / "generator.safetensors")
    trainer.world.barrier()
    return step


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the process's exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    with ExitStack() as stack:
        try:
            argv = list(sys.argv[1:] if argv is None else argv)
            if "--plan" in argv:
                from training.plan import main as plan

                return plan(argv)
            command = parse_command(argv)
            if command.export:
                from training.engine.export import export

                export(command.config, command.export)
                return 0
            trainer = stack.enter_context(ready(command.config))
        except ValueError as error:
            # A mistake of the user's: the message says all. What goes wrong later needs its traceback.
            logger.error("%s", error)
            return 2
        train(trainer)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
