"""Runs an annotator on a clip, and writes its control video and masks."""

from __future__ import annotations

from functools import lru_cache

from vdot_core.annotators import Annotator, make_annotator

from .clip_files import load, write_frames, write_mask
from .config import PrepareConfig
from .stage import Row, Stage, model_state, out_path

CONTROL_CRF = 14


@lru_cache(maxsize=16)
def _annotator(name: str, model: str | None) -> Annotator:
    """One for each worker: its model is read once."""
    return make_annotator(name, model=model)


def annotator(name: str, config: PrepareConfig) -> Annotator:
    """An annotator as the configuration sets it up."""
    return _annotator(name, model_of(name, config))


def model_of(name: str, config: PrepareConfig) -> str | None:
    """The model that a configuration names for an annotator; None: its own, if it has one."""
    return getattr(config, f"{name}_model", None)


def annotation_stage(name: str) -> Stage:
    """The stage `annotate_NAME` of an annotator."""

    def run(row: Row, config: PrepareConfig) -> Row:
        return annotate(name, row, config)

    return Stage(
        name=f"annotate_{name}",
        version=100 + make_annotator(name).version,
        run=run,
        after=("trim",),
        settings=lambda config: [config.clips.frame_rate, model_state(model_of(name, config))],
        missing=lambda config: annotator(name, config).missing(),
    )


def annotate(name: str, row: Row, config: PrepareConfig) -> Row:
    """Annotate a clip.

    Args:
        name: Of the annotator.
        row: A clip's row after `trim`.
        config: All settings.

    Returns:
        `estimator`, the annotator's facts; where it has them `control` and `masks`, files under the output
        folder; `areas`, the masked part of each frame; `boxes` of each frame; `people`, the number of visible
        body points of each frame's most complete person.
    """
    clip, rate = row["trim"], config.clips.frame_rate
    result = annotator(name, config).run(load(out_path(config, clip["file"]), rate, clip["num_frames"]))
    values: Row = {"estimator": result.estimator}
    values |= {fact: round(float(value), 6) for fact, value in result.facts.items()}
    if result.control is not None:
        values["control"] = f"annotations/{name}/{row['id']}.mp4"
        write_frames(out_path(config, values["control"]), result.control, rate, CONTROL_CRF)
    if result.masks is not None:
        masks = (result.masks > 0.5).float()
        values["masks"] = f"annotations/{name}/{row['id']}.mask.mp4"
        write_mask(out_path(config, values["masks"]), masks, rate)
        values["areas"] = [round(float(mask.mean()), 5) for mask in masks]
    if result.boxes is not None:
        values["boxes"] = [[[round(float(v), 3) for v in box] for box in boxes] for boxes in result.boxes]
    if result.keypoints is not None:
        values["people"] = [max(map(_num_visible, frame["people"]), default=0) for frame in result.keypoints]
    return values


def _num_visible(person: Row) -> int:
    """Body points with a score that is drawn."""
    return sum(score > 0.3 for score in person["pose_keypoints_2d"][2::3])
