"""The record of a run's settings: written to run.yaml and to its checkpoints, compared at a resume."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vdot_core.files import atomic_write, file_size
from vdot_core.text import shown

from ..paths import ROOT
from .config import RunConfig
from .hashes import sampled_hash

FILE = "run.yaml"
PACKAGES = ("torch", "numpy", "diffusers", "transformers", "safetensors")
# Keys, or groups of keys that end in a dot, that may differ at a resume: length, devices, speed and log of
# a run, but not its result.
FREE = (
    "allow_changes",
    "out_dir",
    "steps",
    "max_steps",
    "export_dtype",
    "model.adapters.export",
    "log.",
    "samples.",
    "validation.samples",
    "parallel.",
    "data.source",
    "data.path",
    "data.cache_dir",
    "data.rows_per_shard",
    "data.workers",
    "data.device",
)
# Files of weights: another path to the same file is no change, another file at the same path is one.
WEIGHTS = (
    "model.real_score",
    "model.generator",
    "model.fake_score",
    "model.acc_wan_init",
    "model.start_from",
    "data.vae",
    "data.text_encoder",
)
EDGE_BYTES = BLOCK_BYTES = 1 << 20
NUM_BLOCKS = 256


@dataclass(frozen=True)
class Change:
    """A setting that differs from the checkpoint's.

    Attributes:
        key: Dotted key.
        before: The checkpoint's value.
        now: This run's.
        free: True if it may differ.
    """

    key: str
    before: Any
    now: Any
    free: bool

    def __str__(self) -> str:
        return f"{self.key} {_shown(self.before)} -> {_shown(self.now)}"


def settings(config: RunConfig) -> dict[str, Any]:
    """Dotted key -> value of every setting, as JSON reads it back; files of weights with their identity."""
    values = json.loads(json.dumps(dict(_flat(config))))
    for key in WEIGHTS:
        if values.get(key):
            path = Path(values[key])
            values[key] = {"path": values[key], "identity": identity(path), "content": content(path)}
    return values


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Compare the settings of a checkpoint and of a run, leaving out those that only one of them knows."""
    return [
        Change(key, before[key], value, _is_free(key))
        for key, value in now.items()
        if key in before and _differ(before[key], value)
    ]


def export_path(config: RunConfig, averaged: str) -> Path:
    """File of the weights that a run exports at its end, of the network of this name."""
    return Path(config.out_dir) / "export" / f"{averaged}.safetensors"


def require_output(path: Path, values: Mapping[str, Any]) -> None:
    """Refuse, by ValueError, what is no file, or weights that a run reads, in its `settings`, as a result."""
    if os.path.lexists(path):
        file_size(path)  # a pipe or a folder would be replaced
    for key in WEIGHTS:
        source = Path(values[key]["path"]) if values.get(key) else None
        if source and path.exists() and source.exists() and path.samefile(source):
            raise ValueError(f"{shown(path)} is {key}, which the export would replace; give another file")


def identity(path: Path) -> str | None:
    """A short digest of a file's size, beginning and end, or of all files of a folder; None if not there.

    Checkpoints of older versions have it alone; it does not notice a file that differs in the middle.
    """
    if not path.exists():
        return None
    digest = hashlib.sha256()
    for name, file in _files(path):
        size = file.stat().st_size
        digest.update(f"{name}\0{size}\0".encode("utf-8", "surrogatepass"))
        with file.open("rb") as stream:
            digest.update(stream.read(EDGE_BYTES))
            stream.seek(max(0, size - EDGE_BYTES))
            digest.update(stream.read(EDGE_BYTES))
    return digest.hexdigest()[:16]


def content(path: Path) -> str | None:
    """A short digest of a file, or of all files of a folder; None if not there.

    Files of up to 256 MiB (`NUM_BLOCKS * BLOCK_BYTES`) are hashed completely, of larger ones that many
    blocks, evenly spread: there a change between two blocks is not noticed.
    """
    if not path.exists():
        return None
    digest = hashlib.sha256()
    for name, file in _files(path):
        part = f"{name}\0{sampled_hash(file, NUM_BLOCKS, BLOCK_BYTES)}\0"
        digest.update(part.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """A file with an empty name, or all files of a folder with their names in it."""
    if path.is_file():
        yield "", path
        return
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        yield file.relative_to(path).as_posix(), file


def write_record(config: RunConfig) -> None:
    """Write the settings of a run to `out_dir`, as `--config` reads them, with the versions of its code."""
    import yaml

    folder = Path(config.out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    values = _plain(config)
    # A saved file must not carry `allow_changes`.
    values.pop("allow_changes")
    lines = [f"# {name} {value}" for name, value in versions().items()]
    text = "\n".join([*lines, yaml.safe_dump(values, sort_keys=False, allow_unicode=True)])
    with atomic_write(folder / FILE) as partial:
        partial.write_text(text, encoding="utf-8")


def _plain(config: RunConfig) -> dict[str, Any]:
    """A configuration as JSON holds it: lists for tuples."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


@cache
def versions() -> dict[str, str]:
    """The commit of this repository, of Python and of the packages that numbers depend on."""
    versions_by_name = {"commit": _commit(), "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions_by_name[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions_by_name


def _commit() -> str:
    """The commit, "with changes" if files differ from it; "unknown" outside of a clone."""
    try:
        command = [
            "git",
            "-C",
            str(ROOT),
            "describe",
            "--always",
            "--abbrev=40",
            "--exclude=*",
            "--dirty= with changes",
        ]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _flat(section: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of the sections; a table in a section, such as task weights, is one value."""
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            yield from _flat(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value


def _is_free(key: str) -> bool:
    return any(key == free or (free.endswith(".") and key.startswith(free)) for free in FREE)


def _differ(before: Any, now: Any) -> bool:
    """True if two values differ; files by the most exact digest that both have."""
    if _is_file(before) and _is_file(now) and before.get("content") and now.get("content"):
        return before["content"] != now["content"]
    return _identified(before) != _identified(now)


def _is_file(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() >= {"path", "identity"}


def _identified(value: Any) -> Any:
    """The compared part of a value: an existing file's identity, otherwise the value."""
    if _is_file(value):
        return value["identity"] or value["path"]
    return value


def _shown(value: Any) -> str:
    if _is_file(value):
        return f"{value['path']} ({value.get('content') or value['identity'] or 'missing'})"
    return json.dumps(value)
