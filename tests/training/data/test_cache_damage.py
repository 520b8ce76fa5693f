"""A cache whose files were damaged or exchanged is refused in one sentence that says what to do."""

import json
import logging
import os
import shutil

import pytest
import torch
from safetensors import SafetensorError

from training import cache as program
from training.data.bad_rows import NUM_LOGGED, Skipped, log_skipped
from training.data.cache import Cache, cached_rows
from training.data.cache_writer import fill, finish
from training.data.refresh import forget_skipped
from training.engine.files import save_safetensors

from .test_source import MadeUp, source

DEEP = "[" * 100_000
SAMPLE = {"bytes": 1, "skipped": [], "samples": []}


@pytest.fixture
def folder(tmp_path):
    assert fill(tmp_path / "cache", MadeUp())
    return tmp_path / "cache"


def refused(call, *arguments, match):
    with pytest.raises(ValueError, match=match) as error:
        call(*arguments)
    assert len(str(error.value)) <= 400 and str(error.value).isprintable()


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX's kinds of files")
@pytest.mark.parametrize("name", ["cache.json", "index.json", "shard-00001.json", "empty.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_refused_and_never_waited_for(folder, name, kind):
    path = folder / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    if name.startswith("shard"):
        (folder / "index.json").unlink()
        return refused(fill, folder, MadeUp(), match=f"{name}.*not a file.*remove it and run")
    refused(Cache, folder, match=f"{name} is damaged .*remove (it|the folder .*) and run training/cache.py")
    if name != "empty.safetensors":
        refused(fill, folder, MadeUp(), match=f"{name}.*not a file")


@pytest.mark.parametrize(
    "text", [DEEP, "[]", "5", "{", '{"shards": 5}', '{"shards": [{}, {}, {}, {}]}', "9" * 10_000, "\x1b[31m"]
)
def test_a_damaged_index_is_refused(folder, text):
    (folder / "index.json").write_text(text)
    for call, arguments in ((Cache, (folder,)), (finish, (folder, 4))):
        refused(
            call,
            *arguments,
            match=r"index\.json is damaged \(.*\); remove it and run training/cache\.py again",
        )
    (folder / "index.json").unlink()
    assert finish(folder, 4) and Cache(folder)


@pytest.mark.parametrize(
    "change",
    [{"id": 5}, {"shape": 3}, {"shape": [16, "a", 1, 1]}, {"shape": [16, 1, 1]}, {"slot": None},
     {"scales": {}},     {"has_latents": "yes"}, {"more": 1}, {"num_texts": True}, {"num_texts": 0}],
)  # fmt: skip
def test_a_sample_of_other_values_is_refused(folder, change):
    index = json.loads((folder / "index.json").read_text())
    index["shards"][2]["samples"][0] |= change
    del index["shards"][2]["checksum"]  # as in caches of older versions
    (folder / "index.json").write_text(json.dumps(index))
    refused(Cache, folder, match=r"index\.json is damaged \(a sample of shard 2: ")


@pytest.mark.parametrize("edit", ["flag", "twice", "other", "twice, as in an older cache"])
def test_an_index_that_was_edited_is_refused(folder, edit):
    """Each edit by itself would train on other samples without a word."""
    index = json.loads((folder / "index.json").read_text())
    shard = index["shards"][1]
    if edit == "flag":
        shard["samples"][0]["has_latents"] ^= True
    elif edit == "other":
        shard["samples"][0]["task"] += " and more"
    else:
        shard["samples"].append(shard["samples"][0])
    if edit.endswith("older cache"):
        del shard["checksum"]
    (folder / "index.json").write_text(json.dumps(index))
    refused(Cache, folder, match=r"index\.json is damaged \(.*remove it and run training/cache\.py again")
    (folder / "shard-00001.json").write_text(json.dumps(shard))
    (folder / "index.json").unlink()
    if edit.endswith("older cache"):
        assert finish(folder, 4)
        refused(Cache, folder, match="it lists sample 0 of shard 1 twice")
    else:
        refused(finish, folder, 4, match=r"shard-00001\.json is damaged")


@pytest.mark.parametrize(
    "skipped", [5, [5], [{"id": "a"}], [{"id": [], "place": "", "kind": "", "reason": ""}]]
)
def test_a_shard_whose_left_out_rows_are_none_is_refused(folder, skipped):
    path = folder / "shard-00001.json"
    path.write_text(json.dumps({**SAMPLE, "skipped": skipped}))
    (folder / "index.json").unlink()
    refused(finish, folder, 4, match=r"shard-00001\.json is damaged")
    refused(forget_skipped, folder, match=r"shard-00001\.json is damaged")


@pytest.mark.parametrize("text", [DEEP, "[]", '{"format": 1, "num_shards": 4, "text_len": "x"}'])
def test_a_damaged_header_is_refused_with_its_folder(folder, text):
    (folder / "cache.json").write_text(text)
    refused(Cache, folder, match=r"cache\.json is damaged .*; remove the folder ")


@pytest.mark.parametrize("rows", [[], [5], [["a", "b"]], [[1, "a", 2]], [[True, "a"]]])
def test_a_header_of_other_rows_is_refused(folder, rows):
    header = json.loads((folder / "cache.json").read_text())
    (folder / "cache.json").write_text(json.dumps({**header, "rows": rows}))
    refused(cached_rows, folder, match=r"cache\.json is damaged \(its rows")
    refused(fill, folder, MadeUp(), match=r"cache\.json is damaged \(its rows")


def test_shards_without_a_header_are_not_taken_for_this_runs(folder):
    (folder / "cache.json").unlink()
    refused(fill, folder, MadeUp(), match=r"holds shards but no cache\.json.*encode again")


@pytest.mark.parametrize("size", [0, 8, 60])
def test_a_cut_off_embedding_is_not_to_be_downloaded(folder, size):
    path = folder / "empty.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    refused(Cache, folder, match=r"empty\.safetensors is damaged .*; remove it and run training/cache\.py")
    path.unlink()
    assert fill(folder, MadeUp()) and Cache(folder)


def test_a_shard_exchanged_for_one_of_the_same_size_is_left_out(folder):
    first, second = folder / "shard-00000.safetensors", folder / "shard-00001.safetensors"
    assert first.stat().st_size == second.stat().st_size and not Cache(folder).skipped
    first.write_bytes(second.read_bytes())
    opened = Cache(folder)
    assert {row.kind for row in opened.skipped} == {"unreadable"} and len(opened.skipped) == len(
        [1 for number, _ in opened.samples if number == 1]
    )
    assert all("shard-00000.safetensors has other content than was written" in str(r) for r in opened.skipped)


def test_a_cache_without_digests_still_opens(folder):
    whole = Cache(folder)
    shards = json.loads((folder / "index.json").read_text())["shards"]
    assert all(len(shard.pop("digest")) == 64 and shard.pop("checksum") for shard in shards)
    (folder / "index.json").write_text(json.dumps({"shards": shards}))
    assert Cache(folder).samples == whole.samples and not Cache(folder).skipped


def test_rows_left_out_are_logged_in_short_printable_lines(folder, caplog, tmp_path):
    """A hundred by their names; the file names all of them in full."""
    caplog.set_level(logging.INFO, "vdot")
    name = "\x1b[31mred\nFAKE LINE\u202e" + "x" * 5000
    rows = [Skipped(name, f"a.csv row {i}", "wrong", f"the id {name} is bad") for i in range(NUM_LOGGED + 50)]
    log_skipped(rows[:80], logging.WARNING, "a.json")
    log_skipped(rows[80:], logging.WARNING, "b.json", 80)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == NUM_LOGGED + 1 and messages[-1] == "skipped 50 more rows, named in b.json"
    assert all(m.isprintable() and len(m) < 1000 for m in messages) and "\\x1b[31mred\\nFAKE" in messages[0]
    opened = Cache(folder)
    opened.skipped = rows
    caplog.clear()
    source(opened, skipped_file=tmp_path / "skipped.txt")
    lines = (tmp_path / "skipped.txt").read_text().splitlines()
    assert len([line for line in lines if "FAKE" in line]) == len(rows) and all(map(str.isprintable, lines))
    assert all(record.getMessage().isprintable() for record in caplog.records)


class Other(MadeUp):
    """The same samples by name, made with other settings."""

    def header(self):
        return {**super().header(), "width": 4096}


@pytest.fixture
def other(tmp_path):
    assert fill(tmp_path / "other", Other())
    return tmp_path / "other"


def test_files_of_a_cache_of_other_settings_are_not_taken_for_its_own(folder, other):
    """Its index lists them, and their digests are right."""
    shutil.copy(other / "shard-00001.safetensors", folder)
    shutil.copy(other / "shard-00001.json", folder)
    (folder / "index.json").unlink()
    assert finish(folder, 4)
    reasons = {row.reason for row in Cache(folder).skipped if row.kind == "unreadable"}
    assert len(reasons) == 1 and "is of a cache of other rows or settings" in reasons.pop()
    shutil.copy(other / "empty.safetensors", folder)
    refused(Cache, folder, match=r"empty\.safetensors is damaged \(it is of another cache\); remove")


def test_an_empty_prompt_that_an_earlier_cache_left_is_encoded_again(folder, other):
    for path in folder.iterdir():
        if path.name != "empty.safetensors":
            path.unlink()
    assert fill(folder, Other())
    assert (folder / "empty.safetensors").read_bytes() == (other / "empty.safetensors").read_bytes()


def test_a_shard_that_was_removed_and_encoded_again_is_in_the_index(folder):
    """After its clips were mended, it has other content than the index knew."""
    index = json.loads((folder / "index.json").read_text())
    index["shards"][1]["digest"] = "0" * 64
    del index["shards"][1]["checksum"]
    (folder / "index.json").write_text(json.dumps(index))
    num_samples = len(Cache(folder).samples)
    (folder / "shard-00001.json").unlink()
    assert fill(folder, MadeUp()) and len(Cache(folder).samples) > num_samples


def test_a_copy_of_a_shards_index_is_left_alone(folder):
    shutil.copy(folder / "shard-00001.json", folder / "shard-00001-before.json")
    shutil.copy(folder / "shard-00001.json", folder / "shard-copy.json")
    forget_skipped(folder)
    assert (folder / "shard-00001-before.json").exists() and (folder / "shard-copy.json").exists()


def test_a_full_disk_is_a_sentence(folder, monkeypatch, capsys):
    def refuse(*arguments, **options):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", refuse)
    monkeypatch.setattr(program, "encode", lambda *_, **options: save_safetensors({}, folder / "x", {}))
    assert program.main(["--data.cache_dir", str(folder)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "takes no more data (No space left on device); make space" in lines[0]


def test_a_shard_that_is_cut_while_it_is_mapped_is_an_error(folder):
    """Reading beyond its end would end the process."""
    cache = Cache(folder)
    cache.read(0, 0, contexts=True)
    before = cache.read(10, 0, contexts=True)
    shutil.copy(folder / "shard-00003.safetensors", folder / "other")
    os.replace(folder / "other", folder / "shard-00001.safetensors")  # the map is of the file as it was
    assert torch.equal(cache.read(10, 0, contexts=True).contexts, before.contexts)
    os.truncate(folder / "shard-00000.safetensors", 100)
    with pytest.raises(RuntimeError, match=r"was complete at the start and now cannot be read \(it has 100"):
        cache.read(0, 0, contexts=True)
