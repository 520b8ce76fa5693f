"""Rows: the same from every format, and what is wrong with the bad ones."""

import importlib
from typing import ClassVar

import fsspec
import pytest
from aiohttp import ClientPayloadError
from fsspec.implementations.memory import MemoryFileSystem

from training.data import shards as tar_shards
from training.data.bad_rows import BadRowError, Skipped
from training.data.manifest import ManifestRows, Row
from training.data.rows import RowsProducer, load_inputs
from training.data.shards import TarRows

from .conftest import write_manifest, write_tar


def all_rows(shards):
    return [row for shard in range(shards.num_shards) for row in shards.rows(shard)]


def test_three_formats_and_tars_give_equal_rows(clips, records):
    results = {}
    for ending in ("csv", "jsonl", "parquet"):
        shards = ManifestRows(str(write_manifest(clips / f"rows.{ending}", records)), 4)
        assert shards.num_shards == 2
        results[ending] = all_rows(shards), shards.versions
    assert results["csv"] == results["jsonl"] == results["parquet"]
    rows = results["csv"][0]
    assert [row.task for row in rows] == [record["task_name"] for record in records]
    assert rows[4].references[1].name == str(clips / "two.png")

    tars = all_rows(TarRows(str(write_tar(clips / "rows-000.tar", records, clips))))
    assert len(tars) == len(rows)
    for one, other in zip(tars, rows, strict=True):
        assert (one.id, one.task, one.prompts) == (other.id, other.task, other.prompts)
        for name in ("source", "mask", "target"):
            pair = getattr(one, name), getattr(other, name)
            assert (pair[0] is None) == (pair[1] is None)
            assert pair[0] is None or pair[0].read() == pair[1].read()
        assert [m.read() for m in one.references] == [m.read() for m in other.references]


def test_remote_paths_and_the_authors_column(records):
    import fsspec

    files = fsspec.filesystem("memory")
    with files.open("/set/rows.jsonl", "w") as stream:
        stream.write(
            '{"task_name": "text", "internvl_short": "a cat", "target_video_path": "a.mp4", "fps": 3}\n'
        )
    files.pipe("/set/a.mp4", b"bytes")
    (row,) = all_rows(ManifestRows("memory://set/rows.jsonl", 8))
    assert row.prompts == ("a cat",) and row.target.read() == b"bytes"


@pytest.mark.parametrize("text, message", [
    ("task_name,caption\ndepth,a", "no column 'prompt'"),
    ("task_name,prompt,target_video_pth\ndepth,a,b", "did you mean 'target_video_path'"),
    ("task_name,prompt\n", "no rows"),
])  # fmt: skip
def test_tables_without_their_columns_are_refused(tmp_path, text, message):
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        ManifestRows(str(tmp_path / "rows.csv"), 8)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.csv, \.jsonl or \.parquet"):
        ManifestRows("rows.xlsx", 8)
    with pytest.raises(ValueError, match="cannot be read"):
        ManifestRows(str(tmp_path / "none.csv"), 8)
    with pytest.raises(ValueError, match="run programs"):
        TarRows("pipe:cat rows.tar")
    with pytest.raises(ValueError, match="has no ending; a manifest is"):
        ManifestRows(f"{tmp_path}/v1.0/rows", 8)


