"""The shape of a Wan-VACE transformer, and the shapes that were released."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..text import described, listed

# Largest values: far above any released network, and low enough that no product of two overflows.
_LARGEST = {
    **dict.fromkeys(("dim", "ffn_dim", "text_dim", "freq_dim"), 2**20),
    **dict.fromkeys(("in_channels", "out_channels", "vace_in_channels", "text_len"), 2**16),
    "num_heads": 2**12,
    "num_layers": 256,
}
_LARGEST_PATCH = 64


@dataclass(frozen=True)
class WanVaceConfig:
    """Sizes of a Wan 2.1 transformer with (or without) a VACE context branch.

    Args:
        dim: width D of the token stream.
        ffn_dim: width of the feed-forward layer.
        num_heads: attention heads; `dim / num_heads` must be even, for the rotary embedding.
        num_layers: blocks of the backbone.
        vace_layers: the backbone layers (0-based, rising, from 0) that receive a hint, one VACE block for
            each; () means text-only, without a VACE branch.
        text_dim: width of the text encoder's output.
        freq_dim: width of the sinusoidal timestep embedding.
        text_len: tokens to which the text encoder's caller zero-pads; the network takes any length.
        in_channels: latent channels in.
        out_channels: latent channels out.
        vace_in_channels: context channels: 32 of latents and 64 of masks.
        patch_size: latents per token along (T, h, w).
        eps: epsilon of every normalization.
        qk_norm: RMS-normalize queries and keys over all heads at once.
        cross_attn_norm: layer-normalize what enters cross-attention.

    Raises:
        ValueError: a field is out of range; the message names it.
    """

    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    vace_layers: tuple[int, ...] = ()
    text_dim: int = 4096
    freq_dim: int = 256
    text_len: int = 512
    in_channels: int = 16
    out_channels: int = 16
    vace_in_channels: int = 96
    patch_size: tuple[int, int, int] = (1, 2, 2)
    eps: float = 1e-6
    qk_norm: bool = True
    cross_attn_norm: bool = True

    def __post_init__(self) -> None:
        self._check_types()
        if len(self.patch_size) != 3 or not all(1 <= side <= _LARGEST_PATCH for side in self.patch_size):
            raise ValueError(
                f"patch_size is {described(self.patch_size, 60)}; give three integers (T, h, w) from 1 to "
                f"{_LARGEST_PATCH}"
            )
        if self.dim % self.num_heads or (self.dim // self.num_heads) % 2:
            raise ValueError(f"num_heads is {self.num_heads}; dim {self.dim} divided by it must be even")
        if self.dim // self.num_heads < 6:
            raise ValueError(
                f"num_heads is {self.num_heads}, so a head has {self.head_dim} channels; rotary positions "
                "along three axes need at least 6"
            )
        if self.freq_dim % 2:
            raise ValueError(
                f"freq_dim is {self.freq_dim}; it is half sines and half cosines: give an even number"
            )
        self._check_vace_layers()

    def _check_types(self) -> None:
        for name, largest in _LARGEST.items():
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= largest:
                raise ValueError(f"{name} is {described(value, 60)}; give a positive integer up to {largest}")
        for name in ("vace_layers", "patch_size"):
            value = getattr(self, name)
            is_sequence = isinstance(value, (list, tuple, range)) and len(value) <= _LARGEST["num_layers"]
            if not is_sequence or any(type(entry) is not int for entry in value):
                raise ValueError(f"{name} is {described(value, 60)}; give a sequence of integers")
            object.__setattr__(self, name, tuple(value))
        for name in ("qk_norm", "cross_attn_norm"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} is {described(getattr(self, name), 60)}; give true or false")
        if type(self.eps) not in (int, float) or not 0 < self.eps <= 1:
            raise ValueError(f"eps is {described(self.eps, 60)}; give a number above 0, up to 1")

    def _check_vace_layers(self) -> None:
        layers = self.vace_layers
        if not layers:
            return
        if list(layers) != sorted(set(layers)) or layers[0] != 0:
            raise ValueError(
                f"vace_layers is {described(layers, 60)}; give rising layer indices that start at 0, or ()"
            )
        if layers[-1] >= self.num_layers:
            raise ValueError(
                f"vace_layers is {described(layers, 60)}; num_layers is {self.num_layers}, so the last is "
                f"{self.num_layers - 1}"
            )

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.dim // self.num_heads

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able values: tuples become lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> WanVaceConfig:
        """Build a config from `to_dict`'s output.

        Args:
            values: field names and values; lists stand for tuples.

        Returns:
            The config.

        Raises:
            ValueError: a name is unknown or missing, or a value is out of range.
        """
        names = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - names, key=str):
            raise ValueError(f"unknown network config fields {listed(unknown)}; remove them")
        required = ("dim", "ffn_dim", "num_heads", "num_layers")
        if missing := [name for name in required if name not in values]:
            raise ValueError(f"network config lacks {missing}; these have no default")
        return cls(**values)


def wan_vace_14b() -> WanVaceConfig:
    """VACE-Wan2.1-14B, the network VDOT is distilled from: 17,337,592,896 parameters."""
    return WanVaceConfig(
        dim=5120, ffn_dim=13824, num_heads=40, num_layers=40, vace_layers=tuple(range(0, 40, 5))
    )


def wan_vace_1_3b() -> WanVaceConfig:
    """VACE-Wan2.1-1.3B: 2,153,972,032 parameters."""
    return WanVaceConfig(
        dim=1536, ffn_dim=8960, num_heads=12, num_layers=30, vace_layers=tuple(range(0, 30, 2))
    )


def vdot_tiny() -> WanVaceConfig:
    """The bundled demo's network, small enough for a CPU."""
    return WanVaceConfig(
        dim=128, ffn_dim=512, num_heads=4, num_layers=8, vace_layers=(0, 2, 4, 6),
        text_dim=128, freq_dim=64, text_len=64,
    )  # fmt: skip


PRESETS: dict[str, Callable[[], WanVaceConfig]] = {
    "wan_vace_14b": wan_vace_14b,
    "wan_vace_1_3b": wan_vace_1_3b,
    "vdot_tiny": vdot_tiny,
}
