"""Images, masks and references -> VCU: one node for each way of telling the model what to do."""

from comfy_api.latest import io

from .inputs import (
    MAX_IMAGES,
    MAX_SIDE,
    VCUType,
    canvas_inputs,
    fit_inputs,
    flatten,
    image_inputs,
    length_input,
    region_input,
    size_arguments,
    task_schema,
    unit_output,
)

# As in vdot_core.vcu, which is not imported before a node runs.
NORMALISATIONS = ("frame", "clip", "stable", "none")
MASK_SHAPES = ("original", "hull", "box")


class VDOTText(io.ComfyNode):
    """Text alone."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = "A video from the text alone. Sets only its size and length."
        return task_schema(
            "VDOTText", "VDOT Text", description, canvas_inputs(), ["text to video", "t2v", "empty latent"]
        )

    @classmethod
    def execute(cls, width, height, length) -> io.NodeOutput:
        from ..vdot_core import vcu

        return unit_output(vcu.text(width, height, length))


class VDOTControl(io.ComfyNode):
    """Any drawn control clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = (
            "Lets a control clip guide the video: pose, scribble (dark lines on white), optical flow, "
            "grey or boxes. The clip is used as it is, so draw it with a preprocessor first; for depth use "
            "VDOT Depth."
        )
        frames = io.Image.Input("frames", tooltip="The control clip, one image per frame.")
        inputs = [frames, *fit_inputs(), region_input()]
        return task_schema(
            "VDOTControl", "VDOT Control", description, inputs, ["pose", "scribble", "flow", "controlnet"]
        )

    @classmethod
    def execute(cls, frames, width, height, length, region=None) -> io.NodeOutput:
        from ..vdot_core import vcu

        return unit_output(vcu.control(frames, region=region, **size_arguments(width, height, length)))


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
                    "at once, steadier when things enter or leave. stable: also undoes the flicker of "
                    "estimators that look at one frame at a time. none: the values as they are."
                ),
            ),
            io.Boolean.Input("invert", default=False, tooltip="Turn on if near is dark in your depth clip."),
            *fit_inputs(),
            region_input(),
        ]
        return task_schema(
            "VDOTDepth", "VDOT Depth", description, inputs, ["depth control", "depth to video"]
        )

    @classmethod
    def execute(cls, depth, normalisation, invert, width, height, length, region=None) -> io.NodeOutput:
        from ..vdot_core import vcu

        size = size_arguments(width, height, length)
        depth = depth[..., :3]  # a fourth channel is alpha, which a depth clip has no use for
        return unit_output(
            vcu.depth(depth, normalisation=normalisation, invert=invert, region=region, **size)
        )


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
            *fit_inputs(),
        ]
        return task_schema(
            "VDOTMask", "VDOT Mask (Inpaint)", description, inputs, ["inpaint", "remove", "swap", "replace"]
        )

    @classmethod
    def execute(cls, frames, mask, mask_shape, expand, width, height, length) -> io.NodeOutput:
        from ..vdot_core import vcu

        size = size_arguments(width, height, length)
        return unit_output(vcu.inpaint(frames, mask, mask_shape=mask_shape, expand=expand, **size))


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
        inputs = [io.Image.Input("frames", tooltip="The clip to widen."), *sides, *fit_inputs()]
        return task_schema("VDOTOutpaint", "VDOT Outpaint", description, inputs, ["expand canvas", "uncrop"])

    @classmethod
    def execute(cls, frames, left, right, top, bottom, width, height, length) -> io.NodeOutput:
        from ..vdot_core import vcu

        margins = {"left": left, "right": right, "top": top, "bottom": bottom}
        return unit_output(vcu.outpaint(frames, **margins, **size_arguments(width, height, length)))


class VDOTExtend(io.ComfyNode):
    """Continuation in time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = (
            "Continues a clip, leads up to one, or fills the gap between two. A single image works as a "
            "clip of one frame: connect it to first for image-to-video, to both for first-and-last-frame."
        )
        inputs = [
            length_input(),
            *fit_inputs(length=False),
            io.Image.Input("first", optional=True, tooltip="How the video begins: an image or a clip."),
            io.Image.Input("last", optional=True, tooltip="How the video ends: an image or a clip."),
        ]
        aliases = ["image to video", "i2v", "first frame", "last frame", "continue"]
        return task_schema("VDOTExtend", "VDOT Extend", description, inputs, aliases)

    @classmethod
    def execute(cls, length, width, height, first=None, last=None) -> io.NodeOutput:
        from ..vdot_core import vcu

        return unit_output(vcu.extend(first, last, num_frames=length, **size_arguments(width, height)))


class VDOTKeyframes(io.ComfyNode):
    """Images at chosen moments."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = "Puts images at chosen moments of the video and makes everything between them."
        tip = "Frame number of each image, in order, separated by commas. 0 is the first frame, -1 the last."
        inputs = [
            image_inputs("images", "image", "The keyframes in order; a batch counts as several."),
            io.String.Input("positions", default="0, -1", tooltip=tip),
            length_input(),
            *fit_inputs(length=False),
        ]
        return task_schema(
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
        return unit_output(
            vcu.keyframes(flatten(images), indices, num_frames=length, **size_arguments(width, height))
        )


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
            image_inputs("images", "image", "Pictures of the subjects; a batch counts as several."),
            *canvas_inputs(),
            io.Autogrow.Input(
                "masks", masks, tooltip="The subjects (white) of the pictures, in the same order."
            ),
            VCUType.Input("unit", optional=True, tooltip=unit),
        ]
        return task_schema(
            "VDOTReference", "VDOT Reference", description, inputs, ["r2v", "subject", "face", "ip adapter"]
        )

    @classmethod
    def execute(cls, images, width, height, length, masks=None, unit=None) -> io.NodeOutput:
        from ..vdot_core import vcu

        if unit is not None:
            width, height, length = unit.width, unit.height, unit.num_frames
        size = {"width": width, "height": height, "num_frames": length}
        references = vcu.reference(flatten(images), masks=flatten(masks or {}) or None, **size)
        return unit_output(references if unit is None else vcu.compose(unit, references))


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
        return task_schema(
            "VDOTCompose", "VDOT Compose", description, inputs, ["combine", "merge", "multi control"]
        )

    @classmethod
    def execute(cls, units) -> io.NodeOutput:
        from ..vdot_core import vcu

        return unit_output(vcu.compose(*[unit for unit in units.values() if unit is not None]))


def _numbers(text: str) -> list[int]:
    """'0, 40, -1' -> [0, 40, -1]."""
    try:
        return [int(part) for part in text.replace(";", ",").split(",") if part.strip()]
    except ValueError:
        raise ValueError(
            f"positions is {text!r}; give whole numbers separated by commas, such as 0, 40, -1"
        ) from None
