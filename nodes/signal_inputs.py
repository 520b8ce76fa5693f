"""Shared by signal nodes: recurring inputs and outputs."""

from comfy_api.latest import io

from ..vdot_core.text import counted

CATEGORY = "VDOT/signals"


def frames_input(tooltip: str) -> io.Input:
    return io.Image.Input("frames", tooltip=tooltip)


def control_output(tooltip: str) -> io.Output:
    return io.Image.Output(
        display_name="control", tooltip=f"{tooltip} Connect it to the frames of VDOT Control."
    )


def face_input() -> io.Input:
    """Of the nodes that draw poses, as the next two."""
    return io.Boolean.Input(
        "face", default=True, tooltip="Draw the face as white dots, as the model was trained."
    )


def score_threshold_input() -> io.Input:
    return io.Float.Input(
        "threshold",
        default=0.3,
        min=0.0,
        max=0.99,
        step=0.01,
        advanced=True,
        tooltip="Points with a score up to this are left out.",
    )


def pose_colors_input() -> io.Input:
    return io.Combo.Input(
        "colors",
        options=["vace", "openpose"],
        default="vace",
        advanced=True,
        tooltip=(
            "vace draws with red and blue exchanged (blue shoulders), as VACE's own tool drew its training "
            "videos; openpose draws as other tools do (red shoulders)."
        ),
    )


def without_alpha(frames, name: str = "frames"):
    """A clip [F, H, W, 3] of one that may be gray or have a fourth channel, and lines on what is left out."""
    if frames.shape[-1] == 1:
        frames = frames.expand(*frames.shape[:3], 3)
    if frames.shape[-1] != 4:
        return frames, []
    return frames[..., :3], [f"{name}: alpha channel ignored"]


def blank_frames(video, what: str, cure: str) -> list[str]:
    """A note where frames of a drawing [F, H, W, 3] have one color: the control says nothing there."""
    low, high = video.flatten(1).aminmax(dim=1)
    blank = int((low == high).sum())
    return [f"no {what} in {blank} of {counted(len(video), 'frame')}; {cure}"] if blank else []
