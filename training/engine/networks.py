"""Transformers of a run: their sizes, their weights on this process, and their calls.

A network is built on the meta device, sharded, and only then filled, so that no process ever holds all of a
network that it shares with others. Letters: B batch, T latent frames, h w latents, L tokens, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from vdot_core.checkpoints import StoredWeights, inspect, open_weights
from vdot_core.networks import PRESETS, Hooks, NetworkRole, WanVace, WanVaceConfig, sdpa_attention
from vdot_core.text import shown

from ..data.batch import Batch
from ..distributed.config import ParallelConfig
from ..distributed.world import World, shard
from .adamw import local
from .attention import batched_attention

Transformer = WanVace | NetworkRole
VACE_NAMES = ("vace_patch_embedding.", "vace_blocks.")


class TimeHooks(Hooks):
    """Stores the embedded timestep of a pass, which the discriminator reads."""

    time: Tensor | None = None

    def after_block(self, index: int, x: Tensor, latents: Tensor, time: Tensor) -> Tensor:
        # Detached: a gradient that left the network by another way than its outputs would meet weights that
        # FSDP has resharded already.
        self.time = time.detach()
        return x


def velocity(network: Transformer, x: Tensor, timestep: Tensor, batch: Batch, world: World) -> Tensor:
    """Call a transformer.

    Args:
        network: The transformer.
        x: [B, 16, T, h, w] noised latents.
        timestep: [B] in 0..1000.
        batch: Text, contexts and their scale, of B samples.
        world: Its precision.

    Returns:
        [B, 16, T, h, w] velocity.
    """
    with _precision(network, x, world):
        hooks = TimeHooks(attention_for(world))
        return network(x, timestep, batch.text, batch.contexts, batch.context_scale, hooks=hooks)


def features(
    network: Transformer, x: Tensor, timestep: Tensor, batch: Batch, world: World, taps: tuple[int, ...]
) -> tuple[list[Tensor], Tensor]:
    """Tokens after some blocks, for the discriminator.

    Args:
        network, x, timestep, batch, world: As in `velocity`.
        taps: Indices of the blocks.

    Returns:
        Tokens [B, L, D] of each tap, and the embedded timestep [B, D].
    """
    with _precision(network, x, world):
        hooks = TimeHooks(attention_for(world))
        _, tokens = network(
            x, timestep, batch.text, batch.contexts, batch.context_scale, taps=taps, hooks=hooks
        )
    return tokens, hooks.time


def _precision(network: Transformer, x: Tensor, world: World):
    """Autocast for float32 weights in a bf16 run; weights that are bf16 already need none."""
    return world.autocast() if network.activation_dtype(x) == torch.float32 else nullcontext()


def compute_dtype(world: World) -> torch.dtype:
    """Dtype of frozen weights, which need no master copy."""
    return torch.bfloat16 if world.precision == "bf16" else torch.float32


def attention_for(world: World):
    """Attention function of a run: on CPUs in bf16 the fused one's backward pass is ten times slower."""
    if world.device.type == "cpu" and world.precision == "bf16":
        return batched_attention
    return sdpa_attention


def network_sizes(preset: str | None, path: str | None, *, text_only: bool = False) -> WanVaceConfig:
    """Sizes of a run's transformers.

    Args:
        preset: A name in `PRESETS`, or None.
        path: The real score's file, read where there is no preset.
        text_only: Leave the VACE branch out.

    Returns:
        The sizes.

    Raises:
        ValueError: Neither is given.
    """
    if preset is not None:
        sizes = PRESETS[preset]()
    elif path is not None:
        sizes = _config_of(path, "model.real_score")
    else:
        raise ValueError("model.preset and model.real_score are both null; give one to know the sizes")
    return dataclasses.replace(sizes, vace_layers=()) if text_only else sizes


def check_text(text: Tensor, sizes: WanVaceConfig) -> None:
    """Refuse, by ValueError, captions [.., D] of another width than a run's networks take."""
    if text.shape[-1] != sizes.text_dim:
        raise ValueError(
            f"captions were encoded to width {text.shape[-1]}, the network takes {sizes.text_dim}; encode "
            "them with the network's own text encoder"
        )


