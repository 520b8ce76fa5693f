"""The four networks of a distillation: generator, real score (the teacher), fake score, discriminator."""

from __future__ import annotations

import dataclasses
import logging
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vdot_core.networks import Discriminator, WanVace, WanVaceConfig, default_taps
from vdot_core.text import shown

from ..distributed.world import World
from ..engine.draws import keyed_generator
from ..engine.networks import (
    build_sharded,
    build_transformer,
    check_transformer,
    network_sizes,
    read_transformer,
)
from .vdot_config import DistillConfig, ModelConfig

logger = logging.getLogger("vdot")


@dataclass(frozen=True)
class VdotNetworks:
    """Networks at their first step.

    Attributes:
        sizes: Sizes of the three transformers.
        generator: The few-step student, trained.
        real_score: The teacher, frozen.
        fake_score: The score of the generator's samples, trained.
        discriminator: Head on the fake score's blocks, trained.
        taps: Indices of those blocks.
    """

    sizes: WanVaceConfig
    generator: WanVace
    real_score: WanVace
    fake_score: WanVace
    discriminator: Discriminator
    taps: tuple[int, ...]


def build_networks(config: DistillConfig, world: World) -> VdotNetworks:
    """Build, shard and fill all networks of a run.

    Args:
        config: The run.
        world: The processes.

    Returns:
        The networks at their first step.

    Raises:
        ValueError: A file is missing or does not fit.
    """
    model, parallel = config.model, config.parallel
    if model.real_score is None:
        raise ValueError("model.real_score is null; give the teacher's file")
    sizes = network_sizes(model.preset, model.real_score, text_only=model.text_only)
    half = torch.bfloat16 if world.precision == "bf16" else torch.float32

    def weights(key: str) -> Mapping[str, Tensor]:
        path = getattr(model, key)
        return read_transformer(path, sizes, f"model.{key}") if path else teacher

    teacher = read_transformer(model.real_score, sizes, "model.real_score")
    real_score = build_transformer(teacher, sizes, world, parallel, half).requires_grad_(False)
    fake_score = build_transformer(weights("fake_score"), sizes, world, parallel)
    first = with_stage_one(model, sizes, weights("generator"))
    generator = build_transformer(first, sizes, world, parallel)

    taps = tuple(model.taps) if model.taps else default_taps(sizes.num_layers)
    head = new_discriminator(model, sizes, len(taps))
    head.initialize_weights(keyed_generator(config.seed, "discriminator"))
    values = {name: parameter.detach() for name, parameter in head.named_parameters()}
    head = build_sharded(head.to("meta"), values, world, parallel)
    return VdotNetworks(sizes, generator, real_score, fake_score, head, taps)


def check_networks(config: DistillConfig) -> None:
    """Find mistakes in the networks' files and taps before data is encoded.

    Raises:
        ValueError: A file is missing or does not fit, or a tap is no block.
    """
    model = config.model
    if model.real_score is None:
        raise ValueError("model.real_score is null; give the teacher's file")
    sizes = network_sizes(model.preset, model.real_score, text_only=model.text_only)
    wan = dataclasses.replace(sizes, vace_layers=())
    for key in ("real_score", "generator", "fake_score", "acc_wan_init"):
        if path := getattr(model, key):
            check_transformer(path, wan if key == "acc_wan_init" else sizes, f"model.{key}")
    taps = model.taps or []
    if len({*taps}) < len(taps) or not all(0 <= tap < sizes.num_layers for tap in taps):
        raise ValueError(
            f"model.taps is {shown(taps)}; expected different blocks from 0 to {sizes.num_layers - 1}"
        )


def new_discriminator(model: ModelConfig, sizes: WanVaceConfig, num_taps: int) -> Discriminator:
    """The discriminator's head, of the configured size or of one that fits the network."""
    if model.discriminator_width is None:
        return Discriminator.for_network(sizes, num_taps)
    width, num_heads = model.discriminator_width, model.discriminator_heads
    return Discriminator.for_network(sizes, num_taps, width=width, num_heads=num_heads)


def with_stage_one(
    model: ModelConfig, sizes: WanVaceConfig, weights: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """The generator's first weights, their Wan part from stage 1 if there was one (AccWanInit)."""
    if model.acc_wan_init is None:
        return weights
    if not sizes.vace_layers:
        raise ValueError("model.acc_wan_init goes with a VACE branch; unset it, or set model.text_only false")
    wan = read_transformer(
        model.acc_wan_init, dataclasses.replace(sizes, vace_layers=()), "model.acc_wan_init"
    )
    logger.info("AccWanInit: %d tensors of the generator are from %s", len(wan), model.acc_wan_init)
    # As `vdot_core.checkpoints.acc_wan_init`, without a copy of what stays in the two files.
    return ChainMap(wan, weights)
