"""Tables and tars that were written to confuse: doubled columns, hostile names, members of every kind."""

import io
import json
import logging
import tarfile
import tracemalloc

import pytest

from training.data.bad_rows import BadRowError, Skipped
from training.data.conditioning import task_parts
from training.data.manifest import ManifestRows, Row
from training.data.shards import TarRows

HOSTILE = "\x1b[31mred\nFAKE LOG LINE\u202e" + "x" * 5000
GOOD = {"task_name": "text", "prompt": "a"}


def rows_of(path, text):
    path.write_text(text)
    (shard,) = [list(rows.rows(0)) for rows in [ManifestRows(str(path), 100)]]
    return shard


def plain(message):
    return message.isprintable() and len(message) < 1000


def test_a_column_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"rows\.csv has the columns prompt more than once; keep one"):
        rows_of(tmp_path / "rows.csv", "task_name,prompt,prompt,,\ntext,a,b,,\n")
    assert isinstance(rows_of(tmp_path / "rows.csv", "task_name,prompt,,\ntext,a,,\n")[0], Row)


def test_a_parquet_column_twice_is_refused(tmp_path):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table([["text"], ["a"], ["b"]], names=["task_name", "prompt", "prompt"])
    pyarrow.parquet.write_table(table, str(tmp_path / "rows.parquet"))
    with pytest.raises(ValueError, match=r"rows\.parquet has the columns prompt more than once"):
        ManifestRows(str(tmp_path / "rows.parquet"), 4)


def test_a_key_twice_costs_its_row_alone(tmp_path):
    line = '{"task_name": "text", "prompt": "a", "prompt": "b"}'
    good, bad = rows_of(tmp_path / "rows.jsonl", f"{json.dumps(GOOD)}\n{line}\n")
    assert isinstance(good, Row) and bad.kind == "misshapen" and "the key 'prompt' stands twice" in bad.reason


def test_a_caption_by_two_names_costs_its_row_alone(tmp_path):
    both = {**GOOD, "internvl_short": "b"}
    lines = [
        both,
        {**GOOD, "internvl_short": " "},
        {"task_name": "text", "prompt": None, "internvl_short": "c"},
    ]
    bad, first, second = rows_of(tmp_path / "rows.jsonl", "\n".join(map(json.dumps, lines)))
    assert bad.kind == "wrong" and "both prompt and internvl_short" in bad.reason
    assert bad.place.endswith("row 1")
    assert (first.prompts, second.prompts) == (("a",), ("c",))


def test_hostile_ids_and_columns_are_shown_in_short(tmp_path, caplog):
    caplog.set_level(logging.INFO, "vdot")
    lines = [{**GOOD, "id": HOSTILE}, {**GOOD, "id": HOSTILE}, GOOD, {**GOOD, "task_name": HOSTILE}]
    rows = rows_of(tmp_path / "rows.jsonl", "\n".join(map(json.dumps, lines)))
    assert all(isinstance(row, Skipped) and plain(str(row)) for row in rows[:2])
    assert len(rows[0].reason) < 200
    with pytest.raises(BadRowError) as error:
        task_parts("_a" * 500_000)
    assert plain(str(error.value))
    with pytest.raises(ValueError) as refused:
        ManifestRows(str(tmp_path / HOSTILE[-100:]), 4)
    assert plain(str(refused.value))


def test_many_columns_are_logged_in_one_line(tmp_path, caplog):
    caplog.set_level(logging.INFO, "vdot")
    others = [f"c{number}{HOSTILE[:20]}" for number in range(3000)]
    rows_of(tmp_path / "rows.jsonl", json.dumps({**GOOD, **dict.fromkeys(others, 1)}))
    (message,) = [record.getMessage() for record in caplog.records]
    assert plain(message) and "not read: 3000 columns" in message
    with pytest.raises(ValueError, match="has no column 'prompt'") as error:
        rows_of(tmp_path / "rows.jsonl", json.dumps({"task_name": "text", **dict.fromkeys(others, 1)}))
    assert plain(str(error.value))


def tar(path, members):
    with tarfile.open(path, "w") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return list(TarRows(str(path)).rows(0))


