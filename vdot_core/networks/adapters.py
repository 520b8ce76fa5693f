"""Low-rank adapters (LoRA, arXiv 2106.09685): one frozen base is several networks.

An adapted layer is y = W x + b + sum of (alpha / rank) B A x over the active adapters. Switching them moves
no weights, so that one copy of the base serves as generator and as both scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..text import described
from .wan_vace import WanVace

TARGETS = ("self_attn", "cross_attn", "ffn")


@dataclass
class ActiveAdapters:
    """Names of the adapters that are on, shared by all layers of a network."""

    names: tuple[str, ...] = ()

    @contextmanager
    def activated(self, *names: str) -> Iterator[None]:
        """Turn these adapters on, and all others off, for a while."""
        before, self.names = self.names, names
        try:
            yield
        finally:
            self.names = before


class LowRank(nn.Module):
    """The change of a linear layer by one adapter: (alpha / rank) B A x, with B zero at first.

    Args:
        dim_in: width of x.
        dim_out: width of the layer's output.
        rank: rows of A.
        scale: alpha / rank.
        device: of A and B, which are float32.
    """

    def __init__(self, dim_in: int, dim_out: int, rank: int, scale: float, device: Any = None) -> None:
        super().__init__()
        self.scale = scale
        bound = dim_in**-0.5
        self.A = nn.Parameter(torch.empty(rank, dim_in, device=device).uniform_(-bound, bound))
        self.B = nn.Parameter(torch.zeros(dim_out, rank, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """Give the change [.., dim_out] for x [.., dim_in], computed in x's dtype."""
        return self.scale * F.linear(F.linear(x, self.A.to(x.dtype)), self.B.to(x.dtype))


class AdaptedLinear(nn.Linear):
    """A frozen linear layer with adapters; its weight and bias keep their names.

    Args:
        linear: the layer; its parameters are used as they are.
        active: names of the adapters that are on.
    """

    def __init__(self, linear: nn.Linear, active: ActiveAdapters) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.active, self.adapters = active, nn.ModuleDict()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer, and the adapters that are on, to x [.., dim_in]."""
        y = F.linear(x, self.weight, self.bias)
        for name in self.active.names:
            if name in self.adapters:
                y = y + self.adapters[name](x)
        return y


def target_layers(network: nn.Module, targets: Sequence[str] = TARGETS) -> dict[str, nn.Linear]:
    """Linear layers of a network's blocks with one of `targets` in the path of their name.

    Args:
        network: a `WanVace`.
        targets: names of modules, such as self_attn, ffn or before_proj.

    Returns:
        Name -> layer.

    Raises:
        ValueError: a target fits no layer.
    """
    layers = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(("blocks.", "vace_blocks."))
    }
    known = {part for name in layers for part in name.split(".")[2:] if not part.isdigit()}
    for target in targets:
        if target not in known:
            raise ValueError(
                f"no layer is named {described(target)}; expected some of {', '.join(sorted(known))}"
            )
    return {name: layer for name, layer in layers.items() if {*targets} & {*name.split(".")}}


def layer_rank(rank: int, dim_in: int, dim_out: int) -> int:
    """Rank of an adapter of a linear layer: the configured one, at most the layer's smaller side."""
    return min(rank, dim_in, dim_out)


def adapter_scale(alpha: float | None, rank: int) -> float:
    """alpha / rank, of a layer's own rank (`layer_rank`); 1 without alpha."""
    return 1.0 if alpha is None else alpha / rank


def add_adapter(
    network: WanVace, name: str, rank: int, alpha: float | None = None, targets: Sequence[str] = TARGETS
) -> None:
    """Freeze a network and add an adapter to its layers, in place; at first it is off.

    Args:
        network: the base; it may be on the meta device.
        name: of the adapter.
        rank: of each layer's change; at most the layer's smaller side is used.
        alpha: the change counts alpha / rank times, of the rank that is used; None: once.
        targets: as in `target_layers`.

    Raises:
        ValueError: the rank is below 1, the network has an adapter of that name, or a target fits no layer.
    """
    if rank < 1:
        raise ValueError(f"rank is {rank}; expected at least 1")
    ranks = {
        path: layer_rank(rank, layer.in_features, layer.out_features)
        for path, layer in target_layers(network, targets).items()
    }
    attach(network, name, ranks, alpha)


def attach(network: WanVace, name: str, ranks: Mapping[str, int], alpha: float | None = None) -> None:
    """Freeze a network and add an adapter with a rank for each layer, in place; at first it is off.

    Args:
        network: the base; it may be on the meta device.
        name: of the adapter.
        ranks: name of a linear layer -> rank of its change.
        alpha: of `adapter_scale`.

    Raises:
        ValueError: the network has an adapter of that name.
    """
    if network.adapted is None:
        network.requires_grad_(False)
        network.adapted = ActiveAdapters()
    for path, rank in ranks.items():
        layer = network.get_submodule(path)
        if not isinstance(layer, AdaptedLinear):
            layer = AdaptedLinear(layer, network.adapted)
            parent, _, leaf = path.rpartition(".")
            network.get_submodule(parent).register_module(leaf, layer)
        if name in layer.adapters:
            raise ValueError(f"the network has an adapter {described(name)} already; give another name")
        scale = adapter_scale(alpha, rank)
        layer.adapters[name] = LowRank(
            layer.in_features, layer.out_features, rank, scale, layer.weight.device
        )


def adapter_parameters(network: nn.Module, name: str) -> dict[str, nn.Parameter]:
    """Parameters of one adapter: `<layer>.A` and `<layer>.B` -> parameter."""
    middle = f".adapters.{name}."
    return {
        full.replace(middle, "."): parameter
        for full, parameter in network.named_parameters()
        if middle in full
    }


class NetworkRole:
    """A network with some of its adapters on; the last of them is what is trained.

    It has what training uses of a module: calls, and the parameters of that adapter.

    Args:
        network: an adapted `WanVace`.
        adapters: names of those that are on.
    """

    def __init__(self, network: WanVace, *adapters: str) -> None:
        self.network, self.adapters, self.config = network, adapters, network.config

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Call the network; see `WanVace.forward`."""
        with self.network.adapted.activated(*self.adapters):
            return self.network(*inputs, **options)

    def activation_dtype(self, x: Tensor) -> torch.dtype:
        """Return the dtype that the network computes in."""
        return self.network.activation_dtype(x)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield `<layer>.A`, `<layer>.B` of the trained adapter, and the parameters."""
        yield from adapter_parameters(self.network, self.adapters[-1]).items() if self.adapters else ()

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the trained adapter."""
        yield from (parameter for _, parameter in self.named_parameters())

    def requires_grad_(self, requires_grad: bool = True) -> NetworkRole:
        """Let gradients reach the trained adapter, or not; the base never has any."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self
