"""The stages of a preparation, in order."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from vdot_core.annotators import NAMES

from . import caption_model, captions, motion, niqe, quality, references, shots
from .annotate import annotation_stage
from .config import PrepareConfig
from .make_rows import make_rows
from .stage import Stage, model_state
from .trim import trim


def _states(*models: str | None) -> dict[str, Any]:
    """The states of models by their paths; nothing where none is named."""
    return {path: model_state(path) for path in models if path is not None}


SHOTS = Stage(
    "shots",
    1,
    shots.cut_source,
    settings=lambda c: [
        c.clips.detector, c.clips.threshold, c.clips.frame_rate, c.clips.num_frames, c.clips.min_frames,
        c.clips.clips_per_shot, c.clips.reserve, c.clips.edge_s,
    ],
    missing=shots.missing,
)  # fmt: skip
TRIM = Stage(
    "trim",
    1,
    trim,
    ("shots",),
    settings=lambda c: [c.clips.buckets, c.clips.max_upscale, c.clips.crf, c.clips.frame_rate],
)
QUALITY = Stage(
    "quality",
    3,
    quality.measure,
    ("trim",),
    settings=lambda c: [
        asdict(c.quality) | _states(c.quality.aesthetic_model, c.quality.aesthetic_head),
        niqe.VERSION if niqe.missing() is None else None,
    ],
    missing=quality.missing,
)
MOTION = Stage(
    "motion",
    1,
    motion.measure_motion,
    ("trim",),
    settings=lambda c: model_state(c.flow_model),
    missing=motion.missing,
)
CAPTIONS = Stage(
    "captions",
    2,
    captions.caption,
    ("trim",),
    settings=captions.settings_of,
    missing=lambda c: caption_model.missing(c.captions),
)
REFERENCES = Stage(
    "references",
    2,
    references.cut_reference,
    ("trim", "annotate_matte"),
    settings=lambda c: [c.tasks.subject_area, c.clips.reserve, c.clips.edge_s],
    missing=references.missing,
)


def annotation_stages(config: PrepareConfig) -> list[Stage]:
    """The stages of the annotators that a configuration names."""
    return [annotation_stage(name) for name in config.annotators]


def row_stage(names: list[str]) -> Stage:
    """The last stage, which reads the results of these."""
    return Stage("tasks", 3, make_rows, ("trim", *names), settings=lambda c: c.tasks)


def find_stage(name: str) -> Stage:
    """A stage by its name, for a worker."""
    fixed = {stage.name: stage for stage in (SHOTS, TRIM, QUALITY, MOTION, CAPTIONS, REFERENCES)}
    if name in fixed:
        return fixed[name]
    if name == "tasks":
        return row_stage([])
    assert name.removeprefix("annotate_") in NAMES, name
    return annotation_stage(name.removeprefix("annotate_"))
