"""Pictures of subjects -> VCU."""

from comfy_api.latest import io

from ..vdot_core.choices import MASK_MEANINGS
from ..vdot_core.text import counted
from .guard import CheckedNode
from .inputs import (
    MAX_IMAGES,
    VCUType,
    canvas_inputs,
    flat_names,
    flatten,
    image_inputs,
    task_schema,
    unit_output,
)
from .sizes import CANVAS_RULE, Canvas, canvas_of, size_input

CROPS = {"auto": None, "crop": True, "whole": False}


class VDOTReference(CheckedNode):
    """Subjects to show."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = (
            "Shows the model people or things to put into the video, one picture each. The full picture is "
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
                "masks",
                masks,
                tooltip="The subjects (white) of the pictures; a batch in the first holds those of all.",
            ),
            VCUType.Input("unit", optional=True, tooltip=unit),
            *_cut_inputs(),
            size_input(CANVAS_RULE),
        ]
        return task_schema(
            "VDOTReference", "VDOT Reference", description, inputs, ["r2v", "subject", "face", "ip adapter"]
        )

    @classmethod
    def execute(
        cls,
        images,
        width,
        height,
        length,
        masks=None,
        unit=None,
        cut_out="auto",
        margin=0.0,
        mask_is="subject",
        size=None,
    ) -> io.NodeOutput:
        from ..vdot_core import vcu

        canvas = canvas_of(size, width, height, length)
        if unit is not None:
            lines = () if size is None else ("size is not used: the video has the unit's size and length",)
            canvas = Canvas(unit.width, unit.height, unit.num_frames, lines)
        cut = {"masks": _masks_of(images, masks or {}), "mask_is": mask_is, "crop": CROPS[cut_out]}
        names = flat_names(images)
        references = vcu.reference(flatten(images), **canvas.arguments, **cut, margin=margin, names=names)
        if unit is not None:
            references = vcu.compose(unit, references, names=["unit", "images"])
        return unit_output(references, canvas.lines)


def _cut_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "cut_out",
            options=list(CROPS),
            default="auto",
            optional=True,
            tooltip=(
                "auto: cropped to the subject where there is a mask, stray pixels aside. crop: also to a "
                "picture's own transparency. whole: what is not the subject becomes white, but nothing is "
                "cropped."
            ),
        ),
        io.Float.Input(
            "margin",
            default=0.0,
            min=0.0,
            max=4.0,
            step=0.05,
            optional=True,
            tooltip="White left around a cropped subject, as a part of its longer side.",
        ),
        io.Combo.Input(
            "mask_is",
            options=list(MASK_MEANINGS),
            default="subject",
            optional=True,
            tooltip=(
                "What is white in the masks. subject: the person or thing. transparent: what is around it, "
                "as in Load Image's MASK of a transparent picture."
            ),
        ),
    ]


def _masks_of(images: dict, masks: dict) -> list | None:
    """A mask or None for every picture: `mask3` belongs to `image3`.

    One batch may hold the masks of all pictures, and single masks go to a batch of pictures in order.
    """
    pictures = {name.removeprefix("image"): batch for name, batch in images.items() if batch is not None}
    by_number = {name.removeprefix("mask"): batch for name, batch in masks.items() if batch is not None}
    if not by_number:
        return None
    one_batch = list(by_number) == list(pictures)[:1]
    has_batch = any(len(batch) > 1 for batch in pictures.values())
    in_order = has_batch and all(len(mask) == 1 for mask in by_number.values())
    if (one_batch or in_order) and len(flatten(masks)) == len(flatten(images)):
        return flatten(masks)
    aligned = []
    for number, batch in pictures.items():
        own = by_number.pop(number, None)
        if own is not None and len(own) != len(batch):
            raise ValueError(
                f"image{number} holds {counted(len(batch), 'picture')} and mask{number} "
                f"{counted(len(own), 'mask')}; connect as many masks as there are pictures"
            )
        aligned += [None] * len(batch) if own is None else list(own)
    if by_number:
        raise ValueError(
            f"mask{next(iter(by_number))} has no picture with its number; connect that, or remove it"
        )
    return aligned
