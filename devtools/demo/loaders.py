"""The nodes of a prompt that read files: the role of each file, and the user's file that replaces it.

They are identified by their connections, never by id: a workflow may be rearranged freely.
"""

import re
from dataclasses import dataclass, field, replace

from devtools.demo.links import input_type, is_link, unit_nodes
from devtools.demo.options import DemoOptions
from devtools.errors import UsageError, counted

VIDEO_LOADERS = {"LoadVideo": "file", "VDOTLoadClip": "file"}
IMAGE_LOADERS = {"LoadImage": "image", "LoadImageMask": "image"}
MATTE = "VDOTMatte"
CONTINUED = ("VDOTExtend", "first")  # the clip at this input must be shorter than the video


@dataclass(frozen=True)
class Loader:
    """A node that reads a file: the input with the file's name, and the file's role.

    Attributes:
        node_id, input_name: the place of the file's name.
        role: 'video', 'image' or 'mask'.
        reads_video: the node decodes a video; else a picture.
        uses: (node id, input name) of the nodes that its data ends at.
        partner: of a mask, the id of the loader whose clip or picture it is drawn on; None if on its own.
        continued: the video continues from the clip's end.
        sets_size: of a picture, the video takes its size from it.
    """

    node_id: str
    input_name: str
    role: str
    reads_video: bool
    uses: tuple[tuple[str, str], ...] = ()
    partner: str | None = None
    continued: bool = False
    sets_size: bool = field(default=False, compare=False)  # not so any more once a size is written


def loaders(prompt: dict, object_info: dict) -> list[Loader]:
    """Every file-reading node, in id order."""
    entries = []
    for node_id in sorted(prompt, key=lambda key: (len(key), key)):
        kind = prompt[node_id]["class_type"]
        if kind not in VIDEO_LOADERS and kind not in IMAGE_LOADERS:
            continue
        reads_video = kind in VIDEO_LOADERS
        input_name = VIDEO_LOADERS[kind] if reads_video else IMAGE_LOADERS[kind]
        uses = _uses(prompt, object_info, node_id)
        types = {input_type(object_info[prompt[at]["class_type"]], name) for at, name in uses}
        if types == {"MASK"}:
            partner = _partner(prompt, object_info, uses)
            entries.append(Loader(node_id, input_name, "mask", reads_video, uses, partner))
        else:
            continued = reads_video and any((prompt[at]["class_type"], n) == CONTINUED for at, n in uses)
            role = "video" if reads_video else "image"
            sets_size = not reads_video and any(prompt[at]["inputs"].get("width") == 0 for at, _ in uses)
            loader = Loader(node_id, input_name, role, reads_video, uses, None, continued, sets_size)
            entries.append(loader)
    return entries


def assign(entries: list[Loader], options: DemoOptions) -> dict[Loader, str]:
    """Assign the user's files to loaders.

    A single mask goes to a clip's mask before it goes to a picture's.

    Raises:
        UsageError: the workflow has no place for a file, or its own mask would be laid over the user's clip.
    """
    pictures = {loader.node_id for loader in entries if not loader.reads_video}
    files: dict[Loader, str] = {}
    for flag, role, paths in (
        ("--video", "video", [options.video] if options.video else []),
        ("--image", "image", list(options.images)),
        ("--mask", "mask", [options.mask] if options.mask else []),
    ):
        places = [loader for loader in entries if loader.role == role]
        places.sort(key=lambda loader: loader.partner in pictures)
        if len(paths) > len(places):
            others = [loader.role for loader in entries if loader.role != role]
            counts = ", ".join(counted(others.count(other), other) for other in dict.fromkeys(others))
            raise UsageError(
                f"{flag} was given {counted(len(paths), 'time')}, the {options.task} workflow reads "
                f"{counted(len(places), role)}" + (f"; it does read {counts}" if counts else "")
            )
        files.update(zip(places, paths, strict=False))
    for loader in _without_partner(entries, files):
        if loader.partner not in pictures:
            raise UsageError(
                f"--video: the {options.task} workflow needs a mask, and its own was drawn for its own clip; "
                "give --mask FILE as well: a picture for all frames, or a video; white is regenerated"
            )
    return files


def drop_unfit_masks(prompt: dict, entries: list[Loader], files: dict[Loader, str]) -> list[Loader]:
    """Unlink the example's masks of pictures that the user replaced without giving a mask.

    Args:
        prompt: changed in place.
        entries: its loaders.
        files: from assign().

    Returns:
        The loaders that nothing reads any more.

    Raises:
        UsageError: a node cannot do without that mask.
    """
    replaced = {loader.node_id: file for loader, file in files.items()}
    dropped = []
    for loader in _without_partner(entries, files):
        for node_id, name in loader.uses:
            if "." not in name:  # only a growing input may be left open
                raise UsageError(
                    f"--image: the workflow's own mask does not belong to {replaced[loader.partner]}; "
                    "give --mask FILE as well, a picture; white is regenerated"
                )
            inputs = prompt[node_id]["inputs"]
            prompt[node_id]["inputs"] = {key: value for key, value in inputs.items() if key != name}
        dropped.append(loader)
    return dropped


