"""Annotators without weights: those of `vdot_core.signals`."""

from __future__ import annotations

import importlib.util

from torch import Tensor

from ..signals import draw_lines, flow_video
from .annotator import Annotation, Annotator


class Scribble(Annotator):
    """Dark lines on white, of thinned gradients."""

    name, version, needs = "scribble", 1, "nothing"

    def annotate(self, frames: Tensor) -> Annotation:
        """See `draw_lines`; `ink` is the part of the picture that is drawn on."""
        lines = draw_lines(frames)
        return Annotation(
            "thinned gradients", control=lines, facts={"ink": float((lines < 0.5).float().mean())}
        )


class Flow(Annotator):
    """Color-wheel maps of OpenCV's DIS."""

    name, version, needs = "flow", 1, "OpenCV"

    def missing(self) -> str | None:
        """Say so where OpenCV is."""
        if importlib.util.find_spec("cv2"):
            return None
        return "flow needs OpenCV: `pip install opencv-python-headless`"

    def annotate(self, frames: Tensor) -> Annotation:
        """See `flow_video`; `peak_px` is the mean of the maps' longest vectors."""
        flow = flow_video(frames)
        peak = sum(flow.peak_px) / len(flow.peak_px)
        return Annotation(flow.estimator, control=flow.frames, facts={"peak_px": peak})
