"""Bytes on disk: checkpoints and export of a run, and the samples of its cache."""

from __future__ import annotations

import math

from vdot_core.networks import WanVaceConfig
from vdot_core.vcu import LATENT_CHANNELS, VAE_STRIDE

from ..engine.networks import network_sizes
from ..engine.space import OutputBytes
from ..methods.vdot_config import DistillConfig
from .memory import BF16, FP32, states
from .sizes import Sizes
from .workload import Clip


def output_bytes(config: DistillConfig) -> OutputBytes:
    """Sizes of the files that a distillation writes, from its configuration."""
    model = config.model
    sizes = Sizes.of(network_sizes(model.preset, model.real_score, text_only=model.text_only), config)
    return outputs(sizes, states(sizes, config).saved, config)


def outputs(sizes: Sizes, saved: int, config: DistillConfig) -> OutputBytes:
    """The same from numbers of parameters, and the bytes of a checkpoint."""
    adapters, element = config.model.adapters, FP32 if config.export_dtype == "fp32" else BF16
    as_lora = adapters.adapts("generator") and adapters.export == "lora"
    return OutputBytes(saved, element * (sizes.adapter + sizes.stage_one if as_lora else sizes.network))


def sample_bytes(network: WanVaceConfig, clip: Clip) -> int:
    """Most bytes of a sample in the cache: real clip and contexts in float16, masks in bits, one caption."""
    positions = math.prod(clip.latent_shape)
    context = 2 * LATENT_CHANNELS * BF16 + math.prod(VAE_STRIDE[1:]) // 8
    caption = network.text_len * network.text_dim * FP32
    return positions * (LATENT_CHANNELS * BF16 + clip.num_contexts * context) + caption
