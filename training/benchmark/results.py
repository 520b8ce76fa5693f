"""Files of results, one for each video of a model; each is made once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engine.files import write_json
from ..engine.results import made_once
from .config import EvaluateConfig, ModelConfig
from .generate import shared_out, video_path
from .index import Benchmark, Sample

CURE = "remove it"


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
            text = json.dumps(self.key_of(config, sample, video))
            key = hashlib.sha256(text.encode()).hexdigest()[:32]
            with made_once(path, "key", key, CURE) as mine:
                if mine:
                    yield sample, video, lambda values: write_json({"key": key, self.name: values}, path)  # noqa: B023
