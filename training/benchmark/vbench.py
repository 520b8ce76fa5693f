"""VBench's six dimensions of the paper, computed by VBench's program in a separate environment.

`vbench evaluate` (0.1.5) takes a folder of videos and a JSON of their prompts, and writes
NAME_eval_results.json: {dimension: [mean, [{"video_path": .., "video_results": ..}, ..]]}. It ends with
status 0 also where it failed: the file counts.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from vdot_core.files import read_file, sha256_of
from vdot_core.text import parse_json, shown

from ..engine.files import read_json, write_json
from ..engine.stopping import before_end
from .config import EvaluateConfig, ModelConfig
from .generate import ENDING, video_path
from .index import Benchmark
from .results import CURE, numbers_of
from .scores import Measure

logger = logging.getLogger("vdot")
# VBench's own smallest and largest values, by which its leaderboard normalizes (scripts/constant.py there).
RANGES = {
    "aesthetic_quality": (0.0, 1.0),
    "background_consistency": (0.2615, 1.0),
    "dynamic_degree": (0.0, 1.0),
    "imaging_quality": (0.0, 1.0),
    "motion_smoothness": (0.706, 0.9975),
    "subject_consistency": (0.1462, 1.0),
}
# Of single videos this dimension is 0 to 100, of all of them 0 to 1.
PERCENT = ("imaging_quality",)
TOTAL = "vbench_average"
PREFIX = "vbench_"
MEASURES = {
    TOTAL: Measure(
        "VBench average", 1, 2, "Mean of the six normalized dimensions, 0 to 100, computed by VBench."
    )
} | {
    PREFIX + name: Measure(
        f"VBench {name.replace('_', ' ')}", 1, 2, "Normalized to 0 to 100, computed by VBench."
    )
    for name in RANGES
}
MAX_RESULT_BYTES = 2**26


class VBenchError(ValueError):
    """VBench gave no result."""


def run_vbench(config: EvaluateConfig, benchmark: Benchmark, model: ModelConfig) -> list[str]:
    """Compute what is missing of a model's dimensions; each is kept as soon as it is there.

    Returns:
        A sentence for each dimension that failed.
    """
    videos, key = _videos(config, benchmark, model)
    if not videos:
        return []
    prompts = {sample.name: sample.prompt for sample in benchmark.samples}
    failures = []
    for dimension in RANGES:
        path = _path(config, model, dimension)
        if path.is_file() and read_json(path, dict, CURE).get("key") == key:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            values = _run(config, dimension, videos, prompts, path.with_suffix(".log"))
        except VBenchError as error:
            failures.append(f"VBench, {model.name}, {dimension}: {error}")
            continue
        write_json({"key": key, "videos": values}, path)
        logger.info("VBench: %s, %s", model.name, dimension)
    return failures


def _videos(config: EvaluateConfig, benchmark: Benchmark, model: ModelConfig) -> tuple[dict[str, Path], str]:
    """Row -> video, and a digest of them all."""
    videos = {s.name: path for s in benchmark.samples if (path := video_path(config, model, s)).is_file()}
    parts = [[s.name, s.prompt, sha256_of(videos[s.name])] for s in benchmark.samples if s.name in videos]
    return videos, hashlib.sha256(json.dumps(sorted(parts)).encode()).hexdigest()[:32]


def _path(config: EvaluateConfig, model: ModelConfig, dimension: str) -> Path:
    return Path(config.out_dir) / "vbench" / model.name / f"{dimension}.json"


def _run(
    config: EvaluateConfig, dimension: str, videos: dict[str, Path], prompts: dict[str, str], log: Path
) -> dict[str, float]:
    """Row -> VBench's value, in its own units of all videos."""
    # Its program passes paths through a shell without quotes, so that they must be plain words.
    with tempfile.TemporaryDirectory(prefix="vdot-vbench-") as name:
        folder = Path(name)
        (folder / "videos").mkdir()
        rows = {f"{number:06d}": row for number, row in enumerate(videos)}
        for stem, row in rows.items():
            shutil.copyfile(videos[row], folder / "videos" / f"{stem}{ENDING}")
        listing = {f"{stem}{ENDING}": prompts[row] for stem, row in rows.items()}
        (folder / "prompts.json").write_text(json.dumps(listing), encoding="utf-8")
        command = [*config.vbench.command, "--videos_path", str(folder / "videos"), "--dimension", dimension]
        command += ["--output_path", str(folder / "results"), "--mode", "custom_input"]
        command += ["--prompt_file", str(folder / "prompts.json")]
        status = _call(command, folder, log, 60 * config.vbench.timeout_min)
        files = sorted((folder / "results").glob("*_eval_results.json"))
        if not files:
            raise VBenchError(f"it wrote no result (status {status}); see {shown(log)}")
        return read_results(files[-1], dimension, rows)


