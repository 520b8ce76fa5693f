"""Shared by task nodes: the VDOT_VCU type, recurring inputs, and their conversion to builder arguments."""

import json
from base64 import b64encode
from collections.abc import Sequence

from comfy_api.latest import io

from ..vdot_core.choices import MASK_SHAPES
from ..vdot_core.text import counted

VCUType = io.Custom("VDOT_VCU")
CATEGORY = "VDOT/tasks"
MAX_SIDE = 8192
MAX_LENGTH = 8193
MAX_IMAGES = 8
MAX_STRENGTH = 10.0
STRIP_VERSION = 1


class FileChoice(io.Combo.Input):
    """A menu of files. The node itself says what is missing of another name, as in a graph from elsewhere."""

    takes_others = True


def canvas_inputs(width: int = 832, height: int = 480, length: int = 81) -> list[io.Input]:
    """Size and length of a video that has no clip to take them from."""
    side = "of the video in pixels. Rounded down to a multiple of 16."
    tip = "Number of frames, 16 a second: 81 is five seconds. Rounded down to 4n+1 (1, 5, .., 77, 81)."
    return [
        io.Int.Input("width", default=width, min=16, max=MAX_SIDE, step=16, tooltip=f"Width {side}"),
        io.Int.Input("height", default=height, min=16, max=MAX_SIDE, step=16, tooltip=f"Height {side}"),
        io.Int.Input("length", default=length, min=1, max=MAX_LENGTH, step=4, tooltip=tip),
    ]


def fit_inputs(length: bool = True) -> list[io.Input]:
    """Size (and length) of a video; 0 takes them from its clip."""
    rule = "0 takes it from the clip. Rounded down to a multiple of 16; the clip is scaled and cropped."
    inputs: list[io.Input] = [
        io.Int.Input(
            name, default=0, min=0, max=MAX_SIDE, step=16, tooltip=f"{name.capitalize()} of the video. {rule}"
        )
        for name in ("width", "height")
    ]
    if length:
        tip = "Number of frames, 4n+1. 0 takes it from the clip; frames beyond a shorter clip are generated."
        inputs.append(io.Int.Input("length", default=0, min=0, max=MAX_LENGTH, tooltip=tip))
    return inputs


def length_input() -> io.Input:
    tip = "Frames of the video, given ones included: 81 is five seconds. Rounded down to 4n+1."
    return io.Int.Input("length", default=81, min=1, max=MAX_LENGTH, step=4, tooltip=tip)


def image_inputs(name: str, prefix: str, tooltip: str) -> io.Input:
    image = io.Image.Input(prefix, tooltip=tooltip)
    return io.Autogrow.Input(
        name, io.Autogrow.TemplatePrefix(image, prefix, min=1, max=MAX_IMAGES), tooltip=tooltip
    )


def region_input() -> io.Input:
    tip = (
        "Where this control applies (white); elsewhere the model is free. Leave unconnected for the full "
        "frame."
    )
    return io.Mask.Input("region", optional=True, tooltip=tip)


def mask_shape_input(tooltip: str, optional: bool = False) -> io.Input:
    return io.Combo.Input(
        "mask_shape", options=list(MASK_SHAPES), default="original", optional=optional, tooltip=tooltip
    )


def guide_inputs() -> list[io.Input]:
    """Strength and span of a control; optional, at the end of a node's inputs."""
    moment = {"default": 0, "min": 0, "max": MAX_LENGTH, "optional": True}
    return [
        strength_input("How strongly this control steers the video. 1 is what the model was trained with."),
        io.Int.Input(
            "start_frame",
            tooltip=(
                "First frame that the control guides; before it the model is free. Rounded to latent frames."
            ),
            **moment,
        ),
        io.Int.Input(
            "end_frame",
            tooltip="First frame that is free again; 0 guides to the end. Rounded to latent frames.",
            **moment,
        ),
    ]


