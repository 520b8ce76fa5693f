"""Masks of people by SAM 2, a model of transformers, in boxes around bodies that BlazePose finds.

Letters: H W pixels, P people.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..foreign import load_transformers, missing_model
from .people import Person


def missing_sam2(folder: Path) -> str | None:
    """Sentence on a folder whose SAM 2 cannot be run here; None where it can."""
    return missing_model("matte", folder, "a SAM 2 of transformers", " for SAM 2")


class Sam2:
    """SAM 2 on single frames, asked by boxes.

    Args:
        folder: Of the model, such as sam2.1-hiera-small.

    Raises:
        UnusableModelError: transformers cannot load it.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import Sam2Model, Sam2Processor

        self.processor, self.network = load_transformers(folder, "a SAM 2", Sam2Model, Sam2Processor)

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
