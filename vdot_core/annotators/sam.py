"""Masks of people by SAM 2 or 3, models of transformers, in boxes around bodies that BlazePose finds.

Letters: H W pixels, P people.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..foreign import UnusableModelError, load_transformers, loading, missing_model
from .people import Person, example

# Name -> network and processor in transformers. SAM 3's tracker takes boxes as SAM 2 does.
CLASSES = {"SAM 2": ("Sam2Model", "Sam2Processor"), "SAM 3": ("Sam3TrackerModel", "Sam3TrackerProcessor")}


def missing_sam(folder: Path) -> str | None:
    """Sentence on a folder whose SAM cannot be run here; None where it can."""
    return missing_model("matte", folder, "a SAM 2 or 3 of transformers", " for SAM")


class Sam:
    """SAM 2 or 3 on single frames, asked by boxes.

    Args:
        folder: Of the model, such as sam2.1-hiera-small or sam3; its config.json tells them apart.

    Attributes:
        name: "SAM 2" or "SAM 3".

    Raises:
        UnusableModelError: transformers cannot load or run it.
    """

    def __init__(self, folder: Path) -> None:
        import transformers

        text = (folder / "config.json").read_bytes()
        self.name = "SAM 3" if b'"model_type": "sam3' in text else "SAM 2"
        classes = [getattr(transformers, name, None) for name in CLASSES[self.name]]
        if None in classes:
            raise UnusableModelError(
                f"transformers {transformers.__version__} has no {self.name}; `pip install -U transformers`"
            )
        self.processor, self.network = load_transformers(folder, f"a {self.name}", *classes)
        with loading("transformers", folder, f"a {self.name}", UnusableModelError):
            self(*example())

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
