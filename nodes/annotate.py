"""IMAGE -> poses, masks of people, faces, by the small models of `vdot_core.annotators`."""

from comfy_api.latest import io

from ..vdot_core.choices import BOXES
from ..vdot_core.text import counted
from .comfy_bridge import report
from .guard import CheckedNode
from .signal_inputs import (
    CATEGORY,
    control_output,
    face_input,
    frames_input,
    pose_colors_input,
    score_threshold_input,
    without_alpha,
)
from .signals import POSE_KEYPOINT

MOST_PEOPLE = 8


class VDOTPose(CheckedNode):
    """BlazePose -> skeletons on black."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDOTPose",
            display_name="VDOT Pose",
            category=CATEGORY,
            description=(
                "Finds the people in a clip and draws their bodies and faces as the pose control, by "
                "BlazePose on the CPU. Needs the package ai-edge-litert and its model files; the node says "
                "how to get them."
            ),
            search_aliases=["openpose", "dwpose", "skeleton", "blazepose", "mediapipe", "keypoints"],
            inputs=[
                frames_input("The video whose poses to follow."),
                face_input(),
                io.Int.Input(
                    "people",
                    default=MOST_PEOPLE,
                    min=1,
                    max=MOST_PEOPLE,
                    tooltip="At most this many people; the surest are followed. 1 leaves bystanders out.",
                ),
                score_threshold_input(),
                pose_colors_input(),
                io.Float.Input(
                    "pen",
                    default=0.0,
                    min=0.0,
                    max=16.0,
                    step=0.1,
                    advanced=True,
                    optional=True,
                    tooltip=(
                        "Multiplies all widths; 1 is as the model was trained. 0: 1, and thicker in pictures "
                        "with a side below 256 pixels, so that skeletons stay visible."
                    ),
                ),
            ],
            outputs=[
                control_output("Skeletons on black, as long as the input."),
                POSE_KEYPOINT.Output(
                    display_name="keypoints",
                    tooltip="The key points as DWPose gives them, for VDOT Draw Pose and other packs.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, frames, face=True, people=MOST_PEOPLE, threshold=0.3, colors="vace", pen=0.0
    ) -> io.NodeOutput:
        from ..vdot_core.annotators import make_annotator
        from ..vdot_core.annotators.openpose_points import as_dwpose
        from ..vdot_core.annotators.pose import estimate_poses
        from ..vdot_core.signals.pose import draw_pose, usual_pen

        frames, lines = without_alpha(frames)
        frames = make_annotator("pose").checked(frames)
        keypoints = as_dwpose(estimate_poses(frames, most=people), threshold)
        pen = pen or usual_pen(*frames.shape[1:3])
        drawing = draw_pose(keypoints, face=face, colors=colors, pen=pen, coordinates="pixels")
        lines += _counts([len(frame["people"]) for frame in keypoints], "person", "people")
        return io.NodeOutput(drawing, keypoints, ui=report(lines))


class VDOTMatte(CheckedNode):
    """Selfie segmentation -> masks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDOTMatte",
            display_name="VDOT Matte",
            category=CATEGORY,
            description=(
                "Masks the people in a clip or picture, by MediaPipe's selfie segmentation on the CPU; those "
                "far away are found first and cut out. Needs the package ai-edge-litert and its model files; "
                "the node says how to get them."
            ),
            search_aliases=["segmentation", "remove background", "person mask", "rotoscope", "mediapipe"],
            inputs=[frames_input("The video or picture with the people.")],
            outputs=[
                io.Mask.Output(
                    display_name="mask",
                    tooltip="White where people are, soft at the edge, one for each frame; for VDOT Mask.",
                )
            ],
        )

    @classmethod
    def execute(cls, frames) -> io.NodeOutput:
        from ..vdot_core.annotators import make_annotator

        frames, lines = without_alpha(frames)
        masks = make_annotator("matte").run(frames).masks
        empty = int((masks.flatten(1).amax(1) <= 0.5).sum())
        if empty:
            lines.append(f"no person in {empty} of {counted(len(masks), 'frame')}: the mask is empty there")
        return io.NodeOutput(masks, ui=report(lines))


class VDOTFace(CheckedNode):
    """Face detection -> masks and boxes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDOTFace",
            display_name="VDOT Face",
            category=CATEGORY,
            description=(
                "Finds faces in a clip or picture, by MediaPipe's detector on the CPU: for VDOT Reference, "
                "VDOT Crop and VDOT Mask. Needs the package ai-edge-litert and its model files; the node "
                "says how to get them."
            ),
            search_aliases=["face detection", "face mask", "bounding box", "bbox", "mediapipe"],
            inputs=[
                frames_input("The video or picture with the faces."),
                io.Combo.Input(
                    "which",
                    options=list(BOXES),
                    default="all",
                    tooltip="In the mask: all faces of a frame, the largest alone, or the surest (first).",
                ),
                io.Float.Input(
                    "expand",
                    default=0.2,
                    min=0.0,
                    max=3.0,
                    step=0.05,
                    tooltip=(
                        "Added on each side of the face, as a part of its size: 0 is from brows to chin, 0.5 "
                        "includes the hair."
                    ),
                ),
            ],
            outputs=[
                io.Mask.Output(display_name="mask", tooltip="White in the boxes, one for each frame."),
                io.BoundingBox.Output(
                    display_name="bboxes",
                    tooltip="All boxes of each frame, the surest first; for VDOT Box Mask.",
                ),
            ],
        )

    @classmethod
    def execute(cls, frames, which="all", expand=0.2) -> io.NodeOutput:
        from ..vdot_core import vcu
        from ..vdot_core.annotators import make_annotator

        frames, lines = without_alpha(frames)
        height, width = frames.shape[1:3]
        faces = make_annotator("face").run(frames).boxes
        placed = [[box.within(width, height, expand=expand) for box in boxes] for boxes in faces]
        boxes = [[box for box in frame if box] for frame in placed]
        masks = vcu.box_masks(boxes, width=width, height=height, num_frames=len(frames), which=which)
        lines += _counts([len(frame) for frame in boxes], "face", "faces")
        return io.NodeOutput(masks, boxes, ui=report(lines))


def _counts(counts: list[int], one: str, several: str) -> list[str]:
    """Lines that say the number in a frame, and the number of frames without any."""
    lines = [f"no {one} in {counts.count(0)} of {counted(len(counts), 'frame')}"] if 0 in counts else []
    if any(counts):
        low, high = min(counts), max(counts)
        lines.insert(0, f"{several} in a frame: {low if low == high else f'{low} to {high}'}")
    return lines
