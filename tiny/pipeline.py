"""The stages that make the bundled weights: their settings, their scale, their processes."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

from training.data.checks import is_plain, require_range
from training.engine.cli import RunParser
from training.engine.files import read_json, write_json
from training.paths import ROOT
from vdot_core.files import atomic_write, sha256_of
from vdot_core.text import described, shown

logger = logging.getLogger("vdot")
DEFAULT = Path(__file__).with_name("configs") / "train.yaml"
DONE, WEIGHTS = "done.json", "weights"
MOST_MINUTES = 1_000_000
# Keys that --scale multiplies, each with its least value; the intervals of a smaller run follow its length.
SCALED = {
    "steps": 2,
    "num_clips": 2,
    "num_validation": 1,
    "warmup": 0,
    "validate_every": 50,  # a validation takes as long as a step
    "save_every": 20,  # and so does a checkpoint of the teacher
    "sample_every": 1,
}
# Below this scale a run is a check of the pipeline: nothing is compiled, and these are a quarter, at least 1.
SMALL_SCALE = 0.1
SMALL = ("num_clips", "batch", "image_batch", "batch_size", "clips", "vae_clips")
# Such a run may have no clip of some task: all samples have equal weight.
BY_TASK = ("task_weights", "task_guidance", "task_text_drop")


class TimeOverError(RuntimeError):
    """The time limit is reached; all progress is saved."""


@dataclass(frozen=True)
class Stage:
    """One program with its settings.

    Attributes:
        name: Name, also of its folder.
        program: Path of the program from the repository's root.
        config: Its settings; {weights} in a text is the folder of the finished weights.
        gives: Name of a finished file -> its path in the stage's folder.
    """

    name: str
    program: Literal["tiny/pretrain.py", "training/finetune.py", "training/distill.py"]
    config: dict[str, Any]
    gives: dict[str, str]

    def __post_init__(self) -> None:
        for key, names in (("name", [self.name]), ("gives", self.gives)):
            if wrong := [name for name in names if not is_plain(name)]:
                raise ValueError(
                    f"stages: {key} has {described(wrong[0])}; give a plain word: it is a name in out_dir"
                )
        for path in self.gives.values():
            parts = PurePath(path).parts
            if not parts or PurePath(path).is_absolute() or ".." in parts:
                raise ValueError(f"stages: gives has {described(path)}; give a path in the stage's folder")
        for group in ("data", "parallel"):
            if not isinstance(value := self.config.get(group, {}), dict):
                raise ValueError(f"stages: {group} of {self.name} is {described(value)}; give keys")


@dataclass(frozen=True)
class PipelineConfig:
    """The recipe of the bundled weights.

    Attributes:
        stages: Stages in order.
        out_dir: Folder of the stages; finished weights are in its folder weights.
        scale: Share of the steps and clips of the recipe, above 0 and at most 1; below 0.1 batches and clips
            are a quarter of that, which checks the pipeline in minutes.
        minutes: Stop after this many minutes; 0: run to the end.
        device: Device of the trainings: auto, cpu or cuda.
    """

    stages: list[Stage]
    out_dir: str = "runs/tiny"
    scale: float = 1.0
    minutes: float = 0.0
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        names = [stage.name.lower() for stage in self.stages]
        if not names or len(set(names)) < len(names) or WEIGHTS in names:
            raise ValueError(
                f"stages are {described(names, 160)}; give one or more of different names, none of them "
                f"{WEIGHTS}, or leave stages out to run the bundled ones"
            )
        if not 0 < self.scale <= 1:
            raise ValueError(f"scale is {self.scale}; expected a share above 0, at most 1")
        require_range(self, "", 0, MOST_MINUTES, "minutes")

    @property
    def weights(self) -> Path:
        """Folder of the finished weights."""
        return Path(self.out_dir).absolute() / WEIGHTS


def read_pipeline(argv: Sequence[str]) -> PipelineConfig:
    """Read a command line; `--config` is the bundled recipe unless given. ValueError for a wrong setting."""
    parser = RunParser(PipelineConfig, prog="python tiny/train.py", description=__doc__)
    has_config = any(word.partition("=")[0] == "--config" for word in argv)
    return parser.read([*([] if has_config else ["--config", str(DEFAULT)]), *argv])[0]


def settings(config: PipelineConfig, stage: Stage) -> dict[str, Any]:
    """A stage's settings as its program reads them: scaled, with folders and device filled in."""
    folder = Path(config.out_dir).absolute() / stage.name
    values = _filled(stage.config, config)
    values["out_dir"] = str(folder)
    if stage.program == "tiny/pretrain.py":
        return {**values, "device": config.device}
    values["data"] = {**values.get("data", {}), "cache_dir": str(folder / "cache")}
    return {**values, "parallel": {**values.get("parallel", {}), "device": config.device}}