def strength_input(tooltip: str) -> io.Input:
    return io.Float.Input(
        "strength", default=1.0, min=0.0, max=MAX_STRENGTH, step=0.05, optional=True, tooltip=tooltip
    )


def box_inputs() -> list[io.Input]:
    """Optional inputs of nodes that read boxes: colors, and the size of a box on a path."""
    side = "of the box that is carried along a path, in pixels; only for boxes given by two numbers."
    limits = {"default": 128, "min": 1, "max": MAX_SIDE, "optional": True}
    return [
        io.String.Input(
            "colors",
            default="",
            optional=True,
            tooltip=(
                "Colors of the outlines, separated by commas: names or #rrggbb, one for all or one for each "
                "object. Empty: black."
            ),
        ),
        io.Int.Input("box_width", tooltip=f"Width {side}", **limits),
        io.Int.Input("box_height", tooltip=f"Height {side}", **limits),
    ]


def guide_arguments(strength: float, start_frame: int, end_frame: int) -> dict:
    """Widget values of `guide_inputs` as builder arguments: an end of 0 is the video's."""
    return {"strength": strength, "start": start_frame or None, "end": end_frame or None}


def task_schema(
    node_id: str, name: str, description: str, inputs: list[io.Input], aliases: list[str]
) -> io.Schema:
    unit = VCUType.Output("unit", tooltip="The task, for VDOT Encode or VDOT Compose.")
    return io.Schema(
        node_id=node_id,
        display_name=name,
        category=CATEGORY,
        description=description,
        search_aliases=aliases,
        inputs=inputs,
        outputs=[unit],
    )


def size_arguments(width: int, height: int, length: int | None = None) -> dict:
    """Widget values as builder arguments: 0 means that the clip decides."""
    size = {"width": width or None, "height": height or None}
    return size if length is None else {**size, "num_frames": length or None}


def unit_output(unit, lines: Sequence[str] = ()) -> io.NodeOutput:
    """The unit, with its picture, further lines, and its notes, which the builder has logged already."""
    from ..vdot_core import vcu

    text = [str(unit), *lines, *unit.notes]
    if not any(unit.strengths):
        text.append("strength is 0 in the entire video: this task has no effect; raise it, or disconnect it")
    return io.NodeOutput(unit, ui={"text": text, **strip_ui(vcu.strip(unit))})


def strip_ui(strip, kind: str = "task") -> dict:
    """A `vdot_core.vcu.Strip` as the part of a node's UI output that js/strip.js shows."""
    sent = {
        "version": STRIP_VERSION,
        "kind": kind,
        "image": f"data:image/webp;base64,{b64encode(strip.webp).decode()}",
        "frames": strip.frames,
        "references": strip.num_references,
    }
    return {"vdot_strip": [json.dumps(sent)]}  # as text: ComfyUI's queue takes dicts for files


def connected(inputs: dict | None) -> list:
    """Connected values of growing inputs, in order."""
    return [value for value in (inputs or {}).values() if value is not None]


def connected_names(inputs: dict | None) -> list[str]:
    """The names of what `connected` lists, as the node shows them."""
    return [name for name, value in (inputs or {}).items() if value is not None]


def flatten(images: dict) -> list:
    """Single images [H, W, C] of growing inputs, in order; each input may hold a batch."""
    return [image for batch in connected(images) for image in batch]


def flat_names(images: dict) -> list[str]:
    """Names of the images of `flatten` in messages: the input's name, and the number in a batch."""
    names = []
    for name, batch in images.items():
        if batch is not None:
            single = len(batch) == 1
            names += [name if single else f"{name} (picture {number + 1})" for number in range(len(batch))]
    return names


def check_batches(num_items: int, num_inputs: int, num_places: int) -> None:
    """Refuse one position for each clip where every picture counts."""
    if num_places == num_inputs < num_items:
        raise ValueError(
            f"the inputs hold {counted(num_items, 'picture')} for {counted(num_places, 'position')}; turn "
            "clips on for one position for each input, or give one for every picture"
        )
