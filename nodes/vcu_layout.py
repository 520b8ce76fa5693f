"""Boxes, paths and tracked masks -> VCU: positions of objects, and the path of an image's subject."""

from comfy_api.latest import io

from ..vdot_core.choices import MAX_LINE_WIDTH
from .guard import CheckedNode
from .inputs import (
    MAX_IMAGES,
    MAX_LENGTH,
    MAX_SIDE,
    box_inputs,
    connected,
    connected_names,
    fit_inputs,
    guide_arguments,
    guide_inputs,
    length_input,
    mask_shape_input,
    size_arguments,
    strength_input,
    task_schema,
    unit_output,
)
from .sizes import CANVAS_RULE, IMAGE_RULE, Canvas, canvas_of, shape_of, size_input
from .tracks import Rescale, boxes_from_text, checked_before_run, colors_from_text, things_from_text

WRITTEN_RULE = (
    "Boxes, start_frame and end_frame are written for the width, height and length set here, and moved "
    "along; with masks, start_frame and end_frame count the masks' frames."
)
FIRST_BOX = "The first box is drawn in frame 1, since frame 0 is the image."


class VDOTLayout(CheckedNode):
    """Boxes or contours on white."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = (
            "Sets where objects are over time: draws boxes from numbers or a path, or the contours of "
            "tracked masks, on white as the model was trained."
        )
        mask = io.Mask.Input("mask", tooltip="One thing's mask in every frame, as a tracker gives it.")
        template = io.Autogrow.TemplatePrefix(mask, "mask", min=0, max=MAX_IMAGES)
        inputs = [
            _boxes_input("Leave empty where masks are connected."),
            *_canvas_inputs(),
            io.Autogrow.Input(
                "masks", template, tooltip="Tracked masks instead of boxes, one input for each thing."
            ),
            *box_inputs(),
            mask_shape_input(
                "For masks: draw their contour (original), their hull or their box.", optional=True
            ),
            io.Int.Input(
                "line_width",
                default=0,
                min=0,
                max=MAX_LINE_WIDTH,
                optional=True,
                advanced=True,
                tooltip=(
                    "Thickness of the outlines as OpenCV counts it: 1, 2 and 3 paint 1, 3 and 5 pixels. 0 is "
                    "as the model was trained: 2 for boxes, 3 for masks."
                ),
            ),
            *guide_inputs(),
            size_input(f"{CANVAS_RULE} {WRITTEN_RULE}"),
            io.Image.Input(
                "picture",
                optional=True,
                lazy=True,
                tooltip=(
                    "A picture or clip to draw the boxes over, on this node alone: the video gets nothing of "
                    "it."
                ),
            ),
        ]
        aliases = ["bounding box", "trajectory", "track", "path", "regional"]
        return task_schema("VDOTLayout", "VDOT Layout", description, inputs, aliases)

    @classmethod
    def validate_inputs(cls, boxes: str | None = None, masks=None) -> bool | str:
        # ComfyUI passes growing inputs always.
        return not (boxes or "").strip() or checked_before_run(things_from_text, boxes)

    @classmethod
    def execute(
        cls,
        boxes,
        width,
        height,
        length,
        masks=None,
        colors="",
        box_width=128,
        box_height=128,
        mask_shape="original",
        line_width=0,
        strength=1.0,
        start_frame=0,
        end_frame=0,
        size=None,
        picture=None,
    ) -> io.NodeOutput:
        style = guide_arguments(strength, start_frame, end_frame)
        if line_width:
            style["line_width"] = line_width
        numbers = (width, height, length)
        if connected(masks):
            return _from_masks(boxes, masks, colors, mask_shape, numbers, style, size)
        return _from_boxes(boxes, colors, (box_width, box_height), numbers, style, size)


class VDOTMove(CheckedNode):
    """An image whose subject follows boxes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = (
            "Sets an image in motion: it is the first frame, and boxes say where its subject goes. Let the "
            "first box surround the subject in the image."
        )
        inputs = [
            io.Image.Input("image", tooltip="The first frame: one image."),
            _boxes_input(FIRST_BOX),
            length_input(),
            *fit_inputs(length=False),
            *box_inputs(),
            strength_input("How strongly image and boxes steer the video. 1 is as the model was trained."),
            size_input(f"{IMAGE_RULE} Boxes are written for the size and length without it."),
        ]
        aliases = ["animate", "drag", "trajectory", "motion brush", "image to video"]
        return task_schema("VDOTMove", "VDOT Move", description, inputs, aliases)

    @classmethod
    def validate_inputs(cls, boxes: str | None = None) -> bool | str:
        return checked_before_run(things_from_text, boxes)

    @classmethod
    def execute(
        cls,
        image,
        boxes,
        length,
        width,
        height,
        colors="",
        box_width=128,
        box_height=128,
        strength=1.0,
        size=None,
    ) -> io.NodeOutput:
        from ..vdot_core import vcu

        shape = shape_of(image)
        canvas = canvas_of(size, width, height, length, shape)
        rescale = None if size is None else rescaling(canvas, (width, height, length), shape)
        box_size = box_width, box_height
        things = boxes_from_text(boxes, box_size, canvas.num_frames, first=1, rescale=rescale)
        colors = colors_from_text(colors, len(things))
        unit = vcu.move(image, things, colors=colors, strength=strength, **canvas.arguments)
        return unit_output(unit, canvas.lines)


