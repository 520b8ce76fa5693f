"""Files of results, one for each video of a model; each is made once."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vdot_core.files import sha256_of
from vdot_core.text import shown

from ..engine.files import read_json, write_json
from ..engine.results import made_once
from .config import EvaluateConfig, ModelConfig
from .generate import shared_out, video_path
from .index import Benchmark, Sample

CURE = "remove it"
VIDEO = "video"  # entry with the digest of the video


def numbers_of(content: Mapping[str, Any], name: str, path: Path) -> dict[str, float]:
    """The numbers of an entry of a file.

    Raises:
        ValueError: It is no table of finite numbers.
    """
    values = content.get(name)
    if not isinstance(values, dict) or not all(map(_is_number, values.values())):
        raise ValueError(f"{shown(path)} is damaged (its {name} are no numbers); {CURE}")
    return values


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Results:
    """The results of one kind.

    Attributes:
        folder: In the output folder.
        name: Their name in a file.
        key_of: What a video's results depend on, of (config, row, video).
    """

    folder: str
    name: str
    key_of: Callable[[EvaluateConfig, Sample, Path], Sequence[Any]]

    def path(self, config: EvaluateConfig, model: ModelConfig, sample: Sample) -> Path:
        """The file of a video's results."""
        return Path(config.out_dir) / self.folder / model.name / f"{sample.name}.json"

    def missing(
        self, config: EvaluateConfig, benchmark: Benchmark, model: ModelConfig
    ) -> Iterator[tuple[Sample, Path, Callable[[dict[str, float]], None]]]:
        """Videos that are there and whose results are not, and what writes them.

        A row is claimed from other processes until the next is asked for.
        """
        for sample in shared_out(benchmark.samples):
            video, path = video_path(config, model, sample), self.path(config, model, sample)
            if not video.is_file():
                continue
            key = self._key(config, sample, video)
            with made_once(path, "key", key, CURE) as mine:
                if mine:
                    content = {"key": key, VIDEO: sha256_of(video)}
                    yield sample, video, lambda values: write_json({**content, self.name: values}, path)  # noqa: B023

    def read(
        self, config: EvaluateConfig, model: ModelConfig, sample: Sample, *, of_video_alone: bool = False
    ) -> dict[str, float] | None:
        """A video's results; None where there are none, or those of an earlier video or other settings.

        Args:
            config, model, sample: The video's.
            of_video_alone: Settings may differ.

        Raises:
            ValueError: The file is damaged.
        """
        video, path = video_path(config, model, sample), self.path(config, model, sample)
        if not path.is_file() or not video.is_file():
            return None
        content = read_json(path, dict, CURE)
        if content.get("key") != self._key(config, sample, video):
            if not of_video_alone or content.get(VIDEO) != sha256_of(video):
                return None
        return numbers_of(content, self.name, path)

    def _key(self, config: EvaluateConfig, sample: Sample, video: Path) -> str:
        text = json.dumps(self.key_of(config, sample, video))
        return hashlib.sha256(text.encode()).hexdigest()[:32]
