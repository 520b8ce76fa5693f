"""Writing checkpoints in this project's own format: safetensors with the config in the header, atomically."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ..networks import WanVaceConfig, expected_shapes
from ..text import shown
from .diagnose import mismatch
from .infer import CONFIG_KEYS, config_to_metadata, follows_from_shapes
from .info import Survey
from .layouts import strip_wrappers
from .safetensors_files import write_safetensors
from .targets import checked_path, earlier_forms, remove
from .tensor_files import TensorSpec

# Keys of ComfyUI's quantization and of GGUF's own fields; no longer true once weights are converted.
_STALE = ("_quantization_metadata", "general.", "comfy.gguf.", "tokenizer.")


def save_network(
    path: str | Path, network: torch.nn.Module, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a network to one safetensors file; the file appears, complete, in one step.

    Args:
        path: the `.safetensors` file to write; an existing one is replaced.
        network: a `WanVace`, on any device, wrapped by torch.compile or not.
        metadata: further strings for the header, such as the training step.
    Raises:
        ValueError: no WanVace, parameters missing or on the meta device, or a path that cannot be written.
    """
    config = getattr(getattr(network, "_orig_mod", network), "config", None)
    if not isinstance(config, WanVaceConfig):
        raise ValueError(f"got a {type(network).__name__}; give a WanVace network")
    save_weights(path, config, network.state_dict(), metadata=metadata)


def save_weights(
    path: str | Path,
    config: WanVaceConfig,
    state_dict: Mapping[str, torch.Tensor],
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a state dict, as `save_network` does: for averaged weights, or ones gathered from many devices.

    Args:
        path: the `.safetensors` file to write; an existing one is replaced.
        config: the network's sizes.
        state_dict: Wan name -> full tensor; FSDP's and torch.compile's prefixes are removed.
        metadata: further strings for the header.
    Raises:
        ValueError: names or shapes that are not the config's, tensors without values, or a bad path.
    """
    path = checked_path(path)
    tensors = {strip_wrappers(name): tensor for name, tensor in state_dict.items()}
    specs = {name: TensorSpec.of(tensor) for name, tensor in tensors.items()}
    fault = mismatch(specs, expected_shapes(config))
    if fault:
        raise ValueError(f"cannot write {shown(path)}: the network does not fit its config; {fault}")
    empty = [name for name, tensor in tensors.items() if tensor.is_meta]
    if empty:
        raise ValueError(
            f"cannot write {shown(path)}: {len(empty)} parameters have no values, such as {shown(empty[0])}"
        )
    order = writing_order(specs)
    earlier = earlier_forms(path, [path], overwrite=True)
    write_safetensors(path, order, ((name, tensors[name]) for name in order), header(config, metadata))
    remove(earlier)


def writing_order(specs: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    """Wide dtypes first, as other writers do, so that every tensor is aligned to its own element size."""
    return dict(sorted(specs.items(), key=lambda item: -item[1].dtype.itemsize))


def header(config: WanVaceConfig, metadata: Mapping[str, str] | None) -> dict[str, str]:
    """The header's metadata with the caller's strings; ValueError if a key is reserved or not a string."""
    ours = config_to_metadata(config)
    for key, value in (metadata or {}).items():
        if key in ours:
            raise ValueError(f"metadata key '{shown(key)}' is written by the format itself; rename it")
        if not isinstance(key, str) or not isinstance(value, str):
            raise ValueError(f"metadata '{shown(key)}' is a {type(value).__name__}; give strings")
    return {**ours, **(metadata or {})}


def carried_header(config: WanVaceConfig, metadata: Mapping[str, str]) -> dict[str, str]:
    """The header's metadata for weights of another file, with those of its strings that still hold."""
    return {**config_to_metadata(config), **_carried(metadata)}


def _carried(metadata: Mapping[str, str]) -> dict[str, str]:
    """Strings of another file's header that still hold."""
    return {
        key: value for key, value in metadata.items() if key not in CONFIG_KEYS and not key.startswith(_STALE)
    }


def plain_header(
    config: WanVaceConfig, specs: Mapping[str, TensorSpec], metadata: Mapping[str, str]
) -> dict[str, str]:
    """`carried_header` without the config, with which ComfyUI's own network cannot be built.

    Raises:
        ValueError: the config does not follow from the shapes.
    """
    if not follows_from_shapes(config, specs):
        raise ValueError(
            f"a network of width {config.dim} and {config.num_layers} blocks is of no released size, so that "
            "its file must carry its config; leave --plain out"
        )
    return {"format": "pt", **_carried(metadata)}


def result_header(checkpoint: Survey, *, plain: bool = False) -> dict[str, str]:
    """The header's strings for a checkpoint's weights in another form; without a config where it has none.

    Args:
        checkpoint: a network, or a VACE module.
        plain: leave the config out, as `plain_header` does.
    """
    info = checkpoint.info
    if info.config is None:
        return {"format": "pt", **_carried(info.metadata)}
    if not plain:
        return carried_header(info.config, info.metadata)
    specs = {name: entry.spec for name, entry in checkpoint.entries.items()}
    return plain_header(info.config, specs, info.metadata)
