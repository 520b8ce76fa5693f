"""Reads a prompt's links, input types and task nodes."""

from typing import Any

UNIT = "VDOT_VCU"
REGION = "VDOT_CROP"


def is_link(value: Any) -> bool:
    """True if an input's value is [node id, output slot]."""
    return isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], str)


def input_type(info: dict, name: str) -> str | None:
    """The type of an input; of a growing input's entry (`images.image0`) the type that its template has."""
    sections = [info["input"].get(section) or {} for section in ("required", "optional")]
    for inputs in sections:
        spec = inputs.get(name.split(".")[0])
        if spec is None:
            continue
        if "template" not in (spec[1] if len(spec) > 1 else {}):
            return spec[0] if isinstance(spec[0], str) else "COMBO"
        template = spec[1]["template"].get("input") or {}
        return next((t[0] for part in template.values() for t in part.values()), None)
    return None


def unit_nodes(prompt: dict, object_info: dict) -> list[str]:
    """The task nodes: those that make a VDOT_VCU."""
    return [i for i, node in prompt.items() if UNIT in object_info[node["class_type"]]["output"]]
