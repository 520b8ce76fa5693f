"""Joints of people by ViTPose, a model of transformers, in boxes around bodies that BlazePose finds.

Letters: H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..foreign import UnusableModelError, load_transformers, loading, missing_model
from .openpose_points import COCO, body_points
from .people import Person, example


def missing_vitpose(folder: Path) -> str | None:
    """Sentence on a folder whose ViTPose cannot be run here; None where it can."""
    return missing_model("pose", folder, "a ViTPose of transformers", " for ViTPose")


class VitPose:
    """ViTPose of COCO's 17 joints.

    Args:
        folder: Of the model, such as vitpose-base-simple or vitpose-plus-base.

    Raises:
        UnusableModelError: transformers cannot load or run it.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoImageProcessor, VitPoseForPoseEstimation

        self.processor, self.network = load_transformers(
            folder, "a ViTPose", VitPoseForPoseEstimation, AutoImageProcessor
        )
        with loading("transformers", folder, "a ViTPose", UnusableModelError):
            self(*example())

    def __call__(self, frame: Tensor, people: Sequence[Person]) -> list[np.ndarray]:
        """OpenPose's joints [18, 3] of each of the people in a frame [H, W, 3] float in [0, 1]."""
        if not people:
            return []
        picture = (255 * frame).round().to(torch.uint8).cpu().numpy()
        corners = [person.box() for person in people]
        boxes = [[[left, top, right - left, bottom - top] for left, top, right, bottom in corners]]
        inputs = self.processor([picture], boxes=boxes, return_tensors="pt").to(self.network.device)
        if self.network.config.backbone_config.num_experts > 1:
            # ViTPose++ has an expert for each data set; the first is COCO's.
            inputs["dataset_index"] = torch.zeros(len(people), dtype=torch.long, device=self.network.device)
        with torch.inference_mode():
            outputs = self.network(**inputs)
        (poses,) = self.processor.post_process_pose_estimation(outputs, boxes=boxes)
        points = [np.concatenate([p["keypoints"], p["scores"][:, None]], axis=1) for p in poses]
        return [body_points(person.clip([-np.inf] * 2 + [0], [np.inf] * 2 + [1]), COCO) for person in points]
