"""Images, masks and references -> VCU: one node for each way of telling the model what to do."""

from comfy_api.latest import io

VCUType = io.Custom("VDOT_VCU")
CATEGORY = "VDOT/tasks"
MAX_SIDE = 8192
MAX_LENGTH = 8193
MAX_IMAGES = 8
# As in vdot_core.vcu, which is not imported before a node runs.
NORMALISATIONS = ("frame", "clip", "none")
MASK_SHAPES = ("original", "hull", "box")


def _canvas(width: int = 832, height: int = 480, length: int = 81) -> list[io.Input]:
    """Size and length of a video that has no clip to take them from."""
    side = "of the video in pixels. Rounded down to a multiple of 16."
    tip = "Number of frames, 16 a second: 81 is five seconds. Rounded down to 4n+1 (1, 5, .., 77, 81)."
    return [
        io.Int.Input("width", default=width, min=16, max=MAX_SIDE, step=16, tooltip=f"Width {side}"),
        io.Int.Input("height", default=height, min=16, max=MAX_SIDE, step=16, tooltip=f"Height {side}"),
        io.Int.Input("length", default=length, min=1, max=MAX_LENGTH, step=4, tooltip=tip),
    ]


def _fit(length: bool = True) -> list[io.Input]:
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


def _length() -> io.Input:
    tip = "Frames of the whole video, the given ones included: 81 is five seconds. Rounded down to 4n+1."
    return io.Int.Input("length", default=81, min=1, max=MAX_LENGTH, step=4, tooltip=tip)


def _images(name: str, prefix: str, tooltip: str) -> io.Input:
    image = io.Image.Input(prefix, tooltip=tooltip)
    return io.Autogrow.Input(
        name, io.Autogrow.TemplatePrefix(image, prefix, min=1, max=MAX_IMAGES), tooltip=tooltip
    )


def _region() -> io.Input:
    tip = "Where this control speaks (white); elsewhere the model is free. Leave open for the whole picture."
    return io.Mask.Input("region", optional=True, tooltip=tip)