def mask_people(prompt: dict, object_info: dict, options: DemoOptions) -> DemoOptions:
    """Let VDOT Matte make the mask of a clip or picture, in place of the loader of the example's mask.

    Args:
        prompt: changed in place.
        object_info: the server's node descriptions; VDOT Matte is added where it is missing.
        options: with `PEOPLE` as mask.

    Returns:
        The options without a mask.

    Raises:
        UsageError: the workflow has no mask that belongs to a clip or picture.
    """
    entries = loaders(prompt, object_info)
    pictures = {loader.node_id for loader in entries if not loader.reads_video}
    masks = [loader for loader in entries if loader.role == "mask" and loader.partner is not None]
    if not masks:
        raise UsageError(f"--mask {options.mask}: the {options.task} workflow has no clip with a mask")
    loader = min(masks, key=lambda loader: loader.partner in pictures)
    object_info.setdefault(MATTE, {"input": {"required": {"frames": ["IMAGE"]}}, "output": ["MASK"]})
    node_id, name = loader.uses[0]
    masker = f"{loader.node_id}_people"
    prompt[masker] = _node(MATTE, "VDOT Matte", frames=_pictures_of(prompt, object_info, node_id, name))
    between = _between(prompt, loader)
    for node_id, name in loader.uses:
        prompt[node_id]["inputs"][name] = [masker, 0]
    for node_id in between:
        del prompt[node_id]
    return replace(options, mask=None)


def _between(prompt: dict, loader: Loader) -> set[str]:
    """The loader and the nodes that lead from it to its uses."""
    ends, nodes, waiting = {node_id for node_id, _ in loader.uses}, {loader.node_id}, [loader.node_id]
    while waiting:
        source = waiting.pop()
        for node_id, node in prompt.items():
            linked = any(is_link(value) and value[0] == source for value in node["inputs"].values())
            if linked and node_id not in ends | nodes:
                nodes.add(node_id)
                waiting.append(node_id)
    return nodes


def read_as_video(prompt: dict, object_info: dict, loader: Loader) -> Loader:
    """Let a picture's loader read a video: Load Video, Get Video Components and Image To Mask replace it.

    Args:
        prompt: changed in place.
        object_info: the server's node descriptions.
        loader: of a mask.

    Returns:
        The loader that now reads the file.
    """
    old = prompt.pop(loader.node_id)
    video, frames, mask = (f"{loader.node_id}_{part}" for part in ("video", "frames", "mask"))
    slots = object_info[old["class_type"]]["output"]
    for node in prompt.values():
        for name, value in node["inputs"].items():
            if is_link(value) and value[0] == loader.node_id:
                node["inputs"][name] = [mask if slots[value[1]] == "MASK" else frames, 0]
    channel = old["inputs"].get("channel")
    channel = channel if channel in ("red", "green", "blue") else "red"  # a video has no alpha
    prompt[video] = _node("LoadVideo", "Load Video", file="")
    prompt[frames] = _node("GetVideoComponents", "Get Video Components", video=[video, 0])
    prompt[mask] = _node("ImageToMask", "Image To Mask", image=[frames, 0], channel=channel)
    return Loader(video, VIDEO_LOADERS["LoadVideo"], loader.role, True, loader.uses, loader.partner)


def _node(kind: str, title: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}


def _without_partner(entries: list[Loader], files: dict[Loader, str]) -> list[Loader]:
    """Example masks whose clip or picture was replaced."""
    replaced = {loader.node_id for loader in files}
    return [
        loader
        for loader in entries
        if loader.role == "mask" and loader not in files and loader.partner in replaced
    ]


def _uses(prompt: dict, object_info: dict, start: str) -> tuple[tuple[str, str], ...]:
    """Ends of a loader's data: inputs of task nodes, and masks that are joined with something else.

    A join's output is no longer the mask's alone: VDOT Crop returns frames and mask.
    """
    uses, waiting, visited = [], [start], set()
    units = set(unit_nodes(prompt, object_info))
    while waiting:
        source = waiting.pop(0)
        for node_id, node in prompt.items():
            links = {name: value for name, value in node["inputs"].items() if is_link(value)}
            for name in (name for name, value in links.items() if value[0] == source):
                joined = len(links) > 1 and input_type(object_info[node["class_type"]], name) == "MASK"
                if node_id in units or joined:
                    uses.append((node_id, name))
                elif node_id not in visited:
                    visited.add(node_id)
                    waiting.append(node_id)
    return tuple(uses)


def _partner(prompt: dict, object_info: dict, uses: tuple[tuple[str, str], ...]) -> str | None:
    """The loader of the pictures that belong to a mask; of growing inputs, those with the mask's number."""
    for node_id, mask_name in uses:
        link = _pictures_of(prompt, object_info, node_id, mask_name)
        loader = None if link is None else _origin(prompt, link[0])
        if loader is not None:
            return loader
    return None


def _pictures_of(prompt: dict, object_info: dict, node_id: str, mask_name: str) -> list | None:
    """The link to the pictures that a node's mask is of; of growing inputs, those with the mask's number."""
    info, number = object_info[prompt[node_id]["class_type"]], _number(mask_name)
    for name, value in prompt[node_id]["inputs"].items():
        if is_link(value) and input_type(info, name) == "IMAGE" and _number(name) == number:
            return value
    return None


def _number(name: str) -> str:
    return re.search(r"\d*$", name).group()


def _origin(prompt: dict, node_id: str) -> str | None:
    """The nearest file-reading node that a node's data comes from."""
    waiting, visited = [node_id], set()
    while waiting:
        current = waiting.pop(0)
        if current in visited:
            continue
        visited.add(current)
        node = prompt[current]
        if node["class_type"] in VIDEO_LOADERS or node["class_type"] in IMAGE_LOADERS:
            return current
        waiting += [value[0] for value in node["inputs"].values() if is_link(value)]
    return None
