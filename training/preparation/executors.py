"""Runs a stage over rows: in this process, or by Ray Data's workers."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Protocol

from vdot_core.foreign import UnusableModelError
from vdot_core.out_of_memory import is_out_of_memory
from vdot_core.text import shown

from ..paths import ROOT
from .config import ExecutorConfig, PrepareConfig
from .stage import Outcome, Row, Stage, StopError, apply

# Rows that are handed to Ray at a time: their inputs and results are all that this process holds.
WINDOW = 4096


class Executor(Protocol):
    """Runs stages.

    Attributes:
        num_workers: Rows that are worked on at a time.
    """

    num_workers: int

    def run(self, stage: Stage, rows: Iterable[Row]) -> Iterator[Outcome]:
        """The outcome of each row, in any order."""

    def close(self) -> None:
        """End its workers."""


def make_executor(config: PrepareConfig) -> Executor:
    """The executor of a configuration.

    Raises:
        ValueError: Ray is asked for and not installed.
    """
    if config.executor.name == "inline":
        return InlineExecutor(config)
    if importlib.util.find_spec("ray") is None:
        raise ValueError(
            "executor.name is ray, which is not installed: `pip install 'ray[data]'`, or set inline"
        )
    return RayExecutor(config)


class InlineExecutor:
    """One row after the other, in this process."""

    num_workers = 1

    def __init__(self, config: PrepareConfig) -> None:
        self.config = config

    def run(self, stage: Stage, rows: Iterable[Row]) -> Iterator[Outcome]:
        """As `Executor.run`, in the rows' order."""
        for row in rows:
            yield apply(stage, row, self.config)

    def close(self) -> None:
        """Nothing is open."""


class RayExecutor:
    """Ray Data: a pool of workers for each stage, whose models are read once; results stream back.

    Args:
        config: Its `executor`.

    Raises:
        ValueError: The cluster cannot be reached.
    """

    def __init__(self, config: PrepareConfig) -> None:
        import ray

        self.config = config
        settings: ExecutorConfig = config.executor
        options: dict[str, Any] = {"address": settings.address} if settings.address else {"address": "local"}
        if not settings.address:
            # One more than workers: Ray reads the rows in tasks of its own.
            options |= {"include_dashboard": False, "num_cpus": (settings.workers or os.cpu_count() or 1) + 1}
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        # A worker keeps one core busy; OpenCV would start a thread for each core.
        variables = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
        try:
            ray.init(
                log_to_driver=False,
                logging_level=logging.WARNING,
                runtime_env={"env_vars": variables},
                **options,
            )
        except Exception as error:  # Ray raises plain ones where a part of it does not start in time
            raise ValueError(
                f"Ray cannot be started or reached at {shown(settings.address or 'this machine', 80)} "
                f"({shown(error, 160)}); set executor.address, or executor.name inline"
            ) from error
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.use_ray_tqdm = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        self.num_workers = settings.workers or max(1, int(ray.cluster_resources().get("CPU", 2)) - 1)

    def run(self, stage: Stage, rows: Iterable[Row]) -> Iterator[Outcome]:
        """As `Executor.run`. Rows and results cross as JSON, whose columns never change their types."""
        import ray

        gpus = self.config.executor.gpus.get(stage.name.removeprefix("annotate_"), 0)
        rows = iter(rows)
        while window := list(islice(rows, WINDOW)):
            workers = min(self.num_workers, len(window))
            # A result comes back, and is safe from a kill, when its block is complete: one row each.
            data = ray.data.from_items(
                [{"row": json.dumps(row)} for row in window], override_num_blocks=len(window)
            )
            results = data.map_batches(
                Worker,
                fn_constructor_args=(stage.name, self.config),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=workers),
                num_cpus=1,
                num_gpus=gpus,
            )
            # Prefetching would hold every result back until the next one is made.
            for batch in _told(results.iter_batches(batch_size=None, prefetch_batches=0)):
                for values in map(json.loads, batch["outcome"]):
                    if "failure" in values:
                        raise failure(*values["failure"])
                    yield Outcome(**values)

    def close(self) -> None:
        """End Ray, and with it what it started."""
        import ray

        ray.shutdown()


def _told(results: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Results as they come; the end of a worker's process is told in words."""
    try:
        yield from results
    except Exception as error:
        names = {base.__name__ for base in type(error).__mro__}
        if names & {"OutOfMemoryError", "OutOfDiskError"}:
            kind = MemoryError if "OutOfMemoryError" in names else StopError
            raise kind(f"Ray: {shown(error, 200)}") from error
        if names & {"RayActorError", "WorkerCrashedError", "NodeDiedError"}:
            # Linux ends a process where the memory is exhausted, without a word to it.
            raise StopError(
                f"a worker of Ray has ended ({type(error).__name__}: {shown(error, 120)}); lower "
                "executor.workers if the memory was exhausted, and give the same command again"
            ) from error
        raise


def failure(kind: str, text: str, number: int | None, filename: str | None) -> Exception:
    """The error that ended a worker's stage, which Ray would hand over without its type."""
    if kind == "OSError":
        return OSError(number, text, filename)
    kinds = (StopError, MemoryError, UnusableModelError)
    return {kind.__name__: kind for kind in kinds}.get(kind, ValueError)(text)


class Worker:
    """A worker of Ray's; it makes the stage by its name.

    Args:
        name: The stage.
        config: All settings.
    """

    def __init__(self, name: str, config: PrepareConfig) -> None:
        import torch

        from .stages import find_stage

        torch.set_num_threads(1)
        self.stage, self.config = find_stage(name), config

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Apply the stage to a batch of rows."""
        return {"outcome": [self._outcome(json.loads(text)) for text in batch["row"]]}

    def _outcome(self, row: Row) -> str:
        """One row's outcome as JSON, or the error that ends the run."""
        try:
            return json.dumps(vars(apply(self.stage, row, self.config)))
        except OSError as error:
            failure = "OSError", error.strerror or str(error), error.errno, error.filename
        except (StopError, MemoryError, ImportError, UnusableModelError) as error:
            failure = type(error).__name__, shown(error, 300), None, None
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            failure = MemoryError.__name__, shown(error, 300), None, None
        return json.dumps({"failure": failure})
