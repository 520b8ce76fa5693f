"""Networks of a run that share one frozen base and differ by low-rank adapters (LoRA)."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from vdot_core.checkpoints import inspect
from vdot_core.checkpoints.lora import Factors
from vdot_core.networks import NetworkRole, WanVace, WanVaceConfig, add_adapter, expected_shapes
from vdot_core.networks.adapters import adapter_parameters, attach

from ..data.checks import require, require_range
from ..distributed.config import ParallelConfig
from ..distributed.world import World
from .draws import keyed_generator
from .networks import build_sharded, compute_dtype, new_transformer
from .weight_only import Form, build_packed


@dataclass(frozen=True)
class AdapterConfig:
    """Low-rank adapters on one frozen copy of the teacher, in place of full networks.

    Attributes:
        rank: Rank of each layer's change, at most the layer's width; 0: all weights are trained, and every
            network is a full one.
        alpha: A layer's change counts alpha / rank times; null: once.
        targets: Modules whose linear layers are adapted, such as self_attn, cross_attn, ffn, after_proj.
        roles: Networks that are adapters: generator, fake_score; one that is left out is a full network.
        export: lora, for the base that is named in its metadata, or merged: weights with the change added.
        base: The frozen base's matrices: bf16, the run's precision; or fp8 or int8 with a factor for each row
            (torchao), in half the memory, unsharded.
    """

    rank: int = 0
    alpha: float | None = None
    targets: list[str] = field(default_factory=lambda: ["self_attn", "cross_attn", "ffn"])
    roles: list[str] = field(default_factory=lambda: ["generator", "fake_score"])
    export: Literal["lora", "merged"] = "lora"
    base: Form = "bf16"

    def __post_init__(self) -> None:
        require(self.rank >= 0, f"model.adapters.rank is {self.rank}; expected 0 (off) or more")
        valid = self.alpha is None or self.alpha > 0
        require(valid, f"model.adapters.alpha is {self.alpha}; expected above 0, or null")
        require_range(self, "model.adapters.", 0, 1e6, "alpha")
        require(
            bool(self.targets), "model.adapters.targets is empty; give self_attn, cross_attn, ffn or others"
        )
        known = {"generator", "fake_score"}
        require(
            bool(self.roles) and {*self.roles} <= known and len({*self.roles}) == len(self.roles),
            f"model.adapters.roles is {self.roles}; expected generator, fake_score or both",
        )
        require(
            self.rank > 0 or self.base == "bf16",
            f"model.adapters.base is {self.base} and rank 0, so that all weights are trained; set a rank, or "
            "base bf16",
        )

    def adapts(self, role: str) -> bool:
        """True if a network of this name is an adapter."""
        return self.rank > 0 and role in self.roles


@dataclass(frozen=True)
class AdaptedFrom:
    """The network that a run's exported adapter changes.

    Attributes:
        adapters: The run's.
        real_score: The base's file.
        stage_one: The file of stage 1, or None: a LoRA, which becomes part of the export, or a Wan network in
            place of the base's Wan part.
    """

    adapters: AdapterConfig
    real_score: str
    stage_one: str | None


def parameter_names(sizes: WanVaceConfig, adapters: AdapterConfig | None = None) -> list[str]:
    """Names of the generator's parameters: of its adapter where it is one, or of the full network."""
    if adapters is None or not adapters.adapts("generator"):
        return list(expected_shapes(sizes))
    network = WanVace(sizes, device="meta")
    add_adapter(network, "one", adapters.rank, targets=tuple(adapters.targets))
    return list(adapter_parameters(network, "one"))


def is_lora(path: str | Path) -> bool:
    """True if a checkpoint's file is a LoRA, by its keys."""
    return inspect(path).layout == "lora"


def build_adapted(
    weights: Mapping[str, Tensor],
    sizes: WanVaceConfig,
    world: World,
    parallel: ParallelConfig,
    *,
    roles: Sequence[str],
    adapters: AdapterConfig,
    seed: int,
    fixed: Mapping[str, Factors] = MappingProxyType({}),
) -> WanVace:
    """A frozen transformer with an adapter for each role, sharded over the processes.

    Args:
        weights: Wan name -> tensor of the base.
        sizes: The network's.
        world: The processes.
        parallel: Recomputation, compilation, offload.
        roles: Names of the adapters that are trained.
        adapters: Their rank, alpha and layers.
        seed: Of their first values: A uniform within 1 / sqrt(width), B zero, as in LoRA.
        fixed: Name of a further adapter -> its factors.

    Returns:
        The network, all adapters off; its weights are in the precision of the run, adapters in float32.

    Raises:
        ValueError: A target fits no layer, or the base's form needs what is not there.
    """
    network = new_transformer(sizes, world, parallel, compute_dtype(world))
    for role in roles:
        try:
            add_adapter(network, role, adapters.rank, adapters.alpha, adapters.targets)
        except ValueError as error:
            raise ValueError(f"model.adapters: {error}") from error
    values = dict(first_values(network, seed))
    for name, factors in fixed.items():
        layers = {full.removesuffix(".weight"): pair for full, pair in factors.items()}
        attach(network, name, {layer: len(down) for layer, (_, down) in layers.items()})
        for layer, (up, down) in layers.items():
            values |= {f"{layer}.adapters.{name}.A": down, f"{layer}.adapters.{name}.B": up}
    fill_from = ChainMap(values, weights)
    if adapters.base == "bf16":
        built = build_sharded(network, fill_from, world, parallel)
    else:
        built = build_packed(network, fill_from, world, parallel, adapters.base)
    for name in fixed:
        NetworkRole(built, name).requires_grad_(False)
    return built


def first_values(network: WanVace, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Full names of all adapters' parameters and their first values, keyed by seed and name."""
    for name, parameter in network.named_parameters():
        if ".adapters." not in name:
            continue
        values = torch.zeros(parameter.shape)
        if name.endswith(".A"):
            bound = parameter.shape[1] ** -0.5
            values.uniform_(-bound, bound, generator=keyed_generator(seed, name))
        yield name, values


def share_weights(network: WanVace, other: WanVace, prefixes: tuple[str, ...]) -> None:
    """Let frozen weights of two networks that are equal and not sharded use one memory.

    Args:
        network: Its weights become the other's.
        other: Gives them.
        prefixes: Of the names of those weights; adapters stay apart.
    """
    for name, parameter in list(network.named_parameters()):
        shared = name.startswith(prefixes) and ".adapters." not in name
        if shared and not isinstance(parameter, DTensor):
            module, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(module), leaf, other.get_parameter(name))