def _call(command: list[str], folder: Path, log: Path, timeout_s: float) -> int:
    """Run a command to its end; its exit status."""
    # It starts `python`, which has to be the one next to it.
    path = os.pathsep.join([str(Path(command[0]).absolute().parent), os.environ.get("PATH", "")])
    options = {"cwd": folder, "env": {**os.environ, "PATH": path}, "stdin": subprocess.DEVNULL}
    with log.open("wb") as file:
        try:
            process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True, **options)
        except OSError as error:
            raise VBenchError(
                f"{shown(command[0])} cannot be started ({shown(error.strerror or error, 80)}); "
                "correct vbench.command"
            ) from error
        try:
            with before_end(lambda: _kill(process)):
                return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise VBenchError(
                f"it took more than vbench.timeout_min {timeout_s / 60:g}; see {shown(log)}"
            ) from None
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program with all that it started."""
    if process.poll() is None:
        _kill(process)
        process.wait()


def _kill(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def read_results(path: Path, dimension: str, rows: dict[str, str]) -> dict[str, float]:
    """Read VBench's result of one dimension.

    Args:
        path: NAME_eval_results.json.
        dimension: The one that was asked for.
        rows: Name of a video without its ending -> row.

    Returns:
        Row -> value, in the units of VBench's means.

    Raises:
        VBenchError: It is no such file, or a video is missing.
    """
    try:
        _, videos = parse_json(read_file(path, MAX_RESULT_BYTES))[dimension]
        values = {rows[Path(video["video_path"]).stem]: _number(video["video_results"]) for video in videos}
    except (ValueError, LookupError, TypeError) as error:
        raise VBenchError(f"its result is not as version 0.1.5 writes it ({shown(error, 120)})") from error
    if absent := [row for row in rows.values() if row not in values]:
        raise VBenchError(f"its result lacks {len(absent)} of {len(rows)} videos")
    return {row: value / 100 if dimension in PERCENT else value for row, value in values.items()}


def _number(value: Any) -> float:
    """A finite number, or a truth value: 1 or 0."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"a value is {shown(value, 40)}")
    return float(value)


def read_vbench(
    config: EvaluateConfig, benchmark: Benchmark, model: ModelConfig
) -> dict[str, dict[str, float]]:
    """Row -> measure -> value, normalized to 0 to 100, of all dimensions that were computed of these videos.

    The average is there where all six are.
    """
    result: dict[str, dict[str, float]] = {}
    paths = {dimension: _path(config, model, dimension) for dimension in RANGES}
    if not any(path.is_file() for path in paths.values()):
        return result
    key = _videos(config, benchmark, model)[1]
    for dimension, (low, high) in RANGES.items():
        values = read_json(paths[dimension], dict, CURE) if paths[dimension].is_file() else {}
        if values.get("key") == key:
            for row, value in numbers_of(values, "videos", paths[dimension]).items():
                result.setdefault(row, {})[PREFIX + dimension] = 100 * (value - low) / (high - low)
    for values in result.values():
        if len(values) == len(RANGES):
            values[TOTAL] = sum(values.values()) / len(RANGES)
    return result
