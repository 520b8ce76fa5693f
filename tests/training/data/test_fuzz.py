"""Damaged manifests, tars, clips and models are read or refused in words; bad rows cost themselves alone."""

import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.support.mutations import damaged_bytes, damaged_json, damaged_safetensors
from tests.support.watch import outcome, watchdog
from training.data.bad_rows import BadRowError, Skipped
from training.data.cache import read_header
from training.data.manifest import ManifestRows
from training.data.shards import TarRows
from training.data.umt5 import load_umt5
from training.data.video_files import Media, read_clip
from training.data.wan_vae import load_vae

from .conftest import write_manifest, write_tar

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits memory by Linux's resource limits")


def rows_are_short(source) -> None:
    """Every row is one, or an entry that says in few words why not."""
    for shard in range(source.num_shards):
        for row in source.rows(shard):
            if isinstance(row, Skipped):
                assert 5 < len(row.reason) <= 400, row.reason[:1000]


def read_media(path: Path) -> str:
    """Bad clips are bad rows, whatever their decoder raises."""
    with watchdog():
        try:
            return "read" if read_clip(Media(str(path)), 16, 81).numel() else "empty"
        except BadRowError as error:
            assert 10 < len(str(error)) <= 400 + len(str(path)), error
            return "refused"
        except MemoryError:  # a header that claims gigabytes: the job ends with the row's name
            return "out of memory"


def damaged_lines(rng: Random, content: bytes) -> bytes:
    """JSON Lines of which one has other values."""
    lines = content.decode().splitlines()
    at = rng.randrange(len(lines))
    lines[at] = damaged_json(rng, json.loads(lines[at]))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


READERS = {
    "jsonl": (lambda path: rows_are_short(ManifestRows(str(path), 2)), damaged_lines, 60),
    "csv": (lambda path: rows_are_short(ManifestRows(str(path), 2)), damaged_bytes, 30),
    "parquet": (lambda path: rows_are_short(ManifestRows(str(path), 2)), damaged_bytes, 30),
    "tar": (lambda path: rows_are_short(TarRows(str(path))), damaged_bytes, 20),
    "json": (lambda path: read_header(path.parent), damaged_bytes, 20),
    "vae": (load_vae, damaged_safetensors, 8),
    "text": (load_umt5, damaged_safetensors, 8),
    "mp4": (None, damaged_bytes, 60),
    "png": (None, damaged_bytes, 60),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory, clips, records, models) -> dict[str, Path]:
    """One intact file of every kind."""
    folder = tmp_path_factory.mktemp("originals")
    for ending in ("jsonl", "csv", "parquet"):
        write_manifest(folder / f"rows.{ending}", records)
    write_tar(folder / "rows.tar", records, clips)
    (folder / "cache.json").write_text(json.dumps({"format": 1, "rows": [[6, "x"]], "text_len": 64}))
    shutil.copyfile(clips / "real.mp4", folder / "real.mp4")
    shutil.copyfile(clips / "one.png", folder / "one.png")
    files = {path.suffix[1:]: path for path in folder.iterdir()}
    return {**files, "vae": models[0], "text": models[1]}


@pytest.mark.parametrize("kind", READERS)
def test_damaged_files_are_read_or_refused(originals, tmp_path, fuzz_cases, kind):
    reader, change, count = READERS[kind]
    results: Counter = Counter()
    content = originals[kind].read_bytes()
    path = tmp_path / originals[kind].name
    for number in range(fuzz_cases(count)):
        rng = Random(f"{kind} {number}")
        damage = change if rng.random() < 0.7 else damaged_bytes
        path.write_bytes(damage(rng, content))
        try:
            results[outcome(lambda: reader(path)) if reader else read_media(path)] += 1
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error)[:500]}"
            raise AssertionError(f"case {number} of {kind}: {reason}") from error
    assert results["refused"] or results["read"], results
