"""A network smaller than the bundled one, and batches of noise, for tests of the distillation's engine."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from training.data.batch import Batch
from training.distributed import world as processes
from training.engine.cli import find_inputs, nest
from training.engine.draws import keyed_generator
from training.engine.trainer import Trainer
from training.methods.programs import distill_config
from training.methods.vdot import Vdot
from training.methods.vdot_config import DistillConfig
from vdot_core.checkpoints import save_network
from vdot_core.networks import WanVace, WanVaceConfig

SIZES = WanVaceConfig(
    dim=12, ffn_dim=16, num_heads=2, num_layers=2, vace_layers=(0,), text_dim=8, freq_dim=8, text_len=6
)


def write_teacher(path: Path, seed: int = 0, **changes: Any) -> Path:
    """A random network whose outputs depend on everything it is given."""
    network = WanVace(dataclasses.replace(SIZES, **changes))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            generator = keyed_generator(seed, name)
            spread = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
            parameter.copy_(spread + 0.15 * torch.randn(parameter.shape, generator=generator))
    save_network(path, network)
    return path


class NoiseSource:
    """Batches of noise: positions of the global batch cut into micro-batches, as the real source's.

    Args:
        global_batch, accumulation: As of a data configuration.
        references: Leading latent frames that are references.
        text_only: Without contexts.
        latents: Add real clips.
        poison: Steps whose sample 0 holds a NaN.
        tasks: Taken in turn by the samples of a batch.
    """

    def __init__(
        self,
        global_batch: int = 4,
        accumulation: int = 1,
        references: int = 1,
        text_only: bool = False,
        latents: bool = True,
        poison: tuple[int, ...] = (),
        tasks: Sequence[str] = ("depth",),
    ) -> None:
        self.global_batch, self.accumulation, self.references = global_batch, accumulation, references
        self.text_only, self.latents, self.poison, self.tasks = text_only, latents, poison, tasks
        self.empty_text = torch.randn(1, 3, SIZES.text_dim, generator=keyed_generator("empty"))
        self.skipped: list = []
        self.encoding, self.held_out = "noise", ()

    def batches(self, step: int, rank: int = 0, world_size: int = 1) -> list[Batch]:
        """As `training.data`'s."""
        micro = self.global_batch // (self.accumulation * world_size)
        starts = [(n * world_size + rank) * micro for n in range(self.accumulation)]
        return [self._batch(step, range(start, start + micro)) for start in starts]

    def _batch(self, step: int, positions: range) -> Batch:
        # Two shapes by turns, and references in one of them only.
        count = self.references if step % 2 == 0 and not self.text_only else 0
        shape = (16, 2 + count, 4, 6) if step % 3 else (16, 2 + count, 6, 4)
        samples = [self._sample(step, position, shape, count) for position in positions]
        text, latents, contexts = (torch.stack(parts) for parts in zip(*samples, strict=True))
        if step in self.poison and positions.start == 0:
            text[0, 0, 0] = float("nan")
        return Batch(
            ids=tuple(f"clip{step}-{position}" for position in positions),
            tasks=tuple(self.tasks[position % len(self.tasks)] for position in positions),
            positions=tuple(positions),
            text=text,
            shape=shape,
            latents=latents if self.latents else None,
            contexts=None if self.text_only else contexts,
            num_reference_latents=count,
        )

    def _sample(self, step: int, position: int, shape: tuple[int, ...], count: int):
        generator = keyed_generator("sample", step, position)
        text = torch.randn(5, SIZES.text_dim, generator=generator)
        latents = torch.randn(shape, generator=generator)
        contexts = torch.randn(1, SIZES.vace_in_channels, *shape[1:], generator=generator)
        # As `vdot_core.vcu.encode` lays a reference out: its latents, zeros and mask 0.
        contexts[0, :, :count] = 0
        contexts[0, :16, :count] = latents[:, :count]
        return text, latents, contexts

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: Mapping) -> None:
        assert state == {}


_BASE = {
    "seed": 5,
    "steps": 10,
    "model.preset": None,
    "model.taps": [0, 1],
    "model.discriminator_width": 16,
    "model.discriminator_heads": 2,
    "optim.generator_lr": 1e-3,
    "optim.critic_lr": 1e-3,
    "parallel.precision": "fp32",
    "parallel.device": "cpu",
    "parallel.threads": 1,
    "parallel.timeout_s": 240,
    "data.workers": 0,
    "log.save_every": 4,
    "log.keep": 3,
}


def tiny_config(folder: Path, teacher: Path, **changes: Any) -> DistillConfig:
    """A run of seconds; `changes` are dotted keys with __ for the dot."""
    values = tiny_values(folder, teacher, **changes)
    if "recipe" in values:
        return distill_config(values)
    # Parsing takes longer than some of the tests: only the part that all share is parsed.
    return find_inputs(_replaced(_base_config(), nest(values)))


def _replaced(config: Any, values: Mapping[str, Any]) -> Any:
    """A configuration with other values, in nested parts too."""
    changed = {}
    for name, value in values.items():
        part = getattr(config, name)
        changed[name] = _replaced(part, value) if dataclasses.is_dataclass(part) else value
    return dataclasses.replace(config, **changed)


@cache
def _base_config() -> DistillConfig:
    return distill_config(_BASE)


def tiny_values(folder: Path, teacher: Path, **changes: Any) -> dict[str, Any]:
    """The keys of `tiny_config`, for a JSON file."""
    return {**_BASE, "out_dir": str(folder), "model.real_score": str(teacher)} | {
        key.replace("__", "."): value for key, value in changes.items()
    }


def losses_by_step(folder: Path) -> dict[int, dict[str, float]]:
    """The numbers of each step in metrics.jsonl, without times; the last line of a step counts."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return {row["step"]: {k: v for k, v in row.items() if k != "seconds"} for row in rows}


def last_logged_step(folder: Path) -> int:
    """The last step in a metrics.jsonl that is still being written; 0 before the first complete line."""
    file = folder / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=0)


def new_trainer(config, source: NoiseSource | None = None) -> Trainer:
    """A distillation's trainer in this process."""
    source, world = source or NoiseSource(), processes.start(config.parallel)
    return Trainer(config, Vdot(config, world, source.empty_text), source, world)
