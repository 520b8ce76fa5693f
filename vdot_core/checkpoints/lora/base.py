"""The network that a LoRA was made from, by what its header says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath, PureWindowsPath

from ...text import parse_json, shown

METADATA_KEY = "vdot_lora"
"""Of `extract_lora`: a JSON object with the base's name."""
_NAME_KEYS = ("base", "ss_sd_model_name")  # of a training run's export, and of kohya's trainers


def base_of(metadata: Mapping[str, str]) -> str:
    """File name of the base network that a LoRA's header gives; empty where it gives none."""
    try:
        about = parse_json(metadata.get(METADATA_KEY, "{}"))
    except ValueError:
        about = None
    values = [about.get("base") if isinstance(about, dict) else None, *map(metadata.get, _NAME_KEYS)]
    name = next((value for value in values if isinstance(value, str) and value.strip()), "")
    return PureWindowsPath(name.strip()).name  # reads both kinds of paths


def note_of_another_base(metadata: Mapping[str, str], model: str) -> str:
    """A note where a LoRA was made from another file than the model's; else, or where that is unknown, empty.

    Args:
        metadata: of the LoRA's header.
        model: file or folder name of the network that it is added to.
    """
    base = base_of(metadata)
    if not base or PurePath(base).stem.casefold() == PurePath(model).stem.casefold():
        return ""
    return f"made from {shown(base, 50)}, and the model is {shown(model, 50)}: right if these are one network"
