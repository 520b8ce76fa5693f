"""A network's config: from the file's metadata, from a config.json in the same folder, or from its shapes."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from typing import Any

from ..networks import PRESETS, WanVaceConfig
from ..text import described, parse_json, shown
from .tensor_files import TensorSpec

log = logging.getLogger("vdot")

FORMAT_VERSION = "1"
CONFIG_DIGEST = "config_sha256"
CONFIG_KEYS = ("format", "vdot_format", "config", CONFIG_DIGEST)  # of `config_to_metadata`
_RELEASED = ("wan_vace_14b", "wan_vace_1_3b")
_BLOCK = re.compile(r"(vace_blocks|blocks)\.(\d{1,5})\.")
# config.json of diffusers, and of Wan's own repository, in the words of WanVaceConfig.
_DIFFUSERS_CLASSES = ("WanVACETransformer3DModel", "WanTransformer3DModel")
_WAN_CLASSES = ("VaceWanModel", "WanModel")
_SAME_WORDS = (
    "ffn_dim",
    "num_layers",
    "text_dim",
    "freq_dim",
    "text_len",
    "eps",
    "cross_attn_norm",
    "patch_size",
)


def config_from_metadata(metadata: Mapping[str, str]) -> WanVaceConfig | None:
    """Read the config that `save_network` put into a safetensors header.

    Args:
        metadata: the header's strings.
    Returns:
        The config; None where the file is not of this format.
    Raises:
        ValueError: an unknown format version, or a config that is damaged or out of range.
    """
    version = metadata.get("vdot_format")
    if version not in (None, FORMAT_VERSION):
        raise ValueError(
            f"it has vdot_format '{shown(version, 20)}'; this version reads {FORMAT_VERSION!r}: update VDOT"
        )
    text = metadata.get("config", "")
    try:
        fields = parse_json(text)["transformer"]
        ours = isinstance(fields, dict) and fields.get("vdot") == 1
    except (KeyError, ValueError, TypeError):
        ours = False
    if not ours:
        if version is None:
            return None
        raise ValueError(
            "its metadata has a vdot_format but no readable config: damaged, or written by another tool; "
            "download it again, or convert its source"
        )
    if metadata.get(CONFIG_DIGEST, digest(text)) != digest(text):
        raise ValueError(
            f"the config in its metadata was changed after writing ({CONFIG_DIGEST} does not fit it); "
            "download it again, or convert its source"
        )
    return _build(
        {key: value for key, value in fields.items() if key not in ("image_model", "vdot")}, "metadata"
    )


def config_to_metadata(config: WanVaceConfig) -> dict[str, str]:
    """The header strings by which `config_from_metadata` and ComfyUI know the network."""
    fields = {**config.to_dict(), "image_model": "wan2.1", "vdot": 1}
    text = json.dumps({"transformer": fields})
    return {"format": "pt", "vdot_format": FORMAT_VERSION, "config": text, CONFIG_DIGEST: digest(text)}


def digest(text: str) -> str:
    """SHA-256 of a config, so that a corrupted digit does not load as another network."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def config_from_json(content: Mapping[str, Any]) -> WanVaceConfig | None:
    """Translate a config.json.

    Args:
        content: diffusers' or Wan's own config.json.
    Returns:
        The config; None where the file does not describe a Wan transformer by its class name.
    Raises:
        ValueError: it describes another kind of network, or is out of range.
    """
    kind = content.get("_class_name")
    if kind not in (*_DIFFUSERS_CLASSES, *_WAN_CLASSES):
        return None
    if (
        content.get("image_dim")
        or content.get("added_kv_proj_dim")
        or content.get("model_type") in ("i2v", "flf2v")
    ):
        raise ValueError("its config.json is of an I2V network; give a VACE or T2V network")
    fields = {key: content[key] for key in _SAME_WORDS if content.get(key) is not None}
    fields["vace_layers"] = content.get("vace_layers") or ()
    fields["qk_norm"] = bool(content.get("qk_norm", True))
    if kind in _DIFFUSERS_CLASSES:
        words = {"num_heads": "num_attention_heads", "vace_in_channels": "vace_in_channels"}
        words |= {"in_channels": "in_channels", "out_channels": "out_channels"}
        head_dim = content.get("attention_head_dim", 128)
        heads = content.get("num_attention_heads")
        if type(heads) is not int or type(head_dim) is not int:
            raise ValueError(
                f"its config.json has {described(heads)} heads of {described(head_dim)} channels; expected "
                "integers"
            )
        fields["dim"] = heads * head_dim
    else:
        words = {"dim": "dim", "num_heads": "num_heads", "vace_in_channels": "vace_in_dim"}
        words |= {"in_channels": "in_dim", "out_channels": "out_dim"}
    fields |= {ours: content[theirs] for ours, theirs in words.items() if content.get(theirs) is not None}
    return _build(fields, "config.json")


