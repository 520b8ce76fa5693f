"""Runs a network whose weights are read block by block as they are used, for networks larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from .info import Entry
from .read import iterate_tensors

Reader = Callable[[str], torch.Tensor]


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