def of_type(name, kind, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def test_members_of_other_kinds_and_hostile_names_cost_their_row_at_most(tmp_path):
    text = json.dumps(GOOD).encode()
    members = [
        (tarfile.TarInfo("a.json"), text),
        of_type("a.src_video.mp4", tarfile.SYMTYPE, "/etc/passwd"),
        of_type("a.mask_video.mp4", tarfile.LNKTYPE, "../../etc/passwd"),
        of_type("a.target_video.mp4", tarfile.FIFOTYPE),
        of_type("a.ref_image.png", tarfile.CHRTYPE),
        (tarfile.TarInfo("../../up.json"), text),
        (tarfile.TarInfo("/tmp/absolute.json"), text),
        (tarfile.TarInfo(f"{HOSTILE}.json"), b"[]"),
        (tarfile.TarInfo("none"), b"x"),
        (tarfile.TarInfo(f"d.ref_image_{'9' * 5000}.png"), b"x"),
        (tarfile.TarInfo("e.json"), b'{"prompt": "a", "prompt": "b"}'),
        (tarfile.TarInfo("f.json"), text),
    ]
    rows = tar(tmp_path / "rows.tar", members)
    good = [row for row in rows if isinstance(row, Row)]
    assert [row.id for row in good] == ["../../up", "/tmp/absolute", "f"]
    assert all(row.source is row.mask is row.target is None and not row.references for row in good)
    bad = [row for row in rows if isinstance(row, Skipped)]
    assert len(bad) == 4 and all(plain(str(row)) for row in bad)
    assert bad[0].id == "a" and "is a link or a device" in str(bad[0])
    assert not (tmp_path.parent / "up.json").exists()


def test_a_caption_in_a_text_file_is_read_whole_or_costs_its_row(tmp_path):
    bare, full = json.dumps({"task_name": "text"}).encode(), json.dumps(GOOD).encode()
    members = [
        ("a.json", b"\xef\xbb\xbf" + bare), ("a.txt", b"\xef\xbb\xbfa caf\xc3\xa9\n"),
        ("b.json", bare), ("b.txt", "a café".encode("latin-1")),
        ("c.json", full), ("c.txt", b"another"),
        ("d.json", full), ("d.txt", GOOD["prompt"].encode()),
    ]  # fmt: skip
    rows = tar(tmp_path / "rows.tar", [(tarfile.TarInfo(name), content) for name, content in members])
    assert rows[0].prompts == ("a café",) and isinstance(rows[3], Row)
    assert "b.txt is not UTF-8" in str(rows[1]) and "c.json and c.txt have two captions" in str(rows[2])


@pytest.mark.parametrize("path", ["c-{0..999999999999}.tar", "c" + "{a,b}" * 60 + ".tar"])
def test_a_pattern_of_endless_names_is_refused_at_once(path):
    with pytest.raises(ValueError, match="tars, expected at most 100000; give fewer") as error:
        TarRows(path)
    assert len(str(error.value)) <= 400


@pytest.mark.parametrize("name", ["a.json", "a.JSON"])
def test_a_name_twice_costs_its_row_alone(tmp_path, name):
    text = json.dumps(GOOD).encode()
    members = [("a.json", text), (name, b"{}"), ("a.txt", b"x"), ("b.json", text)]
    rows = tar(tmp_path / "rows.tar", [(tarfile.TarInfo(name), content) for name, content in members])
    assert isinstance(rows[-1], Row) and rows[-1].id == "b" and len(rows) == 2
    assert rows[0].kind == "unreadable" and plain(str(rows[0]))


def test_a_sparse_member_of_any_size_costs_its_row_alone(tmp_path):
    """Its 60 GB of holes take 512 bytes in the tar."""
    header = bytearray(tarfile.TarInfo("a.target_video.mp4").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    header[483:495] = b"\x80" + (60 * 2**30).to_bytes(11, "big")  # the real size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    members = io.BytesIO()
    with tarfile.open(fileobj=members, mode="w") as archive:
        content = json.dumps(GOOD).encode()
        member = tarfile.TarInfo("b.json")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    (tmp_path / "rows.tar").write_bytes(bytes(header) + members.getvalue())
    bad, good = TarRows(str(tmp_path / "rows.tar")).rows(0)
    assert bad.kind == "unreadable" and "is a sparse file" in bad.reason and good.id == "b"


def test_a_sparse_member_of_a_newer_tar_takes_no_memory(tmp_path):
    """Its 300 MB of holes take 1 kB in the tar; a packed file is held once."""
    size, block = 300_000_000, 20_000_000
    sparse = tarfile.TarInfo("a.target_video.mp4")
    sparse.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": sparse.name,
        "GNU.sparse.realsize": str(size),
    }
    holes = f"1\n{size - 1}\n1\n".encode().ljust(512, b"\0") + b"z"
    good = json.dumps(GOOD).encode()
    contents = [(sparse, holes), (tarfile.TarInfo("b.json"), good)]
    contents.append((tarfile.TarInfo("b.target_video.mp4"), bytes(block)))
    with tarfile.open(tmp_path / "rows.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in contents:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    del contents, content
    tracemalloc.start()
    first, second = TarRows(str(tmp_path / "rows.tar")).rows(0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "is a sparse file" in first.reason and second.target.data == bytes(block)
    assert peak < 1.8 * block


@pytest.mark.parametrize("cell, captions", [
    ('["a red ball", "a ball"]', ("a red ball", "a ball")),
    ("[a red ball]", ("[a red ball]",)),
    ('["a red ball", "a ball"] in quotes', ('["a red ball", "a ball"] in quotes',)),
])  # fmt: skip
def test_a_cell_of_csv_holds_several_captions(tmp_path, cell, captions):
    quoted = cell.replace('"', '""')
    (row,) = rows_of(tmp_path / "rows.csv", f'task_name,prompt\ntext,"{quoted}"\n')
    assert row.prompts == captions
    (tmp_path / "rows.jsonl").write_text(json.dumps({"task_name": "text", "prompt": list(captions)}))
    versions = [ManifestRows(str(tmp_path / f"rows.{end}"), 4).versions for end in ("csv", "jsonl")]
    assert versions[0] == versions[1]


@pytest.mark.parametrize("cell, words", [
    ("['a red ball', 'a ball']", "no JSON list"),
    ("[1, 2]", "prompt holds 1, of type int"),
])  # fmt: skip
def test_captions_in_another_list_cost_their_row(tmp_path, cell, words):
    bad, good = rows_of(tmp_path / "rows.csv", f'task_name,prompt\ntext,"{cell}"\ntext,a\n')
    assert words in bad.reason and plain(str(bad)) and good.prompts == ("a",)


def three_rows(path):
    text = json.dumps(GOOD).encode()
    rows = tar(path, [(tarfile.TarInfo(f"{name}.json"), text) for name in "abc"])
    assert [row.id for row in rows] == ["a", "b", "c"]
    return path.read_bytes()


CUTS = {"within a header": 4 * 512 + 100, "before a header": 4 * 512, "before the end mark": 6 * 512}


@pytest.mark.parametrize("damage", ["a byte", *CUTS])
def test_what_follows_a_damaged_header_is_not_left_out_silently(tmp_path, damage):
    """A row here takes a block of header and one of content; the one before may have lost other files."""
    data = bytearray(three_rows(tmp_path / "rows.tar"))
    if damage in CUTS:
        del data[CUTS[damage] :]
    else:
        data[4 * 512 + 3] ^= 1
    (tmp_path / "rows.tar").write_bytes(data)
    *good, last = TarRows(str(tmp_path / "rows.tar")).rows(0)
    assert [row.id for row in good] == list("ab" if "end" in damage else "a")
    assert last.kind == "unreadable" and "to its end: ReadError: a damaged or cut" in last.reason


def test_a_name_that_fills_the_memory_ends_its_tar(tmp_path):
    data = three_rows(tmp_path / "rows.tar")
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 60 * 2**30
    data = data[: 4 * 512] + header.tobuf(tarfile.GNU_FORMAT) + data[4 * 512 :]
    (tmp_path / "rows.tar").write_bytes(data)
    good, last = TarRows(str(tmp_path / "rows.tar")).rows(0)
    assert good.id == "a" and "a name or comment of 64424509440 bytes, expected at most" in last.reason
