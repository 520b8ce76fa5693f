"""IMAGE or keypoints -> control video: gray, lines, depth, pose; optical flow is in `signals_flow.py`."""

from comfy_api.latest import io

from .comfy_bridge import compute_device, report
from .guard import CheckedNode
from .signal_inputs import (
    CATEGORY,
    blank_frames,
    control_output,
    face_input,
    frames_input,
    pose_colors_input,
    score_threshold_input,
    without_alpha,
)
from .sizes import size_input

POSE_KEYPOINT = io.Custom("POSE_KEYPOINT")


def _side(name: str, other: str) -> io.Input:
    tooltip = (
        f"{name.capitalize()} to draw. 0: the keypoints' own, or in their shape where {other} is set. "
        "Another shape is cropped, as of a clip."
    )
    return io.Int.Input(name, default=0, min=0, max=8192, step=16, tooltip=tooltip)


class VDOTGray(CheckedNode):
    """A weighted sum of red, green and blue, three times."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDOTGray",
            display_name="VDOT Gray",
            category=CATEGORY,
            description=(
                "Turns a video into the gray control: the model keeps its light and shapes and recolors it."
            ),
            search_aliases=["grayscale", "black and white", "colorize", "desaturate", "luma"],
            inputs=[
                frames_input("The video whose light and shapes to keep."),
                io.Combo.Input(
                    "weights",
                    options=["bt601", "vace", "auto"],
                    default="auto",
                    advanced=True,
                    tooltip=(
                        "How red, green and blue add up. vace: for VACE and VDOT weights, which were trained "
                        "with red and blue exchanged. bt601: true brightness, for the bundled tiny model. "
                        "auto: the model's, where size is connected; else vace."
                    ),
                ),
                size_input("for weights auto, it says what the model was trained with."),
            ],
            outputs=[control_output("The gray video, as long as the input.")],
        )

    @classmethod
    def execute(cls, frames, weights="vace", size=None) -> io.NodeOutput:
        from ..vdot_core.signals import to_gray

        if weights == "auto":
            weights = "vace" if size is None else size.gray
        frames, lines = without_alpha(frames)
        return io.NodeOutput(to_gray(frames, weights=weights, device=compute_device()), ui=report(lines))


class VDOTLines(CheckedNode):
    """A soft line drawing."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDOTLines",
            display_name="VDOT Lines",
            category=CATEGORY,
            description=(
                "Draws a video's contours as the scribble control. One threshold applies to the entire clip, "
                "so lines do not blink; give complete shots, not single frames."
            ),
            search_aliases=["scribble", "lineart", "canny", "edges", "sketch", "softedge"],
            inputs=[
                frames_input("The video whose contours to draw."),
                io.Float.Input(
                    "threshold",
                    default=0.25,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip=(
                        "How strong an edge must be, relative to the clip's strong edges. Higher draws fewer "
                        "lines."
                    ),
                ),
                io.Float.Input(
                    "thickness",
                    default=1.5,
                    min=1.0,
                    max=32.0,
                    step=0.1,
                    tooltip="Width of the lines in pixels.",
                ),
                io.Float.Input(
                    "softness",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="0 draws every line at full strength; 1 lets weak edges fade in from nothing.",
                ),
                io.Float.Input(
                    "blur",
                    default=1.4,
                    min=0.1,
                    max=16.0,
                    step=0.1,
                    advanced=True,
                    tooltip="Smoothing before edges are found, in pixels. Higher gives fewer, simpler lines.",
                ),
                io.Boolean.Input(
                    "dark_on_white",
                    default=True,
                    tooltip=(
                        "Dark lines on white, as the model was trained. Off: bright lines on black, as many "
                        "other control models want them."
                    ),
                ),
            ],
            outputs=[control_output("The line drawing, as long as the input.")],
        )

    @classmethod
    def execute(cls, frames, threshold, thickness, softness, blur=1.4, dark_on_white=True) -> io.NodeOutput:
        from ..vdot_core.signals import draw_lines

        frames, notes = without_alpha(frames)
        lines = draw_lines(
            frames,
            threshold=threshold,
            thickness=thickness,
            softness=softness,
            blur=blur,
            dark_on_white=dark_on_white,
            device=compute_device(),
        )
        notes += blank_frames(lines, "line", "lower the threshold")
        return io.NodeOutput(lines, ui=report(notes))


