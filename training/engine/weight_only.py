"""A frozen network's matrices in fp8 or int8 with a factor for each row, by torchao: half of bf16's memory.

They are expanded to the run's precision where a layer is computed, and for its input's gradient again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from vdot_core.networks import WanVace

from ..distributed.config import ParallelConfig
from ..distributed.world import World
from .networks import build_sharded, compute_dtype

Form = Literal["bf16", "fp8", "int8"]
FACTOR_BYTES = 4


def is_packed(name: str, shape: tuple[int, ...]) -> bool:
    """True for the parameters that take the form: matrices of the backbone's and of VACE's blocks.

    Args:
        name: Wan name.
        shape: The parameter's.
    """
    return len(shape) == 2 and name.startswith(("blocks.", "vace_blocks.")) and name.endswith(".weight")


def packed_bytes(shape: tuple[int, ...]) -> int:
    """Bytes of a matrix [out, in] in fp8 or int8, factors included."""
    return math.prod(shape) + FACTOR_BYTES * shape[0]


def check_form(form: Form) -> None:
    """Raise ValueError where a form needs torchao and it cannot be imported."""
    if form != "bf16":
        _settings(form)


def check_unsharded(form: Form, sharded: bool) -> None:
    """Raise ValueError for packed weights under FSDP, which would spread them as they are."""
    if form != "bf16" and sharded:
        raise ValueError(
            f"model.adapters.base is {form}, and FSDP shards networks in bf16 only; set it bf16, or "
            "parallel.fsdp false (every process then holds all of the base)"
        )


def build_packed(
    network: WanVace, weights: Mapping[str, Tensor], world: World, parallel: ParallelConfig, form: Form
) -> WanVace:
    """Fill a frozen network on the meta device, its matrices packed one by one.

    Args:
        network: The network; adapters of its layers are no matrices.
        weights: Name of each parameter -> tensor.
        world: The processes.
        parallel: Compilation.
        form: fp8 or int8.

    Returns:
        The network.

    Raises:
        ValueError: torchao is not installed, or networks are sharded.
    """
    check_unsharded(form, world.sharded)
    settings = _settings(form)
    layers = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and is_packed(f"{name}.weight", tuple(module.weight.shape))
    }
    for layer in layers.values():
        layer.weight = None  # never there as a whole in bf16
    build_sharded(network, weights, world, parallel)
    for name, layer in layers.items():
        value = weights[f"{name}.weight"].to(world.device, compute_dtype(world))
        layer.weight = _pack(value, settings)
    return network


def _pack(matrix: Tensor, settings) -> nn.Parameter:
    from torchao.quantization import quantize_

    out, into = matrix.shape
    layer = nn.Linear(into, out, bias=False, device="meta")
    layer.weight = nn.Parameter(matrix, requires_grad=False)
    quantize_(layer, settings)
    return layer.weight


def _settings(form: Form):
    """torchao's description of a form."""
    try:
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, PerRow
    except ImportError as error:
        raise ValueError(
            f"model.adapters.base is {form} and torchao cannot be imported ({error}); pip install torchao, "
            "or set model.adapters.base bf16"
        ) from error
    kind = Float8WeightOnlyConfig if form == "fp8" else Int8WeightOnlyConfig
    return kind(granularity=PerRow(), set_inductor_config=False)
