"""The networks of a distillation run: generator, frozen teacher, fake score, discriminator and averages.

Each is built on the meta device, sharded, and only then filled, so that no process ever holds a whole one
that it shares with others.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from vdot_core.checkpoints import inspect, read_weights
from vdot_core.networks import (
    PRESETS,
    Discriminator,
    Hooks,
    WanVace,
    WanVaceConfig,
    default_taps,
    sdpa_attention,
)

from ..data.batch import Batch
from ..distributed.world import World, spread
from .adamw import local
from .attention import batched_attention
from .average import AveragedWeights
from .config import DistillConfig, ModelConfig
from .draws import keyed_generator

logger = logging.getLogger("vdot")
VACE_NAMES = ("vace_patch_embedding.", "vace_blocks.")


class TimeHooks(Hooks):
    """Keeps the embedded timestep of a pass, which the discriminator reads."""

    time: Tensor | None = None

    def after_block(self, index: int, x: Tensor, latents: Tensor, time: Tensor) -> Tensor:
        # Detached: a gradient that left the network beside its outputs would meet weights already put away.
        self.time = time.detach()
        return x


@dataclass
class Networks:
    """All that a step evaluates or trains.

    Attributes:
        config: Sizes of the three transformers.
        generator: The few-step student, trained.
        real_score: The teacher, frozen.
        fake_score: The score of the generator's samples, trained.
        discriminator: Head on the fake score's blocks, trained.
        taps: Those blocks.
        average: The generator's averaged weights.
        world: Over whom they are spread.
    """

    config: WanVaceConfig
    generator: WanVace
    real_score: WanVace
    fake_score: WanVace
    discriminator: Discriminator
    taps: tuple[int, ...]
    average: AveragedWeights
    world: World
    frozen: tuple[str, ...] = ()

    def train_generator(self) -> None:
        """Let gradients reach the generator's weights, and only pass through the critic."""
        for name, parameter in self.generator.named_parameters():
            parameter.requires_grad_(not name.startswith(self.frozen) if self.frozen else True)
        self.fake_score.requires_grad_(False)
        self.discriminator.requires_grad_(False)

    def train_critic(self, fake_score: bool = True) -> None:
        """Let gradients reach the discriminator's weights and, if asked, the fake score's."""
        self.generator.requires_grad_(False)
        self.fake_score.requires_grad_(fake_score)
        self.discriminator.requires_grad_(True)

    def velocity(
        self, network: WanVace, x: Tensor, timestep: Tensor, batch: Batch, *, features: bool = False
    ) -> Tensor | tuple[list[Tensor], Tensor]:
        """Call one of the transformers.

        Args:
            network: Which.
            x: [B, 16, T, h, w] noised latents.
            timestep: [B] in 0..1000.
            batch: Text, contexts and their scale, of B samples.
            features: Return what the discriminator reads instead of the velocity.

        Returns:
            Velocity like x; or (tokens [B, L, D] per tap, embedded timestep [B, D]).
        """
        hooks = TimeHooks(attention_for(self.world))
        whole = network.head.modulation.dtype == torch.float32
        with self.world.autocast() if whole else nullcontext():
            given = (x, timestep, batch.text, batch.contexts, batch.context_scale)
            result = network(*given, taps=self.taps if features else (), hooks=hooks)
        return (result[1], hooks.time) if features else result


def attention_for(world: World):
    """The attention function: on CPUs in bf16 the fused one's backward pass is ten times slower."""
    if world.device.type == "cpu" and world.precision == "bf16":
        return batched_attention
    return sdpa_attention


def network_config(model: ModelConfig) -> WanVaceConfig:
    """Sizes of the transformers.

    Args:
        model: The configuration.

    Returns:
        The preset's sizes, or the teacher file's, without a VACE branch if `text_only`.

    Raises:
        ValueError: neither a preset nor a teacher is given.
    """
    if model.preset is not None:
        config = PRESETS[model.preset]()
    elif model.real_score is not None:
        config = inspect(model.real_score).config
    else:
        raise ValueError("model.preset and model.real_score are both null; give one to know the sizes")
    return dataclasses.replace(config, vace_layers=()) if model.text_only else config


def read_transformer(path: str | Path, config: WanVaceConfig, key: str) -> dict[str, Tensor]:
    """Weights of a file for a network of given sizes, memory-mapped where possible.

    Args:
        path: Checkpoint.
        config: The network's sizes; a VACE branch that it lacks is left out.
        key: The configuration's, for errors, such as model.real_score.

    Returns:
        Wan name -> tensor.

    Raises:
        ValueError: the file is of other sizes, or has no VACE branch and the network does.
    """
    weights = read_weights(path)
    kept = {"vace_layers": config.vace_layers, "text_len": config.text_len}
    found = dataclasses.replace(weights.config, **kept)
    if found != config:
        theirs, ours = found.to_dict(), config.to_dict()
        wrong = ", ".join(f"{k} {theirs[k]} (expected {ours[k]})" for k in ours if theirs[k] != ours[k])
        raise ValueError(f"{key}: {path} has {wrong}; give a file of the preset's sizes")
    if config.vace_layers and weights.config.vace_layers != config.vace_layers:
        raise ValueError(
            f"{key}: {path} has VACE layers {list(weights.config.vace_layers)}, the network "
            f"{list(config.vace_layers)}; give a VACE checkpoint, or set model.text_only"
        )
    if config.vace_layers:
        return weights.state_dict
    return {k: v for k, v in weights.state_dict.items() if not k.startswith(VACE_NAMES)}