def read_transformer(path: str | Path, sizes: WanVaceConfig, key: str) -> StoredWeights:
    """Weights of a file for a network of given sizes, read one by one when they are asked for.

    Args:
        path: Checkpoint.
        sizes: The network's; a VACE branch that it lacks is left out.
        key: Configuration key for errors, such as model.real_score.

    Returns:
        Wan name -> tensor.

    Raises:
        ValueError: The file has other sizes, or it has no VACE branch and the network does.
    """
    weights = open_weights(path)
    _check_sizes(path, weights.config, sizes, key)
    if sizes.vace_layers:
        return weights.state_dict
    return weights.state_dict.without(VACE_NAMES)


def check_transformer(path: str | Path, sizes: WanVaceConfig, key: str) -> None:
    """Raise the error of `read_transformer`, from the file's header alone."""
    _check_sizes(path, _config_of(path, key), sizes, key)


def _config_of(path: str | Path, key: str) -> WanVaceConfig:
    """Sizes of the network in a file; ValueError where there is none, as in a LoRA."""
    info = inspect(path)
    if info.config is None:
        what = "it holds a LoRA" if info.layout == "lora" else info.problem or f"its layout is {info.layout}"
        raise ValueError(f"{key}: {shown(path)} is no network ({what}); give a checkpoint of all weights")
    return info.config


def _check_sizes(path: str | Path, config: WanVaceConfig, sizes: WanVaceConfig, key: str) -> None:
    same = {"vace_layers": sizes.vace_layers, "text_len": sizes.text_len}
    if dataclasses.replace(config, **same) != sizes:
        theirs, ours = config.to_dict(), sizes.to_dict()
        names = [name for name in ours if name not in same and theirs[name] != ours[name]]
        wrong = ", ".join(f"{name} {theirs[name]} (expected {ours[name]})" for name in names)
        raise ValueError(f"{key}: {path} has {wrong}; give a file of the preset's sizes")
    if sizes.vace_layers and config.vace_layers != sizes.vace_layers:
        raise ValueError(
            f"{key}: {path} has VACE layers {list(config.vace_layers)}, the network "
            f"{list(sizes.vace_layers)}; give a VACE checkpoint, or set model.text_only"
        )


def build_transformer(
    weights: Mapping[str, Tensor],
    sizes: WanVaceConfig,
    world: World,
    parallel: ParallelConfig,
    dtype: torch.dtype = torch.float32,
) -> WanVace:
    """A transformer with these weights, sharded over the processes.

    Args:
        weights: Wan name -> tensor.
        sizes: The network's.
        world: The processes.
        parallel: Recomputation, compilation, offload.
        dtype: Of the weights.

    Returns:
        The network.
    """
    return build_sharded(new_transformer(sizes, world, parallel, dtype), weights, world, parallel)


def new_transformer(
    sizes: WanVaceConfig, world: World, parallel: ParallelConfig, dtype: torch.dtype
) -> WanVace:
    """A transformer on the meta device, with a run's attention and recomputation."""
    network = WanVace(sizes, attention=attention_for(world), device="meta", dtype=dtype)
    network.gradient_checkpointing(parallel.checkpoint_every)
    # In float32 every checkpoint of a sharded run would take twice the memory.
    network.residual_dtype = torch.bfloat16
    return network


def build_sharded(
    module: nn.Module, weights: Mapping[str, Tensor], world: World, parallel: ParallelConfig
) -> nn.Module:
    """Shard a module on the meta device and fill it, each process its own part."""
    shard(module, world, parallel)
    offloaded = world.sharded and parallel.cpu_offload
    module.to_empty(device="cpu" if offloaded else world.device)
    fill(module, weights)
    _first_pass(module, world)
    return module


@torch.no_grad()
def fill(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy full tensors into a module's parameters, each process its own part of them."""
    for name, parameter in module.named_parameters():
        value = weights[name].to(parameter.dtype)
        if isinstance(parameter, DTensor):
            # Without a source rank each process slices its own copy: nothing is sent.
            value = value.to(parameter.device_mesh.device_type)
            value = distribute_tensor(
                value, parameter.device_mesh, parameter.placements, src_data_rank=None
            ).to_local()
        local(parameter).copy_(value)


@torch.no_grad()
def _first_pass(module: nn.Module, world: World) -> None:
    """Let FSDP set itself up while every weight is trained.

    At a module's first pass it notes the dtypes of gradients from the weights that are trained then. The fake
    score's first pass in a step is in the generator's update, where it is frozen.
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
