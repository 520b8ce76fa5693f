"""Rehearses a distillation: every kind of update, a checkpoint and the export, on two random layers.

Widths, losses, optimizers, adapters and processes are the run's; weights and samples are random, so that no
model and no data is needed. On a GPU the clip has the run's size too, and the memory that the rehearsal took
is shown next to what the plan says of it.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vdot_core.checkpoints import save_network
from vdot_core.memory import GIB
from vdot_core.networks import WanVace, WanVaceConfig
from vdot_core.text import listed, shown
from vdot_core.vcu import CONTEXT_CHANNELS, LATENT_CHANNELS

from ..data.batch import Batch
from ..data.config import micro_batch_size
from ..distributed import world as processes
from ..distributed.environment import place
from ..distributed.world import World
from ..engine.adapters import parameter_names
from ..engine.config import LogConfig
from ..engine.draws import keyed_generator
from ..engine.networks import network_sizes
from ..engine.run import train
from ..engine.trainer import Trainer
from ..methods.vdot import Vdot
from ..methods.vdot_checks import check_settings
from ..methods.vdot_config import DistillConfig
from .budget import Machine, make_budget
from .plan import clip_of
from .workload import Clip

logger = logging.getLogger("vdot")
PREFIX = "dry_run-"
CPU_CLIP = Clip(width=64, height=64, num_frames=5)
TEXT_TOKENS = 32


class RandomSource:
    """Batches of random numbers in the shapes of a run.

    Args:
        sizes: The network's.
        clip: The samples'.
        global_batch: Samples of a step.
    """

    encoding, held_out = "random numbers", ()

    def __init__(self, sizes: WanVaceConfig, clip: Clip, global_batch: int) -> None:
        self.sizes, self.clip, self.global_batch = sizes, clip, global_batch
        self.empty_text = self._draw("empty text", 1, TEXT_TOKENS, sizes.text_dim)

    def batches(self, step: int, rank: int = 0, world_size: int = 1) -> list[Batch]:
        """One micro-batch of this process's samples."""
        count = self.global_batch // world_size
        positions = tuple(range(rank * count, (rank + 1) * count))
        shape = self.clip.latent_shape
        contexts = self.clip.num_contexts if self.sizes.vace_layers else 0
        return [
            Batch(
                ids=tuple(f"random {step} {position}" for position in positions),
                tasks=("random",) * count,
                positions=positions,
                text=self._draw(f"text {step} {rank}", count, TEXT_TOKENS, self.sizes.text_dim),
                shape=(LATENT_CHANNELS, *shape),
                latents=self._draw(f"latents {step} {rank}", count, LATENT_CHANNELS, *shape),
                contexts=self._draw(f"contexts {step} {rank}", count, contexts, CONTEXT_CHANNELS, *shape)
                if contexts
                else None,
            )
        ]

    def _draw(self, key: str, *shape: int) -> Tensor:
        return torch.randn(shape, generator=keyed_generator(key))

    def state_dict(self) -> dict:
        """Nothing but the step decides the batches."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Nothing to restore."""


def dry_run(config: DistillConfig) -> int:
    """Rehearse a run; its files lie in a new folder in `out_dir` and are removed at the end.

    Args:
        config: The run.

    Returns:
        Exit status: 0 if all of it ran, with finite losses.

    Raises:
        ValueError: The configuration does not fit itself or the machine.
    """
    data, notes = config.data, check_settings(config, place()[1])
    micro_batch_size(data.batch_size, data.accumulation, data.group_size, place()[1])
    full = network_sizes(config.model.preset, config.model.real_score, text_only=config.model.text_only)
    sizes = dataclasses.replace(full, num_layers=2, vace_layers=(0,) if full.vace_layers else ())
    frozen, left_out = rehearsed_frozen(config, sizes)
    world, folder = processes.start(config.parallel), None
    try:
        clip = rehearsal_clip(config, world.device)
        folder = _new_folder(config.out_dir, world)
        if world.rank == 0:
            logger.info(
                "dry run: 2 of %d layers of width %d, random weights, %d processes, clip %d x %d x %d%s",
                full.num_layers, full.dim, world.size, clip.num_frames, clip.height, clip.width,
                " (a CPU's; the run's own size takes a GPU)" if clip is CPU_CLIP else "",
            )  # fmt: skip
            for note in notes:
                logger.warning("%s", note)
            if left_out:
                logger.info(
                    "dry run: model.frozen's %s is left out, which those two layers lack, or which leaves "
                    "none of them to train", listed(left_out),
                )  # fmt: skip
            if random := _not_rehearsed(config):
                logger.info("dry run: %s not rehearsed: weights and samples are random", listed(random))
            write_random(folder / "teacher.safetensors", sizes)
        world.barrier()
        small = rehearsal(config, folder, world.size, frozen)
        source = RandomSource(sizes, clip, small.data.batch_size)
        begin = time.monotonic()
        trainer = Trainer(small, Vdot(small, world, source.empty_text), source, world)
        train(trainer)
        if world.rank == 0:
            logger.info("dry run: all updates, checkpoint and export in %.0f s", time.monotonic() - begin)
            _compare(small, sizes, clip, world)
        world.barrier()
        return 0 if not trainer.bad_steps else 1
    finally:
        if world.rank == 0 and folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        processes.stop()