def _boxes_input(more: str = "") -> io.Input:
    tooltip = (
        "One line for each moment, frame: left, top, right, bottom, in pixels of the video; between them the "
        "box moves evenly. Two numbers are the middle of a box: a path. An empty line begins the next thing. "
    )
    return io.String.Input(
        "boxes",
        multiline=True,
        default="",
        placeholder="0: 80, 200, 240, 420\n-1: 560, 200, 720, 420",
        tooltip=(tooltip + more).strip(),
    )


def _canvas_inputs() -> list[io.Input]:
    """Size and length, which masks may bring along."""
    rule = "0 takes it from the masks."
    return [
        io.Int.Input(
            name,
            default=default,
            min=0,
            max=most,
            step=step,
            tooltip=f"{what} of the video. {rule} {rounding}",
        )
        for name, what, default, most, step, rounding in (
            ("width", "Width", 832, MAX_SIDE, 16, "Rounded down to a multiple of 16."),
            ("height", "Height", 480, MAX_SIDE, 16, "Rounded down to a multiple of 16."),
            ("length", "Number of frames", 81, MAX_LENGTH, 1, "Rounded down to 4n+1."),
        )
    ]


def rescaling(canvas: Canvas, numbers: tuple[int, int, int], shape: tuple[int, int]) -> Rescale:
    """From the widgets' width, height and length to a canvas; of a 0, `shape` is meant."""
    width, height = numbers[0] or shape[0], numbers[1] or shape[1]
    return Rescale(numbers[2], canvas.num_frames, canvas.width / width, canvas.height / height)


def _from_masks(boxes: str, masks: dict, colors: str, mask_shape: str, numbers: tuple, style: dict, size):
    from ..vdot_core import vcu

    names, masks = connected_names(masks), connected(masks)
    if boxes.strip():
        raise ValueError("boxes has text and masks are connected; empty the one or disconnect the other")
    lines = ()
    if size is not None:
        canvas = canvas_of(size, 0, 0, numbers[2] or max(map(len, masks)), shape_of(masks[0]))
        numbers, lines = (canvas.width, canvas.height, canvas.num_frames), canvas.lines
    unit = vcu.layout_masks(
        masks,
        colors=colors_from_text(colors, len(masks)),
        mask_shape=mask_shape,
        names=names,
        **style,
        **size_arguments(*numbers),
    )
    return unit_output(unit, lines)


def _from_boxes(boxes: str, colors: str, box_size: tuple, numbers: tuple, style: dict, size):
    from ..vdot_core import vcu

    if not all(numbers):
        raise ValueError(
            f"width, height and length are {numbers[0]}, {numbers[1]} and {numbers[2]}; boxes have no size "
            "of their own to take for a 0: set all three, or connect masks"
        )
    canvas, lines = canvas_of(size, *numbers), []
    rescale = None if size is None else rescaling(canvas, numbers, numbers[:2])
    if rescale is not None:
        start, end, lines = rescale.span(style["start"], style["end"])
        style |= {"start": start, "end": end}
    things = boxes_from_text(boxes, box_size, canvas.num_frames, rescale=rescale)
    colors = colors_from_text(colors, len(things))
    unit = vcu.layout(things, colors=colors, **canvas.arguments, **style)
    return unit_output(unit, (*canvas.lines, *lines))
