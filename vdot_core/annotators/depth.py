"""Depth by a model of transformers, from a local folder.

Letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor

from ..foreign import UnusableModelError, loading
from ..signals import normalize_depth
from ..text import shown
from .annotator import Annotation, Annotator

BATCH = 4  # frames at a time


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
        if not importlib.util.find_spec("transformers"):
            return "depth needs transformers: `pip install transformers`"
        if self.model is None:
            return "depth has no model; give the folder of one, such as Depth Anything V2 (depth_model)"
        if not (self.model / "config.json").is_file():
            return f"depth: {shown(self.model)} holds no config.json; give the folder of a transformers model"
        return None

    def annotate(self, frames: Tensor) -> Annotation:
        """Estimate depth frame by frame."""
        processor, network, device = self._load()
        depths = []
        for chunk in frames.split(BATCH):
            pictures = [(255 * frame).round().to(torch.uint8).cpu().numpy() for frame in chunk]
            inputs = processor(images=pictures, return_tensors="pt").to(device)
            with torch.inference_mode():
                depth = network(**inputs).predicted_depth.float()
            size = tuple(frames.shape[1:3])
            depths.append(torch.nn.functional.interpolate(depth[:, None], size, mode="bicubic").cpu()[:, 0])
        name = network.config.model_type
        return Annotation(f"transformers {name}", control=normalize_depth(torch.cat(depths)))

    def _load(self):
        if self._loaded is None:
            from transformers import AutoImageProcessor, AutoModelForDepthEstimation

            device = "cuda" if torch.cuda.is_available() else "cpu"
            local = {"local_files_only": True, "trust_remote_code": False}
            with loading("transformers", self.model, "a depth model", UnusableModelError):
                network = AutoModelForDepthEstimation.from_pretrained(
                    self.model, use_safetensors=True, **local
                )
                processor = AutoImageProcessor.from_pretrained(self.model, **local)
            self._loaded = processor, network.eval().to(device), device
        return self._loaded
