"""Train the tiny VAE, text encoder or evaluation network: `python tiny/pretrain.py --config run.yaml`.

Usually started by `tiny/train.py`. A second start with the same command resumes from the last checkpoint. The
steps are those of `tiny/{vae,text,evaluator}_task.py`; transformers are trained by `training/finetune.py`.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

if __package__ in (None, ""):
    # Replaces the script's own folder, whose names would hide other packages' (`text`, `tasks`).
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from torch import Tensor

from tiny.config import PretrainConfig, parse_config
from training.distributed import world as processes
from training.distributed.config import ParallelConfig
from training.engine.checkpoint import Checkpoints, SavedStep
from training.engine.files import write_problem
from training.engine.lock import locked
from training.engine.record import content
from training.engine.stopping import interrupt_in_words
from vdot_core.out_of_memory import is_out_of_memory, memory_in_words
from vdot_core.text import described, shown

logger = logging.getLogger("vdot")
CHECKPOINT_FILES = 8
# Settings that may change at a resume.
FREE = ("out_dir", "log_every", "validate_every", "save_minutes", "max_steps", "threads", "device")


INPUT = "weights of content"  # another file may be at the same path


class Task(Protocol):
    """The interface of a model in training."""

    num_steps: int

    def train_step(self, step: int) -> dict[str, float]:
        """One optimizer step; returns numbers to log."""

    def validate(self) -> dict[str, float]:
        """Held-out measures of the averaged weights."""

    def export(self, folder: Path) -> None:
        """Write the averaged weights in their final file format."""

    def state_dict(self) -> dict:
        """The state of a resumable run; its tensors are not copied."""

    def load_state_dict(self, state: dict) -> None:
        """Restore `state_dict`'s."""


def build_task(config: PretrainConfig, world: processes.World) -> Task:
    """The task that a configuration names, at its first step."""
    if config.model == "vae":
        from tiny.vae_task import VaeTask

        return VaeTask(config, world.device)
    if config.model == "text":
        from tiny.text_task import TextTask

        return TextTask(config, world.device)
    from tiny.evaluator_task import EvaluatorTask

    return EvaluatorTask(config, world.device)


def input_of(config: PretrainConfig) -> tuple[str, str | None]:
    """Key and path of the weights that a run reads; no path where it reads none."""
    return {
        "vae": ("vae.start_from", config.vae.start_from),
        "text": ("", None),
        "evaluator": ("evaluator.vae", config.evaluator.vae),
    }[config.model]


def check_files(config: PretrainConfig) -> None:
    """Refuse a run whose input is missing.

    Raises:
        ValueError: It names the key and the path.
    """
    key, path = input_of(config)
    if path and not Path(path).exists():
        raise ValueError(f"{key} is {path}, which is not there (seen from {Path.cwd()}); give another file")


