"""Runs a network whose weights are read block by block as they are used, for networks larger than memory.

Shape letters: C channels, T latent frames, h w latents, S text tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from ..networks import WanVaceConfig
from .info import Entry
from .read import iterate_tensors

Reader = Callable[[str], torch.Tensor]
_LATENTS = (3, 16, 16)  # T h w
_TEXT_TOKENS = 32


def random_inputs(
    config: WanVaceConfig,
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Small inputs from a normal distribution, to compare networks of one size.

    Args:
        config: the networks' sizes.
        device: of the inputs, which are drawn on the CPU.
        dtype: of the inputs.
        seed: of the numbers.
    Returns:
        (latents [1, C, T, h, w], text [1, S, text_dim], contexts [1, 1, vace_in_channels, T, h, w]); contexts
        are None where the networks have no VACE branch.
    """
    generator = torch.Generator().manual_seed(seed)
    shapes = [(1, config.in_channels, *_LATENTS), (1, _TEXT_TOKENS, config.text_dim)]
    if config.vace_layers:
        shapes.append((1, 1, config.vace_in_channels, *_LATENTS))
    inputs = [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]
    return inputs[0], inputs[1], inputs[2] if config.vace_layers else None


def reader(entries: Mapping[str, Entry]) -> Reader:
    """A function from a parameter's Wan name to its float32 values, read at each call."""

    def read(name: str) -> torch.Tensor:
        stream = iterate_tensors({name: entries[name]}, {name: torch.float32}, mapped=False)
        return next(stream)[1]

    return read


def stream_weights(network: torch.nn.Module, read: Reader, device: torch.device | str) -> None:
    """Give a network on the meta device its weights: blocks' only while they run, the others' at once.

    Args:
        network: ours or ComfyUI's, with `blocks` and, if it has a VACE branch, `vace_blocks`.
        read: a parameter's values by its name; they are converted to the parameter's dtype.
        device: where the network runs.
    """
    blocks = [
        (f"{kind}.{index}.", block)
        for kind in ("blocks", "vace_blocks")
        for index, block in enumerate(getattr(network, kind, ()))
    ]
    prefixes = tuple(prefix for prefix, _ in blocks)
    rest = {name: value for name, value in network.named_parameters() if not name.startswith(prefixes)}
    values = {name: read(name).to(device, value.dtype) for name, value in rest.items()}
    network.load_state_dict(values, strict=False, assign=True)
    for prefix, block in blocks:
        block.register_forward_pre_hook(_load(prefix, read, device))
        block.register_forward_hook(_unload)


def _load(prefix: str, read: Reader, device: torch.device | str) -> Callable:
    def hook(block: torch.nn.Module, *_) -> None:
        values = {
            name: read(prefix + name).to(device, value.dtype) for name, value in block.named_parameters()
        }
        block.load_state_dict(values, strict=True, assign=True)

    return hook


def _unload(block: torch.nn.Module, *_) -> None:
    block.to("meta")