def config_from_shapes(specs: Mapping[str, TensorSpec]) -> WanVaceConfig:
    """Infer the config of a released-size network from its shapes.

    Args:
        specs: Wan name -> shape and dtype.
    Returns:
        The config: heads of 128 channels, VACE blocks at every (num_layers / num_vace)-th layer.
    Raises:
        ValueError: a width that was never released, an uneven number of blocks, or shapes that are missing.
    """
    dim, in_channels, *patch = _shape(specs, "patch_embedding.weight", 5)
    num_layers, num_vace = count_blocks(specs)
    released = {preset.dim: preset for preset in (PRESETS[name]() for name in _RELEASED)}
    if dim not in released:
        raise ValueError(
            f"it is {dim} wide, which no released network is ({', '.join(map(str, sorted(released)))}), and "
            "carries no config: its number of heads cannot be known; give a released VACE or T2V "
            "network, or a file that carries its config"
        )
    if num_layers != released[dim].num_layers:
        log.warning(
            "the file has %d blocks; released networks of width %d have %d",
            num_layers,
            dim,
            released[dim].num_layers,
        )
    vace = {}
    if num_vace:
        if num_layers % num_vace:
            raise ValueError(
                f"it has {num_layers} blocks and {num_vace} VACE blocks, which cannot be spaced evenly "
                f"(released: {released[dim].num_layers} and {len(released[dim].vace_layers)}): an incomplete "
                "file, or one that needs its config"
            )
        vace["vace_layers"] = tuple(range(0, num_layers, num_layers // num_vace))
        vace["vace_in_channels"] = _shape(specs, "vace_patch_embedding.weight", 5)[1]
    patch_tokens = patch[0] * patch[1] * patch[2]
    return _build(
        {
            "dim": dim,
            "in_channels": in_channels,
            "patch_size": tuple(patch),
            "num_heads": released[dim].num_heads,
            "num_layers": num_layers,
            "ffn_dim": _shape(specs, "blocks.0.ffn.0.weight", 2)[0],
            "text_dim": _shape(specs, "text_embedding.0.weight", 2)[1],
            "freq_dim": _shape(specs, "time_embedding.0.weight", 2)[1],
            "out_channels": _shape(specs, "head.head.weight", 2)[0] // max(patch_tokens, 1),
            "qk_norm": "blocks.0.self_attn.norm_q.weight" in specs,
            "cross_attn_norm": "blocks.0.norm3.weight" in specs,
            **vace,
        },
        "shapes",
    )


def config_of_module(specs: Mapping[str, TensorSpec]) -> WanVaceConfig | None:
    """Config of the released network that a VACE module is part of, by its width and number of blocks.

    Args:
        specs: Wan name -> shape and dtype.
    Returns:
        The config; None where it fits no released network.
    """
    dim, num_vace = _shape(specs, "vace_patch_embedding.weight", 5)[0], count_blocks(specs)[1]
    presets = (PRESETS[name]() for name in _RELEASED)
    return next((p for p in presets if (p.dim, len(p.vace_layers)) == (dim, num_vace)), None)


def follows_from_shapes(config: WanVaceConfig, specs: Mapping[str, TensorSpec]) -> bool:
    """True for networks of a released size, whose config `config_from_shapes` finds.

    Args:
        config: the network's sizes.
        specs: Wan name -> shape and dtype.
    """
    try:
        return config_from_shapes(specs) == config
    except ValueError:
        return False


def count_blocks(specs: Mapping[str, TensorSpec]) -> tuple[int, int]:
    """Number of backbone blocks and of VACE blocks that a file has.

    Args:
        specs: Wan name -> shape and dtype.
    Raises:
        ValueError: a block in between is missing.
    """
    blocks: dict[str, set[int]] = {"blocks": set(), "vace_blocks": set()}
    for match in filter(None, map(_BLOCK.match, specs)):
        blocks[match[1]].add(int(match[2]))
    for kind, indices in blocks.items():
        gaps = sorted(set(range(min(max(indices, default=-1) + 1, len(indices) + 1))) - indices)
        if gaps:
            raise ValueError(f"{kind}.{gaps[0]} is missing, but later blocks exist: an incomplete file")
    return len(blocks["blocks"]), len(blocks["vace_blocks"])


def _shape(specs: Mapping[str, TensorSpec], name: str, num_axes: int) -> tuple[int, ...]:
    if name not in specs:
        raise ValueError(f"{shown(name)} is missing, from which the config is read: an incomplete file")
    if len(specs[name].shape) != num_axes:
        raise ValueError(
            f"{shown(name)} is {shown(list(specs[name].shape))}; expected {num_axes} axes: not a Wan network"
        )
    return specs[name].shape


def _build(fields: Mapping[str, Any], source: str) -> WanVaceConfig:
    try:
        return WanVaceConfig.from_dict(fields)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"the config from its {source} is not valid: {shown(error)}") from error
