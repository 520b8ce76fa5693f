"""Files of results, one for each video of a model; each is made once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vdot_core.files import remove_abandoned

from ..engine.files import read_json, write_json
from ..engine.lock import claimed
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
            if _is_finished(path, key):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with claimed(path) as mine:
                if mine and not _is_finished(path, key):
                    remove_abandoned(path)
                    yield sample, video, lambda values: write_json({"key": key, self.name: values}, path)  # noqa: B023


def _is_finished(path: Path, key: str) -> bool:
    return path.is_file() and read_json(path, dict, CURE).get("key") == key
