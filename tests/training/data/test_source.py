"""Batches from a cache of made-up samples: what they hold and what they do not depend on."""

import json
import logging
from pathlib import Path

import pytest
import torch

from training.data.cache import Cache
from training.data.cache_writer import fill
from training.data.encoded import EncodedSample
from training.data.source import CachedSource

NUM = 40


class MadeUp:
    """A producer of numbered samples: their first latent is their number."""

    num_shards = 4

    def header(self):
        return {"vae": "a", "text_encoder": "b", "text_len": 6}

    def empty_text(self):
        return torch.ones(1, 8)

    def encode(self, shard):
        return [self.sample(number) for number in range(shard * 10, shard * 10 + 10)], []

    def sample(self, number):
        references = number % 3 if number >= 20 else 0
        length = 2 + references
        latents = torch.full((16, length, 4, 4), float(number)).half()
        contexts = torch.zeros(1, 96, length, 4, 4, dtype=torch.half)
        contexts[:, :32] = number
        contexts[:, 32:, references:] = 1
        texts = tuple(torch.full((2 + i, 8), float(100 * i + number)) for i in range(1 + number % 2))
        task = ("depth", "reference")[number >= 20]
        has_clip = number % 10 != 9
        return EncodedSample(str(number), task, latents if has_clip else None, contexts, texts, references)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "cache"
    assert fill(folder, MadeUp())
    return Cache(folder)


def source(cache, **changes):
    settings = {"task_weights": {}, "seed": 3, "global_batch": 12, "accumulation": 3, "need_latents": True}
    return CachedSource(cache, **{**settings, **changes})


def rows(batches):
    """position -> (id, latents, contexts, text) of every sample."""
    result = {}
    for batch in batches:
        for place, position in enumerate(batch.positions):
            assert position not in result
            result[position] = (
                batch.ids[place],
                batch.latents[place],
                batch.contexts[place],
                batch.text[place],
            )
    return result


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_number_of_processes_changes_nothing(cache, world_size):
    for step in (0, 1, 7, 300):
        alone = rows(source(cache).batches(step))
        divided = source(cache)
        parts = [divided.batches(step, rank, world_size) for rank in range(world_size)]
        assert all(len(part) == 3 for part in parts)
        together = rows([batch for part in parts for batch in part])
        assert alone.keys() == together.keys() == set(range(12))
        for position in alone:
            assert alone[position][0] == together[position][0]
            assert all(
                torch.equal(a, b) for a, b in zip(alone[position][1:], together[position][1:], strict=True)
            )


def test_the_accumulation_changes_nothing_when_the_group_size_stays(cache):
    for step in range(5):
        one = rows(source(cache, accumulation=3, group_size=4).batches(step))
        other = rows(source(cache, accumulation=6, group_size=4).batches(step))
        assert [one[p][0] for p in range(12)] == [other[p][0] for p in range(12)]


def test_micro_batches_have_one_shape_and_one_number_of_references(cache):
    counts = set()
    for step in range(30):
        for batch in source(cache).batches(step):
            numbers = [int(name) for name in batch.ids]
            references = {number % 3 if number >= 20 else 0 for number in numbers}
            assert references == {batch.num_reference_latents}
            assert batch.shape == (16, 2 + batch.num_reference_latents, 4, 4)
            assert batch.latents.shape[1:] == batch.shape and batch.contexts.shape[3:] == batch.shape[1:]
            counts.add(batch.num_reference_latents)
            for place, number in enumerate(numbers):
                assert (batch.latents[place] == number).all() and (
                    batch.contexts[place, 0, :32] == number
                ).all()
                assert batch.contexts[place, 0, 32:, batch.num_reference_latents :].all()
                assert not batch.contexts[place, 0, 32:, : batch.num_reference_latents].any()
    assert counts == {0, 1, 2}


def test_text_is_padded_with_zeros_and_every_caption_is_used(cache):
    captions = set()
    for step in range(30):
        for batch in source(cache).batches(step):
            assert batch.text.shape[1:] == (6, 8)
            for name, text in zip(batch.ids, batch.text, strict=True):
                which = int(text[0, 0] - int(name)) // 100
                assert (text[: 2 + which] == 100 * which + int(name)).all() and not text[2 + which :].any()
                captions.add((int(name) % 2, which))
    assert captions == {(0, 0), (1, 0), (1, 1)}
    empty = source(cache).empty_text
    assert empty.shape == (1, 6, 8) and empty[0, 0].all() and not empty[0, 1:].any()


def test_text_only_leaves_references_out(cache):
    for step in range(10):
        for batch in source(cache, text_only=True).batches(step):
            assert batch.contexts is None and batch.num_reference_latents == 0
            assert batch.shape == (16, 2, 4, 4) and batch.latents.shape[1:] == batch.shape


