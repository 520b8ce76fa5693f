"""Ranks and parameters of a run's adapters."""

from __future__ import annotations

import dataclasses
import math
from functools import lru_cache
from pathlib import Path

from vdot_core.checkpoints import inspect
from vdot_core.networks import WanVace, WanVaceConfig, add_adapter
from vdot_core.networks.adapters import adapter_parameters

from ..engine.adapters import AdapterConfig
from ..methods.vdot_config import DistillConfig


def adapter_shapes(network: WanVaceConfig, adapters: AdapterConfig) -> tuple[tuple[int, ...], ...]:
    """Shapes of the parameters of one role's adapter; none where adapters are off."""
    return _shapes(network, adapters.rank, tuple(adapters.targets)) if adapters.rank else ()


def adapter_rank(network: WanVaceConfig, adapters: AdapterConfig) -> int:
    """The largest rank that a layer's adapter has; 0 where adapters are off."""
    return max(map(min, adapter_shapes(network, adapters)), default=0)


def stage_one_size(network: WanVaceConfig, config: DistillConfig) -> int:
    """Parameters of a stage 1 that is a LoRA below the generator's adapter; 0 where it has full weights.

    Where the file is not there, it is one if the export is a LoRA, which a run with full weights refuses; its
    rank is taken to be the run's.
    """
    path, adapters = config.model.acc_wan_init, config.model.adapters
    if path is None or not adapters.adapts("generator"):
        return 0
    if Path(path).exists():
        return _lora_size(path, Path(path).stat().st_mtime_ns)
    wan = dataclasses.replace(network, vace_layers=())
    return sum(map(math.prod, adapter_shapes(wan, adapters))) if adapters.export == "lora" else 0


@lru_cache(maxsize=8)
def _lora_size(path: str, changed_ns: int) -> int:
    """Numbers in a LoRA's file, 0 of another one; kept, for a search asks for it again and again."""
    info = inspect(path)
    return info.num_parameters if info.layout == "lora" else 0


@lru_cache(maxsize=8)
def _shapes(network: WanVaceConfig, rank: int, targets: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    model = WanVace(network, device="meta")
    add_adapter(model, "one", rank, targets=targets)
    return tuple(tuple(p.shape) for p in adapter_parameters(model, "one").values())
