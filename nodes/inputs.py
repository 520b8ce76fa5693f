"""What the task nodes share: the VDOT_VCU type, recurring inputs, and what builders take them as."""

from comfy_api.latest import io

VCUType = io.Custom("VDOT_VCU")
CATEGORY = "VDOT/tasks"
MAX_SIDE = 8192
MAX_LENGTH = 8193
MAX_IMAGES = 8


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
    """Size (and length) of a video that may take them from its clip: 0 leaves it to the clip."""
    rule = "0 takes it from the clip. Rounded down to a multiple of 16; the clip is scaled and cropped."
    inputs: list[io.Input] = [
        io.Int.Input(
            name, default=0, min=0, max=MAX_SIDE, step=16, tooltip=f"{name.capitalize()} of the video. {rule}"
        )
        for name in ("width", "height")
    ]
    if length:
        tip = "Number of frames, 4n+1. 0 takes it from the clip; what a shorter clip leaves is made anew."
        inputs.append(io.Int.Input("length", default=0, min=0, max=MAX_LENGTH, tooltip=tip))
    return inputs


def length_input() -> io.Input:
    tip = "Frames of the whole video, the given ones included: 81 is five seconds. Rounded down to 4n+1."
    return io.Int.Input("length", default=81, min=1, max=MAX_LENGTH, step=4, tooltip=tip)


def image_inputs(name: str, prefix: str, tooltip: str) -> io.Input:
    image = io.Image.Input(prefix, tooltip=tooltip)
    return io.Autogrow.Input(
        name, io.Autogrow.TemplatePrefix(image, prefix, min=1, max=MAX_IMAGES), tooltip=tooltip
    )


def region_input() -> io.Input:
    tip = "Where this control speaks (white); elsewhere the model is free. Leave open for the whole picture."
    return io.Mask.Input("region", optional=True, tooltip=tip)


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


def unit_output(unit) -> io.NodeOutput:
    """The unit, and what was changed to make it fit; the builder has logged that already."""
    return io.NodeOutput(unit, ui={"text": [str(unit), *unit.notes]})


def flatten(images: dict) -> list:
    """Single images [H, W, C] of growing inputs, in order; each input may hold a batch."""
    return [image for batch in images.values() if batch is not None for image in batch]
