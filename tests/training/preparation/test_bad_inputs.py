"""Sources, text files and results that are not as they should be: a sentence, or one clip is left out."""

import errno
import glob
import os
import sqlite3
from dataclasses import asdict, replace

import pytest
import yaml

from tests.training.data.conftest import write_video
from training import evaluate as evaluate_program
from training import prepare as prepare_program
from training.preparation import pipeline
from training.preparation.captions import caption
from training.preparation.config import CaptionConfig
from training.preparation.prepare import prepare
from training.preparation.sources import check_inputs, find_sources
from training.preparation.stage import model_state
from training.preparation.stages import MOTION
from training.preparation.store import STORE, Store
from training.prepare import main

from .conftest import RATE, panning
from .test_prepare import table


@pytest.fixture
def sources(tmp_path):
    """A folder of one good video."""
    folder = tmp_path / "sources"
    folder.mkdir()
    write_video(folder / "pan.mp4", panning(3, 30), RATE)
    return folder


def run(config, folder, **changes):
    settings = config(input=[str(folder)], annotators=[], **changes)
    return settings, prepare(settings)


def test_a_name_of_another_encoding_is_a_source_as_any(config, sources):
    os.rename(sources / "pan.mp4", os.fsencode(sources) + b"/mod\xe8le.mp4")
    settings, clips = run(config, sources)
    assert len(clips.used()) == 1
    (row,) = table(f"{settings.out_dir}/clips.parquet")
    assert row["source_name"] == "mod\\udce8le.mp4"


def test_what_is_no_video_is_named_without_handles(config, sources):
    for name, content in (("empty", b""), ("text", b"no video")):
        (sources / f"{name}.mp4").write_bytes(content)
    write_video(sources / "still.mp4", panning(3, 1), RATE)
    settings, _ = run(config, sources)
    rows = table(f"{settings.out_dir}/clips.parquet")
    reasons = {row["source_name"]: row["rejected_because"] for row in rows}
    fault = "cannot be decoded: Invalid data found when processing input"
    assert reasons == {
        "empty.mp4": fault, "text.mp4": fault, "still.mp4": "too short: 1 frame", "pan.mp4": None
    }  # fmt: skip


@pytest.mark.parametrize(
    ("url", "status", "words"),
    [
        ("http://127.0.0.1:1/v1", 1, "1 clip is not in the tables and tars"),
        ("http://[bad", 2, "the server http://[bad cannot be asked"),
    ],
)
def test_a_server_that_is_not_there_rejects_no_clip(config, sources, tmp_path, capsys, url, status, words):
    settings = config(input=[str(sources)], annotators=[], captions=CaptionConfig(url=url, retries=0))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(asdict(settings)), encoding="utf-8")
    assert main(["--config", str(tmp_path / "config.yaml")]) == status
    said = capsys.readouterr().err
    assert words in said and "no clip was left" not in said
    clips = prepare(replace(settings, captions=CaptionConfig()))
    assert len(clips.used()) == 1


def test_clips_that_a_preparation_wrote_are_no_sources(config, sources):
    for _ in range(2):
        settings, _ = run(config, sources, out_dir=str(sources / "data" / "prepared"))
    assert list((sources / "data/prepared/clips").glob("*.mp4"))
    for text in (sources, sources / "**" / "*.mp4"):
        (row,) = find_sources([str(text)])
        assert row["path"] == str(sources / "pan.mp4")
    assert find_sources([f"{settings.out_dir}/clips"]), "asked for by name they are"
    assert find_sources([f"{settings.out_dir}/clips/*.mp4"])


def test_inputs_that_lie_where_the_run_writes_are_refused(config, sources, tmp_path):
    out = tmp_path / "data"
    (out / "clips" / "day").mkdir(parents=True)
    os.rename(sources / "pan.mp4", out / "clips" / "pan.mp4")
    (tmp_path / "link").symlink_to(out / "clips")
    (tmp_path / "out").symlink_to(out)
    places = ("data", "data/*.mp4", "data/clips", "data/clips/*.mp4", "data/clips/pan.mp4", "data/clips/day",
              "link", "data/clips/day/../..", "data/masks/**/*.mp4")  # fmt: skip
    for text in places:
        for folder in (out, tmp_path / "out"):
            with pytest.raises(ValueError, match=r"lies where this run writes its results .*give another"):
                prepare(config(input=[str(tmp_path / text)], out_dir=str(folder)))
    assert sorted(path.name for path in out.rglob("*")) == ["clips", "day", "pan.mp4"], "nothing is written"
    check_inputs([str(out / "raw"), str(tmp_path), str(out / "clips2")], str(out))
    check_inputs([str(out / "clips")], str(out / "clips" / "prepared"))


def test_own_clips_are_no_sources_behind_links(sources, tmp_path):
    out = tmp_path / "data"
    (out / "clips").mkdir(parents=True)
    write_video(out / "clips" / "cut.mp4", panning(5, 30), RATE)
    (sources / "folder").symlink_to(out / "clips")
    (sources / "file.mp4").symlink_to(out / "clips" / "cut.mp4")
    assert len(find_sources([str(sources)])) == 3
    for text in (sources, sources / "**" / "*.mp4"):
        (row,) = find_sources([str(text)], str(out))
        assert row["path"] == str(sources / "pan.mp4")
    (sources / "pan.mp4").unlink()
    with pytest.raises(ValueError, match="only videos in folders of a preparation"):
        find_sources([str(sources)], str(out))


