"""Text and controls -> VCU; nodes that join, weight and preview units."""

from comfy_api.latest import io, ui

from ..vdot_core.choices import ALL_STEPS, NORMALIZATIONS
from .guard import CheckedNode
from .inputs import (
    CATEGORY,
    MAX_IMAGES,
    VCUType,
    canvas_inputs,
    connected,
    connected_names,
    fit_inputs,
    guide_arguments,
    guide_inputs,
    region_input,
    size_arguments,
    task_schema,
    unit_output,
)
from .sizes import CANVAS_RULE, canvas_of, size_input
from .tracks import checked_before_run, curve_from_text


class VDOTText(CheckedNode):
    """Text alone."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = "A video from the text alone. Sets only its size and length."
        inputs = [*canvas_inputs(), size_input(CANVAS_RULE)]
        return task_schema(
            "VDOTText", "VDOT Text", description, inputs, ["text to video", "t2v", "empty latent"]
        )

    @classmethod
    def execute(cls, width, height, length, size=None) -> io.NodeOutput:
        from ..vdot_core import vcu

        canvas = canvas_of(size, width, height, length)
        return unit_output(vcu.text(canvas.width, canvas.height, canvas.num_frames), canvas.lines)


class VDOTControl(CheckedNode):
    """Any drawn control clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = (
            "Lets a control clip guide the video: pose, scribble (dark lines on white), optical flow, gray "
            "or boxes. The clip is used as it is, so draw it with a preprocessor first; for depth use "
            "VDOT Depth."
        )
        frames = io.Image.Input("frames", tooltip="The control clip, one image per frame.")
        inputs = [frames, *fit_inputs(), region_input(), *guide_inputs()]
        return task_schema(
            "VDOTControl", "VDOT Control", description, inputs, ["pose", "scribble", "flow", "controlnet"]
        )

    @classmethod
    def execute(
        cls, frames, width, height, length, region=None, strength=1.0, start_frame=0, end_frame=0
    ) -> io.NodeOutput:
        from ..vdot_core import vcu

        size = size_arguments(width, height, length)
        guide = guide_arguments(strength, start_frame, end_frame)
        return unit_output(vcu.control(frames, region=region, **size, **guide))


class VDOTDepth(CheckedNode):
    """Depth from any estimator."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = (
            "Lets depth guide the video: the same space, filled with what the text says. Takes any depth "
            "estimator's output and brings it to the range the model knows, near bright and far dark."
        )
        inputs = [
            io.Image.Input("depth", tooltip="The depth clip, gray; near should be bright (else set invert)."),
            io.Combo.Input(
                "normalization",
                options=list(NORMALIZATIONS),
                default="frame",
                tooltip=(
                    "frame: each frame from black to white, as the model was trained. clip: the entire clip "
                    "at once, steadier when things enter or leave. stable: also undoes the flicker of "
                    "estimators that look at one frame at a time. none: the values as they are."
                ),
            ),
            io.Boolean.Input("invert", default=False, tooltip="Turn on if near is dark in your depth clip."),
            *fit_inputs(),
            region_input(),
            *guide_inputs(),
        ]
        return task_schema(
            "VDOTDepth", "VDOT Depth", description, inputs, ["depth control", "depth to video"]
        )

    @classmethod
    def execute(
        cls,
        depth,
        normalization,
        invert,
        width,
        height,
        length,
        region=None,
        strength=1.0,
        start_frame=0,
        end_frame=0,
    ) -> io.NodeOutput:
        from ..vdot_core import vcu

        size = size_arguments(width, height, length)
        guide = guide_arguments(strength, start_frame, end_frame)
        return unit_output(
            vcu.depth(depth, normalization=normalization, invert=invert, region=region, **size, **guide)
        )


class VDOTCompose(CheckedNode):
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

        return unit_output(vcu.compose(*connected(units), names=connected_names(units)))


class VDOTStrength(CheckedNode):
    """A strength that changes over time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = (
            "Lets a unit fade in or out: gives it a strength that changes over time. It multiplies the "
            "unit's own. Context Windows do not work with it."
        )
        tip = "Strengths at some moments, as frame: strength. Between them it changes evenly; -1 is the end."
        inputs = [
            VCUType.Input("unit", tooltip="The task whose strength to change."),
            io.String.Input("curve", default="0: 1.0, -1: 0.5", tooltip=tip),
        ]
        return task_schema(
            "VDOTStrength", "VDOT Strength", description, inputs, ["fade", "schedule", "keyframe", "weight"]
        )

    @classmethod
    def validate_inputs(cls, curve: str | None = None) -> bool | str:
        return checked_before_run(curve_from_text, curve)

    @classmethod
    def execute(cls, unit, curve) -> io.NodeOutput:
        from ..vdot_core import vcu

        factors = vcu.strength_curve(curve_from_text(curve), unit.num_frames, "curve")
        return unit_output(unit.scaled_over_time(factors, "curve"))


class VDOTStepRange(CheckedNode):
    """A part of the sampling steps."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = (
            "Lets a unit act in a part of the sampling steps only: the first ones set shapes and motion, the "
            "last ones detail. Give it its own input on VDOT Encode. The percents are those of Apply "
            "ControlNet."
        )
        limits = {"min": 0.0, "max": 1.0, "step": 0.01}
        inputs = [
            VCUType.Input("unit", tooltip="The task to limit."),
            io.Float.Input(
                "start_percent",
                default=0.0,
                tooltip="Where the unit starts to act: 0 is the first step.",
                **limits,
            ),
            io.Float.Input(
                "end_percent",
                default=0.5,
                tooltip=(
                    "Where it stops: 1 is the end. Of four steps, 0.5 is the first two with presets trained "
                    "and sharp, the first three with released. A step that begins exactly there is not "
                    "affected."
                ),
                **limits,
            ),
        ]
        aliases = ["start percent", "end percent", "timestep range", "schedule", "control steps"]
        return task_schema("VDOTStepRange", "VDOT Step Range", description, inputs, aliases)

    @classmethod
    def execute(cls, unit, start_percent, end_percent) -> io.NodeOutput:
        start, end = unit.step_range
        line = f"replaces the unit's earlier part of the steps, {100 * start:g} % to {100 * end:g} %"
        lines = [line] if (start, end) != ALL_STEPS else []
        return unit_output(unit.replace(step_range=(start_percent, end_percent)), lines)


class VDOTPreviewUnit(CheckedNode):
    """A picture of a unit."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDOTPreviewUnit",
            display_name="VDOT Preview Unit",
            category=CATEGORY,
            description=(
                "Draws what a unit tells the model: moments of its frames, generated pixels hatched in "
                "amber, and the references. The strip below is the full video: green is kept, "
                "blue is guided, amber is free."
            ),
            search_aliases=["contact sheet", "debug", "inspect", "show task"],
            inputs=[
                VCUType.Input("unit", tooltip="The task to look at."),
                io.Int.Input(
                    "columns", default=6, min=1, max=24, tooltip="How many moments to show, evenly spread."
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The contact sheet, one image.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, unit, columns) -> io.NodeOutput:
        from ..vdot_core import vcu

        image = vcu.preview(unit, columns)[None]
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))
