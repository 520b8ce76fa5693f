"""The annotators of `vdot_core.signals`, which need no weights; flow can use RAFT's."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from ..foreign import UnusableModelError
from ..signals import draw_lines, flow_video, load_raft
from ..text import shown
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
    """Color-wheel maps of OpenCV's DIS, or of RAFT.

    Args:
        model: File of RAFT's weights, see `load_raft`; None: DIS.
    """

    name, version, needs = "flow", 1, "OpenCV"

    def __init__(self, model: str | Path | None = None) -> None:
        super().__init__(model)
        self._network: nn.Module | None = None

    def missing(self) -> str | None:
        """Say so where OpenCV, or RAFT's file or package, is."""
        if self.model is not None:
            if not importlib.util.find_spec("torchvision"):
                return "flow needs torchvision for RAFT: `pip install torchvision`"
            if not self.model.is_file():
                return f"flow: {shown(self.model)} does not exist; give a file of RAFT's weights (flow_model)"
            return None
        if importlib.util.find_spec("cv2"):
            return None
        return "flow needs OpenCV: `pip install opencv-python-headless`"

    def annotate(self, frames: Tensor) -> Annotation:
        """See `flow_video`; `peak_px` is the mean of the maps' longest vectors."""
        flow = flow_video(frames, network=self.network())
        peak = sum(flow.peak_px) / len(flow.peak_px)
        return Annotation(flow.estimator, control=flow.frames, facts={"peak_px": peak})

    def network(self) -> nn.Module | None:
        """RAFT, read at its first use; None: DIS is used.

        Raises:
            UnusableModelError: The file holds no such weights.
        """
        if self.model and self._network is None:
            try:
                network = load_raft(self.model)
            except ValueError as error:
                raise UnusableModelError(str(error)) from error
            self._network = network.to("cuda" if torch.cuda.is_available() else "cpu")
        return self._network
