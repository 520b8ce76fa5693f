"""Parquet manifests: small files that would decode to far more are refused, and rows are read in blocks."""

import tracemalloc

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from training.data import cells, parquet, records
from training.data.bad_rows import Skipped
from training.data.manifest import ManifestRows, Row


def repeated(value, count):
    return pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.zeros(count, "int8")), pyarrow.array([value]))


def write(path, **options):
    columns = {"task_name": "text", "prompt": "a red ball", "target_video_path": "a.mp4", **options}
    count = max(len(value) for value in columns.values() if not isinstance(value, str))
    columns = {n: repeated(v, count) if isinstance(v, str) else v for n, v in columns.items()}
    pyarrow.parquet.write_table(pyarrow.table(columns), path, compression="zstd", row_group_size=300)
    return str(path)


@pytest.mark.parametrize("case, words", [
    ("text", "decode to [0-9]+, expected at most [0-9]+; shorten"),
    ("values", "decode to [0-9]+, expected at most [0-9]+; shorten"),
    ("rows", "has 1200 rows, expected at most 1000; divide it"),
])  # fmt: skip
def test_small_files_that_decode_to_far_more_are_refused(tmp_path, monkeypatch, case, words):
    monkeypatch.setattr(parquet, "MIN_DECODED_BYTES", 1_000_000)
    monkeypatch.setattr(records, "MAX_ROWS", 1000)
    values = {
        "text": {"prompt": pyarrow.array(["x" * 8_000_000, "a"])},
        "values": {"prompt": pyarrow.array([["a"] * 400_000])},
        "rows": {"prompt": repeated("a", 1200)},
    }[case]
    path = write(tmp_path / "rows.parquet", **values)
    with pytest.raises(ValueError, match=words) as caught:
        ManifestRows(path, 8)
    assert len(str(caught.value)) <= 400
    (tmp_path / "rows.jsonl").write_text('{"task_name": "text", "prompt": "a"}\n' * 1001)
    with pytest.raises(ValueError, match="more than 1000 rows"):
        ManifestRows(str(tmp_path / "rows.jsonl"), 8)


def test_a_text_that_every_row_repeats_is_stored_once(tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "MAX_TEXT", 400_000)
    monkeypatch.setattr(parquet, "MAX_BLOCK_BYTES", 2_000_000)
    path = write(tmp_path / "rows.parquet", prompt=repeated("y" * 300_000, 100))
    tracemalloc.start()
    rows = ManifestRows(path, 8)
    assert tracemalloc.get_traced_memory()[1] < 12_000_000
    tracemalloc.stop()
    assert [len(row.prompts[0]) for row in rows.rows(12)] == [300_000] * 4
    lists = pyarrow.array([["a"], ["z" * 300_000] * 10, None])
    kinds = [type(row) for row in ManifestRows(write(tmp_path / "lists.parquet", prompt=lists), 8).rows(0)]
    assert kinds == [Row, Skipped, Skipped]


def test_a_text_repeated_beyond_the_limit_of_all_rows_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MAX_TEXT_BYTES", 1_000_000)
    lists = pyarrow.array([["b" * 100] * 20] * 600)
    for prompt in (repeated("y" * 2000, 600), lists):
        path = write(tmp_path / "rows.parquet", prompt=prompt)
        with pytest.raises(
            ValueError, match=r"12\d+ bytes of text in all, expected at most 1000000"
        ) as error:
            ManifestRows(path, 8)
        assert len(str(error.value)) <= 400
    assert (
        ManifestRows(write(tmp_path / "rows.parquet", prompt=repeated("y" * 1000, 600)), 8).num_shards == 75
    )


def test_rows_over_several_blocks_are_as_in_json_lines(tmp_path):
    import json

    ids = [None if i % 7 == 0 else f"clip {i}" for i in range(1000)]
    prompts = [[f"caption {i}"] * (i % 3 + 1) for i in range(1000)]
    path = write(tmp_path / "rows.parquet", id=pyarrow.array(ids), internvl_short=pyarrow.array(prompts),
                 prompt=pyarrow.nulls(1000, pyarrow.string()), fps=pyarrow.array(range(1000)))  # fmt: skip
    lines = [
        {"task_name": "text", "prompt": p, "target_video_path": "a.mp4", "id": i}
        for i, p in zip(ids, prompts, strict=True)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    packed, text = ManifestRows(path, 64), ManifestRows(str(tmp_path / "rows.jsonl"), 64)
    assert packed.versions == text.versions and packed.num_shards == text.num_shards == 16
    for shard in (15, 0, 4):
        assert list(packed.rows(shard)) == list(text.rows(shard))


def test_a_text_of_megabytes_is_named(tmp_path):
    (tmp_path / "rows.csv").write_text(f"task_name,prompt\ntext,{'a' * 100}\n")
    lines = ['{"task_name": "text", "prompt": "%s"}' % ("a" * count) for count in (1_000_001, 10)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    first, second = ManifestRows(str(tmp_path / "rows.jsonl"), 8).rows(0)
    assert "prompt has 1000001 characters, expected at most 1000000" in str(first)
    assert isinstance(second, Row)
