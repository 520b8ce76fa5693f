"""Numbers of parameters of a run's networks, counted on the meta device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from vdot_core.networks import Discriminator, WanVaceConfig, default_taps, expected_shapes

from ..engine.eight_bit import moment_bytes
from ..engine.method import trained_names
from ..engine.networks import VACE_NAMES
from ..engine.weight_only import is_packed, packed_bytes
from ..methods.vdot_config import DistillConfig
from .adapters import adapter_rank, adapter_shapes, stage_one_size


@dataclass(frozen=True)
class Sizes:
    """Numbers of parameters.

    Attributes:
        network: Of one transformer.
        trained: Of the generator's that are trained.
        block: Of the largest block.
        root: Of the layers outside the blocks.
        discriminator: Of the head.
        largest: Of the largest weight.
        moments: Bytes of one moment of the network's, the trained and the head's parameters.
        wan: Without the VACE branch.
        adapter: Of one role's adapter.
        adapter_moments: Bytes of one moment of it.
        rank: The largest of its layers.
        stage_one: Of the LoRA below the generator's adapter; 0: there is none.
        matrices: Of the blocks' matrices, which fp8 and int8 are for, with and without the VACE branch.
        packed: Bytes of those in fp8 or int8.
    """

    network: int
    trained: int
    block: int
    root: int
    discriminator: int
    largest: int
    moments: tuple[int, int, int]
    wan: int
    adapter: int = 0
    adapter_moments: int = 0
    rank: int = 0
    stage_one: int = 0
    matrices: tuple[int, int] = (0, 0)
    packed: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, network: WanVaceConfig, config: DistillConfig) -> Sizes:
        """Count, on the meta device."""
        shapes, bits = _parameter_shapes(network), config.optim.state_bits
        adapters = config.model.adapters
        changes = adapter_shapes(network, adapters)
        counts = {name: math.prod(shape) for name, shape in shapes.items()}
        blocks: dict[str, int] = {}
        for name, count in counts.items():
            if name.startswith(("blocks.", "vace_blocks.")):
                block = ".".join(name.split(".")[:2])
                blocks[block] = blocks.get(block, 0) + count
        learned = set(trained_names(counts, config.model.frozen))
        moments = {name: moment_bytes(shape, bits) for name, shape in shapes.items()}
        total = sum(counts.values())
        widths = {
            "width": config.model.discriminator_width,
            "num_heads": config.model.discriminator_heads,
        }
        widths = {name: value for name, value in widths.items() if value is not None}
        matrices = {name: shape for name, shape in shapes.items() if is_packed(name, shape)}
        head = Discriminator.for_network(network, len(tapped(network, config)), device="meta", **widths)
        heads = [tuple(p.shape) for p in head.parameters()]
        return cls(
            total, sum(counts[name] for name in learned), max(blocks.values()), total - sum(blocks.values()),
            sum(math.prod(shape) for shape in heads), max(counts.values()),
            (
                sum(moments.values()), sum(moments[name] for name in learned),
                sum(moment_bytes(shape, bits) for shape in heads),
            ),
            sum(count for name, count in counts.items() if not name.startswith(VACE_NAMES)),
            sum(map(math.prod, changes)), sum(moment_bytes(shape, bits) for shape in changes),
            adapter_rank(network, adapters), stage_one_size(network, config),
            _both(lambda name: counts[name], matrices),
            _both(lambda name: packed_bytes(matrices[name]), matrices),
        )  # fmt: skip


def _both(count: Callable[[str], int], names: Iterable[str]) -> tuple[int, int]:
    """Sums over all names, and over those that are not of the VACE branch."""
    wan = [name for name in names if not name.startswith(VACE_NAMES)]
    return sum(map(count, names)), sum(map(count, wan))


@lru_cache(maxsize=8)
def _parameter_shapes(network: WanVaceConfig) -> dict[str, tuple[int, ...]]:
    """Shapes by name; kept, for a search over settings asks for the same network again and again."""
    return {name: tuple(shape) for name, shape in expected_shapes(network).items()}


def tapped(network: WanVaceConfig, config: DistillConfig) -> tuple[int, ...]:
    """The blocks that the discriminator reads; it is built without a GAN too."""
    return tuple(config.model.taps) if config.model.taps else default_taps(network.num_layers)
