"""Depth by a model of transformers, from a local folder.

Letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..foreign import UnusableModelError, load_transformers, loading, missing_model
from ..signals import normalize_depth
from .annotator import Annotation, Annotator

BATCH = 4  # frames at a time
# DPT's first fusion layer has nothing to add: published files lack these, such as Intel/dpt-large.
UNUSED = r"neck\.fusion_stage\.layers\.0\.residual_layer1\."


class Depth(Annotator):
    """Relative depth, near = bright, each frame stretched from black to white as in VACE.

    Args:
        model: Folder of a depth model of transformers that gives near = large, such as Depth Anything V2.
    """

    name, version, needs = (
        "depth",
        1,
        "transformers, and a folder with a depth model such as Depth Anything V2",
    )

    def __init__(self, model: str | Path | None = None) -> None:
        super().__init__(model)
        self._loaded = None

    def missing(self) -> str | None:
        """Say so where the package or the model is."""
        if self.model is None and importlib.util.find_spec("transformers"):
            return "depth has no model; give the folder of one, such as Depth Anything V2 (depth_model)"
        return missing_model(self.name, self.model, "a transformers model")

    def annotate(self, frames: Tensor) -> Annotation:
        """Estimate depth frame by frame."""
        processor, network = self._load()
        depths = []
        for chunk in frames.split(BATCH):
            pictures = [(255 * frame).round().to(torch.uint8).cpu().numpy() for frame in chunk]
            depth = _estimate(processor, network, pictures)
            size = tuple(frames.shape[1:3])
            depths.append(torch.nn.functional.interpolate(depth[:, None], size, mode="bicubic").cpu()[:, 0])
        name = network.config.model_type
        return Annotation(f"transformers {name}", control=normalize_depth(torch.cat(depths)))

    def _load(self):
        if self._loaded is None:
            from transformers import AutoImageProcessor, AutoModelForDepthEstimation

            loaded = load_transformers(
                self.model, "a depth model", AutoModelForDepthEstimation, AutoImageProcessor, unused=UNUSED
            )
            with loading("transformers", self.model, "a depth model", UnusableModelError):
                _estimate(*loaded, [np.full((48, 64, 3), 128, np.uint8)])
            self._loaded = loaded
        return self._loaded


def _estimate(processor, network, pictures: Sequence[np.ndarray]) -> Tensor:
    """Depth [F, h, w] of pictures [H, W, 3] uint8 in the network's own size."""
    inputs = processor(images=pictures, return_tensors="pt").to(network.device)
    with torch.inference_mode():
        return network(**inputs).predicted_depth.float()
