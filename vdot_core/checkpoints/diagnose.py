"""Explains in one sentence why a file is not a loadable Wan-VACE network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..text import listed, shown
from .tensor_files import TensorSpec

_LORA = re.compile(r"lora_|\.lora\.|\.hada_w|\.lokr_|\.diff(_b)?$|\.alpha$")
_IMAGE = re.compile(r"(^|\.)(img_emb|k_img|v_img|add_k_proj|image_embedder)\.")
_OTHER_WAN = re.compile(
    r"(^|\.)(control_adapter|ref_conv|face_adapter|motion_encoder|audio_\w+|casual_audio\w+)\."
)
_TEXT = re.compile(
    r"(^|\.)(shared\.weight|token_embedding\.weight|embed_tokens\.weight|text_model\.|encoder\.block\.0\.)"
)
_VISION = re.compile(r"(^|\.)(visual\.|vision_model\.)")
_VAE = re.compile(
    r"(^|\.)(encoder\.conv1|encoder\.conv_in|decoder\.conv1|decoder\.conv_in|decoder\.middle|decoder\.mid_block|"
    r"encoder\.downsamples|quant_conv|post_quant_conv)\."
)
_OTHER_FAMILY = re.compile(
    r"(^|\.)(double_blocks|single_blocks|joint_blocks|transformer_blocks|input_blocks|down_blocks)\."
)


@dataclass(frozen=True)
class Problem:
    """The reason why a readable file is not a loadable network, and what it is used for instead."""

    layout: str
    reason: str = ""
    usage: str = ""


VACE_MODULE = Problem(
    "vace-module",
    "this file holds only the VACE module; give the T2V network that it belongs to, and this one as its VACE "
    "module",
    "a VACE module: use it with the T2V network of its size, as vace_name of VDOT Load Model or in a command",
)
_LORA_PROBLEM = Problem(
    "lora",
    "these are LoRA weights, not a network; load a VACE network and put the LoRA on it with a LoRA loader",
    "a LoRA: put it on a network of its size, by VDOT Load Model's LoRA list, a LoRA loader or `merge`",
)
_IMAGE_PROBLEM = Problem(
    "i2v", "this is Wan 2.2 / I2V: has img_emb (image conditioning); give a VACE or T2V file of Wan 2.1"
)


def foreign(names: Iterable[str]) -> Problem | None:
    """Recognize other kinds of files.

    Args:
        names: every tensor name in the file, as it stands there.
    Returns:
        Its kind and what to do; None if nothing is recognized.
    """
    names = list(names)
    kinds = (
        (_LORA, _LORA_PROBLEM),
        (_IMAGE, _IMAGE_PROBLEM),
        (
            _OTHER_WAN,
            Problem("wan-other", "this is another Wan variant (Fun control, Animate, S2V), not VACE or T2V"),
        ),
    )
    for pattern, problem in kinds:
        if any(map(pattern.search, names)):
            return problem
    # An all-in-one checkpoint holds these in addition to its network.
    if any(name.startswith("model.diffusion_model.") for name in names):
        return None
    others = (
        (
            _TEXT,
            Problem(
                "text-encoder", "this is a text encoder, not a transformer; give the VACE or VDOT network"
            ),
        ),
        (
            _VISION,
            Problem(
                "image-encoder", "this is a CLIP image encoder, not a transformer; give the VACE network"
            ),
        ),
        (_VAE, Problem("vae", "this is a VAE, not a transformer; give the VACE or VDOT network")),
        (
            _OTHER_FAMILY,
            Problem("other", "this is a model of another family, not Wan; give a VACE or VDOT network"),
        ),
    )
    for pattern, problem in others:
        if any(map(pattern.search, names)):
            return problem
    return None


def wrong_channels(specs: Mapping[str, TensorSpec]) -> Problem | None:
    """Recognize Wan networks whose latents or conditions differ, by their patch embedding.

    Args:
        specs: Wan name -> shape and dtype.
    """
    embedding = specs.get("patch_embedding.weight")
    if embedding is None or len(embedding.shape) != 5:
        return None
    channels = embedding.shape[1]
    if channels in (32, 36, 48, 52) or channels > 60:
        kind = "Wan 2.2 5B (another VAE)" if channels == 48 else "Wan 2.2 / I2V or Fun (image conditioning)"
        reason = f"this is {kind}: its patch_embedding takes {channels} channels; give Wan 2.1 VACE or T2V"
        return Problem("i2v" if channels != 48 else "wan-other", reason)
    return None


def mismatch(specs: Mapping[str, TensorSpec], expected: Mapping[str, tuple[int, ...]]) -> str:
    """Compare a file's tensors with the parameters of its network.

    Args:
        specs: Wan name -> shape and dtype.
        expected: Wan name -> shape of every parameter of the network.
    Returns:
        A sentence that names the first of each kind of fault; empty where all fits.
    """
    missing = [name for name in expected if name not in specs]
    unexpected = [name for name in specs if name not in expected]
    misshapen = [
        f"{shown(name, 60)} is {shown(list(specs[name].shape), 40)}, expected {shown(list(shape), 40)}"
        for name, shape in expected.items()
        if name in specs and specs[name].shape != tuple(shape)
    ]
    faults = (("misses", missing), ("has unexpected", unexpected), ("has misshapen", misshapen))
    faults = [(verb, items) for verb, items in faults if items]
    if not faults:
        return ""
    width = 150 // len(faults)
    sentences = [f"it {verb} {_count(items)}: {listed(items, width=width)}" for verb, items in faults]
    if not missing and not misshapen:
        cause = "these keys belong to another variant of the network"
    elif unexpected:
        cause = "another variant of the network, or names that are not known"
    else:
        cause = "an incomplete file, or a config that is not this file's"
    return f"{'; '.join(sentences)}. Likely cause: {cause}"


def _count(items: list[str]) -> str:
    return f"{len(items)} key{'s' if len(items) != 1 else ''}"