class VDOTNormalizeDepth(CheckedNode):
    """Any depth -> gray, near bright, steady."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDOTNormalizeDepth",
            display_name="VDOT Normalize Depth",
            category=CATEGORY,
            description=(
                "Brings the depth maps of any estimator to what the model reads: gray, near = bright. "
                "stable also takes out the flicker that frame-by-frame estimators leave; the node reports it "
                "before and after."
            ),
            search_aliases=["depth anything", "midas", "disparity", "deflicker", "temporal"],
            inputs=[
                io.Image.Input("depth", tooltip="Gray depth maps from any estimator node, one per frame."),
                io.Combo.Input(
                    "mode",
                    options=["frame", "clip", "stable"],
                    default="stable",
                    tooltip=(
                        "frame: each frame from its farthest to its nearest point, as the model was trained. "
                        "clip: one range for all, for estimators made for video. stable: follows brightness "
                        "jumps and undoes them, for estimators that look at one frame at a time."
                    ),
                ),
                io.Combo.Input(
                    "values",
                    options=["disparity", "depth", "metric"],
                    default="disparity",
                    tooltip=(
                        "What the input's numbers mean. disparity: near is bright already, as with most "
                        "estimators. depth: near is dark, to be inverted. metric: distances, as the raw "
                        "output of Depth Anything 3."
                    ),
                ),
                io.Float.Input(
                    "clip_percent",
                    default=1.0,
                    min=0.0,
                    max=20.0,
                    step=0.1,
                    advanced=True,
                    tooltip=(
                        "clip and stable: the share of nearest, and of farthest, pixels that become plain "
                        "white or black."
                    ),
                ),
                io.Float.Input(
                    "window",
                    default=6.0,
                    min=0.5,
                    max=100.0,
                    step=0.5,
                    advanced=True,
                    tooltip="stable: over how many frames the range adapts. Higher is steadier.",
                ),
            ],
            outputs=[
                control_output("Depth, near = bright, as long as the input."),
                io.String.Output(
                    display_name="report", tooltip="Flicker of still surfaces before and after, and any cuts."
                ),
            ],
        )

    @classmethod
    def execute(cls, depth, mode, values, clip_percent=1.0, window=6.0) -> io.NodeOutput:
        from ..vdot_core.signals import cut_frames, flicker, normalize_depth

        depth, lines = without_alpha(depth, "depth")
        percentiles = (clip_percent, 100 - clip_percent)
        video = normalize_depth(depth, mode=mode, values=values, percentiles=percentiles, window=window)
        cuts = cut_frames(depth) if mode == "stable" else []
        before, after = flicker(depth), flicker(video)
        text = f"flicker of still surfaces: {before:.2%} of the contrast before, {after:.2%} after"
        text += f"; cuts at frames {', '.join(map(str, cuts))}" if cuts else ""
        lines += blank_frames(video, "depth", "look at the estimator")
        return io.NodeOutput(video, text, ui=report([text, *lines]))


class VDOTDrawPose(CheckedNode):
    """Keypoints -> skeletons on black."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDOTDrawPose",
            display_name="VDOT Draw Pose",
            category=CATEGORY,
            description=(
                "Draws keypoints from SDPose Keypoint Extractor or any DWPose node as the pose control: body "
                "and face, in the widths and colors that the model was trained on."
            ),
            search_aliases=["openpose", "dwpose", "skeleton", "sdpose", "keypoints"],
            inputs=[
                POSE_KEYPOINT.Input(
                    "keypoints", tooltip="One pose frame per video frame, as pose nodes output them."
                ),
                _side("width", "height"),
                _side("height", "width"),
                face_input(),
                io.Boolean.Input(
                    "hands",
                    default=False,
                    tooltip="Draw the hands. The model was trained on body and face only.",
                ),
                score_threshold_input(),
                pose_colors_input(),
                io.Float.Input(
                    "pen",
                    default=1.0,
                    min=0.1,
                    max=16.0,
                    step=0.1,
                    advanced=True,
                    tooltip="Multiplies all widths; 1 is as the model was trained.",
                ),
            ],
            outputs=[control_output("Skeletons on black, one frame per pose frame.")],
        )

    @classmethod
    def execute(
        cls, keypoints, width, height, face, hands, threshold=0.3, colors="vace", pen=1.0
    ) -> io.NodeOutput:
        from ..vdot_core.signals import draw_pose
        from ..vdot_core.signals.keypoints import fit_lines, frames_of

        keypoints, size = frames_of(keypoints), {"width": width or None, "height": height or None}
        video = draw_pose(
            keypoints,
            **size,
            threshold=threshold,
            face=face,
            hands=hands,
            colors=colors,
            pen=pen,
        )
        notes = fit_lines(keypoints, **size)
        notes += blank_frames(video, "pose", "look at the pose estimator, or lower the threshold")
        return io.NodeOutput(video, ui=report(notes))