def _schema(
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


def _size(width: int, height: int, length: int | None = None) -> dict:
    """Widget values as builder arguments: 0 means that the clip decides."""
    size = {"width": width or None, "height": height or None}
    return size if length is None else {**size, "num_frames": length or None}


def _output(unit) -> io.NodeOutput:
    """The unit, and what was changed to make it fit; the builder has logged that already."""
    return io.NodeOutput(unit, ui={"text": [str(unit), *unit.notes]})


def _flatten(images: dict) -> list:
    """Single images [H, W, C] of growing inputs, in order; each input may hold a batch."""
    return [image for batch in images.values() if batch is not None for image in batch]


class VDOTText(io.ComfyNode):
    """Text alone."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = "A video from the text alone. Sets only its size and length."
        return _schema(
            "VDOTText", "VDOT Text", description, _canvas(), ["text to video", "t2v", "empty latent"]
        )

    @classmethod
    def execute(cls, width, height, length) -> io.NodeOutput:
        from ..vdot_core import vcu

        return _output(vcu.text(width, height, length))


class VDOTControl(io.ComfyNode):
    """Any drawn control clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = (
            "Lets a control clip guide the video: pose, scribble (bright lines on black), optical flow, "
            "grey or boxes. The clip is used as it is, so draw it with a preprocessor first; for depth use "
            "VDOT Depth."
        )
        frames = io.Image.Input("frames", tooltip="The control clip, one image per frame.")
        inputs = [frames, *_fit(), _region()]
        return _schema(
            "VDOTControl", "VDOT Control", description, inputs, ["pose", "scribble", "flow", "controlnet"]
        )

    @classmethod
    def execute(cls, frames, width, height, length, region=None) -> io.NodeOutput:
        from ..vdot_core import vcu

        return _output(vcu.control(frames, region=region, **_size(width, height, length)))


class VDOTDepth(io.ComfyNode):
    """Depth from any estimator."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = (
            "Lets depth guide the video: the same space, filled with what the text says. Takes any depth "
            "estimator's output and brings it to the range the model knows, near bright and far dark."
        )
        inputs = [
            io.Image.Input("depth", tooltip="The depth clip, grey; near should be bright (else set invert)."),
            io.Combo.Input(
                "normalisation",
                options=list(NORMALISATIONS),
                default="frame",
                tooltip=(
                    "frame: each frame from black to white, as the model was trained. clip: the whole clip "
                    "at once, steadier when things enter or leave. none: the values as they are."
                ),
            ),
            io.Boolean.Input("invert", default=False, tooltip="Turn on if near is dark in your depth clip."),
            *_fit(),
            _region(),
        ]
        return _schema("VDOTDepth", "VDOT Depth", description, inputs, ["depth control", "depth to video"])

    @classmethod
    def execute(cls, depth, normalisation, invert, width, height, length, region=None) -> io.NodeOutput:
        from ..vdot_core import vcu

        size = _size(width, height, length)
        depth = depth[..., :3]  # a fourth channel is alpha, which a depth clip has no use for
        return _output(vcu.depth(depth, normalisation=normalisation, invert=invert, region=region, **size))


class VDOTMask(io.ComfyNode):
    """Inpainting."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = (
            "Keeps a clip and makes the masked part anew: remove, replace or repair things. What was under "
            "the mask is hidden from the model, whatever colour it has."
        )
        inputs = [
            io.Image.Input("frames", tooltip="The clip to change."),
            io.Mask.Input(
                "mask", tooltip="What to make anew (white): one mask for all frames, or one per frame."
            ),
            io.Combo.Input(
                "mask_shape",
                options=list(MASK_SHAPES),
                default="original",
                tooltip=(
                    "original: the mask as it is. hull or box: coarser, so that its outline does not give "
                    "away the old shape; use these to remove or swap things."
                ),
            ),
            io.Float.Input(
                "expand",
                default=0.0,
                min=0.0,
                max=10.0,
                step=0.05,
                tooltip="Grow the mask by this part of its size on each side; 0.3 is usual for removing.",
            ),
            *_fit(),
        ]
        return _schema(
            "VDOTMask", "VDOT Mask (Inpaint)", description, inputs, ["inpaint", "remove", "swap", "replace"]
        )

    @classmethod
    def execute(cls, frames, mask, mask_shape, expand, width, height, length) -> io.NodeOutput:
        from ..vdot_core import vcu

        size = _size(width, height, length)
        return _output(vcu.inpaint(frames, mask, mask_shape=mask_shape, expand=expand, **size))


class VDOTOutpaint(io.ComfyNode):
    """Outpainting."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = "Keeps a clip and paints what lies beyond its borders."
        tip = "Pixels of the clip's own scale to add on this side."
        sides = [
            io.Int.Input(side, default=0, min=0, max=MAX_SIDE, step=8, tooltip=tip)
            for side in ("left", "right", "top", "bottom")
        ]
        inputs = [io.Image.Input("frames", tooltip="The clip to widen."), *sides, *_fit()]
        return _schema("VDOTOutpaint", "VDOT Outpaint", description, inputs, ["expand canvas", "uncrop"])

    @classmethod
    def execute(cls, frames, left, right, top, bottom, width, height, length) -> io.NodeOutput:
        from ..vdot_core import vcu

        margins = {"left": left, "right": right, "top": top, "bottom": bottom}
        return _output(vcu.outpaint(frames, **margins, **_size(width, height, length)))


class VDOTExtend(io.ComfyNode):
    """Continuation in time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = (
            "Continues a clip, leads up to one, or fills the gap between two. A single image works as a "
            "clip of one frame: connect it to first for image-to-video, to both for first-and-last-frame."
        )
        inputs = [
            _length(),
            *_fit(length=False),
            io.Image.Input("first", optional=True, tooltip="How the video begins: an image or a clip."),
            io.Image.Input("last", optional=True, tooltip="How the video ends: an image or a clip."),
        ]
        aliases = ["image to video", "i2v", "first frame", "last frame", "continue"]
        return _schema("VDOTExtend", "VDOT Extend", description, inputs, aliases)

    @classmethod
    def execute(cls, length, width, height, first=None, last=None) -> io.NodeOutput:
        from ..vdot_core import vcu

        return _output(vcu.extend(first, last, num_frames=length, **_size(width, height)))


