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


def without_alpha(frames, name: str = "frames"):
    """A clip [F, H, W, 3] of one that may have a fourth channel, and lines that say so."""
    if frames.shape[-1] != 4:
        return frames, []
    return frames[..., :3], [f"{name}: alpha channel ignored"]


def blank_frames(video, what: str, cure: str) -> list[str]:
    """A note where frames of a drawing [F, H, W, 3] have one color: the control says nothing there."""
    low, high = video.flatten(1).aminmax(dim=1)
    blank = int((low == high).sum())
    return [f"no {what} in {blank} of {counted(len(video), 'frame')}; {cure}"] if blank else []
