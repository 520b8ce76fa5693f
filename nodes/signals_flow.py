"""IMAGE -> optical flow as a control, by RAFT weights of ComfyUI's model folders or by OpenCV."""

from comfy_api.latest import io

from .comfy_bridge import compute_device, report
from .comfy_flow import choose_raft
from .guard import CheckedNode
from .signal_inputs import CATEGORY, blank_frames, control_output, frames_input, without_alpha

OPTICAL_FLOW = io.Custom("OPTICAL_FLOW")


class VDOTFlow(CheckedNode):
    """Optical flow on the color wheel."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDOTFlow",
            display_name="VDOT Flow",
            category=CATEGORY,
            description=(
                "Paints how a video moves, as the flow control: hue is direction, saturation is speed, white "
                "is still. Uses RAFT when its weights are in models/optical_flow, OpenCV's DIS otherwise; "
                "the node says which."
            ),
            search_aliases=["optical flow", "raft", "motion", "unimatch", "DIS"],
            inputs=[
                frames_input("The video whose motion to keep; at least two frames."),
                io.Combo.Input(
                    "estimator",
                    options=["auto", "raft", "dis"],
                    default="auto",
                    tooltip=(
                        "auto takes RAFT if a raft file is in models/optical_flow (torchvision's "
                        "raft_large_*.pth or the authors' raft-things.pth), else DIS. DIS needs "
                        "opencv-python-headless and runs on the CPU."
                    ),
                ),
                io.Combo.Input(
                    "scale",
                    options=["frame", "clip"],
                    default="frame",
                    tooltip=(
                        "What counts as full speed: each frame's fastest pixel (frame, as the model was "
                        "trained), or the clip's (clip, which keeps slow moments pale)."
                    ),
                ),
                io.Float.Input(
                    "still_px",
                    default=0.0,
                    min=0.0,
                    max=64.0,
                    step=0.1,
                    advanced=True,
                    tooltip=(
                        "Motion below this many pixels a frame never counts as full speed; keeps still shots "
                        "white."
                    ),
                ),
                OPTICAL_FLOW.Input(
                    "optical_flow",
                    optional=True,
                    tooltip=("A RAFT from Load Optical Flow Model; it replaces the choice of estimator."),
                ),
            ],
            outputs=[
                control_output("Flow maps, as long as the input: the first one is shown twice."),
                io.String.Output(
                    display_name="report", tooltip="Which estimator was used, and how fast the clip moves."
                ),
            ],
        )

    @classmethod
    def execute(cls, frames, estimator, scale, still_px=0.0, optical_flow=None) -> io.NodeOutput:
        from ..vdot_core.signals import flow_video

        frames, lines = without_alpha(frames)
        network, why = choose_raft(estimator, optical_flow)
        video = flow_video(frames, network=network, scale=scale, still_px=still_px, device=compute_device())
        speeds = f"fastest pixel {max(video.peak_px):.1f} px a frame, slowest frame {min(video.peak_px):.1f}"
        text = f"optical flow by {video.estimator} ({why}); {speeds}"
        lines += blank_frames(video.frames, "motion", "the model is told that these stand still")
        return io.NodeOutput(video.frames, text, ui=report([text, *lines]))
