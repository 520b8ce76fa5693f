"""The life cycle of a training run: join the processes, open the data, build the method, train, export."""

from __future__ import annotations

import errno
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from torch import Tensor

from vdot_core.text import shown

from ..data import build_source
from ..data.config import micro_batch_size
from ..distributed import world as processes
from ..distributed.world import World
from .config import RunConfig
from .export import export
from .lock import locked_by_all
from .method import Method
from .progress import logged_to
from .record import export_path
from .space import OutputBytes, check_host_memory, check_space
from .trainer import Trainer, TrainingStoppedError
from .writing import NotSavedError

logger = logging.getLogger("vdot")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NewMethod(Protocol):
    """A method's class."""

    def check(self, config: RunConfig, processes: int) -> list[str]:
        """Raise ValueError for a mistake in the networks' settings, which is found before data is encoded.

        Returns sentences on what the run does that its user may not expect.
        """

    def output_bytes(self, config: RunConfig) -> OutputBytes:
        """Sizes of the files that a run writes, from the configuration alone."""

    def __call__(self, config: RunConfig, world: World, empty_text: Tensor) -> Method:
        """The method at its first step."""


@contextmanager
def ready(
    config: RunConfig,
    new_method: NewMethod,
    named_tasks: Mapping[str, Collection[str]],
    *,
    text_only: bool = False,
    need_latents: bool = True,
) -> Iterator[Trainer]:
    """Set a run up and resume its newest checkpoint.

    Args:
        config: The run.
        new_method: The method's class.
        named_tasks: Configuration key -> the tasks that it names, which must be in the data.
        text_only: Train on captions, without contexts.
        need_latents: Leave out rows without a real clip.

    Yields:
        The trainer.

    Raises:
        ValueError: A file, a key or the machine does not fit, or another job trains in `config.out_dir`;
            only before it yields.
    """
    world = processes.start(config.parallel)
    if world.rank:
        logger.setLevel(logging.WARNING)
    try:
        # Before a file is read: these mistakes are of the command alone.
        data = config.data
        micro_batch_size(data.batch_size, data.accumulation, data.group_size, world.size)
        with locked_by_all(config.out_dir, "out_dir", world), logged_to(Path(config.out_dir), world.rank):
            notes = new_method.check(config, world.size)
            for note in notes if world.rank == 0 else ():
                logger.warning("%s", note)
            sizes = new_method.output_bytes(config)
            check_space(config, sizes)
            check_host_memory(config, sizes, world)
            source = build_source(
                config.data,
                seed=config.seed,
                named_tasks=named_tasks,
                text_only=text_only,
                need_latents=need_latents,
                validation=config.validation,
                run_dir=Path(config.out_dir),
                rank=world.rank,
                world_size=world.size,
            )
            yield Trainer(config, new_method(config, world, source.empty_text), source, world)
    finally:
        processes.stop()


def run(
    config: RunConfig,
    new_method: NewMethod,
    named_tasks: Mapping[str, Collection[str]],
    *,
    text_only: bool = False,
    need_latents: bool = True,
) -> int:
    """Set a run up and train it; the arguments are those of `ready`.

    Returns:
        The process's exit status: 0; 128 + the number of the signal that stopped it, after a checkpoint; 1
        where the disk refused a file or values stayed not finite; 2 after a user's mistake. The last two are
        logged in one line. Other errors during training are raised.
    """
    with ExitStack() as stack:
        try:
            context = ready(config, new_method, named_tasks, text_only=text_only, need_latents=need_latents)
            trainer = stack.enter_context(context)
        except ValueError as error:
            logger.error("%s", error)
            return 2
        except OSError as error:
            if error.filename is None:
                raise
            logger.error("%s", unusable(error, "out_dir"))
            return 2
        try:
            train(trainer)
        except (NotSavedError, TrainingStoppedError) as error:
            logger.error("%s", error)
            return 1
        except OSError as error:
            if error.errno not in FULL:
                raise
            logger.error(
                "%s takes no more data (%s); make space there and give the same command again: it resumes "
                "from the newest checkpoint, if there is one",
                shown(config.out_dir), shown(error.strerror, 80),
            )  # fmt: skip
            return 1
        return 128 + trainer.stop.number if trainer.stopped else 0


def unusable(error: OSError, key: str) -> str:
    """A sentence for a path that the system refuses; `key` gives another one."""
    reason = shown(error.strerror or type(error).__name__, 80)
    return f"{shown(error.filename)} cannot be used ({reason}); move it away, or give another {key}"


def train(trainer: Trainer) -> int:
    """Train to the end of the run, or find that it is done; then export.

    Args:
        trainer: Of a run that is set up.

    Returns:
        The step reached.
    """
    start, config = trainer.step, trainer.config
    step = trainer.run()
    if step == start:
        logger.info("nothing to train: the run is at step %d of %d", step, config.steps)
    if trainer.world.rank == 0 and step >= config.steps:
        method = trainer.method
        path = export_path(config, method.averaged)
        try:
            export(config, path, method.metadata(), method.adapted_from())
        except ValueError as error:
            raise NotSavedError(f"all steps are done and nothing was exported: {error}") from error
    elif trainer.stopped:
        name = trainer.stop.name
        logger.info("stopped at step %d of %d by %s; the same command resumes", step, config.steps, name)
    elif step < config.steps:
        logger.info(
            "stopped at step %d of %d by max_steps; without it the same command resumes, trains to the end "
            "and exports; --export FILE exports now", step, config.steps,
        )  # fmt: skip
    trainer.world.barrier()
    return step
