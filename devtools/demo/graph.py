"""Writes the user's text and numbers into a prompt, and adds taps that show the model's inputs.

Nodes are identified by class and connections, never by id: a workflow may be rearranged freely.
"""

from collections.abc import Iterator
from typing import Any

from devtools.demo.links import REGION, UNIT, input_type, is_link, unit_nodes
from devtools.demo.options import DemoOptions
from devtools.errors import UsageError

TAP = "VDOTDemoTap"  # in tap_node.py
TEXT_NODES = {"CLIPTextEncode": "text"}


def apply(prompt: dict, object_info: dict, options: DemoOptions) -> None:
    """Write the text and numbers of the options into a prompt.

    Args:
        prompt: changed in place.
        object_info: the server's node descriptions.
        options: what the user asked for.

    Raises:
        UsageError: the workflow has no place for something that was given.
    """
    if options.prompt is not None:
        _set(prompt, list(_positive_texts(prompt)), options.prompt, "--prompt", options.task)
    if options.seed is not None:
        _set(prompt, _named(prompt, {"seed", "noise_seed"}), options.seed, "--seed", options.task)
    if options.num_frames is not None or options.size is not None:
        _take_clips_as_they_are(prompt, options)
    units = unit_nodes(prompt, object_info)
    if options.num_frames is not None:
        _set(prompt, _named(prompt, {"length"}, units), options.num_frames, "--frames", options.task)
    if options.size is not None:
        sized = region_nodes(prompt, object_info) or units
        for name, value in zip(("width", "height"), options.size, strict=True):
            _set(prompt, _named(prompt, {name}, sized), value, "--size", options.task)


def _take_clips_as_they_are(prompt: dict, options: DemoOptions) -> None:
    """Size and length are the user's now, not the model's; clips are cut to the length when they are sent."""
    for node_id, node in prompt.items():
        inputs = {key: value for key, value in node["inputs"].items() if key != "size" or not is_link(value)}
        if node["class_type"] == "VDOTLoadClip":
            inputs |= {"resolution": "as it is", "fps": 0.0, "start": 0.0, "length": options.num_frames or 0}
        prompt[node_id] = {**node, "inputs": inputs}


def region_nodes(prompt: dict, object_info: dict) -> list[str]:
    """The nodes that cut a region out of a clip: the task is done at their size, and pasted back."""
    return [i for i, node in prompt.items() if REGION in object_info[node["class_type"]]["output"]]


def video_size(prompt: dict, object_info: dict) -> tuple[int, int] | None:
    """Width and height that the prompt's task nodes have; None where they take them from a clip."""
    for node_id in region_nodes(prompt, object_info) or unit_nodes(prompt, object_info):
        width, height = (prompt[node_id]["inputs"].get(name) for name in ("width", "height"))
        if isinstance(width, int) and isinstance(height, int) and width and height:
            return width, height
    return None


def final_units(prompt: dict, object_info: dict) -> list[tuple[str, int]]:
    """The links by which finished units reach what makes the video, in the order of its inputs."""
    units = []
    for node in prompt.values():
        info = object_info[node["class_type"]]
        is_preview = info.get("output_node") and "VIDEO" not in info["output"]
        if UNIT in info["output"] or is_preview:
            continue
        for name, value in node["inputs"].items():
            if input_type(info, name) == UNIT and is_link(value) and tuple(value) not in units:
                units.append(tuple(value))
    return units


def tap_prompt(prompt: dict, units: list[tuple[str, int]], indices: list[int]) -> dict:
    """A prompt that shows some moments of units; it runs only the nodes that make them, so no model.

    Args:
        prompt: the workflow.
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
    ancestors, waiting = {}, list(roots)
    while waiting:
        node_id = waiting.pop()
        if node_id in ancestors:
            continue
        ancestors[node_id] = prompt[node_id]
        waiting += [value[0] for value in prompt[node_id]["inputs"].values() if is_link(value)]
    return ancestors


def _positive_texts(prompt: dict) -> Iterator[tuple[str, str]]:
    """Text nodes that some node takes as `positive`."""
    for node in prompt.values():
        source = node["inputs"].get("positive")
        if is_link(source) and prompt[source[0]]["class_type"] in TEXT_NODES:
            yield source[0], TEXT_NODES[prompt[source[0]]["class_type"]]


def _named(prompt: dict, names: set[str], among: list[str] | None = None) -> list[tuple[str, str]]:
    return [
        (node_id, name)
        for node_id, node in prompt.items()
        for name in sorted(names & node["inputs"].keys())
        if (among is None or node_id in among) and not is_link(node["inputs"][name])
    ]


def _set(prompt: dict, places: list[tuple[str, str]], value: Any, flag: str, task: str) -> None:
    if not places:
        raise UsageError(f"{flag}: the {task} workflow has no input for it")
    for node_id, name in places:
        prompt[node_id] = {**prompt[node_id], "inputs": {**prompt[node_id]["inputs"], name: value}}
