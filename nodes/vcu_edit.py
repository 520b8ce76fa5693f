"""Clips and images that are kept -> VCU: in space (mask, outpaint) and in time (extend, keyframes)."""

from comfy_api.latest import io

from .guard import CheckedNode
from .inputs import (
    MAX_SIDE,
    check_batches,
    connected,
    connected_names,
    fit_inputs,
    flat_names,
    flatten,
    image_inputs,
    length_input,
    mask_shape_input,
    size_arguments,
    task_schema,
    unit_output,
)
from .sizes import IMAGE_RULE, Canvas, canvas_of, shape_of, size_input
from .tracks import Rescale, checked_before_run, numbers_from_text

MARGIN_MODES = ("pixels", "percent", "aspect")


class VDOTMask(CheckedNode):
    """Inpainting: `vdot_core.vcu.inpaint`, whose units are of the kind 'repaint'."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = (
            "Keeps a clip and regenerates the masked region: remove, replace or repair things. The "
            "content under the mask is hidden from the model."
        )
        inputs = [
            io.Image.Input("frames", tooltip="The clip to change."),
            io.Mask.Input(
                "mask", tooltip="The region to regenerate (white): one mask for all frames, or one per frame."
            ),
            mask_shape_input(
                "original: the mask as it is. hull or box: coarser, so that its outline does not give "
                "away the old shape; use these to remove or swap things."
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
            *_coarsen_inputs(),
        ]
        return task_schema(
            "VDOTMask", "VDOT Mask (Inpaint)", description, inputs, ["inpaint", "remove", "swap", "replace"]
        )

    @classmethod
    def execute(
        cls, frames, mask, mask_shape, expand, width, height, length, still=False, grow_px=0, blur_px=0.0
    ) -> io.NodeOutput:
        from ..vdot_core import vcu

        unit = vcu.inpaint(
            frames,
            mask,
            mask_shape=mask_shape,
            expand=expand,
            grow_px=grow_px,
            blur_px=blur_px,
            still=still,
            **size_arguments(width, height, length),
        )
        return unit_output(unit)


OUTPAINT_RULE = (
    "the video gets the model's own size in the shape of the widened clip (or of width and height), and is "
    "at most as long as what the model was made for."
)


class VDOTOutpaint(CheckedNode):
    """Outpainting."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = (
            "Keeps a clip and generates the area beyond its borders: by pixels or percent on each side, or "
            "to a given aspect ratio. A single image gives the video's first frame."
        )
        tip = (
            "How much to add on this side: pixels of the clip's own scale, or percent of its width or height."
        )
        sides = [
            io.Int.Input(side, default=0, min=0, max=MAX_SIDE, tooltip=tip)
            for side in ("left", "right", "top", "bottom")
        ]
        inputs = [
            io.Image.Input("frames", tooltip="The clip to widen."),
            *sides,
            *fit_inputs(),
            *_margin_inputs(),
            size_input(OUTPAINT_RULE),
        ]
        return task_schema("VDOTOutpaint", "VDOT Outpaint", description, inputs, ["expand canvas", "uncrop"])

    @classmethod
    def execute(
        cls,
        frames,
        left,
        right,
        top,
        bottom,
        width,
        height,
        length,
        mode="pixels",
        aspect="16:9",
        anchor_x=0.5,
        anchor_y=0.5,
        feather_px=0,
        size=None,
    ) -> io.NodeOutput:
        from ..vdot_core import vcu

        margins = _sides(mode, left=left, right=right, top=top, bottom=bottom)
        margins |= {"aspect": aspect if mode == "aspect" else None, "anchor": (anchor_x, anchor_y)}
        canvas = _outpaint_canvas(frames, margins, (width, height, length), size)
        unit = vcu.outpaint(frames, **margins, feather_px=feather_px, **canvas.arguments)
        return unit_output(unit, canvas.lines)


def _outpaint_canvas(frames, margins: dict, numbers: tuple[int, int, int], size) -> Canvas:
    """The widgets' size and length, or the model's in the shape of the widened clip."""
    from ..vdot_core import vcu

    width, height, length = numbers
    if size is None:
        return Canvas(width, height, length or None)
    shape = vcu.widened_shape(frames, **margins)
    return canvas_of(size, width, height, length or len(frames), shape)


