"""Key names of LoRA files: those that are written, and all that are read.

Written for ComfyUI, and read by Kijai's wrapper and Wan's trainers too: `diffusion_model.` + Wan's module +
`.lora_A.weight` [R, in] and `.lora_B.weight` [out, R] for a linear layer, `.diff_b` for a bias, `.diff` for
any other parameter. No alpha is written: without one the scale is 1. Written for diffusers: `transformer.` +
diffusers' module, with `.lora_B.bias` for a bias; there is no place for other parameters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..layouts import COMFYUI_PREFIXES, diffusers_to_wan, strip_wrappers, wan_to_diffusers

LORA_NAMINGS: dict[str, Callable[[str], str]] = {
    "comfyui": lambda module: f"diffusion_model.{module}",
    "diffusers": lambda module: f"transformer.{wan_to_diffusers(module)}",
}
"""Name of a naming -> the module's name in it."""
_DIFFUSERS_PREFIX = "transformer."
_PREFIXES = ("", *COMFYUI_PREFIXES, _DIFFUSERS_PREFIX)
_COMFYUI_ENDINGS = {
    "up": ".lora_B.weight",
    "down": ".lora_A.weight",
    "alpha": ".alpha",
    "bias": ".diff_b",
    "full": ".diff",
}
# Trainers of kohya's family join the parts by underscores; Wan Fun's write two after the prefix.
_FLAT_PREFIXES = ("lora_unet_", "lora_unet__", "lycoris_")
_SUFFIXES = (
    ("up", r"\.lora_up\.weight|\.lora_B(\.default)?(\.weight)?|[._]lora\.up\.weight"
     r"|\.lora_linear_layer\.up\.weight"),
    ("down", r"\.lora_down\.weight|\.lora_A(\.default)?(\.weight)?|[._]lora\.down\.weight"
     r"|\.lora_linear_layer\.down\.weight"),
    ("bias", r"\.diff_b|\.lora_B(\.default)?\.bias"),
    ("full", r"\.diff"),
    ("alpha", r"\.alpha"),
)  # fmt: skip
_KEY = re.compile(f"(.+?)(?:{'|'.join(f'(?P<{role}>{pattern})' for role, pattern in _SUFFIXES)})")
# Updates that are no sum of a product and a difference.
_UNREAD = re.compile(
    r"(dora_scale|lora_mid\.weight|hada_w\w+|hada_t\w+|lokr_w\w+|lokr_t\w+|oft_\w+|set_weight|reshape_weight"
    r"|[wb]_norm|lora_magnitude_vector(\.weight)?)$"
)


@dataclass(frozen=True)
class Key:
    """A key of a LoRA file: the module as the file names it, and the tensor's role.

    Args:
        module: name before the suffix.
        role: 'up', 'down', 'alpha', 'full' or 'bias'.
    """

    module: str
    role: str


def pair_keys(name: str, naming: str) -> tuple[str, str]:
    """Keys (up, down) of the factors of a linear layer's weight.

    Args:
        name: Wan's name of the weight.
        naming: one of LORA_NAMINGS.
    """
    module = LORA_NAMINGS[naming](name.removesuffix(".weight"))
    return f"{module}.lora_B.weight", f"{module}.lora_A.weight"


def full_key(name: str, naming: str) -> str | None:
    """Key of a parameter's complete change; None where the naming has no place for it.

    Args:
        name: Wan's name of a bias, a norm's weight, a patch embedding's or a modulation.
        naming: one of LORA_NAMINGS.
    """
    module, _, parameter = name.rpartition(".")
    if naming == "diffusers":
        linear = parameter == "bias" and ".norm" not in module and not module.endswith("patch_embedding")
        return f"{LORA_NAMINGS[naming](module)}.lora_B.bias" if linear else None
    if parameter == "bias":
        return f"{LORA_NAMINGS[naming](module)}.diff_b"
    return f"{LORA_NAMINGS[naming](module if parameter == 'weight' else name)}.diff"


def parse_key(key: str) -> Key | None:
    """Split a key of a LoRA file; None where it is none."""
    match = _KEY.fullmatch(strip_wrappers(key))
    return Key(match[1], match.lastgroup or "") if match else None


def comfyui_key(key: str) -> str | None:
    """ComfyUI's key for a change under diffusers' name; None for keys of other namings."""
    parsed = parse_key(key)
    if parsed is None or not parsed.module.startswith(_DIFFUSERS_PREFIX):
        return None
    module = diffusers_to_wan(parsed.module.removeprefix(_DIFFUSERS_PREFIX))
    return LORA_NAMINGS["comfyui"](module) + _COMFYUI_ENDINGS[parsed.role]


def is_unread(key: str) -> bool:
    """True for keys of updates that are not read: DoRA, LoHa, LoKr, Tucker, weights to set."""
    return _UNREAD.search(key) is not None


def module_names(parameters: Iterable[str]) -> dict[str, str]:
    """Every name by which LoRA files call a network's modules, mapped to Wan's.

    Args:
        parameters: Wan's names of the network's parameters. A parameter that is neither weight nor bias, such
            as a modulation, counts as a module.
    """
    modules = {re.sub(r"\.(weight|bias)$", "", name) for name in parameters}
    names: dict[str, str] = {}
    for module in sorted(modules):
        for spelled in (module, wan_to_diffusers(module)):
            names.update({prefix + spelled: module for prefix in _PREFIXES})
            names.update({prefix + spelled.replace(".", "_"): module for prefix in _FLAT_PREFIXES})
    return names