@pytest.mark.parametrize("place", ["captions", "motion"])
def test_a_clip_that_any_stage_rejects_is_left_out_and_named(config, sources, place, monkeypatch):
    write_video(sources / "other.mp4", panning(11, 30), RATE)
    (sources / "other.txt").write_bytes("ein Fuß".encode("latin-1"))
    if place == "motion":

        def measure(row, settings):
            caption(row, settings)
            return MOTION.run(row, settings)

        monkeypatch.setattr(pipeline, "MOTION", replace(MOTION, run=measure))
    settings, clips = run(config, sources)
    (used,) = clips.used()
    assert used.startswith("pan")
    (row,) = (row for row in table(f"{settings.out_dir}/clips.parquet") if row["id"].startswith("other"))
    assert row["rejected_by"] == place and "is not UTF-8" in row["rejected_because"]
    rows = table(f"{settings.out_dir}/manifest.parquet") + table(f"{settings.out_dir}/held_out.parquet")
    assert {row["clip"] for row in rows} == {used}


def test_a_text_file_that_changed_is_read_again(config, sources):
    captions = []
    for words in ("", "a fox", "a red fox", "a big fox"):
        if words:
            (sources / "pan.txt").write_text(words)
            os.utime(sources / "pan.txt", (1e9, 1e9))
        settings, clips = run(config, sources)
        (used,) = clips.used()
        store = Store(f"{settings.out_dir}/{STORE}")
        captions.append(store.get("captions", used)["prompt"])
        store.close()
    assert captions == ["A video of pan.", "a fox", "a red fox", "a big fox"], (
        "also of the same size and time"
    )


@pytest.mark.parametrize("part", [0.0, 0.6])
def test_damaged_results_are_a_sentence(config, sources, part):
    settings, _ = run(config, sources)
    path = f"{settings.out_dir}/{STORE}"
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.seek(int(size * part))
        file.write(b"\xff" * int(size * 0.4))
    with pytest.raises(ValueError, match=r"state\.sqlite is damaged .*; remove it") as error:
        prepare(settings)
    assert len(str(error.value)) <= 400


@pytest.mark.parametrize("pattern", ["", "/**/*.mp4", "/**", "/s*/**/*.mp4"])
def test_links_in_circles_end(sources, tmp_path, pattern):
    for name, target in (("one", "."), ("two", "."), ("up", "..")):
        (sources / name).symlink_to(target)
    (sources / "below").mkdir()
    (sources / "below" / "up").symlink_to("..")
    os.rename(sources / "pan.mp4", sources / "below" / "pan.mp4")
    (row,) = find_sources([f"{tmp_path}{pattern}"])
    assert os.path.samefile(row["path"], sources / "below" / "pan.mp4")


def test_a_pattern_finds_what_glob_finds(tmp_path, monkeypatch):
    names = ("a.mp4", "b/c.mp4", "b/d/e.mp4", ".hidden/x.mp4", "b/.y.mp4", "q[1]/z.mp4", "b/d/f/k.mp4")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    patterns = ["**/*.mp4", "b/**", "*/**/*.mp4", "**/d/**/*.mp4", "b/*/*.mp4", "b**/*.mp4"]
    for pattern in [*patterns, "q[[]1]/**/*.mp4", f"{tmp_path}/**/*.mp4"]:
        files = filter(os.path.isfile, glob.glob(pattern, recursive=True))
        assert {row["path"] for row in find_sources([pattern])} == set(map(os.path.abspath, files)), pattern


@pytest.mark.parametrize("value", ["{}", "null", "[" * 100_000, "9" * 5000, None])
@pytest.mark.parametrize("stage", ["shots", "quality", "captions", "tasks"])
def test_a_result_that_is_not_as_it_was_saved_is_a_sentence(config, sources, stage, value):
    settings, _ = run(config, sources)
    path = f"{settings.out_dir}/{STORE}"
    with sqlite3.connect(path) as database:
        if value is None:  # of the same form, as after an error of the disk
            query = "update results set value = replace(value, ': ', ':  ') where stage = ?"
            database.execute(query, (stage,))
        else:
            database.execute("update results set value = ? where stage = ?", (value, stage))
    database.close()
    with pytest.raises(ValueError, match=rf"state\.sqlite is damaged \({stage} of .*; remove it") as error:
        prepare(settings)
    assert len(str(error.value)) <= 400


def test_a_folder_of_another_encoding_is_no_out_dir(sources, tmp_path, capsys):
    assert main(["--input", f"[{sources}]", "--out_dir", f"{tmp_path}/\udce8"]) == 2
    assert "out_dir is" in (said := capsys.readouterr().err) and "no UTF-8; give another folder" in said


def test_a_model_is_known_by_its_content(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"a" * 5000)
    before, status = model_state(str(tmp_path)), file.stat()
    file.write_bytes(b"a" * 4999 + b"b")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert model_state(str(tmp_path)) != before, "of the same size and time"
    file.write_bytes(b"a" * 5000)
    assert model_state(str(tmp_path)) == before, "a copy has another time"
    assert model_state(None) is None and model_state(str(file))[1][:2] == ["model.safetensors", 5000]


@pytest.mark.parametrize("filename", [None, "clips/a.mp4"])
@pytest.mark.parametrize(
    ("program", "function"), [(prepare_program, "prepare"), (evaluate_program, "evaluate")]
)
def test_a_full_disk_is_named(program, function, filename, tmp_path, monkeypatch, capsys):
    """By its folder, where the system names no file: an error of `write` has none."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), filename)

    monkeypatch.setattr(program, function, full)
    out_dir = tmp_path / "results"
    inputs = ["--input", f"[{tmp_path}]"] if function == "prepare" else ["--benchmark", str(tmp_path)]
    models = [] if function == "prepare" else ["--models", "[{name: a, kind: folder, path: x}]"]
    assert program.main(["--out_dir", str(out_dir), *inputs, *models]) == 1
    said = capsys.readouterr().err
    assert f"{filename or out_dir} cannot be written (No space left on device; make room" in said
    assert "the same command resumes" in said
