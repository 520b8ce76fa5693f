"""A clip or tar exchanged under its name: training refuses the old cache, encoding renews its shard."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch

from training import cache as program
from training.data import build_source
from training.data.cache import Cache
from training.data.cache_index import CHECKSUM, FILES, checksum
from training.data.source_files import changed, record

from .conftest import moving_square, write_manifest, write_tar, write_video

REFUSED = r"real\.mp4 changed since the cache .* was made from it; run `python training/cache\.py`"


@pytest.fixture
def folder(clips, tmp_path):
    """A data set of its own, whose files may be exchanged."""
    return shutil.copytree(clips, tmp_path / "data set é")


def exchange(path, shade=20):
    """Another clip of the same name."""
    write_video(path, moving_square(shade=shade))


def latents(settings):
    cache = Cache(settings.cache_dir)
    return [cache.read(i, 0, contexts=False).latents for i in range(len(cache.samples))]


def test_a_clip_exchanged_under_its_name_is_refused_and_encoded_again(config, folder, records, caplog):
    rows = [records[1], records[1], {**records[1], "target_video_path": "long.mp4"}]
    settings = config(path=str(write_manifest(folder / "rows.csv", rows)))
    assert program.encode(settings)
    before, kept = latents(settings), os.stat(Path(settings.cache_dir) / "shard-00001.json").st_mtime_ns
    exchange(folder / "real.mp4")
    with pytest.raises(ValueError, match=REFUSED) as error:
        build_source(settings, seed=0)
    assert len(str(error.value)) <= 400
    assert build_source(config(source="cache"), seed=0), "the cache as it is"
    with caplog.at_level(logging.WARNING):
        assert program.encode(settings)
    assert "real.mp4 changed since shard 0 of" in caplog.text and "encoded again" in caplog.text
    after = latents(settings)
    assert not torch.equal(before[0], after[0]) and torch.equal(before[2], after[2])
    assert os.stat(Path(settings.cache_dir) / "shard-00001.json").st_mtime_ns == kept
    assert build_source(settings, seed=0)


def test_a_tar_exchanged_under_its_name_is_refused_and_encoded_again(config, folder, records):
    settings = config(source="webdataset", path=str(write_tar(folder / "set-0.tar", records[1:2], folder)))
    assert program.encode(settings)
    before = latents(settings)
    exchange(folder / "real.mp4")
    write_tar(folder / "set-0.tar", records[1:2], folder)
    with pytest.raises(ValueError, match=r"set-0\.tar changed since the cache"):
        build_source(settings, seed=0)
    assert program.encode(settings) and not torch.equal(before[0], latents(settings)[0])


def test_a_damaged_clip_that_was_mended_is_encoded_without_being_asked(config, folder, records):
    rows = [records[1], {**records[1], "target_video_path": "broken.mp4"}]
    settings = config(path=str(write_manifest(folder / "rows.csv", rows)))
    assert program.encode(settings) and len(Cache(settings.cache_dir).samples) == 1
    exchange(folder / "broken.mp4")
    assert program.encode(settings) and len(Cache(settings.cache_dir).samples) == 2


def test_files_that_were_touched_or_moved_are_the_same(config, folder, records, tmp_path):
    settings = config(path=str(write_manifest(folder / "rows.csv", records[1:2])))
    assert program.encode(settings)
    moved = tmp_path / "moved"
    folder.rename(moved)
    os.utime(moved / "real.mp4", ns=(1, 1))
    settings = config(path=str(moved / "rows.csv"))
    assert build_source(settings, seed=0)
    (moved / "real.mp4").unlink()
    assert build_source(settings, seed=0), "training reads no clips"


def test_a_file_of_the_same_size_and_time_is_seen_by_its_content(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"a" * 100)
    paths, made_ns = {"clip.mp4": str(path)}, path.stat().st_ctime_ns
    versions, time_ns = record(paths), path.stat().st_mtime_ns
    for letter in (b"a", b"b"):
        while path.stat().st_ctime_ns <= made_ns:
            path.write_bytes(letter * 100)
            os.utime(path, ns=(time_ns, time_ns))
        path.write_bytes(letter * 100)
        os.utime(path, ns=(time_ns, time_ns))
        assert not changed(paths, versions), "where nothing says when the cache was made"
        assert changed(paths, versions, made_ns) == ([str(path)] if letter == b"b" else [])


def test_unchanged_files_are_not_read(tmp_path, monkeypatch):
    (tmp_path / "clip.mp4").write_bytes(b"a" * 100)
    paths = {"clip.mp4": str(tmp_path / "clip.mp4")}
    versions = record(paths)
    monkeypatch.setattr("training.data.source_files.sampled_hash", pytest.fail)
    assert not changed(paths, versions)


@pytest.mark.parametrize("name", ["none.mp4", "a\0b.mp4", "s3://bucket/clip.mp4", "zip://a.mp4::b.zip", "."])
def test_what_is_no_local_file_has_no_version(tmp_path, name):
    path = name if "://" in name else str(tmp_path / name)
    assert record({name: path}) == {} and changed({name: path}, {name: [1, 1, "a"]}) in ([], [path])


@pytest.mark.parametrize("files", [5, [], {"a": 5}, {"a": [1, 1]}, {"a": ["1", 1, "b"]}])
def test_a_shard_whose_files_are_none_is_refused(config, folder, records, files):
    settings = config(path=str(write_manifest(folder / "rows.csv", records[1:2])))
    assert program.encode(settings)
    path = Path(settings.cache_dir) / "shard-00000.json"
    shard = {**json.loads(path.read_text()), FILES: files}
    path.write_text(json.dumps({**shard, CHECKSUM: checksum(shard)}))
    with pytest.raises(ValueError, match=r"shard-00000\.json is damaged"):
        program.encode(settings)


def test_a_cache_without_versions_still_opens(config, folder, records):
    settings = config(path=str(write_manifest(folder / "rows.csv", records[1:2])))
    assert program.encode(settings)
    index = Path(settings.cache_dir) / "index.json"
    shards = [dict(shard) for shard in json.loads(index.read_text())["shards"]]
    for shard in shards:
        del shard[FILES]
        shard[CHECKSUM] = checksum(shard)
    index.write_text(json.dumps({"shards": shards}))
    exchange(folder / "real.mp4")
    assert build_source(settings, seed=0)