@pytest.mark.parametrize("name", ["clips", "rows.csv", "clips.v1"])
def test_a_folder_is_called_one(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    for path in (folder, f"{folder}/", f"file://{folder}"):
        with pytest.raises(ValueError, match=rf"{name}/? is a folder; give its \.csv, \.jsonl or \.parquet"):
            ManifestRows(str(path), 8)
    with pytest.raises(ValueError, match=rf"{name} is a folder; give its tars, such as .*{name}/\*\.tar"):
        TarRows(str(folder))


BAD = [
    ({"prompt": ""}, "missing", "prompt"),
    ({"task_name": "dept"}, "wrong", "did you mean depth"),
    ({"src_video_path": "none.mp4"}, "missing", "none.mp4"),
    ({"src_video_path": "broken.mp4"}, "unreadable", "broken.mp4"),
    ({"src_video_path": "long.mp4"}, "misshapen", "target_video has 5 frames.*src_video has 13"),
    ({"src_video_path": "square.mp4"}, "misshapen", "32x32.*48x32"),
    ({"src_video_path": None}, "missing", "src_video_path is empty"),
    ({"src_video_path": "one.png", "target_video_path": None}, "misshapen", "fewer than min_frames"),
    ({"task_name": "inpainting", "src_video_path": None}, "missing", "mask_video_path is empty"),
    ({"task_name": "reference", "ref_image_path": "words.png"}, "unreadable", "words.png"),
    ({"task_name": "reference", "ref_image_path": "[one.png]"}, "wrong", "no JSON list"),
    ({"task_name": "firstclip", "src_video_path": None}, "missing", "mask_video_path"),
]


@pytest.mark.parametrize("change, kind, message", BAD)
def test_bad_rows_are_named_with_the_reason(clips, config, change, kind, message):
    from training.data.conditioning import build_unit, canonical

    row = {
        "task_name": "depth",
        "prompt": "a",
        "src_video_path": "control.mp4",
        "target_video_path": "real.mp4",
    }
    good = {**row, "ref_image_path": None, "mask_video_path": None}
    path = write_manifest(clips / "bad.csv", [good, {**good, **change}])
    first, second = all_rows(ManifestRows(str(path), 8))
    settings = config(num_frames=81, path=str(path))
    assert isinstance(first, Row) and build_unit("depth", load_inputs(first, settings)).num_frames == 5
    if isinstance(second, Skipped):
        assert second.kind == kind
        assert message in second.reason and "row 2" in second.place
        return
    with pytest.raises(BadRowError, match=message) as caught:
        build_unit(canonical(second.task), load_inputs(second, settings))
    assert caught.value.kind == kind


def test_a_tar_that_breaks_off_gives_what_it_had(clips, records, tmp_path):
    whole = write_tar(tmp_path / "rows.tar", records, clips).read_bytes()
    (tmp_path / "rows.tar").write_bytes(whole[: len(whole) // 2 + 100])
    rows = all_rows(TarRows(str(tmp_path / "rows.tar")))
    assert 0 < sum(isinstance(row, Row) for row in rows) < len(records)
    assert isinstance(rows[-1], Skipped) and rows[-1].kind == "unreadable"
    assert [row.kind for row in all_rows(TarRows(str(tmp_path / "none.tar")))] == ["missing"]


class FlakyStore(MemoryFileSystem):
    """An object store whose connection breaks, with the errors that such backends raise: no OSErrors."""

    protocol = "flaky"
    store: ClassVar = {}
    errors: ClassVar = {
        "payload": ClientPayloadError("Response payload is not completed"),
        "timeout": type("FSTimeoutError", (Exception,), {})(),
        "torn": ClientPayloadError("Response payload is not completed"),
    }

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("flaky://"))

    def _open(self, path, mode="rb", **kwargs):
        file = super()._open(path, mode, **kwargs)
        name = path.rsplit("/", 1)[-1].split(".")[0]
        if mode == "rb" and name in self.errors:
            half, read = file.getbuffer().nbytes // 2, file.read

            def broken(size=-1):
                if name == "torn" and file.tell() < half:
                    return read(size)
                raise self.errors[name]

            file.read = broken
        return file


@pytest.fixture
def flaky(clips):
    fsspec.register_implementation("flaky", FlakyStore, clobber=True)
    store = fsspec.filesystem("flaky")
    for name in ("good.mp4", "payload.mp4", "timeout.mp4"):
        store.pipe(f"/{name}", (clips / "real.mp4").read_bytes())
    return store


def test_a_broken_connection_skips_its_row_alone(flaky, config, records, tmp_path):
    row = {**records[1], "task_name": "text"}
    rows = [{**row, "target_video_path": f"flaky://{n}.mp4"} for n in ("payload", "good", "timeout", "none")]
    producer = RowsProducer(config(path=str(write_manifest(tmp_path / "rows.jsonl", rows)), rows_per_shard=4))
    samples, skipped = producer.encode(0)
    assert [sample.id for sample in samples] == ["00000001"]
    assert [(row.id, row.kind) for row in skipped] == [
        ("00000000", "unreadable"), ("00000002", "unreadable"), ("00000003", "missing"),
    ]  # fmt: skip
    assert "flaky://payload.mp4 cannot be read: ClientPayloadError: Response payload" in skipped[0].reason
    assert "FSTimeoutError" in skipped[1].reason


def test_a_tar_whose_connection_breaks_gives_what_it_had(flaky, clips, records, tmp_path):
    path = write_tar(tmp_path / "torn.tar", records, clips)
    flaky.pipe("/torn.tar", path.read_bytes())
    (whole, torn) = (list(TarRows(url).rows(0)) for url in (str(path), "flaky://torn.tar"))
    assert 0 < len(torn) - 1 < len(whole) and torn[:-1] == whole[: len(torn) - 1]
    assert torn[-1].kind == "unreadable" and "ClientPayloadError: Response payload" in torn[-1].reason


def test_unforeseen_errors_cost_their_row_and_missing_backends_end_the_job(
    flaky, clips, records, config, tmp_path, monkeypatch
):
    path = write_tar(tmp_path / "good.tar", records, clips)
    with monkeypatch.context() as patch:
        patch.setattr(tar_shards, "read_texts", lambda *_, **__: 1 / 0)
        rows = list(TarRows(str(path)).rows(0))
    assert rows and all("ZeroDivisionError" in row.reason for row in rows)
    monkeypatch.setattr(FlakyStore, "_open", lambda *_, **__: importlib.import_module("no_such_store"))
    rows = [{**records[1], "target_video_path": "flaky://good.mp4"}]
    manifest = write_manifest(tmp_path / "rows.jsonl", rows)
    with pytest.raises(ValueError, match=r"row 1 .* is not installed .*no_such_store.*; install it"):
        RowsProducer(config(path=str(manifest))).encode(0)
    for read in (
        lambda: ManifestRows("flaky://rows.csv", 4),
        lambda: list(TarRows("flaky://good.tar").rows(0)),
    ):
        with pytest.raises(ValueError, match=r"flaky://\S+ needs a package .*no_such_store.*; install it"):
            read()


@pytest.mark.parametrize("pattern", ["no_such_protocol://bucket/*.tar", "http://127.0.0.1:1/*.tar"])
def test_addresses_that_cannot_be_listed_are_named(pattern):
    with pytest.raises(ValueError, match=r"\*\.tar cannot be listed \(.*\); check the address"):
        TarRows(pattern)


def test_a_manifest_behind_a_broken_connection_is_named(flaky):
    flaky.pipe("/payload.csv", b"task_name,prompt\ntext,a")
    with pytest.raises(ValueError, match=r"flaky://payload\.csv cannot be read: ClientPayloadError"):
        ManifestRows("flaky://payload.csv", 4)


@pytest.mark.parametrize(("sign", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_a_table_divided_by_other_signs_says_how_to_save_it(tmp_path, sign, name):
    path = tmp_path / "rows.csv"
    path.write_text(f"task_name{sign}prompt\r\ntext{sign}a ball, red\r\n")
    with pytest.raises(ValueError, match=rf"rows\.csv: {name} divide its columns; save it with commas"):
        ManifestRows(str(path), 8)
