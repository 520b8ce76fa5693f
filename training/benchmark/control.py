"""Control fidelity: the signal of a task is estimated from the video again and compared with the control.

Letters: F frames, H W pixels.
"""

from __future__ import annotations

import re
from functools import lru_cache

from torch import Tensor
from torch.nn.functional import max_pool2d

from vdot_core.annotators import NAMES, Annotator, make_annotator
from vdot_core.signals import luma

from .config import EvaluateConfig
from .samples import Conditions

# Words of a task's name -> signal.
WORDS = {
    "depth": "depth",
    "pose": "pose",
    "flow": "flow",
    "gray": "gray",
    "grey": "gray",
    "scribble": "scribble",
    "lines": "scribble",
}
INK = 0.25
REACH = 0.015  # of the shorter side: how far a line may be off
LEAST_SPREAD = 1e-3
VERSION = 1


def signal_of(task: str) -> str | None:
    """The signal that a task's name tells, such as pose of reference+pose; None where it tells none."""
    signals = [WORDS[word] for word in re.split(r"[^a-z0-9]+", task.lower()) if word in WORDS]
    return signals[0] if signals else None


@lru_cache(maxsize=8)
def _annotator(name: str, model: str | None) -> Annotator:
    return make_annotator(name, model=model)


def missing(signal: str, config: EvaluateConfig) -> str | None:
    """Why a signal cannot be estimated here; None where it can."""
    if signal not in config.estimators:
        return f"{signal} is not among estimators"
    if signal not in NAMES:
        return None  # gray needs no annotator
    return _annotator(signal, getattr(config, f"{signal}_model", None)).missing()


def control_fidelity(
    video: Tensor, conditions: Conditions, signal: str, config: EvaluateConfig
) -> float | None:
    """Agreement of the signal of a video with its control, where the mask is 1.

    Gray and depth: the mean over frames of Pearson's correlation, at least 0. Flow: the mean cosine of the
    color-wheel maps' saturation. Scribble and pose: the F1 score of the drawn pixels, which may be off by
    `REACH`.

    Args:
        video: [F, H, W, 3] float in [0, 1].
        conditions: Of the same size and length.
        signal: One of the values of `WORDS`.
        config: Which depth model.

    Returns:
        In [0, 1], 1 = the same; None where the control shows nothing.
    """
    if signal == "flow" and len(video) < 2:
        return None
    if signal == "gray":
        estimated = luma(video)[..., None].expand_as(video)
    else:
        annotator = _annotator(signal, getattr(config, f"{signal}_model", None))
        estimated = annotator.run(video).control
    where = conditions.mask > 0.5
    compare = {"gray": _correlation, "depth": _correlation, "flow": _cosine}.get(signal)
    if compare is None:
        clips = (estimated, conditions.frames)
        return _f1(*(_inked(clip, dark=signal == "scribble") & where for clip in clips))
    values = [compare(*pair) for pair in zip(estimated, conditions.frames, where, strict=True)]
    values = [value for value in values if value is not None]
    return sum(values) / len(values) if values else None


def _inked(clip: Tensor, *, dark: bool) -> Tensor:
    """[F, H, W] where something is drawn: dark on white, or bright on black."""
    return luma(clip) < 1 - INK if dark else clip.amax(-1) > INK


def _correlation(estimated: Tensor, control: Tensor, where: Tensor) -> float | None:
    """Of luma, in [0, 1]; None where the control is uniform."""
    a, b = luma(estimated)[where], luma(control)[where]
    if len(b) < 2 or float(b.std()) < LEAST_SPREAD:
        return None
    a, b = a - a.mean(), b - b.mean()
    return max(0.0, float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-9)))


def _cosine(estimated: Tensor, control: Tensor, where: Tensor) -> float | None:
    """Of saturations: white, which is still, is 0; None where the control is still."""
    a, b = (1 - estimated)[where].flatten(), (1 - control)[where].flatten()
    if not len(b) or float(b.square().mean().sqrt()) < LEAST_SPREAD:
        return None
    return max(0.0, float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-9)))


def _f1(estimated: Tensor, control: Tensor) -> float | None:
    """F1 of drawn pixels [F, H, W], each matched within reach; None where nothing is drawn."""
    if not control.any():
        return None
    if not estimated.any():
        return 0.0
    reach = max(1, round(REACH * min(control.shape[1:])))

    def near(drawn: Tensor) -> Tensor:
        return max_pool2d(drawn[:, None].float(), 2 * reach + 1, 1, reach)[:, 0] > 0

    precision = float((estimated & near(control)).sum() / estimated.sum())
    recall = float((control & near(estimated)).sum() / control.sum())
    return 2 * precision * recall / max(precision + recall, 1e-9)
