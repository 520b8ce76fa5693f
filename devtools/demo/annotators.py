"""Results of the pack's annotators on a plain clip: skeletons for a pose task, a mask of the people."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from devtools.demo.options import PEOPLE, POSE_FINDER, DemoOptions
from devtools.errors import UsageError
from vdot_core.videos import open_video

NUM_FRAMES, SIDE = 8, 128  # that are looked at, and their width and height in pixels
DARK, MOST = 24, 0.6  # of 255; share of a skeleton video's pixels that are darker


def with_annotators(options: DemoOptions) -> DemoOptions:
    """The options, with poses to be found where a pose task is given a clip without skeletons.

    Raises:
        UsageError: what an annotator needs is missing here.
    """
    if options.mask == PEOPLE:
        _require("matte", f"--mask {PEOPLE}")
    if not any(node["type"] == POSE_FINDER for node in options.read_workflow()["nodes"]):
        return options
    flag = f"--task {options.task}"
    if options.video is not None:
        flag, name = f"--video {options.video}", Path(options.video).name
        options = replace(options, find_poses=not shows_skeletons(Path(options.video)))
        what = "no skeletons: VDOT Pose finds people" if options.find_poses else "skeletons: used as it is"
        print(f"[demo] {name} shows {what}")
    if options.uses_node(POSE_FINDER):
        _require("pose", flag)
    return options


def fit_pens(prompt: dict, options: DemoOptions) -> None:
    """Let skeletons, which are drawn at the clip's size, be as thick as in the video.

    Args:
        prompt: changed in place.
        options: with the video's size, or None where nothing is scaled.
    """
    from vdot_core.signals.pose import usual_pen  # slow, and only this needs it

    for node in prompt.values():
        if node["class_type"] == POSE_FINDER and options.size is not None:
            node["inputs"] = {**node["inputs"], "pen": usual_pen(*options.size)}


def shows_skeletons(path: Path) -> bool:
    """True for a video of drawings on black, as pose nodes make them."""
    with open_video(path) as container:
        frames = islice(container.decode(video=0), NUM_FRAMES)
        pixels = np.stack([frame.reformat(SIDE, SIDE, "rgb24").to_ndarray() for frame in frames])
    return bool((pixels.max(axis=-1) < DARK).mean() > MOST)


def _require(name: str, flag: str) -> None:
    from vdot_core.annotators import make_annotator  # slow, and only this needs it

    if reason := make_annotator(name).missing():
        raise UsageError(f"{flag}: {reason}")
