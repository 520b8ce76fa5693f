"""Checks of a network's inputs: errors say what was got and what is expected.

B batch, K contexts, C channels, T h w latent frames, rows and columns, S text tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .config import WanVaceConfig


def check_inputs(
    config: WanVaceConfig,
    x: Tensor,
    timestep: Tensor,
    text: Tensor,
    contexts: Tensor | None,
    taps: Sequence[int],
) -> None:
    """Refuse inputs of `WanVace.forward` that do not fit the network or each other.

    Args:
        config: sizes of the network.
        x: [B, C, T, h, w] noised latents.
        timestep: [B] or [1].
        text: [B or 1, S, text_dim].
        contexts: [B or 1, K, vace_in_channels, T, h, w] or None.
        taps: layer indices, rising.

    Raises:
        ValueError: a shape or a tap is wrong.
    """
    if x.ndim != 5 or x.shape[1] != config.in_channels or 0 in x.shape:
        raise ValueError(f"latents have shape {list(x.shape)}; give [B, {config.in_channels}, T, h, w]")
    batch = x.shape[0]
    if not isinstance(timestep, Tensor):
        raise ValueError(f"timestep is {timestep!r}; give a tensor [{batch}], one per sample, or [1]")
    if timestep.ndim > 1 or timestep.numel() not in (1, batch):
        raise ValueError(f"timestep has shape {list(timestep.shape)}; give [{batch}], one per sample, or [1]")
    if text.ndim != 3 or text.shape[0] not in (1, batch) or text.shape[2] != config.text_dim:
        raise ValueError(f"text has shape {list(text.shape)}; give [{batch}, S, {config.text_dim}]")
    if wrong := [tap for tap in taps if not 0 <= tap < config.num_layers]:
        raise ValueError(f"taps {wrong} are no blocks; the network has blocks 0 to {config.num_layers - 1}")
    if list(taps) != sorted(set(taps)):
        raise ValueError(f"taps are {list(taps)}; give each once, rising: features come in that order")
    if contexts is None:
        return
    if not config.vace_layers:
        raise ValueError("contexts given to a text-only network; leave them out, or load a VACE checkpoint")
    expected = f"[{batch}, K, {config.vace_in_channels}, {', '.join(map(str, x.shape[2:]))}]"
    if contexts.ndim != 6 or contexts.shape[0] not in (1, batch) or contexts.shape[1] == 0 \
            or contexts.shape[2] != config.vace_in_channels:  # fmt: skip
        raise ValueError(f"contexts have shape {list(contexts.shape)}; give {expected}, like the latents")