def _filled(value: Any, config: PipelineConfig, key: str = "") -> Any:
    if isinstance(value, dict):
        entries = {k: v for k, v in value.items() if config.scale >= SMALL_SCALE or k not in BY_TASK}
        return {k: _filled(v, config, k) for k, v in entries.items()}
    if isinstance(value, list):
        return [_filled(inner, config, key) for inner in value]
    if isinstance(value, str):
        return value.replace("{weights}", str(config.weights))
    small = config.scale < SMALL_SCALE
    if key == "compile":
        return value and not small
    if not value or config.scale == 1:
        return value
    if not isinstance(value, (int, float)):
        return value  # the stage's program refuses it by name
    if key in SCALED:
        share = config.scale / 4 if small and key in SMALL else config.scale
        return max(SCALED[key], round(value * share))
    return max(1, value // 4) if small and key in SMALL else value


def run_stage(config: PipelineConfig, stage: Stage, seconds: float | None) -> int:
    """Run a stage that is not finished, and store its files among the weights.

    Args:
        config: The run.
        stage: The stage.
        seconds: Remaining time; None: no limit.

    Returns:
        The program's exit status.

    Raises:
        ValueError: The stage was started with other settings.
        TimeOverError: The time was over before the stage was finished.
    """
    import yaml

    folder = _folder(config, stage)
    values = settings(config, stage)
    digest = hashlib.sha256(json.dumps([stage.program, values], sort_keys=True).encode()).hexdigest()
    file, mark = folder / "config.yaml", folder / "started.json"
    inputs = _inputs(config, stage)
    if mark.exists():
        _check_mark(mark, digest, inputs)
    if (folder / DONE).exists() and all((config.weights / name).exists() for name in stage.gives):
        _store(config, stage)
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    write_json({"settings": digest, "inputs": inputs}, mark)
    logger.info("%s: %s", stage.name, stage.program)
    command = [sys.executable, str(ROOT / stage.program), "--config", str(file)]
    if status := _run(command, stage.name, seconds):
        return status
    if absent := [path for path in stage.gives.values() if not (folder / path).is_file()]:
        raise ValueError(
            f"{stage.name} has ended without {described(absent[0])}; correct gives, or remove its max_steps"
        )
    write_json({"files": sorted(stage.gives)}, folder / DONE)
    _store(config, stage)
    return 0


def _folder(config: PipelineConfig, stage: Stage) -> Path:
    return Path(config.out_dir).absolute() / stage.name


def _inputs(config: PipelineConfig, stage: Stage) -> dict[str, str]:
    """Digests of the finished files of earlier stages that a stage's settings name."""
    text = json.dumps(stage.config)
    files: dict[str, Path] = {}
    for earlier in config.stages[: config.stages.index(stage)]:
        files |= {name: _folder(config, earlier) / path for name, path in earlier.gives.items()}
    return {
        name: sha256_of(file)
        for name, file in files.items()
        if f"{{weights}}/{name}" in text and file.is_file()
    }


def _check_mark(mark: Path, digest: str, inputs: dict[str, str]) -> None:
    """Refuse, by ValueError, a stage that was started with other settings or from other files."""
    cure = f"remove {shown(mark.parent)} to start the stage again"
    started = read_json(mark, object, cure)
    # Starts of older versions know their settings alone.
    known = started if isinstance(started, dict) else {"settings": started, "inputs": {}}
    if known.get("settings") != digest:
        raise ValueError(
            f"{shown(mark.parent)} was started with other settings: give another out_dir, or {cure}"
        )
    before = known.get("inputs")
    before = before if isinstance(before, dict) else {}
    if changed := [name for name in before if inputs.get(name, before[name]) != before[name]]:
        raise ValueError(f"{shown(mark.parent)} was started from another {shown(changed[0])}: {cure}")


def _store(config: PipelineConfig, stage: Stage) -> None:
    """Copy a finished stage's files to the weights, but those that a later finished stage gives, too."""
    config.weights.mkdir(parents=True, exist_ok=True)
    later = config.stages[config.stages.index(stage) + 1 :]
    final = {name for other in later if (_folder(config, other) / DONE).exists() for name in other.gives}
    for name, path in stage.gives.items():
        source, target = _folder(config, stage) / path, config.weights / name
        if not source.is_file() or (name in final and target.exists()):
            continue
        if target.exists() and sha256_of(target) == sha256_of(source):
            continue
        with atomic_write(target) as partial:
            shutil.copyfile(source, partial)


def _run(command: list[str], name: str, seconds: float | None) -> int:
    if seconds is not None and seconds <= 0:
        raise TimeOverError(f"the time limit was reached before {name}")
    process = subprocess.Popen(command)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        raise TimeOverError(f"the time limit was reached in {name}") from None
    finally:
        # Every program here can be killed: it loses only the steps since its last checkpoint.
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