class VDOTExtend(CheckedNode):
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
            size_input(IMAGE_RULE),
        ]
        aliases = ["image to video", "i2v", "first frame", "last frame", "continue"]
        return task_schema("VDOTExtend", "VDOT Extend", description, inputs, aliases)

    @classmethod
    def execute(cls, length, width, height, first=None, last=None, size=None) -> io.NodeOutput:
        from ..vdot_core import vcu

        canvas = canvas_of(size, width, height, length, shape_of(last if first is None else first))
        return unit_output(vcu.extend(first, last, **canvas.arguments), canvas.lines)


class VDOTKeyframes(CheckedNode):
    """Images or clips at chosen moments."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = (
            "Puts images or clips at chosen moments of the video and generates everything between them."
        )
        tip = (
            "Frame number of each image, in order, separated by commas. 0 is the first frame, -1 the last. A "
            "clip begins there; with a negative number it ends there."
        )
        inputs = [
            image_inputs("images", "image", "The keyframes in order; a batch counts as several."),
            io.String.Input("positions", default="0, -1", tooltip=tip),
            length_input(),
            *fit_inputs(length=False),
            io.Boolean.Input(
                "clips",
                default=False,
                optional=True,
                tooltip="On: a batch is a clip that stays together and has one position.",
            ),
            size_input(f"{IMAGE_RULE} Positions are moved along."),
        ]
        return task_schema(
            "VDOTKeyframes",
            "VDOT Keyframes",
            description,
            inputs,
            ["in-between", "interpolate", "storyboard"],
        )

    @classmethod
    def validate_inputs(cls, positions: str | None = None, images=None) -> bool | str:
        # ComfyUI passes growing inputs always.
        return checked_before_run(numbers_from_text, positions)

    @classmethod
    def execute(cls, images, positions, length, width, height, clips=False, size=None) -> io.NodeOutput:
        from ..vdot_core import vcu

        items = connected(images) if clips else flatten(images)
        names = connected_names(images) if clips else flat_names(images)
        canvas = canvas_of(size, width, height, length, shape_of(next(iter(connected(images)), None)))
        move = Rescale(length, canvas.num_frames).frame
        places = [move(place) for place in numbers_from_text(positions)]
        check_batches(len(items), len(connected(images)), len(places))
        unit = vcu.keyframes(items, places, names=names, **canvas.arguments)
        return unit_output(unit, canvas.lines)


def _coarsen_inputs() -> list[io.Input]:
    return [
        io.Boolean.Input(
            "still",
            default=False,
            optional=True,
            tooltip=(
                "Use the union of all frames' masks in every frame, so that the mask's motion reveals "
                "nothing."
            ),
        ),
        io.Int.Input(
            "grow_px",
            default=0,
            min=-1024,
            max=1024,
            optional=True,
            tooltip="Grow the mask by this many pixels of the clip; negative shrinks it.",
        ),
        io.Float.Input(
            "blur_px",
            default=0.0,
            min=0.0,
            max=128.0,
            step=0.5,
            optional=True,
            tooltip="Round the mask's outline over this many pixels. The mask stays binary, as in training.",
        ),
    ]


def _sides(mode: str, **values: int) -> dict[str, int | float]:
    """Margins by side as `vcu.outpaint` takes them: integers are pixels, floats shares of the clip's side."""
    return {name: value / 100 if mode == "percent" else value for name, value in values.items()}


def _margin_inputs() -> list[io.Input]:
    anchor = {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.05, "optional": True, "advanced": True}
    return [
        io.Combo.Input(
            "mode",
            options=list(MARGIN_MODES),
            default="pixels",
            optional=True,
            tooltip=(
                "How left, right, top and bottom are meant: pixels, or percent of the clip's side. aspect: "
                "leave them at 0, the clip is widened to the shape below."
            ),
        ),
        io.String.Input(
            "aspect",
            default="16:9",
            optional=True,
            tooltip="Width to height of the new picture, for the mode 'aspect' only: 16:9, 9:16, 1:1, 2.39.",
        ),
        io.Float.Input(
            "anchor_x",
            tooltip="Position of the clip in a picture given by aspect or size: 0 left, 1 right.",
            **anchor,
        ),
        io.Float.Input(
            "anchor_y",
            tooltip="Position of the clip in a picture given by aspect or size: 0 top, 1 bottom.",
            **anchor,
        ),
        io.Int.Input(
            "feather_px",
            default=0,
            min=0,
            max=1024,
            optional=True,
            tooltip="Regenerate this many pixels of the clip along each margin, which hides the seam.",
        ),
    ]
