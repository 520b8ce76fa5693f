"""Rows and lines that are not what their columns hold: skipped and named, with their neighbors kept."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from training import cache as program
from training.data.bad_rows import BadRowError, Skipped
from training.data.cache import Cache
from training.data.manifest import ManifestRows, Row
from training.data.rows import load_inputs
from training.data.shards import TarRows
from training.data.video_files import Media

from .conftest import write_manifest, write_tar

GOOD = {"task_name": "text", "prompt": "a cat"}
# What is changed in a row -> the reason's beginning, of kind misshapen but where it is said.
MISSHAPEN = [
    ({"prompt": 5}, "prompt is 5, of type int; expected text, or a list of texts"),
    ({"prompt": True}, "prompt is True, of type bool"),
    ({"prompt": {"en": "a cat"}}, "prompt is {'en': 'a cat'}, of type dict"),
    ({"prompt": ["a cat", 5]}, "prompt holds 5, of type int"),
    ({"prompt": [["a cat"]]}, "prompt holds ['a cat'], of type list"),
    ({"prompt": float("nan")}, "missing: prompt is empty"),
    ({"prompt": [None, " "]}, "missing: prompt is empty"),
    ({"task_name": ["text"]}, "task_name is ['text'], of type list; expected text"),
    ({"task_name": 3}, "task_name is 3"),
    ({"id": ["x"]}, "id is ['x'], of type list; expected text or a number"),
    ({"id": False}, "id is False"),
    ({"src_video_path": ["a.mp4"]}, "src_video_path is ['a.mp4'], of type list; expected a path"),
    ({"mask_video_path": 1.5}, "mask_video_path is 1.5"),
    ({"target_video_path": {"path": "a.mp4"}}, "target_video_path is {'path': 'a.mp4'}"),
    ({"ref_image_path": 5}, "ref_image_path is 5, of type int; expected a path, or a list of paths"),
    ({"ref_image_path": {"a": 1}}, "ref_image_path is {'a': 1}"),
    ({"ref_image_path": ["a.png", 5]}, "ref_image_path holds 5"),
    ({"ref_image_path": "[5]"}, "ref_image_path holds 5"),
]


def rows_of(path, rows_per_shard=2):
    shards = ManifestRows(str(path), rows_per_shard)
    assert len(shards.versions[-1][1]) == 64
    return [row for shard in range(shards.num_shards) for row in shards.rows(shard)]


def lines(path, *rows):
    """A manifest of lines as they are."""
    path.write_bytes(b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows))
    return path


@pytest.mark.parametrize("change, reason", MISSHAPEN, ids=lambda value: json.dumps(value)[:40])
def test_a_cell_of_another_type_costs_its_row_alone(tmp_path, change, reason):
    first, bad, last = rows_of(lines(tmp_path / "rows.jsonl", GOOD, {**GOOD, **change}, GOOD))
    assert isinstance(first, Row) and isinstance(last, Row)
    kind, _, message = reason.rpartition(": ") if reason.startswith("missing") else ("misshapen", "", reason)
    assert isinstance(bad, Skipped) and (bad.id, bad.kind) == ("00000001", kind)
    assert bad.place == "rows.jsonl row 2" and bad.reason.startswith(message)


def test_numbers_are_names_and_equal_ones_are_refused(tmp_path):
    path = lines(tmp_path / "rows.jsonl", {**GOOD, "id": 7}, {**GOOD, "id": "8"}, {**GOOD, "id": 8}, GOOD)
    seven, *eights, unnamed = rows_of(path)
    assert (seven.id, unnamed.id) == ("7", "00000003")
    assert [(row.id, row.kind) for row in eights] == [("8", "wrong")] * 2


def test_a_broken_line_is_named_by_its_number(tmp_path):
    deep = b'{"task_name": ' + b"[" * 100_000
    broken = [b'{"task_name": "text", "prompt"', b"[1]", b'{"prompt": "caf\xe9"}', deep]
    rows = rows_of(
        lines(tmp_path / "rows.jsonl", b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), b"", *broken, GOOD)
    )
    assert isinstance(rows[0], Row) and isinstance(rows[-1], Row) and rows[-1].id == "00000005"
    assert [row.place for row in rows[1:-1]] == [f"rows.jsonl line {number}" for number in (3, 4, 5, 6)]
    assert {row.kind for row in rows[1:-1]} == {"misshapen"}
    for row, phrase in zip(
        rows[1:-1], ("no JSON object", "a JSON list", "utf-8", "nested too deeply"), strict=True
    ):
        assert phrase in row.reason, row
        assert "one object a line" in row.reason


def test_lines_end_where_json_says(tmp_path):
    """Characters that end a line of text may stand in a JSON string."""
    prompt = "one\u2028two\x85three"
    text = json.dumps({**GOOD, "prompt": prompt}, ensure_ascii=False).encode()
    (row,) = rows_of(lines(tmp_path / "rows.jsonl", text))
    assert row.prompts == (prompt,)


CSV_ROWS = [
    (b"text,a cat, asleep,", "line 3", "continues after its 2 columns with ' asleep'; quote"),
    (b"text,caf\xe9", "line 3", "prompt is 'caf\\udce9', which is not UTF-8"),
    (b'text,"' + b"long " * 30_000 + b'"', "line 3", "lines 3 to 3 are no CSV (field larger"),
]


@pytest.mark.parametrize("line, place, reason", CSV_ROWS, ids=["comma", "latin-1", "long"])
def test_a_broken_line_of_csv_is_named(tmp_path, line, place, reason):
    path = lines(tmp_path / "rows.csv", b"task_name,prompt", b'text,"a\tcat, here"', line, b"text,a dog,,")
    first, bad, last = rows_of(path)
    assert (first.prompts, last.prompts) == (("a\tcat, here",), ("a dog",))
    assert (bad.id, bad.kind, bad.place) == ("00000001", "misshapen", f"rows.csv {place}")
    assert reason in bad.reason


def test_a_quote_that_is_not_closed_is_no_long_caption(tmp_path):
    head, good = b"task_name,prompt", b'text,"two\nlines"'
    first, bad = rows_of(lines(tmp_path / "rows.csv", head, good, b'text,"a cat', b"text,a dog", b""))
    assert first.prompts == ("two\nlines",)
    assert bad.place == "rows.csv line 4" and "all lines from 4 to 5" in bad.reason


def test_columns_of_other_types_in_parquet(tmp_path):
    import pyarrow
    import pyarrow.parquet

    def write(**columns):
        pyarrow.parquet.write_table(pyarrow.table(columns), str(tmp_path / "rows.parquet"))
        return tmp_path / "rows.parquet"

    (one, none) = rows_of(write(task_name=["text", "text"], prompt=[["a"], None], id=[1.0, None]))
    assert isinstance(one, Row) and none.reason == "prompt is empty"
    for prompts, named in (([b"a", b"b"], "b'a', of type bytes"), ([{"en": "a"}] * 2, "of type dict")):
        with pytest.raises(ValueError, match=f"none of its 2 rows can be used.*row 1.*{named}"):
            rows_of(write(task_name=["text", "text"], prompt=prompts))
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"rows\.parquet is no Parquet file"):
        rows_of(tmp_path / "rows.parquet")


@pytest.mark.parametrize("name, text", [
    ("rows.jsonl", json.dumps([GOOD], indent=1)),
    ("rows.json", json.dumps([GOOD])),
    ("rows.csv", 'task_name,prompt\ntext,\n,a cat\n'),
    ("rows.csv", "task_name,prompt\ntext,caf\xe9\n".encode("utf-16")),
], ids=["indented", "array", "empty cells", "utf-16"])  # fmt: skip
def test_a_manifest_without_any_usable_row_is_refused(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(
        ValueError, match=rf"{name}: (none of its \d+ rows can be used; the first|.*not UTF-8)"
    ):
        rows_of(path)


def test_rows_of_tars_are_checked_too(clips, records, tmp_path):
    rows = [{**records[1], "prompt": 5}, records[1], {**records[1], "prompt": {"en": "a"}}]
    bad, good, other = TarRows(str(write_tar(tmp_path / "rows.tar", rows, clips))).rows(0)
    assert isinstance(good, Row) and (bad.kind, other.kind) == ("misshapen", "misshapen")
    assert "rows.tar sample 00000000 (00000000): prompt is 5" in str(bad) and "{'en': 'a'}" in other.reason


def test_the_cache_is_made_of_the_other_rows(config, clips, records, capsys):
    """The program itself, from the command line to the cache that is trained on."""
    good = {**records[1], "target_video_path": str(clips / "real.mp4")}
    bad = [{**good, **change} for change, _ in MISSHAPEN]
    path = write_manifest(clips / "shaken.jsonl", [good, *bad, good])
    text = path.read_text().splitlines()
    path.write_text("\n".join([*text[:-1], text[-1][:-9], text[-1]]))
    settings = config(path=str(path))
    words = [w for key in ("source", "path", "cache_dir", "vae", "text_encoder", "num_frames", "device")
             for w in (f"--data.{key}", str(getattr(settings, key)))]  # fmt: skip
    assert program.main(words) == 0
    output = capsys.readouterr().err
    cache = Cache(settings.cache_dir)
    assert [info.id for _, info in cache.samples] == ["00000000", f"{len(MISSHAPEN) + 2:08d}"]
    assert len(cache.skipped) == len(MISSHAPEN) + 1
    for number, (row, (_, reason)) in enumerate(zip(cache.skipped, MISSHAPEN, strict=False), 2):
        assert row.place == f"shaken.jsonl row {number}" and reason.rpartition("missing: ")[2] in row.reason
        assert str(row) in output
    assert f"shaken.jsonl line {len(MISSHAPEN) + 2} " in output
    assert f"skipped {len(MISSHAPEN) + 1} rows: 17 misshapen, 2 missing" in output


def test_half_a_surrogate_pair_costs_its_row_alone(tmp_path):
    """JSON can write it, and no tokenizer, terminal or file takes it."""
    text = '{"task_name": "text", "prompt": "a\\ud800b"}\n'
    text += '{"task_name": "text", "prompt": "a", "id": "\\udfff"}\n'
    text += '{"task_name": "text", "prompt": ["a", "\\ud83d\\ude00"]}'
    (tmp_path / "rows.jsonl").write_text(text)
    prompt, name, good = rows_of(tmp_path / "rows.jsonl")
    assert isinstance(good, Row) and good.prompts == ("a", "\U0001f600")
    assert (prompt.kind, name.kind, name.id) == ("misshapen", "misshapen", "00000001")
    assert prompt.reason == r"prompt holds '\ud800', half of a surrogate pair; write whole characters"
    str(prompt).encode(), str(name).encode()


def test_a_row_of_endless_references_or_captions_is_refused_before_it_is_read(config, clips):
    row = Row("a", "a", "text", ("a cat",), None, None, (), None)
    many = Media(str(clips / "none.png"))
    for change, reason in (
        ({"references": (many,) * 17}, "ref_image_path has 17 entries, expected at most 16"),
        ({"prompts": ("a cat",) * 65}, "prompt has 65 entries, expected at most 64"),
    ):
        with pytest.raises(BadRowError, match=reason):
            load_inputs(replace(row, **change), config(path="x", width=16, height=16))


def test_references_that_fill_the_memory_together_are_refused(config, tmp_path, monkeypatch):
    Image.fromarray(np.zeros((100, 100, 3), np.uint8)).save(tmp_path / "a.png")
    row = Row("a", "a", "text", ("a cat",), None, None, (Media(str(tmp_path / "a.png")),) * 5, None)
    settings = config(path="x", width=16, height=16)
    assert len(load_inputs(row, settings).references) == 5
    monkeypatch.setattr("training.data.rows.MAX_CLIP_BYTES", 4 * 100 * 100 * 3 * 4)
    with pytest.raises(BadRowError, match=r"its references take .* GiB, expected at most"):
        load_inputs(row, settings)
