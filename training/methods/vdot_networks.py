"""The four networks of a distillation: generator, real score (the teacher), fake score, discriminator."""

from __future__ import annotations

import dataclasses
import logging
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from vdot_core.checkpoints.lora import load_factors
from vdot_core.networks import Discriminator, NetworkRole, WanVace, WanVaceConfig, default_taps

from ..distributed.world import World
from ..engine.adapters import AdaptedFrom, build_adapted, is_lora, share_weights
from ..engine.draws import keyed_generator
from ..engine.networks import (
    VACE_NAMES,
    Transformer,
    build_sharded,
    build_transformer,
    compute_dtype,
    network_sizes,
    read_transformer,
)
from .vdot_config import DistillConfig, ModelConfig

logger = logging.getLogger("vdot")
STAGE_ONE = "stage_one"


@dataclass(frozen=True)
class VdotNetworks:
    """Networks at their first step.

    Attributes:
        sizes: Sizes of the three transformers.
        generator: The few-step student, trained; one frozen network may be several of these three, told
            apart by its adapters.
        real_score: The teacher, frozen.
        fake_score: The score of the generator's samples, trained.
        discriminator: Head on the fake score's blocks, trained.
        taps: Indices of those blocks.
    """

    sizes: WanVaceConfig
    generator: Transformer
    real_score: Transformer
    fake_score: Transformer
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
    model = config.model
    sizes = network_sizes(model.preset, model.real_score, text_only=model.text_only)
    build = _build_adapters if model.adapters.rank else _build_transformers
    generator, real_score, fake_score = build(config, sizes, world)

    taps = tuple(model.taps) if model.taps else default_taps(sizes.num_layers)
    head = new_discriminator(model, sizes, len(taps))
    head.initialize_weights(keyed_generator(config.seed, "discriminator"))
    values = {name: parameter.detach() for name, parameter in head.named_parameters()}
    head = build_sharded(head.to("meta"), values, world, config.parallel)
    return VdotNetworks(sizes, generator, real_score, fake_score, head, taps)


def _build_transformers(
    config: DistillConfig, sizes: WanVaceConfig, world: World
) -> tuple[WanVace, WanVace, WanVace]:
    """Generator, real score and fake score as three networks."""
    model, parallel = config.model, config.parallel

    def weights(key: str) -> Mapping[str, Tensor]:
        path = getattr(model, key)
        return read_transformer(path, sizes, f"model.{key}") if path else teacher

    teacher = read_transformer(model.real_score, sizes, "model.real_score")
    dtype = compute_dtype(world)
    real_score = build_transformer(teacher, sizes, world, parallel, dtype).requires_grad_(False)
    fake_score = build_transformer(weights("fake_score"), sizes, world, parallel)
    generator = build_transformer(with_stage_one(model, sizes, weights("generator")), sizes, world, parallel)
    return generator, real_score, fake_score


def _build_adapters(
    config: DistillConfig, sizes: WanVaceConfig, world: World
) -> tuple[Transformer, Transformer, Transformer]:
    """Generator, real score and fake score on one frozen copy of the teacher.

    Of stage 1 (AccWanInit) a LoRA is stacked below the generator's adapter; full weights are a second copy of
    the Wan part.
    """
    model, adapters = config.model, config.model.adapters
    weights = read_transformer(model.real_score, sizes, "model.real_score")
    build = partial(
        build_adapted, sizes=sizes, world=world, parallel=config.parallel, adapters=adapters, seed=config.seed
    )
    stage_one = adapted_from(config).stage_one if adapters.adapts("generator") else None
    stacked = stage_one is not None and is_lora(stage_one)
    second_base = stage_one is not None and not stacked
    fixed = {STAGE_ONE: load_factors(stage_one, sizes)} if stacked else {}
    if stacked:
        logger.info(
            "AccWanInit: below the generator's adapter is the LoRA of %d layers from %s",
            len(fixed[STAGE_ONE]), stage_one,
        )  # fmt: skip
    roles = [role for role in adapters.roles if role == "fake_score" or not second_base]
    base = build(weights, roles=roles, fixed=fixed)
    real_score = NetworkRole(base) if roles else base.requires_grad_(False)
    if not adapters.adapts("generator"):
        first = with_stage_one(model, sizes, weights)
        generator: Transformer = build_transformer(first, sizes, world, config.parallel)
    elif second_base:
        network = build(with_stage_one(model, sizes, weights), roles=["generator"])
        generator = NetworkRole(network, "generator")
        share_weights(network, base, VACE_NAMES)
    else:
        generator = NetworkRole(base, *fixed, "generator")
    if adapters.adapts("fake_score"):
        return generator, real_score, NetworkRole(base, "fake_score")
    return generator, real_score, build_transformer(weights, sizes, world, config.parallel)


def adapted_from(config: DistillConfig) -> AdaptedFrom | None:
    """The network that the exported generator's adapter changes; None where the generator is a full one."""
    model = config.model
    if not model.adapters.adapts("generator"):
        return None
    return AdaptedFrom(model.adapters, model.real_score, model.acc_wan_init)


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
    wan = read_transformer(
        model.acc_wan_init, dataclasses.replace(sizes, vace_layers=()), "model.acc_wan_init"
    )
    logger.info("AccWanInit: %d tensors of the generator are from %s", len(wan), model.acc_wan_init)
    # As `vdot_core.checkpoints.acc_wan_init`, without a copy of what stays in the two files.
    return ChainMap(wan, weights)