@torch.no_grad()
def fill(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy whole tensors into a module's parameters, each process its own part of them."""
    for name, parameter in module.named_parameters():
        value = weights[name].to(parameter.dtype)
        if isinstance(parameter, DTensor):
            # Without a source rank each process cuts its part out of its own copy: nothing is sent.
            value = value.to(parameter.device_mesh.device_type)
            value = distribute_tensor(
                value, parameter.device_mesh, parameter.placements, src_data_rank=None
            ).to_local()
        local(parameter).copy_(value)


def _build(
    module: nn.Module, weights: Mapping[str, Tensor], world: World, config: DistillConfig
) -> nn.Module:
    spread(module, world, config.parallel)
    offloaded = world.sharded and config.parallel.cpu_offload
    module.to_empty(device="cpu" if offloaded else world.device)
    fill(module, weights)
    _first_pass(module, world)
    return module


@torch.no_grad()
def _first_pass(module: nn.Module, world: World) -> None:
    """Let FSDP set itself up while every weight is trained.

    At a module's first pass it notes the number formats of gradients from the weights that are trained then.
    The fake score's first pass in a step is in the generator's update, where it is frozen.
    """
    if not world.sharded:
        return
    device = world.device
    if isinstance(module, WanVace):
        sizes = module.config
        x = torch.zeros(1, sizes.in_channels, *sizes.patch_size, device=device)
        module(x, torch.zeros(1, device=device), torch.zeros(1, 1, sizes.text_dim, device=device))
    else:
        tokens = torch.zeros(1, 1, module.dim, device=device)
        module([tokens] * len(module.registers), torch.zeros(1, module.time_dim, device=device))


def _discriminator(config: DistillConfig, sizes: WanVaceConfig, num_taps: int) -> Discriminator:
    model = config.model
    given = {"width": model.discriminator_width, "num_heads": model.discriminator_heads}
    given = {name: value for name, value in given.items() if value is not None}
    return Discriminator.for_network(sizes, num_taps, **given)


def build_networks(config: DistillConfig, world: World) -> Networks:
    """Build, shard and fill all networks of a run.

    Args:
        config: The run.
        world: Over whom.

    Returns:
        The networks at their first step.

    Raises:
        ValueError: a file is missing or does not fit.
    """
    model = config.model
    if model.real_score is None:
        raise ValueError("model.real_score is null; give the teacher's file")
    sizes = network_config(model)

    def transformer(weights: Mapping[str, Tensor], dtype: torch.dtype) -> WanVace:
        network = WanVace(sizes, attention=attention_for(world), device="meta", dtype=dtype)
        network.gradient_checkpointing(config.parallel.checkpoint_every)
        return _build(network, weights, world, config)

    teacher = read_transformer(model.real_score, sizes, "model.real_score")
    half = torch.bfloat16 if config.parallel.precision == "bf16" else torch.float32
    real = transformer(teacher, half).requires_grad_(False)
    start = read_transformer(model.fake_score, sizes, "model.fake_score") if model.fake_score else teacher
    fake = transformer(start, torch.float32)
    start = read_transformer(model.generator, sizes, "model.generator") if model.generator else teacher
    generator = transformer(_with_stage_one(model, sizes, start), torch.float32)

    taps = tuple(model.taps) if model.taps else default_taps(sizes.num_layers)
    head = _discriminator(config, sizes, len(taps))
    head.initialize_weights(keyed_generator(config.seed, "discriminator"))
    values = {name: parameter.detach() for name, parameter in head.named_parameters()}
    head = _build(head.to("meta"), values, world, config)
    average = AveragedWeights(generator, config.optim.ema)
    return Networks(sizes, generator, real, fake, head, taps, average, world, frozen=tuple(model.frozen))


def _with_stage_one(
    model: ModelConfig, sizes: WanVaceConfig, weights: dict[str, Tensor]
) -> Mapping[str, Tensor]:
    """The generator's first weights, their Wan part from stage 1 if there was one (AccWanInit)."""
    if model.acc_wan_init is None:
        return weights
    if not sizes.vace_layers:
        raise ValueError("model.acc_wan_init goes with a VACE branch; unset it, or set model.text_only false")
    wan = read_transformer(
        model.acc_wan_init, dataclasses.replace(sizes, vace_layers=()), "model.acc_wan_init"
    )
    logger.info("AccWanInit: %d tensors of the generator are %s's", len(wan), model.acc_wan_init)
    # As `vdot_core.checkpoints.acc_wan_init`, without a copy of what stays in the two files.
    return {**weights, **wan}


def trainable(module: nn.Module, frozen: Sequence[str] = ()) -> dict[str, nn.Parameter]:
    """Name -> parameter of those that are trained."""
    return {
        name: parameter
        for name, parameter in module.named_parameters()
        if not (frozen and name.startswith(tuple(frozen)))
    }
