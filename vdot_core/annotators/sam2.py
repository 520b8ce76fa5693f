"""Masks of people by SAM 2, a model of transformers, in boxes around bodies that BlazePose finds.

Letters: H W pixels, P people.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..foreign import UnusableModelError, loading
from ..text import shown
from .people import Person


def missing_sam2(folder: Path) -> str | None:
    """Why a folder's SAM 2 cannot be run here, in a sentence; None where it can."""
    if not importlib.util.find_spec("transformers"):
        return "matte needs transformers for SAM 2: `pip install transformers`"
    if not (folder / "config.json").is_file():
        return f"matte: {shown(folder)} holds no config.json; give the folder of a SAM 2 of transformers"
    return None


class Sam2:
    """SAM 2 on single frames, asked by boxes.

    Args:
        folder: Of the model, such as sam2.1-hiera-small.

    Raises:
        UnusableModelError: transformers cannot load it.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import Sam2Model, Sam2Processor

        local = {"local_files_only": True, "trust_remote_code": False}
        with loading("transformers", folder, "a SAM 2", UnusableModelError):
            network = Sam2Model.from_pretrained(folder, use_safetensors=True, **local)
            self.processor = Sam2Processor.from_pretrained(folder, **local)
        self.network = network.eval().to("cuda" if torch.cuda.is_available() else "cpu")

    def __call__(self, frame: Tensor, people: Sequence[Person]) -> Tensor:
        """Soft mask [H, W] of all people in a frame [H, W, 3] float in [0, 1]; 1 = person."""
        if not people:
            return torch.zeros(frame.shape[:2])
        picture = (255 * frame).round().to(torch.uint8).cpu().numpy()
        boxes = [[person.box() for person in people]]
        inputs = self.processor(images=picture, input_boxes=boxes, return_tensors="pt")
        inputs = inputs.to(self.network.device)
        with torch.inference_mode():
            logits = self.network(**inputs, multimask_output=False).pred_masks.float().cpu()
        (masks,) = self.processor.post_process_masks(logits, [tuple(frame.shape[:2])], binarize=False)
        return masks.sigmoid().flatten(0, 1).amax(0)