class Run:
    """A task, its checkpoints and its step.

    Args:
        config: The run; its newest checkpoint is resumed.
    """

    def __init__(self, config: PretrainConfig) -> None:
        check_files(config)
        parallel = ParallelConfig(fsdp=False, device=config.device, threads=config.threads)
        world = processes.start(parallel)
        if world.size > 1:
            raise ValueError(f"the {config.model} trains in one process; start it without torchrun")
        self.config, self.step = config, 0
        self.task = build_task(config, world)
        folder = Path(config.out_dir) / "checkpoints"
        self.checkpoints = Checkpoints(folder, world, keep=1, asynchronous=False, files=CHECKPOINT_FILES)
        state = self.task.state_dict()
        if restored := self.checkpoints.restore(tensors_of(state), self._check):
            newest, progress = restored
            self.step = progress["step"]
            self.task.load_state_dict(with_values(state, progress["values"]))
            logger.info("resuming from step %d of %s", self.step, newest.path)

    def save(self) -> None:
        """Write a checkpoint of the steps done so far."""
        state = self.task.state_dict()
        values = {"values": values_of(state), "settings": settings_of(self.config)}
        self.checkpoints.save(self.step, tensors_of(state), values)

    def _check(self, checkpoint: SavedStep, progress: dict[str, Any]) -> str | None:
        """Sentence on damaged values, or None; ValueError where the run had other settings."""
        own, values = values_of(self.task.state_dict()), progress.get("values")
        if not isinstance(values, dict) or not own.keys() <= values.keys():
            return f"its values are not those of a {self.config.model}"
        before = progress.get("settings")
        # Checkpoints of older versions have none.
        for name, value in settings_of(self.config).items() if isinstance(before, dict) else ():
            if before.get(name) != value and (name in before or name != INPUT):
                raise ValueError(
                    f"{shown(checkpoint.path)} was trained with {name} {described(before.get(name))}, and "
                    f"this run has {described(value)}; give the same, or another out_dir"
                )
        return None

    def train(self) -> int:
        """Train to the end of the schedule or `max_steps`, then export; returns the step reached."""
        from torch.utils.tensorboard import SummaryWriter

        config, task = self.config, self.task
        last = min(task.num_steps, config.max_steps or task.num_steps)
        with SummaryWriter(str(Path(config.out_dir) / "tensorboard"), purge_step=self.step) as writer:
            saved_at = time.monotonic()
            while self.step < last:
                begin = time.monotonic()
                metrics = task.train_step(self.step)
                self.step += 1
                if not math.isfinite(metrics["loss"]):
                    raise FloatingPointError(f"the loss is {metrics['loss']} at step {self.step}")
                if self.step % config.log_every == 0 or self.step == last:
                    seconds = time.monotonic() - begin
                    self._log(writer, "train", {**metrics, "seconds": seconds})
                every = config.validate_every
                if every and (self.step % every == 0 or self.step == task.num_steps):
                    self._log(writer, "validation", task.validate())
                if time.monotonic() - saved_at > 60 * config.save_minutes:
                    self.save()
                    saved_at = time.monotonic()
        self.save()
        if self.step == task.num_steps:
            task.export(Path(config.out_dir) / "export")
        return self.step

    def _log(self, writer: Any, kind: str, metrics: dict[str, float]) -> None:
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        logger.info("%s step %d/%d  %s", kind, self.step, self.task.num_steps, numbers)
        for name, value in metrics.items():
            writer.add_scalar(f"{kind}/{name}", value, self.step)


def _leaves(state: Any, name: str = ""):
    if isinstance(state, dict):
        for key, value in state.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    elif isinstance(state, (list, tuple)):
        for number, value in enumerate(state):
            yield from _leaves(value, f"{name}.{number}")
    else:
        yield name, state


def settings_of(config: PretrainConfig) -> dict[str, Any]:
    """Dotted name -> value of the settings that a run's result depends on."""
    values = {name: value for name, value in asdict(config).items() if name not in FREE}
    used = {"model", *(name for name, value in values.items() if not isinstance(value, dict)), config.model}
    settings = dict(_leaves({name: values[name] for name in values if name in used}))
    path = input_of(config)[1]
    return json.loads(json.dumps(settings | {INPUT: path and content(Path(path))}))


def tensors_of(state: Any) -> dict[str, Tensor]:
    """Dotted name -> tensor of a nested state."""
    return {name: value for name, value in _leaves(state) if isinstance(value, Tensor)}


def values_of(state: Any) -> dict[str, Any]:
    """Dotted name -> plain value of a nested state."""
    return {name: value for name, value in _leaves(state) if not isinstance(value, Tensor)}


def with_values(state: Any, values: dict[str, Any], name: str = "") -> Any:
    """A nested state with other plain values."""
    if isinstance(state, dict):
        return {k: with_values(v, values, f"{name}.{k}" if name else str(k)) for k, v in state.items()}
    if isinstance(state, (list, tuple)):
        return [with_values(value, values, f"{name}.{number}") for number, value in enumerate(state)]
    return state if isinstance(state, Tensor) else values[name]


@interrupt_in_words
@memory_in_words("lower batch_size; the same command resumes")
def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the process's exit status, 2 after a user's mistake."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    with ExitStack() as stack:
        try:
            config = parse_config(argv)
            stack.enter_context(locked(config.out_dir, "out_dir"))
            run = Run(config)
            run.train()
        except ValueError as error:
            logger.error("%s", error)
            return 2
        except FloatingPointError as error:
            logger.error("%s; lower the learning rate, and give another out_dir", error)
            return 1
        except OSError as error:
            if is_out_of_memory(error):
                raise
            logger.error("%s", write_problem(error, config.out_dir))
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
