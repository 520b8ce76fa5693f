"""Train a model by itself: `python tiny/pretrain.py --config tiny/configs/tiny_vae.yaml`.

The tiny VAE, text encoder, transformer and evaluation network from nothing, or a released VACE
transformer on (training/configs/wan_vace_1_3b_finetune.yaml).

Kill it and run the same command: it goes on from the last checkpoint. `torchrun --nproc_per_node=2
tiny/pretrain.py ..` shares a teacher's batches among processes. This file is the life cycle only: the
steps are those of `tiny/{vae,text,teacher,evaluator}_task.py`.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tiny.config import PretrainConfig, parse_config
from training.distributed import world as parallel
from training.distributed.config import ParallelConfig
from training.engine.files import load_checkpoint, save_checkpoint

logger = logging.getLogger("vdot")
CONFIGS = Path(__file__).parent / "configs"


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
        from tiny.vae_task import VaeTask

        return VaeTask(config, world.device)
    if config.model == "text":
        from tiny.text_task import TextTask

        return TextTask(config, world.device)
    if config.model == "evaluator":
        from tiny.evaluator_task import EvaluatorTask

        return EvaluatorTask(config, world.device)
    from tiny.teacher_task import TeacherTask

    return TeacherTask(config, world)


def _describe(step: int, num_steps: int, metrics: dict[str, float], seconds: float) -> str:
    numbers = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    left = (num_steps - step) * seconds / 60
    return f"step {step}/{num_steps}  {numbers}  {seconds:.2f} s/step  about {left:.0f} min left"


def _export(task: Task, config: PretrainConfig) -> None:
    task.export(Path(config.out_dir) / "export")
    if config.assets_dir:
        task.export(Path(config.assets_dir))


def files_to_begin_with(config: PretrainConfig) -> dict[str, str]:
    """Key -> path of what a run reads and does not make; keys that are null are left out."""
    teacher = config.teacher
    given = {
        "text": {},
        "vae": {"vae.start_from": config.vae.start_from},
        "evaluator": {"evaluator.vae": config.evaluator.vae},
        "teacher": {"teacher.start_from": teacher.start_from},
    }[config.model]
    if config.model == "teacher" and not teacher.clips:
        given |= {"teacher.vae": teacher.vae, "teacher.text_encoder": teacher.text_encoder}
    return {key: path for key, path in given.items() if path}


def made_by(path: str) -> Path | None:
    """The shipped configuration in whose `out_dir` a path lies."""
    import yaml

    for file in sorted(CONFIGS.glob("*.yaml")):
        out = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("out_dir")
        if out and Path(out).absolute() in Path(path).absolute().parents:
            return file
    return None


def check_files(config: PretrainConfig) -> None:
    """Refuse a run that begins with what is not there.

    Raises:
        ValueError: It names the key, the path and, where one is shipped, the configuration that makes it.
    """
    for key, path in files_to_begin_with(config).items():
        if Path(path).exists():
            continue
        maker = made_by(path)
        todo = f"tiny/configs/{maker.name} makes it: run that first, or" if maker else "check the path, or"
        raise ValueError(f"{key} is {path}, which is not there (seen from {Path.cwd()}); {todo} give another")


@contextmanager
def ready(config: PretrainConfig) -> Iterator[tuple[Task, int, parallel.World]]:
    """Set a run up: look for its files, join the other processes, build the model, read a checkpoint.

    Args:
        config: The run.

    Yields:
        The task, the step that it goes on from, and the processes that share it.

    Raises:
        ValueError: A file, a key or the machine does not fit; only before it yields.
    """
    check_files(config)
    # The models' own settings say where they use autocast.
    own = {"device": config.device, "threads": config.threads}
    world = parallel.start(ParallelConfig(fsdp=False, precision="fp32", **own))
    if world.rank:
        logger.setLevel(logging.WARNING)
    try:
        if config.model != "teacher" and world.size > 1:
            raise ValueError(f"the {config.model} trains in one process; start it without torchrun")
        task, step, checkpoint = build_task(config, world), 0, _checkpoint(config)
        if checkpoint.is_file():
            state = load_checkpoint(checkpoint)
            task.load_state_dict(state["task"])
            step = state["step"]
            logger.info("going on from step %d of %s", step, checkpoint)
        yield task, step, world
    finally:
        parallel.stop()


def _checkpoint(config: PretrainConfig) -> Path:
    return Path(config.out_dir) / "checkpoint.pt"


def _save(task: Task, step: int, config: PretrainConfig) -> None:
    save_checkpoint({"step": step, "task": task.state_dict()}, _checkpoint(config))


def _write(writer, kind: str, metrics: dict[str, float], step: int) -> None:
    for name, value in metrics.items():
        writer.add_scalar(f"{kind}/{name}", value, step)


def train(config: PretrainConfig, task: Task, step: int, world: parallel.World) -> int:
    """Train until the schedule or `max_steps` ends.

    Args:
        config: The run.
        task, step, world: Of a run that is set up.

    Returns:
        The step reached.
    """
    from torch.utils.tensorboard import SummaryWriter

    first = world.rank == 0
    last = min(task.num_steps, config.max_steps or task.num_steps)
    world.barrier()
    folder = str(Path(config.out_dir) / "tensorboard")
    with SummaryWriter(folder, purge_step=step) if first else nullcontext() as writer:
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
                _write(writer, "train", metrics, step)
                logged_at, logged_step = time.monotonic(), step
            if config.validate_every and (step % config.validate_every == 0 or step == task.num_steps):
                held_out = task.validate()
                logger.info("held out at step %d: %s", step, {k: round(v, 4) for k, v in held_out.items()})
                _write(writer, "validation", held_out, step)
                logged_at, logged_step = time.monotonic(), step
            if time.monotonic() - saved_at > 60 * config.save_minutes:
                _save(task, step, config)
                saved_at = time.monotonic()
            if config.export_every and step % config.export_every == 0:
                _export(task, config)
    if first:
        _save(task, step, config)
        if step == task.num_steps:
            _export(task, config)
    return step


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the process's exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    with ExitStack() as stack:
        try:
            config = parse_config(argv)
            task, step, world = stack.enter_context(ready(config))
        except ValueError as error:
            # A mistake of the user's: the message says all. What goes wrong later needs its traceback.
            logger.error("%s", error)
            return 2
        train(config, task, step, world)
        world.barrier()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
