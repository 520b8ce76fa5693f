"""Parts of the picture: a detector's boxes as masks, cropping and stitching, restoring kept pixels."""

from comfy_api.latest import io

from ..vdot_core.choices import BOXES
from ..vdot_core.text import counted
from .comfy_bridge import report
from .guard import CheckedNode
from .inputs import CATEGORY, MAX_SIDE, VCUType, strip_ui
from .sizes import canvas_of, shape_of, size_input
from .tracks import boxes_from_text, checked_before_run, things_from_text

CropType = io.Custom("VDOT_CROP")

DRAWN_SIZE = (128, 128)  # of a box that is given by its middle


class VDOTBoxMask(CheckedNode):
    """Boxes -> masks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDOTBoxMask",
            display_name="VDOT Box Mask",
            category=CATEGORY,
            description=(
                "Turns the boxes of a detector (RT-DETR, SAM 3, SDPose's faces) or typed ones into masks: a "
                "face for VDOT Reference, or the region that VDOT Mask regenerates."
            ),
            search_aliases=["bounding box", "bbox", "face crop", "detection", "rt-detr"],
            inputs=[
                io.Image.Input("image", tooltip="The picture or clip in which the boxes were found."),
                io.Combo.Input(
                    "which",
                    options=list(BOXES),
                    default="all",
                    tooltip="all boxes of a frame, the largest alone, or the first alone (the surest).",
                ),
                io.BoundingBox.Input(
                    "bboxes",
                    force_input=True,
                    optional=True,
                    tooltip="One box, boxes for all frames, or a list of boxes for each frame.",
                ),
                io.String.Input(
                    "boxes",
                    multiline=True,
                    default="",
                    optional=True,
                    placeholder="0: 80, 200, 240, 420",
                    tooltip=(
                        "Boxes drawn on this node or typed, as in VDOT Layout: frame: left, top, right, "
                        "bottom. They are added to the detector's."
                    ),
                ),
            ],
            outputs=[
                io.Mask.Output(display_name="mask", tooltip="White inside the boxes, one for each image.")
            ],
        )

    @classmethod
    def validate_inputs(cls, boxes: str | None = None) -> bool | str:
        return not (boxes or "").strip() or checked_before_run(things_from_text, boxes)

    @classmethod
    def execute(cls, image, which, bboxes=None, boxes="") -> io.NodeOutput:
        from ..vdot_core import vcu

        if bboxes is None and not boxes.strip():
            raise ValueError("there is no box; draw one on the node, or connect a detector's to bboxes")
        per_frame, notes = vcu.boxes_per_frame([] if bboxes is None else bboxes, len(image))
        if boxes.strip():
            drawn = vcu.track_boxes(boxes_from_text(boxes, DRAWN_SIZE, len(image), rounded=False), len(image))
            per_frame = [[*detected, *more] for detected, more in zip(per_frame, drawn, strict=True)]
        size = {"width": image.shape[2], "height": image.shape[1], "num_frames": image.shape[0]}
        masks = vcu.box_masks(per_frame, **size, which=which)
        empty = int((masks.flatten(1).amax(1) == 0).sum())
        if empty:
            notes = [
                *notes,
                f"no box inside the picture in {counted(empty, 'frame')}: the mask is empty there",
            ]
        return io.NodeOutput(masks, ui=report(notes))


class VDOTCrop(CheckedNode):
    """A mask's surroundings."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        side = "to generate the region at; VDOT Stitch scales it back. 0 in both keeps its size."
        return io.Schema(
            node_id="VDOTCrop",
            display_name="VDOT Crop",
            category=CATEGORY,
            description=(
                "Cuts out what surrounds a mask, so that a small region gets all the pixels of a video: for "
                "faces, hands and small things. Connect frames and mask to VDOT Mask, and put the result "
                "back with VDOT Stitch."
            ),
            search_aliases=["crop and stitch", "inpaint crop", "detailer", "zoom"],
            inputs=[
                io.Image.Input("frames", tooltip="The full clip."),
                io.Mask.Input(
                    "mask", tooltip="The region to regenerate (white): one mask, or one per frame."
                ),
                io.Float.Input(
                    "margin",
                    default=0.5,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="How much around the mask to show, as a part of its longer side.",
                ),
                io.Int.Input("width", default=0, min=0, max=MAX_SIDE, step=16, tooltip=f"Width {side}"),
                io.Int.Input("height", default=0, min=0, max=MAX_SIDE, step=16, tooltip=f"Height {side}"),
                size_input(
                    "the region is generated at the model's own size, in the shape of width and height (at 0 "
                    "of the clip)."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="frames", tooltip="The region, for VDOT Mask."),
                io.Mask.Output(display_name="mask", tooltip="Its mask, for VDOT Mask."),
                CropType.Output(display_name="crop", tooltip="Position of the region, for VDOT Stitch."),
            ],
        )

    @classmethod
    def execute(cls, frames, mask, margin, width, height, size=None) -> io.NodeOutput:
        from ..vdot_core import vcu

        canvas = canvas_of(size, width, height, len(frames), shape_of(frames))
        width, height = canvas.width, canvas.height
        part, cut, crop = vcu.crop_region(
            frames, mask, margin=margin, width=width or None, height=height or None
        )
        picture = strip_ui(vcu.window_strip(frames, mask, crop), "window")
        return io.NodeOutput(part, cut, crop, ui={**report([str(crop), *crop.notes]), **picture})


