"""Joins a T2V network and a VACE module, as their headers describe them."""

from __future__ import annotations

from dataclasses import replace

from ..networks import WanVaceConfig
from ..text import shown
from . import diagnose, infer
from .info import Survey, with_counts
from .layouts import VACE_ROOTS

_VACE_FIELDS = ("vace_layers", "vace_in_channels")


def has_vace(network: Survey) -> bool:
    """True for a network with a VACE branch, and for such a branch alone."""
    return any(name.startswith(VACE_ROOTS) for name in network.entries)


def vace_branch(network: Survey) -> Survey:
    """The VACE branch of a complete VACE network; others are returned as they are."""
    if network.info.problem or not has_vace(network):
        return network
    entries = {name: entry for name, entry in network.entries.items() if name.startswith(VACE_ROOTS)}
    return Survey(network.info, entries)


def join(base: Survey, module: Survey) -> Survey:
    """Join a T2V network and its VACE module.

    Args:
        base: the T2V network.
        module: the VACE branch of a network of the same size.
    Returns:
        One network; its config is completed by the module's VACE layers where the base carries one, and is
        the module's where only that carries one.
    Raises:
        ValueError: the two are not a base and its module; the message says which rule is broken.
    """
    if base.info.layout == "i2v":
        raise ValueError(
            f"{shown(base.info.path)} is an image-to-video network (I2V), which takes an image with every "
            "video; VACE modules belong to text-to-video networks: give the T2V network of the same size"
        )
    for part in (base, module):
        if part.info.problem:
            raise ValueError(part.info.problem)
    if any(not name.startswith(VACE_ROOTS) for name in module.entries):
        swapped = all(name.startswith(VACE_ROOTS) for name in base.entries)
        advice = "load it alone, or give a file of vace_* keys only"
        if swapped:
            advice = "the two are swapped; give each in the place of the other"
        raise ValueError(f"{shown(module.info.path)} holds a complete network, not the VACE module: {advice}")
    _check_widths(base, module)
    _check_configs(base, module)
    if has_vace(base):
        raise ValueError(
            f"{shown(base.info.path)} has a VACE branch already; load it alone, or give a T2V network"
        )
    entries = {**base.entries, **module.entries}
    info = replace(
        with_counts(base.info, {name: entry.spec for name, entry in entries.items()}),
        layout=f"{base.info.layout} + {diagnose.VACE_MODULE.layout}",
        files=base.info.files + module.info.files,
        metadata={**module.info.metadata, **base.info.metadata},
        encodings=tuple(sorted({*base.info.encodings, *module.info.encodings})),
        formats=tuple(sorted({*base.info.formats, *module.info.formats})),
        ggml_types=tuple(sorted({*base.info.ggml_types, *module.info.ggml_types})),
    )
    if info.config is not None:
        info = replace(info, config=_with_vace(info.config, module))
    elif module.info.config is not None and module.info.config.vace_layers:
        info = replace(info, config=module.info.config)
    return Survey(info, entries)


def _check_widths(base: Survey, module: Survey) -> None:
    """Refuse the module of a network of another size before its blocks are counted."""
    embeddings = (
        base.entries.get("patch_embedding.weight"),
        module.entries.get("vace_patch_embedding.weight"),
    )
    widths = [entry.spec.shape[0] for entry in embeddings if entry is not None and entry.spec.shape]
    if len(set(widths)) > 1:
        raise ValueError(
            f"{shown(base.info.path, 100)} and {shown(module.info.path, 100)} are of networks of different "
            f"size (widths {widths[0]} and {widths[1]}); give the VACE module of the same size, 14B to 14B "
            "or 1.3B to 1.3B"
        )


def _check_configs(base: Survey, module: Survey) -> None:
    """Refuse the module of a network of another depth or number of heads, where both files say it."""
    own, other = module.info.config, base.info.config
    if own is None or other is None:
        return
    for name, value in vars(other).items():
        if name not in _VACE_FIELDS and getattr(own, name) != value:
            values = f"{name} {shown(value, 20)} and {shown(getattr(own, name), 20)}"
            raise ValueError(
                f"{shown(base.info.path, 100)} and {shown(module.info.path, 100)} are of networks of "
                f"different size ({values}); give the VACE module of a network of the base's size"
            )


def _with_vace(config: WanVaceConfig, module: Survey) -> WanVaceConfig:
    """A text-only config that came with the base, completed by the module's VACE layers.

    Where the module carries no config, they are evenly spaced.
    """
    own = module.info.config
    if own is not None and own.vace_layers:
        return replace(config, vace_layers=own.vace_layers, vace_in_channels=own.vace_in_channels)
    specs = {name: entry.spec for name, entry in module.entries.items()}
    _, num_vace = infer.count_blocks(specs)
    if num_vace == 0 or config.num_layers % num_vace:
        raise ValueError(
            f"{shown(module.info.path)} has {num_vace} VACE blocks, the base network {config.num_layers} "
            "blocks, over which they cannot be spaced evenly; give the module that belongs to this base"
        )
    embedding = specs.get("vace_patch_embedding.weight")
    channels = (
        embedding.shape[1] if embedding is not None and len(embedding.shape) == 5 else config.vace_in_channels
    )
    layers = tuple(range(0, config.num_layers, config.num_layers // num_vace))
    return replace(config, vace_layers=layers, vace_in_channels=channels)
