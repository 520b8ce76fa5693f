"""Makes the videos that are missing, each by one process, complete or absent."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from vdot_core.files import atomic_write, remove_abandoned, sha256_of
from vdot_core.text import shown
from vdot_core.videos import open_video

from ..data.bad_rows import BadRowError, Skipped
from ..distributed.environment import place, whole_number
from ..engine.lock import claimed
from ..preparation.clip_files import write_frames
from .config import EvaluateConfig, ModelConfig
from .index import Benchmark, Sample
from .makers import Maker, make_maker, seed_of
from .samples import load_conditions

logger = logging.getLogger("vdot")
CRF = 10
ENDING = ".mp4"
# Raised with every change of what a maker computes.
VERSION = 1


def video_path(config: EvaluateConfig, model: ModelConfig, sample: Sample) -> Path:
    """A model's video of a row."""
    return Path(config.out_dir) / "videos" / model.name / f"{sample.name}{ENDING}"


def shared_out(samples: Sequence[Sample]) -> Iterator[Sample]:
    """All rows, this process's share under torchrun first: who is done helps the others."""
    rank, size = place()
    for share in range(size):
        yield from samples[(rank + share) % size :: size]


def make_videos(
    config: EvaluateConfig, benchmark: Benchmark, model: ModelConfig, weights: str
) -> list[Skipped]:
    """Make a model's missing videos; those that another process is making are left to it.

    Args:
        config: All settings.
        benchmark: The rows.
        model: One of the configuration's.
        weights: Its `weights_digest`.

    Returns:
        Rows of which no video can be made.

    Raises:
        ValueError: The model cannot be loaded.
    """
    if model.kind == "folder":
        return [
            skipped for sample in shared_out(benchmark.samples) if (skipped := _copy(config, model, sample))
        ]
    maker: Maker | None = None
    failed = []
    for sample in shared_out(benchmark.samples):
        path = video_path(config, model, sample)
        path.parent.mkdir(parents=True, exist_ok=True)
        settings = _settings(config, model, weights, sample.task)
        key = hashlib.sha256(f"{settings}{sample.key()}".encode()).hexdigest()[:32]
        if _key_of(path) == key:
            continue
        with claimed(path) as mine:
            if not mine or _key_of(path) == key:
                continue
            maker = maker or make_maker(model, config, whole_number("LOCAL_RANK") or 0)
            begin = time.monotonic()
            try:
                video = maker(sample, load_conditions(sample, config), seed_of(sample, config.seed))
            except BadRowError as error:
                failed.append(Skipped.from_error(sample.name, model.name, error))
                continue
            if not video.isfinite().all():
                reason = (
                    "its video holds numbers that are not finite; look at the weights, or give dtype fp32"
                )
                failed.append(Skipped(sample.name, model.name, "failed", reason))
                continue
            write_frames(path, video, config.frame_rate, CRF, comment=key)
            logger.info("%s: %s, %.1f s", model.name, shown(sample.name), time.monotonic() - begin)
    return failed


def _settings(config: EvaluateConfig, model: ModelConfig, weights: str, task: str) -> str:
    """All that every video of a model's task depends on, besides its row."""
    names = ("width", "height", "max_pixels", "num_frames", "frame_rate", "seed", "dtype")
    sampling = asdict(model.sampler) | {"guidance": model.sampler.guidance_of(task)}
    del sampling["task_guidance"]
    return json.dumps(
        [VERSION, CRF, weights, model.kind, sampling, *(getattr(config, name) for name in names)]
    )


def _key_of(path: Path) -> str | None:
    """The key that a finished video was written with; None where there is none."""
    if not path.is_file():
        return None
    with suppress(ValueError, OSError), open_video(path) as container:
        return container.metadata.get("comment", "")
    return None


def _copy(config: EvaluateConfig, model: ModelConfig, sample: Sample) -> Skipped | None:
    """Copy someone else's video, so that the pages can be moved as a whole."""
    source, path = Path(model.path) / f"{sample.name}{ENDING}", video_path(config, model, sample)
    if not source.is_file():
        reason = f"{shown(source)} does not exist; {model.name} is compared without this row"
        return Skipped(sample.name, model.name, "missing", reason)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and sha256_of(path) == sha256_of(source):
        return None
    with claimed(path) as mine:
        if mine:
            remove_abandoned(path)
            with atomic_write(path) as partial:
                shutil.copyfile(source, partial)
    return None
