"""Our measures of a video, none of which needs a download; they are not VBench's.

Letters: F frames, H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn.functional import max_pool2d

from vdot_core.files import sha256_of
from vdot_core.signals import luma

from ..data.bad_rows import BadRowError, Skipped
from ..data.video_files import Media, read_clip
from ..preparation import niqe
from ..preparation.stage import model_state
from . import control, motion, reference
from .config import EvaluateConfig, ModelConfig
from .index import Benchmark, Sample
from .results import Results
from .samples import Conditions, fit_video, load_conditions

MAX_PSNR = 60.0
MIXED_PX = 2
VERSION = 1


@dataclass(frozen=True)
class Measure:
    """A number of each video.

    Attributes:
        title: Head of its column.
        better: 1: higher is better, -1: lower, 0: neither.
        digits: After the point.
        meaning: A sentence for readers.
    """

    title: str
    better: int
    digits: int
    meaning: str


MEASURES = {
    "control_fidelity": Measure(
        "control", 1, 3, "Control fidelity, 0 to 1: the signal (gray, scribble, flow, depth, pose) is "
        "estimated from the video again and compared with the control where the mask is white.",
    ),
    "kept_psnr": Measure(
        "kept, dB", 1, 1, "PSNR where the mask is black, 2 pixels from white, at most 60.",
    ),
    "reference_identity": Measure(
        "reference", 1, 3, "Reference identity, 0 to 1, by colors alone: the share of the reference's color "
        "histogram that the best window of a frame shows.",
    ),
    "flicker": Measure(
        "flicker", -1, 2, "Change of luma between frames that motion does not explain, in 8-bit steps.",
    ),
    "niqe": Measure(
        "NIQE", -1, 2, "Distance of local statistics from those of undistorted photographs; of sizes and "
        "clips that are the same.",
    ),
    "motion": Measure("motion", 0, 2, "Mean optical flow (DIS), in percent of the diagonal a second."),
}  # fmt: skip


def score_videos(config: EvaluateConfig, benchmark: Benchmark, model: ModelConfig) -> list[Skipped]:
    """Score a model's videos, as far as they are there; scores of the same video and settings stay.

    Returns:
        Rows whose video cannot be scored.
    """
    failed = []
    for sample, video, write in RESULTS.missing(config, benchmark, model):
        try:
            frames = read_clip(Media(str(video)), config.frame_rate, config.num_frames)[..., :3]
            write(score(frames, sample, config))
        except BadRowError as error:
            failed.append(Skipped.from_error(sample.name, model.name, error))
    return failed


def _key(config: EvaluateConfig, sample: Sample, video: Path) -> list[Any]:
    names = ("width", "height", "max_pixels", "num_frames", "frame_rate", "estimators")
    models = list(map(model_state, (config.depth_model, config.flow_model, config.pose_model)))
    versions = [VERSION, control.VERSION, reference.VERSION, motion.VERSION, niqe.VERSION]
    absent = [_missing(sample, config), motion.missing(), niqe.missing()]
    return [
        versions,
        sample.key(),
        sha256_of(video),
        absent,
        models,
        *(getattr(config, name) for name in names),
    ]


RESULTS = Results("scores", "scores", _key)


def _missing(sample: Sample, config: EvaluateConfig) -> str | None:
    """Why a row's control is not estimated again; None where it is, or where it has none."""
    signal = control.signal_of(sample.task)
    return control.missing(signal, config) if signal and sample.source else None


def read_scores(config: EvaluateConfig, model: ModelConfig, sample: Sample) -> dict[str, float] | None:
    """The scores of a video; None where it has none (yet), or those of an earlier video.

    Raises:
        ValueError: The file is damaged.
    """
    # What can be measured differs between the machines that share the work.
    values = RESULTS.read(config, model, sample, of_video_alone=True)
    return values and {name: value for name, value in values.items() if name in MEASURES}


def score(video: Tensor, sample: Sample, config: EvaluateConfig) -> dict[str, float]:
    """All measures that a row has.

    Args:
        video: [F, H, W, 3] uint8.
        sample: The row.
        config: Estimators and sizes.

    Returns:
        Name in `MEASURES` -> value.

    Raises:
        BadRowError: The row's files cannot be read.
    """
    frames, conditions = fit_video(video, load_conditions(sample, config))
    values: dict[str, float | None] = {
        "kept_psnr": kept_psnr(frames, conditions),
        "reference_identity": reference.reference_identity(frames, conditions.references),
    }
    signal = control.signal_of(sample.task)
    if signal and conditions.has_source and _missing(sample, config) is None:
        values["control_fidelity"] = control.control_fidelity(frames, conditions, signal, config)
    if motion.missing() is None and (pair := motion.motion_and_flicker(frames, config.frame_rate)):
        values["motion"], values["flicker"] = pair
    if niqe.missing() is None:
        values["niqe"] = niqe.clip_niqe(luma(frames).numpy().reshape(frames.shape[:3]))
    return {name: round(value, 6) for name, value in values.items() if value is not None}


def kept_psnr(video: Tensor, conditions: Conditions) -> float | None:
    """Of the kept region, in decibels, at most `MAX_PSNR`; None where nothing is kept.

    Near the mask, the colors of video files mix over two pixels: those do not count.
    """
    reach = 2 * MIXED_PX + 1
    kept = max_pool2d(conditions.mask[:, None], reach, 1, MIXED_PX)[:, 0] <= 0.5
    if not conditions.has_source or not kept.any():
        return None
    error = float((video - conditions.frames)[kept].square().mean())
    return min(MAX_PSNR, -10 * math.log10(error)) if error > 0 else MAX_PSNR


def notes(config: EvaluateConfig, benchmark: Benchmark) -> dict[str, Any]:
    """Task -> why its control is not estimated again."""
    return {sample.task: reason for sample in benchmark.samples if (reason := _missing(sample, config))}
