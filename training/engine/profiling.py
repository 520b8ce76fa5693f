"""Records of a few steps: a trace of torch.profiler, and a snapshot of the GPU memory's allocations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..distributed.world import World
from .config import LogConfig, RunConfig

logger = logging.getLogger("vdot")
FOLDER = "profile"
MAX_ALLOCATIONS = 200_000


def check_recording(log: LogConfig, device: torch.device) -> None:
    """Refuse, by ValueError, a snapshot of a memory that keeps no record."""
    if log.memory_snapshot and device.type != "cuda":
        raise ValueError(
            f"log.memory_snapshot is true and the run computes on the {device.type}, which keeps no record "
            "of allocations; set it false (log.profile traces memory on any device), or train on a GPU"
        )


@contextmanager
def recorded(config: RunConfig, world: World) -> Iterator[Callable[[], None]]:
    """Record the steps `log.profile_after` + 1 to `log.profile_after` + `log.profile` of this start.

    Args:
        config: The run.
        world: The processes; the first one records.

    Yields:
        A function to call after each step.
    """
    log = config.log
    if not log.profile or world.rank:
        yield lambda: None
        return
    from torch.profiler import ProfilerActivity, profile, schedule

    folder, done = Path(config.out_dir) / FOLDER, 0
    folder.mkdir(parents=True, exist_ok=True)
    on_gpu = world.device.type == "cuda"

    def write(profiler: profile) -> None:
        path = folder / "trace.json.gz"
        profiler.export_chrome_trace(str(path))
        logger.info("traced %d steps: %s (open it in ui.perfetto.dev)", log.profile, path)

    def after_step() -> None:
        nonlocal done
        done += 1
        profiler.step()
        if log.memory_snapshot and done == log.profile_after:
            torch.cuda.memory._record_memory_history(max_entries=MAX_ALLOCATIONS)
        if log.memory_snapshot and done == log.profile_after + log.profile:
            path = folder / "memory.pickle"
            torch.cuda.memory._dump_snapshot(str(path))
            torch.cuda.memory._record_memory_history(enabled=None)
            logger.info("allocations of %d steps: %s (open it in pytorch.org/memory_viz)", log.profile, path)

    if log.memory_snapshot and not log.profile_after:
        torch.cuda.memory._record_memory_history(max_entries=MAX_ALLOCATIONS)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    # The profiler's own start is slow: it warms up in the step before, where there is one.
    warmup = min(1, log.profile_after)
    plan = schedule(wait=log.profile_after - warmup, warmup=warmup, active=log.profile, repeat=1)
    with profile(activities=activities, schedule=plan, on_trace_ready=write, profile_memory=True) as profiler:
        yield after_step
    if done < log.profile_after + log.profile:
        logger.warning(
            "log.profile: the run ended after %d steps of this start, before the last of the steps to trace",
            done,
        )
