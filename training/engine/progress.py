"""Run logging: console, metrics.jsonl, TensorBoard, and Weights & Biases if asked for."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vdot_core.files import file_size
from vdot_core.memory import GIB

from ..distributed.world import World
from .config import RunConfig
from .throughput import device_name, peak_tflops

if TYPE_CHECKING:
    from .samples import SampleVideo

logger = logging.getLogger("vdot")
METRICS = "metrics.jsonl"
VALIDATION = "validation/"
MAX_LINE_BYTES = 1 << 20
SHOWN = ("loss", "dmd", "otd", "transport_error", "gradient_norm")


Values = dict[str, Tensor | float]


@dataclasses.dataclass(frozen=True)
class Row:
    """A step's numbers, not yet written."""

    step: int
    seconds: float
    metrics: Values

    def numbers(self) -> dict[str, float]:
        """The metrics on the host, fetched in one copy."""
        tensors = {name: value for name, value in self.metrics.items() if isinstance(value, Tensor)}
        if not tensors:
            return dict(self.metrics)
        device = next(iter(tensors.values())).device
        fetched = torch.stack([value.detach().float().to(device) for value in tensors.values()]).tolist()
        return {**self.metrics, **dict(zip(tensors, fetched, strict=True))}


def memory_gib(device: torch.device) -> float:
    """Peak memory: on a GPU since the last call, on a CPU since the process began."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak / GIB
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / GIB
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / GIB if sys.platform == "darwin" else used * 1024 / GIB


class Progress:
    """Log of one run: console, metrics.jsonl, TensorBoard and W&B; only rank 0 writes.

    Args:
        config: The run.
        world: The processes.
        first: Step at which the run begins or resumes.
    """

    def __init__(self, config: RunConfig, world: World, first: int) -> None:
        self.config, self.world = config, world
        self.writer: Any = None
        self.wandb: Any = None
        self.rows: list[Row] = []
        self._clear()
        if world.rank != 0:
            return
        if config.log.wandb:
            self.wandb = _start_wandb(config)
        require_file(Path(config.out_dir) / METRICS)
        end_with_a_line(Path(config.out_dir) / METRICS)
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(Path(config.out_dir) / "tensorboard"), purge_step=first)
        name = device_name(world.device)
        self.peak = peak_tflops(name, world.precision)
        if self.peak is None:
            logger.info(
                "MFU unknown: no peak speed is listed for %s in %s; the log has TFLOP/s",
                name,
                world.precision,
            )

    def _clear(self) -> None:
        """Begin the next log line's sums."""
        self.seconds, self.steps, self.operations, self.tokens = 0.0, 0, 0.0, torch.zeros(())

    def report(
        self, step: int, last: int, metrics: Values, tokens: Tensor, seconds: float, operations: float = 0.0
    ) -> None:
        """Take a step's numbers, and every `log.every` steps write them and a log line.

        Args:
            step: Steps done.
            last: Step at which this run ends.
            metrics: The step's numbers; tensors stay on their device until they are written.
            tokens: Latent tokens of the global batch, a scalar.
            seconds: Duration.
            operations: Floating-point operations of this process in the step.
        """
        if self.writer is None:
            return
        self.rows.append(Row(step, seconds, metrics))
        self.seconds, self.steps, self.tokens = self.seconds + seconds, self.steps + 1, self.tokens + tokens
        self.operations += operations
        if step % self.config.log.every and step != last:
            return
        values = self.flush()
        seconds = max(self.seconds, 1e-9)
        each, rate, tflops = (
            self.seconds / self.steps,
            float(self.tokens) / seconds,
            self.operations / seconds,
        )
        tflops, speed = tflops / 1e12, f"{tflops / 1e12:.3g} TFLOP/s"
        self._clear()
        memory = memory_gib(self.world.device)
        system = {"seconds_per_step": each, "tokens_per_second": rate, "memory_gib": memory, "tflops": tflops}
        if self.peak is not None:
            system["mfu"] = tflops / self.peak
            speed += f", MFU {system['mfu']:.1%}"
        self._scalars({f"system/{name}": value for name, value in system.items()}, step)
        self.writer.flush()
        held_out = {name: value for name, value in values.items() if name.startswith(VALIDATION)}
        numbers = "  ".join(
            f"{name} {value:.4g}"
            for name, value in values.items()
            if name.rpartition("/")[2] in SHOWN and name not in held_out
        )
        remaining = each * (last - step)
        logger.info(
            "step %d/%d  %.2f s  %.0f tokens/s  %.2f GiB  %s  %s  %d:%02d:%02d left",
            step, last, each, rate, memory, speed, numbers,
            remaining // 3600, remaining // 60 % 60, remaining % 60,
        )  # fmt: skip
        if held_out:
            words = (f"{name.removeprefix(VALIDATION)} {value:.4g}" for name, value in held_out.items())
            logger.info("step %d on held-out samples  %s", step, "  ".join(words))

    def flush(self) -> dict[str, float]:
        """Write the steps taken since the last call; returns the last one's numbers."""
        rows, self.rows, values = self.rows, [], {}
        if self.writer is None or not rows:
            return values
        # A step that is run again after a resume is written again; its later line counts.
        with (Path(self.config.out_dir) / METRICS).open("a") as file:
            for row in rows:
                values = row.numbers()
                self._scalars(values, row.step)
                file.write(json.dumps({"step": row.step, "seconds": row.seconds, **values}) + "\n")
        return values

    def _scalars(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        if self.wandb is not None:
            # A step's numbers come in several calls; a step logged again after a resume keeps its first ones.
            self.wandb.log(values, step=step)

    def videos(self, videos: Sequence[SampleVideo], step: int) -> None:
        """Show sample videos, which play in TensorBoard's pictures and in Weights & Biases."""
        # W&B takes steps in order only.
        self.flush()
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

            media = {f"samples/{v.name}": wandb.Video(io.BytesIO(v.gif), format="gif") for v in videos}
            self.wandb.log(media, step=step)

    def close(self) -> None:
        """Write the remaining steps and close the log."""
        self.flush()
        if self.writer is not None:
            self.writer.close()
        if self.wandb is not None:
            self.wandb.finish()


@contextmanager
def logged_to(folder: Path, rank: int) -> Iterator[None]:
    """Also write the log to a file of this process."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ("train.log" if rank == 0 else f"train-{rank}.log")
    require_file(path)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def require_file(path: Path) -> None:
    """Raise ValueError where a file is to be written and something else lies: a pipe would be waited for."""
    if os.path.lexists(path):
        file_size(path)


def end_with_a_line(path: Path) -> None:
    """Cut off the half of a line at a file's end that a killed process or a full disk left, if there is one.

    What is appended would continue that line, and neither could be read.
    """
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        start = max(0, end - MAX_LINE_BYTES)
        file.seek(start)
        complete = start + file.read().rfind(b"\n") + 1
        if complete < end:
            file.truncate(complete)


def _start_wandb(config: RunConfig) -> Any:
    """Start a run of Weights & Biases, or resume the one of this folder."""
    try:
        import wandb
    except ImportError as error:
        raise ValueError("log.wandb is true and wandb is not installed; pip install wandb") from error
    folder = Path(config.out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    id_file = folder / "wandb_id.txt"
    require_file(id_file)
    if not id_file.exists() or not id_file.read_text().strip():  # empty after a kill
        id_file.write_text(secrets.token_hex(8))
    return wandb.init(
        project="vdot",
        name=folder.name,
        id=id_file.read_text().strip(),
        resume="allow",
        dir=config.out_dir,
        config=dataclasses.asdict(config),
    )