def _not_rehearsed(config: DistillConfig) -> list[str]:
    """Keys of weights and tasks, which a rehearsal has none of."""
    model = config.model
    values = {
        **{f"model.{name}": getattr(model, name) for name in ("generator", "fake_score", "acc_wan_init")},
        "data.task_weights": config.data.task_weights,
        "losses.task_guidance": config.losses.task_guidance,
    }
    return [key for key, value in values.items() if value]


def _new_folder(out_dir: str, world: World) -> Path:
    """A new folder in a run's, made by the first process for all; every one gets its error."""
    folder = refusal = None
    if world.rank == 0:
        try:
            Path(out_dir).mkdir(parents=True, exist_ok=True)
            folder = tempfile.mkdtemp(prefix=PREFIX, dir=out_dir)
        except OSError as error:
            reason = shown(error.strerror or error, 80)
            refusal = f"{shown(out_dir)} cannot be written to ({reason}); give another out_dir"
    folder, refusal = world.gather((folder, refusal))[0]
    if refusal:
        raise ValueError(refusal)
    return Path(folder)


def rehearsed_frozen(config: DistillConfig, sizes: WanVaceConfig) -> tuple[list[str], list[str]]:
    """The prefixes of `model.frozen` that a rehearsal keeps, and those that it leaves out.

    Args:
        config: The run.
        sizes: Of the rehearsal's networks, with fewer layers.
    """
    model = config.model
    names = parameter_names(sizes, model.adapters)
    frozen = [prefix for prefix in model.frozen if any(name.startswith(prefix) for name in names)]
    if frozen and all(name.startswith(tuple(frozen)) for name in names):
        frozen = []  # what is trained lies in the layers that are left out
    return frozen, [prefix for prefix in model.frozen if prefix not in frozen]


def rehearsal(
    config: DistillConfig, folder: Path, num_processes: int, frozen: Sequence[str] = ()
) -> DistillConfig:
    """The configuration of a rehearsal: two steps, which hold every kind of update of the run.

    Args:
        config: The run.
        folder: For its files; the teacher's is teacher.safetensors.
        num_processes: One sample on each.
        frozen: Prefixes that are not trained; see `rehearsed_frozen`.

    Returns:
        The configuration.
    """
    teacher = str(folder / "teacher.safetensors")
    model = dataclasses.replace(
        config.model, preset=None, real_score=teacher, generator=None, fake_score=None, acc_wan_init=None,
        taps=[0, 1], frozen=list(frozen),
    )  # fmt: skip
    return dataclasses.replace(
        config,
        out_dir=str(folder / "run"),
        steps=2,
        max_steps=None,
        model=model,
        data=dataclasses.replace(
            config.data, batch_size=num_processes, accumulation=1, group_size=None, workers=0, task_weights={}
        ),
        losses=dataclasses.replace(config.losses, task_guidance={}),
        optim=dataclasses.replace(config.optim, generator_every=1, warmup=0),
        log=LogConfig(save_every=2, checkpoint_files=config.log.checkpoint_files),
    )


def write_random(path: Path, sizes: WanVaceConfig) -> None:
    """Write a network with random weights, none of them neutral, so that gradients reach every layer."""
    network = WanVace(sizes, dtype=torch.bfloat16)
    generator = keyed_generator("dry run")
    network.initialize_weights(generator)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1 and not parameter.any():
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    save_network(path, network)


def rehearsal_clip(config: DistillConfig, device: torch.device) -> Clip:
    """The clip of a rehearsal: a small one on a CPU, else the run's largest, as its plan has it."""
    return CPU_CLIP if device.type == "cpu" else clip_of(config)


def _compare(config: DistillConfig, sizes: WanVaceConfig, clip: Clip, world: World) -> None:
    """Log a GPU's measured peak and the plan's for the same two layers."""
    if world.device.type != "cuda":
        return
    memory = torch.cuda.get_device_properties(world.device).total_memory / GIB
    budget = make_budget(config, sizes, clip, Machine(gpus=world.size, memory_gib=memory))
    measured = torch.cuda.max_memory_reserved(world.device) / GIB
    logger.info("memory of the rehearsal: %.2f GiB, by the plan %.2f GiB", measured, budget.total / GIB)
