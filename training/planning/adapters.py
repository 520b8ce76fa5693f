"""Parameters of a run's adapters."""

from __future__ import annotations

from functools import lru_cache

from vdot_core.networks import WanVace, WanVaceConfig, add_adapter
from vdot_core.networks.adapters import adapter_parameters

from ..engine.adapters import AdapterConfig


def adapter_shapes(network: WanVaceConfig, adapters: AdapterConfig) -> tuple[tuple[int, ...], ...]:
    """Shapes of the parameters of one role's adapter; none where adapters are off."""
    return _shapes(network, adapters.rank, tuple(adapters.targets)) if adapters.rank else ()


@lru_cache(maxsize=8)
def _shapes(network: WanVaceConfig, rank: int, targets: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    model = WanVace(network, device="meta")
    add_adapter(model, "one", rank, targets=targets)
    return tuple(tuple(p.shape) for p in adapter_parameters(model, "one").values())
