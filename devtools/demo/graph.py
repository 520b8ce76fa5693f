"""Puts the user's clip, pictures, text and numbers into a prompt, and taps what the model is told.

Nodes are found by what they are and what they feed, never by their ids: a workflow may be rearranged freely.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from devtools.demo.options import DemoOptions
from devtools.errors import UsageError

UNIT = "VDOT_VCU"
TAP = "VDOTDemoTap"  # in tap_node.py
VIDEO_LOADERS = {"LoadVideo": "file"}
IMAGE_LOADERS = {"LoadImage": "image", "LoadImageMask": "image"}
TEXT_NODES = {"CLIPTextEncode": "text"}


@dataclass(frozen=True)
class Loader:
    """A node that reads a file: where in the prompt its name stands, and what the file is used as."""

    node_id: str
    input_name: str
    role: str  # 'video', 'image' or 'mask'


def loaders(prompt: dict, object_info: dict) -> list[Loader]:
    """Every file-reading node, in id order."""
    found = []
    for node_id in sorted(prompt, key=lambda key: (len(key), key)):
        kind = prompt[node_id]["class_type"]
        if kind in VIDEO_LOADERS:
            found.append(Loader(node_id, VIDEO_LOADERS[kind], "video"))
        elif kind in IMAGE_LOADERS:
            role = "mask" if "MASK" in _ends(prompt, object_info, node_id) else "image"
            found.append(Loader(node_id, IMAGE_LOADERS[kind], role))
    return found


def apply(prompt: dict, object_info: dict, options: DemoOptions) -> dict[Loader, str]:
    """Write the options into a prompt.

    Args:
        prompt: changed in place.
        object_info: the server's node descriptions.
        options: what the user asked for.

    Returns:
        The files to upload, by the loader that shall read each.

    Raises:
        UsageError: the workflow has no place for something that was given.
    """
    found = loaders(prompt, object_info)
    files: dict[Loader, str] = {}
    for flag, role, given in (
        ("--video", "video", [options.video] if options.video else []),
        ("--image", "image", list(options.images)),
        ("--mask", "mask", [options.mask] if options.mask else []),
    ):
        places = [loader for loader in found if loader.role == role]
        if len(given) > len(places):
            raise UsageError(
                f"{flag} was given {len(given)} time(s), "
                f"the {options.task} workflow reads {len(places)} {role}(s)"
            )
        files.update(zip(places, given, strict=False))
    if options.prompt is not None:
        _set(prompt, list(_positive_texts(prompt)), options.prompt, "--prompt", options.task)
    if options.seed is not None:
        _set(prompt, _named(prompt, {"seed", "noise_seed"}), options.seed, "--seed", options.task)
    units = unit_nodes(prompt, object_info)
    if options.num_frames is not None:
        _set(prompt, _named(prompt, {"length"}, units), options.num_frames, "--frames", options.task)
    if options.size is not None:
        for name, value in zip(("width", "height"), options.size, strict=True):
            _set(prompt, _named(prompt, {name}, units), value, "--size", options.task)
    return files


def unit_nodes(prompt: dict, object_info: dict) -> list[str]:
    """The task nodes: those that make a VDOT_VCU."""
    return [i for i, node in prompt.items() if UNIT in object_info[node["class_type"]]["output"]]


def final_units(prompt: dict, object_info: dict) -> list[tuple[str, int]]:
    """The links by which finished units reach the encoder, in the order of its inputs."""
    found = []
    for node in prompt.values():
        info = object_info[node["class_type"]]
        if UNIT in info["output"] or info.get("output_node"):
            continue
        for name, value in node["inputs"].items():
            if _input_type(info, name) == UNIT and _is_link(value) and tuple(value) not in found:
                found.append(tuple(value))
    return found


def tap_prompt(prompt: dict, units: list[tuple[str, int]], indices: list[int]) -> dict:
    """A prompt that shows some moments of units; it runs only what makes them, so no model.

    Args:
        prompt: the whole workflow.
        units: from final_units().
        indices: frame numbers to show.

    Returns:
        The prompt; the node `tap0` shows the first unit, `tap1` the second.
    """
    moments = ",".join(map(str, indices))
    added = {
        f"tap{number}": {"class_type": TAP, "inputs": {"unit": list(source), "indices": moments}}
        for number, source in enumerate(units)
    }
    return _ancestors({**prompt, **added}, added)


def _ancestors(prompt: dict, roots: Any) -> dict:
    kept, waiting = {}, list(roots)
    while waiting:
        node_id = waiting.pop()
        if node_id in kept:
            continue
        kept[node_id] = prompt[node_id]
        waiting += [value[0] for value in prompt[node_id]["inputs"].values() if _is_link(value)]
    return kept


def _ends(prompt: dict, object_info: dict, start: str) -> set[str]:
    """Types of the inputs of task nodes that a node's outputs reach."""
    types, waiting, seen = set(), [start], set()
    units = set(unit_nodes(prompt, object_info))
    while waiting:
        source = waiting.pop()
        for node_id, node in prompt.items():
            for name, value in node["inputs"].items():
                if not _is_link(value) or value[0] != source:
                    continue
                if node_id in units:
                    types.add(_input_type(object_info[node["class_type"]], name))
                elif node_id not in seen:
                    seen.add(node_id)
                    waiting.append(node_id)
    return types


def _input_type(info: dict, name: str) -> str | None:
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


def _positive_texts(prompt: dict) -> Iterator[tuple[str, str]]:
    """Text nodes that some node takes as `positive`."""
    for node in prompt.values():
        source = node["inputs"].get("positive")
        if _is_link(source) and prompt[source[0]]["class_type"] in TEXT_NODES:
            yield source[0], TEXT_NODES[prompt[source[0]]["class_type"]]


def _named(prompt: dict, names: set[str], among: list[str] | None = None) -> list[tuple[str, str]]:
    return [
        (node_id, name)
        for node_id, node in prompt.items()
        for name in sorted(names & node["inputs"].keys())
        if (among is None or node_id in among) and not _is_link(node["inputs"][name])
    ]


def _set(prompt: dict, places: list[tuple[str, str]], value: Any, flag: str, task: str) -> None:
    if not places:
        raise UsageError(f"{flag}: the {task} workflow has no input for it")
    for node_id, name in places:
        prompt[node_id] = {**prompt[node_id], "inputs": {**prompt[node_id]["inputs"], name: value}}


def _is_link(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], str)
