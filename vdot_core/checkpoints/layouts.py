"""Naming schemes of published files, and the map from each of them to Wan's own names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ..text import shown

# Parts that wrappers insert anywhere in a name: FSDP, activation checkpointing, torch.compile.
_WRAPPERS = re.compile(r"_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.|_orig_mod\.")
COMFYUI_PREFIXES = ("model.diffusion_model.", "diffusion_model.")
PREFIXES = ("", *COMFYUI_PREFIXES, "model.", "module.", "module.model.")
# Other models in ComfyUI's all-in-one checkpoints.
_COMPANIONS = ("vae.", "first_stage_model.", "text_encoders.", "cond_stage_model.", "conditioner.")
VACE_ROOTS = ("vace_blocks.", "vace_patch_embedding.")
_ROOTS = re.compile(
    r"(blocks\.\d|vace_blocks\.\d|vace_patch_embedding\.|patch_embedding\.|text_embedding\.|time_embedding\.|"
    r"time_projection\.|head\.|condition_embedder\.|proj_out\.|scale_shift_table$)"
)
_BLOCK = re.compile(r"((?:vace_)?blocks\.\d+\.)(.+)")

_DIFFUSERS_TOP = {
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "scale_shift_table": "head.modulation",
    "proj_out": "head.head",
}
_DIFFUSERS_ATTENTION = {
    f"{theirs}.{their_part}": f"{ours}.{our_part}"
    for theirs, ours in (("attn1", "self_attn"), ("attn2", "cross_attn"))
    for their_part, our_part in (
        ("to_q", "q"),
        ("to_k", "k"),
        ("to_v", "v"),
        ("to_out.0", "o"),
        ("norm_q", "norm_q"),
        ("norm_k", "norm_k"),
    )
}
_DIFFUSERS_BLOCK = {
    **_DIFFUSERS_ATTENTION,
    "norm2": "norm3",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "scale_shift_table": "modulation",
    "proj_in": "before_proj",
    "proj_out": "after_proj",
}


_WAN_TOP = {ours: theirs for theirs, ours in _DIFFUSERS_TOP.items()}
_WAN_BLOCK = {ours: theirs for theirs, ours in _DIFFUSERS_BLOCK.items()}


@dataclass(frozen=True)
class Layout:
    """A naming scheme: its name, the prefix of every key, and the map from the rest to Wan's names."""

    name: str
    prefix: str
    rename: Callable[[str], str]

    def wan_names(self, names: Iterable[str]) -> dict[str, str]:
        """Map a file's names to Wan's.

        Args:
            names: as they stand in the file.
        Returns:
            Wan's name -> the file's name. A name that the scheme does not know stays as it is, so that the
            check against the network reports it; an all-in-one checkpoint's other models are left out.
        Raises:
            ValueError: two names of the file mean the same parameter.
        """
        mapped: dict[str, str] = {}
        for name in names:
            if self.prefix == COMFYUI_PREFIXES[0] and name.startswith(_COMPANIONS):
                continue
            bare = strip_wrappers(name)
            has_prefix = bare.startswith(self.prefix)
            wan_name = self.rename(bare[len(self.prefix) :]) if has_prefix else bare
            if wan_name in mapped:
                raise ValueError(
                    f"'{shown(mapped[wan_name], 60)}' and '{shown(name, 60)}' are both "
                    f"{shown(wan_name, 60)}; remove one"
                )
            mapped[wan_name] = name
        return mapped


def strip_wrappers(name: str) -> str:
    """Remove what FSDP, activation checkpointing and torch.compile put into a parameter's name."""
    return _WRAPPERS.sub("", name)


def detect_layout(names: Iterable[str], container: str = "") -> Layout | None:
    """Recognize a file's naming scheme from its names alone.

    Args:
        names: every tensor name in the file.
        container: the key that the tensors lay under; 'generator' is VDOT's release.
    Returns:
        The scheme, or None if too few names look like a Wan transformer's.
    """
    names = [strip_wrappers(name) for name in names]
    hits = Counter()
    for prefix in PREFIXES:
        hits[prefix] = sum(
            1 for name in names if name.startswith(prefix) and _ROOTS.match(name, len(prefix)) is not None
        )
    prefix, num_hits = hits.most_common(1)[0]
    if num_hits == 0:
        return None
    rests = [name[len(prefix) :] for name in names if name.startswith(prefix)]
    if any(rest.startswith("condition_embedder.") or ".attn1." in rest for rest in rests):
        return Layout("diffusers", prefix, diffusers_to_wan)
    if container == "generator":
        return Layout("vdot-pt", prefix, str)
    return Layout("comfyui" if prefix in COMFYUI_PREFIXES else "wan", prefix, str)


def diffusers_to_wan(name: str) -> str:
    """Wan's name of a parameter of diffusers' WanTransformer3DModel or WanVACETransformer3DModel."""
    return _rename(name, _DIFFUSERS_TOP, _DIFFUSERS_BLOCK)


def wan_to_diffusers(name: str) -> str:
    """diffusers' name of a parameter, or of a module, under Wan's name."""
    return _rename(name, _WAN_TOP, _WAN_BLOCK)


def _rename(name: str, top: Mapping[str, str], in_block: Mapping[str, str]) -> str:
    block = _BLOCK.fullmatch(name)
    start, rest = (block[1], block[2]) if block else ("", name)
    table = in_block if block else top
    if rest in table:
        return start + table[rest]
    module, _, parameter = rest.rpartition(".")
    return f"{start}{table[module]}.{parameter}" if module in table else name
