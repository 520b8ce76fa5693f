"""What a person sees of a run: a line per step, TensorBoard, and Weights & Biases if asked for."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import resource
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..distributed.world import World
from .config import DistillConfig

if TYPE_CHECKING:
    from .samples import SampleVideo

logger = logging.getLogger("vdot")
GIB = 2**30
SHOWN = ("loss", "dmd", "otd", "transport_error", "gradient_norm")


def memory_gib(device: torch.device) -> float:
    """Most memory held: on a GPU since the last call, on a CPU since the process began."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak / GIB
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / GIB if sys.platform == "darwin" else used * 1024 / GIB


class Progress:
    """Reports of one process; only rank 0 says anything.

    Args:
        config: The run.
        world: The processes.
        first: Step at which the run begins or goes on.
    """

    def __init__(self, config: DistillConfig, world: World, first: int) -> None:
        self.config, self.world = config, world
        self.writer: Any = None
        self.wandb: Any = None
        self.seconds = self.steps = self.tokens = 0.0
        if world.rank != 0:
            return
        if config.log.wandb:
            self.wandb = _start_wandb(config)
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(Path(config.out_dir) / "tensorboard"), purge_step=first)

    def report(self, step: int, last: int, metrics: dict[str, float], tokens: int, seconds: float) -> None:
        """Write a step's numbers down, and every so many steps say how it goes.

        Args:
            step: Steps done.
            last: Where this run ends.
            metrics: The step's numbers.
            tokens: Latent tokens of its global batch.
            seconds: What it took.
        """
        if self.writer is None:
            return
        self.seconds, self.steps, self.tokens = self.seconds + seconds, self.steps + 1, self.tokens + tokens
        # Which losses a step has depends on its turn: every step's go to the writer.
        self._scalars(metrics, step)
        self._append({"step": step, "seconds": seconds, **metrics})
        if step % self.config.log.every and step != last:
            return
        each, rate = self.seconds / self.steps, self.tokens / max(self.seconds, 1e-9)
        memory = memory_gib(self.world.device)
        system = {"seconds_per_step": each, "tokens_per_second": rate, "memory_gib": memory}
        self._scalars({f"system/{name}": value for name, value in system.items()}, step)
        self.writer.flush()
        numbers = "  ".join(
            f"{name} {value:.4g}" for name, value in metrics.items() if name.rpartition("/")[2] in SHOWN
        )
        left = each * (last - step)
        logger.info(
            "step %d/%d  %.2f s  %.0f tokens/s  %.2f GiB  %s  %d:%02d:%02d left",
            step, last, each, rate, memory, numbers, left // 3600, left // 60 % 60, left % 60,
        )  # fmt: skip
        self.seconds = self.steps = self.tokens = 0.0

    def _scalars(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        if self.wandb is not None:
            # A step's numbers come in several calls; what is written again after a resume is left as it was.
            self.wandb.log(values, step=step)

    def _append(self, values: dict[str, float]) -> None:
        """A line per step in metrics.jsonl; after a resume the later line of a step counts."""
        with (Path(self.config.out_dir) / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(values) + "\n")

    def videos(self, videos: Sequence[SampleVideo], step: int) -> None:
        """Show sample videos, which play in TensorBoard's pictures and in Weights & Biases."""
        if self.writer is not None:
            from tensorboard.compat.proto.summary_pb2 import Summary

            for video in videos:
                # add_video would need moviepy, and makes such a GIF too.
                image = Summary.Image(encoded_image_string=video.gif, width=video.width, height=video.height)
                value = Summary.Value(tag=f"samples/{video.name}", image=image)
                self.writer.file_writer.add_summary(Summary(value=[value]), step)
            self.writer.flush()
        if self.wandb is not None:
            import wandb

            shown = {f"samples/{v.name}": wandb.Video(io.BytesIO(v.gif), format="gif") for v in videos}
            self.wandb.log(shown, step=step)

    def close(self) -> None:
        """Write what is left."""
        if self.writer is not None:
            self.writer.close()
        if self.wandb is not None:
            self.wandb.finish()


@contextmanager
def logged_to(folder: Path, rank: int) -> Iterator[None]:
    """Also write the log to a file of this process."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / ("train.log" if rank == 0 else f"train-{rank}.log"))
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def _start_wandb(config: DistillConfig) -> Any:
    """Begin a run of Weights & Biases, or go on with the one that this folder's run began."""
    try:
        import wandb
    except ImportError as error:
        raise ValueError("log.wandb is true and wandb is not installed; pip install wandb") from error
    folder = Path(config.out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    known = folder / "wandb_id.txt"
    if not known.exists():
        known.write_text(secrets.token_hex(8))
    return wandb.init(
        project="vdot",
        name=folder.name,
        id=known.read_text().strip(),
        resume="allow",
        dir=config.out_dir,
        config=dataclasses.asdict(config),
    )
