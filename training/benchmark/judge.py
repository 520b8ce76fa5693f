"""Ratings of videos by a vision-language model behind an OpenAI-compatible address."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vdot_core.files import sha256_of
from vdot_core.text import parse_json, shown

from ..data.bad_rows import BadRowError
from ..preparation.captions import ask, pictures_of
from ..preparation.clip_files import load
from ..preparation.config import CaptionConfig
from ..preparation.stage import RetryLaterError
from .config import EvaluateConfig, ModelConfig
from .index import Benchmark, Sample
from .results import Results
from .scores import Measure
from .study import CRITERIA

PREFIX = "judge_"
LOWEST, HIGHEST = 1, 5
MEASURES = {
    PREFIX + name: Measure(
        f"judge {title.lower()}", 1, 2, "1 to 5, by a vision-language model that sees some frames."
    )
    for name, title in CRITERIA.items()
}
QUESTION = """The pictures are {count} moments, in order, of a video that a model made for this request:

{prompt}

Rate it from 1 (bad) to 5 (excellent): prompt_following (does it show what the request asks for), \
temporal_consistency (do subjects and background stay the same from moment to moment), \
video_quality (sharp, natural, free of artifacts). Answer with JSON alone: \
{{"prompt_following": n, "temporal_consistency": n, "video_quality": n}}"""
VERSION = 1


def judge_videos(config: EvaluateConfig, benchmark: Benchmark, model: ModelConfig) -> list[str]:
    """Have a model's videos rated, as far as they are there and not rated yet.

    Returns:
        A sentence for each video that has to be tried again.

    Raises:
        StopError: The server refuses the request.
    """
    later = []
    for sample, video, write in RESULTS.missing(config, benchmark, model):
        try:
            write(rate(video, sample, config))
        except (RetryLaterError, BadRowError) as error:
            later.append(f"judge, {model.name}, {shown(sample.name)}: {error}")
    return later


def rate(video: Path, sample: Sample, config: EvaluateConfig) -> dict[str, float]:
    """Criterion -> rating of one video; errors as `judge_videos`."""
    judge = config.judge
    question = QUESTION.format(count=judge.frames, prompt=sample.prompt)
    settings = CaptionConfig(**(asdict(judge) | {"prompt": question}))
    frames = load(video, config.frame_rate, config.num_frames)
    return read_ratings(ask(pictures_of(frames, judge.frames), settings)["prompt"])


def read_ratings(answer: str) -> dict[str, float]:
    """The ratings in an answer; RetryLaterError where it has none."""
    try:
        found = re.search(r"\{[^{}]*\}", answer)
        values = parse_json(found[0] if found else answer)
        ratings = {name: values[name] for name in CRITERIA}
        for name, value in ratings.items():
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, float))
                or not LOWEST <= value <= HIGHEST
            ):
                raise ValueError(f"{name} is {shown(value, 40)}")
    except (ValueError, LookupError, TypeError) as error:
        raise RetryLaterError(f"the answer holds no ratings of 1 to 5 ({shown(error, 120)})") from error
    return {name: float(value) for name, value in ratings.items()}


def _key(config: EvaluateConfig, sample: Sample, video: Path) -> list[Any]:
    return [VERSION, sample.prompt, sha256_of(video), config.judge.model, config.judge.frames]


RESULTS = Results("judge", "ratings", _key)


def read_ratings_of(config: EvaluateConfig, model: ModelConfig, sample: Sample) -> dict[str, float]:
    """Measure -> rating of a video; empty where it was not rated."""
    # Without a judge, the table still shows what one said of these videos.
    ratings = RESULTS.read(config, model, sample, of_video_alone=config.judge.url is None) or {}
    return {PREFIX + name: ratings[name] for name in CRITERIA if name in ratings}
