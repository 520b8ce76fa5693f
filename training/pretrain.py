"""Train a model by itself: `python training/pretrain.py --config training/configs/tiny_vae.yaml`.

The tiny VAE, text encoder, transformer and evaluation network from nothing, or a released VACE
transformer on (training/configs/wan_vace_1_3b_finetune.yaml).

Kill it and run the same command: it goes on from the last checkpoint. `torchrun --nproc_per_node=2
training/pretrain.py ..` shares a teacher's batches among processes. This file is the life cycle only: the
steps are those of `training/{vae,text,teacher,evaluator}_task.py`.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training import parallel
from training.config import PretrainConfig, parse_config
from training.distill_config import ParallelConfig
from training.files import load_checkpoint, save_checkpoint

logger = logging.getLogger("vdot")


class Task(Protocol):
    """What the life cycle needs of a model in training."""

    num_steps: int

    def train_step(self, step: int) -> dict[str, float]:
        """One optimiser step; returns numbers to log."""

    def validate(self) -> dict[str, float]:
        """Held-out measures of the averaged weights."""

    def export(self, folder: Path) -> None:
        """Write the averaged weights in their final file format."""

    def state_dict(self) -> dict:
        """All that a resumed run needs."""

    def load_state_dict(self, state: dict) -> None:
        """Restore `state_dict`'s."""


def build_task(config: PretrainConfig, world: parallel.World) -> Task:
    """The task a configuration names, at its first step."""
    if config.model == "vae":
        from training.vae_task import VaeTask

        return VaeTask(config, world.device)
    if config.model == "text":
        from training.text_task import TextTask

        return TextTask(config, world.device)
    if config.model == "evaluator":
        from training.evaluator_task import EvaluatorTask

        return EvaluatorTask(config, world.device)
    from training.teacher_task import TeacherTask

    return TeacherTask(config, world)


def _describe(step: int, num_steps: int, metrics: dict[str, float], seconds: float) -> str:
    numbers = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    left = (num_steps - step) * seconds / 60
    return f"step {step}/{num_steps}  {numbers}  {seconds:.2f} s/step  about {left:.0f} min left"


def _export(task: Task, config: PretrainConfig) -> None:
    task.export(Path(config.out_dir) / "export")
    if config.assets_dir:
        task.export(Path(config.assets_dir))


def run(config: PretrainConfig, world: parallel.World) -> int:
    """Train until the schedule or `max_steps` ends.

    Args:
        config: The run.
        world: The processes that share it; only a teacher can be shared.

    Returns:
        The step reached.
    """
    from torch.utils.tensorboard import SummaryWriter

    first = world.rank == 0
    if config.model != "teacher" and world.size > 1:
        raise ValueError(f"the {config.model} trains in one process; start it without torchrun")
    out = Path(config.out_dir)
    checkpoint = out / "checkpoint.pt"
    task, step = build_task(config, world), 0
    if checkpoint.is_file():
        state = load_checkpoint(checkpoint)
        task.load_state_dict(state["task"])
        step = state["step"]
        logger.info("going on from step %d of %s", step, checkpoint)
    last = min(task.num_steps, config.max_steps or task.num_steps)
    world.barrier()
    writer = SummaryWriter(str(out / "tensorboard"), purge_step=step) if first else None

    def save() -> None:
        save_checkpoint({"step": step, "task": task.state_dict()}, checkpoint)

    saved_at = logged_at = time.monotonic()
    logged_step = step
    while step < last:
        metrics = task.train_step(step)
        step += 1
        if not first:
            continue
        if step % config.log_every == 0 or step == last:
            seconds = (time.monotonic() - logged_at) / max(step - logged_step, 1)
            logger.info(_describe(step, task.num_steps, metrics, seconds))
            for name, value in metrics.items():
                writer.add_scalar(f"train/{name}", value, step)
            logged_at, logged_step = time.monotonic(), step
        if config.validate_every and (step % config.validate_every == 0 or step == task.num_steps):
            held_out = task.validate()
            logger.info("held out at step %d: %s", step, {k: round(v, 4) for k, v in held_out.items()})
            for name, value in held_out.items():
                writer.add_scalar(f"validation/{name}", value, step)
            logged_at, logged_step = time.monotonic(), step
        if time.monotonic() - saved_at > 60 * config.save_minutes:
            save()
            saved_at = time.monotonic()
        if config.export_every and step % config.export_every == 0:
            _export(task, config)
    if first:
        save()
        if step == task.num_steps:
            _export(task, config)
        writer.close()
    return step


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the process's exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    config = parse_config(argv)
    world = parallel.start(ParallelConfig(fsdp=False, device=config.device, threads=config.threads))
    if world.rank:
        logger.setLevel(logging.WARNING)
    try:
        run(config, world)
        world.barrier()
    finally:
        parallel.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