class VDOTStitch(CheckedNode):
    """The region back into its clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDOTStitch",
            display_name="VDOT Stitch",
            category=CATEGORY,
            description=(
                "Puts a region that VDOT Crop cut out back into its clip after it was regenerated. Beyond "
                "the mask and a soft edge, every pixel is the original's."
            ),
            search_aliases=["crop and stitch", "uncrop", "paste", "blend"],
            inputs=[
                io.Image.Input("original", tooltip="The clip that VDOT Crop was given."),
                io.Image.Input("images", tooltip="The generated region, from VAE Decode."),
                VCUType.Input("unit", tooltip="The task that the region was made from."),
                CropType.Input("crop", tooltip="Position of the region, from VDOT Crop."),
                _feather_input(),
                match_colors_input(),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="The full clip with the new region.")],
        )

    @classmethod
    def execute(cls, original, images, unit, crop, feather_px, match_colors=False) -> io.NodeOutput:
        from ..vdot_core import vcu

        options = {"feather_px": feather_px, "match_colors": match_colors}
        stitched = vcu.stitch(original, images, unit, crop, **options)
        rest = len(original) - len(stitched)
        length = counted(len(original), "frame")
        line = (
            f"original has {length}, the region {len(stitched)}: {counted(rest, 'frame')} left out at the end"
        )
        return io.NodeOutput(stitched, ui=report([*vcu.find_nothing_kept(unit), *([line] * bool(rest))]))


class VDOTPasteBack(CheckedNode):
    """The kept pixels, exactly."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDOTPasteBack",
            display_name="VDOT Paste Back",
            category=CATEGORY,
            description=(
                "Restores the pixels that a task keeps in its decoded video: the VAE changes every pixel a "
                "little. For inpainting, outpainting and given frames."
            ),
            search_aliases=["composite", "keep original", "color shift", "blend", "restore"],
            inputs=[
                io.Image.Input("images", tooltip="The video, from VAE Decode."),
                VCUType.Input("unit", tooltip="The task that the video was made from."),
                _feather_input(),
                match_colors_input(),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The video with the kept pixels as they were.")
            ],
        )

    @classmethod
    def execute(cls, images, unit, feather_px, match_colors=False) -> io.NodeOutput:
        from ..vdot_core import vcu

        pasted = vcu.paste_back(images, unit, feather_px=feather_px, match_colors=match_colors)
        return io.NodeOutput(pasted, ui=report(vcu.find_nothing_kept(unit)))


def _feather_input() -> io.Input:
    return io.Int.Input(
        "feather_px",
        default=8,
        min=0,
        max=256,
        tooltip="Width of the soft edge outside the mask, in pixels. Farther away all stays as it was.",
    )


def match_colors_input() -> io.Input:
    """Of nodes that put generated pixels into a clip."""
    return io.Boolean.Input(
        "match_colors",
        default=False,
        optional=True,
        tooltip=(
            "Bring the generated region to the clip's colors, frame by frame, by the pixels around the mask "
            "that both show. For a region that is a little too bright or tinted."
        ),
    )