def test_rows_without_a_real_clip(cache):
    needing = source(cache)
    assert [row.id for row in needing.skipped] == ["9", "19", "29", "39"]
    assert all("target_video_path" in row.reason for row in needing.skipped)
    ids = set()
    for step in range(40):
        for batch in source(cache, need_latents=False).batches(step):
            ids.update(batch.ids)
            assert (batch.latents is None) == all(int(name) % 10 == 9 for name in batch.ids)
    assert ids == {str(number) for number in range(NUM)}


def test_every_row_left_out_is_named(tmp_path, caplog):
    """Without a real clip, of a shard that is gone, and of one that was cut off; encoding has named none."""
    folder, file = tmp_path / "cache", tmp_path / "out" / "skipped.txt"
    assert fill(folder, MadeUp())
    expected = {"9", "19", "29", "39"} | {str(number) for number in (*range(10), *range(30, 40))}
    (folder / "shard-00000.safetensors").unlink()
    shard = folder / "shard-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with caplog.at_level(logging.INFO, "vdot"):
        batches = source(Cache(folder))
        assert {row.id for row in batches.skipped} == expected and len(batches.skipped) == 22
        assert all(f"{row.place} ({row.id}): {row.reason}" in caplog.text for row in batches.skipped)
        caplog.clear()
        source(Cache(folder), skipped_file=file)
    lines = file.read_text().splitlines()
    assert len(lines) == 22
    for row, line in zip(batches.skipped, lines, strict=True):
        assert line == f"{row.kind}: {row.place} ({row.id}): {row.reason}"
    (message,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert (
        "skipped 22 rows: 12 missing, 10 unreadable" in message
        and str(file) in message
        and lines[2] in message
    )
    # Where nothing is left, its reasons are all the more asked for.
    for path in folder.glob("*.safetensors"):
        if path.name != "empty.safetensors":
            path.unlink()
    with pytest.raises(ValueError, match=rf"holds no sample: {NUM} rows were left out \(the first: shard-"):
        source(Cache(folder), skipped_file=file)
    assert len(file.read_text().splitlines()) == NUM
    # What an earlier start left out is not said of this one.
    (tmp_path / "whole").mkdir()
    assert fill(tmp_path / "whole", MadeUp())
    source(Cache(tmp_path / "whole"), skipped_file=file, need_latents=False)
    assert not file.exists()


def test_a_shard_that_disappears_is_named_and_left_out_from_the_next_start(tmp_path):
    folder = tmp_path / "cache"
    assert fill(folder, MadeUp())
    opened = source(Cache(folder), need_latents=False)
    (folder / "shard-00001.safetensors").unlink()
    (folder / "shard-00002.safetensors").write_bytes(b"cut off")
    with pytest.raises(
        RuntimeError, match=r"shard-0000[12]\.safetensors was complete .* sample [12]\d is in it"
    ):
        for step in range(40):
            opened.batches(step)
    again = source(Cache(folder), need_latents=False)
    assert {row.id for row in again.skipped} == {str(number) for number in range(10, 30)}
    assert all(again.batches(step) for step in range(10))


def test_what_cannot_be_divided_is_refused(cache):
    with pytest.raises(ValueError, match="5 processes"):
        source(cache).batches(0, 0, 5)
    with pytest.raises(ValueError, match="group_size"):
        source(cache, group_size=2).batches(0)
    with pytest.raises(ValueError, match="does not divide"):
        source(cache, group_size=5)
    with pytest.raises(ValueError, match="multiple of accumulation"):
        source(cache, accumulation=5)
    with pytest.raises(ValueError, match="rank is 2"):
        source(cache).batches(0, 2, 2)


def test_a_change_of_the_data_is_reported_on_resuming(cache, caplog):
    state = json.loads(json.dumps(source(cache).state_dict()))
    source(cache).load_state_dict(state)
    assert not [r for r in caplog.records if "changed" in r.message]
    source(cache, seed=4).load_state_dict(state)
    assert [r for r in caplog.records if "changed" in r.getMessage()]
    caplog.clear()
    source(cache).load_state_dict({name: state[name] for name in ("seed", "samples")})
    assert "changed since" not in caplog.text, "an older version does not know the content"
    source(cache).load_state_dict({**state, "content": "other clips under the same names"})
    assert "changed since the checkpoint" in caplog.text


def test_the_encoding_of_a_cache_is_of_its_models_and_sizes_and_not_of_its_rows(cache, monkeypatch):
    before = source(cache).encoding
    monkeypatch.setitem(cache.header, "rows", [[9, "more"]])
    assert source(cache).encoding == before
    monkeypatch.setitem(cache.header, "vae", "another")
    assert source(cache).encoding != before


def test_the_index_is_complete_json(cache):
    folder = Path(cache.folder)
    assert json.loads((folder / "index.json").read_text())["shards"][3]["samples"][0]["id"] == "30"
    assert not list(folder.glob("*.partial"))