class VDOTKeyframes(io.ComfyNode):
    """Images at chosen moments."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = "Puts images at chosen moments of the video and makes everything between them."
        tip = "Frame number of each image, in order, separated by commas. 0 is the first frame, -1 the last."
        inputs = [
            _images("images", "image", "The keyframes in order; a batch counts as several."),
            io.String.Input("positions", default="0, -1", tooltip=tip),
            _length(),
            *_fit(length=False),
        ]
        return _schema(
            "VDOTKeyframes",
            "VDOT Keyframes",
            description,
            inputs,
            ["in-between", "interpolate", "storyboard"],
        )

    @classmethod
    def execute(cls, images, positions, length, width, height) -> io.NodeOutput:
        from ..vdot_core import vcu

        indices = _numbers(positions)
        return _output(vcu.keyframes(_flatten(images), indices, num_frames=length, **_size(width, height)))


class VDOTReference(io.ComfyNode):
    """Subjects to show."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = (
            "Shows the model people or things to put into the video, one picture each. The whole picture is "
            "used, on white; a mask cuts the subject out, which works best. Connect a unit to add the "
            "references to it."
        )
        mask = io.Mask.Input("mask", tooltip="The subject (white) of the picture with the same number.")
        masks = io.Autogrow.TemplatePrefix(mask, "mask", min=0, max=MAX_IMAGES)
        unit = "A task to add the references to. Size and length are then taken from it."
        inputs = [
            _images("images", "image", "Pictures of the subjects; a batch counts as several."),
            *_canvas(),
            io.Autogrow.Input(
                "masks", masks, tooltip="The subjects (white) of the pictures, in the same order."
            ),
            VCUType.Input("unit", optional=True, tooltip=unit),
        ]
        return _schema(
            "VDOTReference", "VDOT Reference", description, inputs, ["r2v", "subject", "face", "ip adapter"]
        )

    @classmethod
    def execute(cls, images, width, height, length, masks=None, unit=None) -> io.NodeOutput:
        from ..vdot_core import vcu

        if unit is not None:
            width, height, length = unit.width, unit.height, unit.num_frames
        size = {"width": width, "height": height, "num_frames": length}
        references = vcu.reference(_flatten(images), masks=_flatten(masks or {}) or None, **size)
        return _output(references if unit is None else vcu.compose(unit, references))


class VDOTCompose(io.ComfyNode):
    """Several units in one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = (
            "Joins several tasks into one, such as a first frame with a pose clip, or a masked clip with "
            "references. They need one size and length. Two controls need regions that do not overlap."
        )
        tip = "The tasks to join. Their order only matters between two of one kind: the later wins."
        unit = VCUType.Input("unit", tooltip=tip)
        template = io.Autogrow.TemplatePrefix(unit, "unit", min=2, max=MAX_IMAGES)
        inputs = [io.Autogrow.Input("units", template, tooltip=tip)]
        return _schema(
            "VDOTCompose", "VDOT Compose", description, inputs, ["combine", "merge", "multi control"]
        )

    @classmethod
    def execute(cls, units) -> io.NodeOutput:
        from ..vdot_core import vcu

        return _output(vcu.compose(*[unit for unit in units.values() if unit is not None]))


def _numbers(text: str) -> list[int]:
    """'0, 40, -1' -> [0, 40, -1]."""
    try:
        return [int(part) for part in text.replace(";", ",").split(",") if part.strip()]
    except ValueError:
        raise ValueError(
            f"positions is {text!r}; give whole numbers separated by commas, such as 0, 40, -1"
        ) from None
