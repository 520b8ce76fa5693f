"""Results whose files went, or were replaced by a run that was killed, are made again."""

import os
import shutil
from dataclasses import replace

import pytest

from tests.training.data.conftest import write_video
from training.preparation import output
from training.preparation.output import write_parquet
from training.preparation.prepare import prepare
from training.preparation.sources import find_sources
from training.preparation.store import Store
from vdot_core.videos import open_video

from .conftest import RATE, panning
from .test_bad_inputs import sources  # noqa: F401
from .test_prepare import KilledError, results, table


@pytest.mark.parametrize("loss", ["clips", "annotations", "cut off"])
def test_files_that_went_or_were_cut_off_are_made_again(config, sources, loss):  # noqa: F811
    settings = config(input=[str(sources)])
    prepare(settings)
    before = results(settings.out_dir)
    if loss == "cut off":
        (clip,) = (sources.parent / "out" / "clips").glob("*.mp4")
        clip.write_bytes(clip.read_bytes()[:100])
    else:
        shutil.rmtree(f"{settings.out_dir}/{loss}")
    shutil.rmtree(f"{settings.out_dir}/masks")
    prepare(settings)
    assert results(settings.out_dir) == before


def test_a_run_with_other_settings_that_was_killed_leaves_nothing_of_them(config, sources, monkeypatch):  # noqa: F811
    settings = config(input=[str(sources)])
    prepare(settings)
    before, put = results(settings.out_dir), Store.put

    def killed(self, stage, *values):
        if stage == "trim":
            self._database.rollback()
            self._database.execute("begin")
            raise KilledError
        put(self, stage, *values)

    monkeypatch.setattr(Store, "put", killed)
    with pytest.raises(KilledError):
        prepare(replace(settings, clips=replace(settings.clips, buckets=[[32, 32]])))
    monkeypatch.setattr(Store, "put", put)
    prepare(settings)
    (clip,) = (sources.parent / "out" / "clips").glob("*.mp4")
    with open_video(clip) as container:
        assert container.streams.video[0].width == 48
    assert results(settings.out_dir) == before


def test_a_source_that_is_replaced_by_one_of_its_size_and_time_is_seen(sources):  # noqa: F811
    (source,) = sources.iterdir()
    content, time = source.read_bytes(), source.stat().st_mtime_ns
    (before,) = find_sources([str(sources)])
    source.write_bytes(content[::-1])
    os.utime(source, ns=(time, time))
    (after,) = find_sources([str(sources)])
    assert before["id"] == after["id"] and before["state"] != after["state"]


def test_links_are_sources_with_the_captions_next_to_them(config, sources, tmp_path, monkeypatch):  # noqa: F811
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    os.replace(sources / "pan.mp4", blobs / "0a1b")
    (sources / "cat.mp4").symlink_to(blobs / "0a1b")
    (sources / "cat.txt").write_text("a cat")
    (blobs / "more").mkdir()
    write_video(blobs / "more" / "\u732b caf\u00e9.mp4", panning(5, 30), RATE)
    (sources / "linked").symlink_to(blobs / "more")
    (blobs / "more" / "loop").symlink_to(sources)
    monkeypatch.setenv("HOME", str(tmp_path))
    names = [row["name"] for row in find_sources([str(sources)])]
    assert sorted(names) == ["cat.mp4", "linked/\u732b caf\u00e9.mp4"]
    assert find_sources(["~/sources/*.mp4"])[0]["path"] == str(sources / "cat.mp4")
    settings = config(input=[str(sources)], annotators=[])
    prepare(settings)
    rows = table(f"{settings.out_dir}/manifest.parquet") + table(f"{settings.out_dir}/held_out.parquet")
    assert {row["prompt"] for row in rows} == {"a cat", "A video of \u732b caf\u00e9."}


def test_columns_that_come_late_and_change_their_type_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(output, "GROUP_ROWS", 2)
    rows = [{"id": "a", "n": 1}, {"id": "b"}, {"id": "c", "n": 0.5, "late": "x"}]
    assert write_parquet(tmp_path / "a.parquet", lambda: iter(rows)) == 3
    assert [row["late"] for row in table(tmp_path / "a.parquet")] == [None, None, "x"]
    assert [row["n"] for row in table(tmp_path / "a.parquet")] == [1, None, 0.5]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"annotators": ["flow", "flow"]}, "flow twice"),
        ({"executor": {"gpus": {"dept": 1}}}, "executor.gpus has 'dept'; there are shots, "),
    ],
)
def test_names_that_stand_twice_or_for_no_stage_are_refused(config, changes, words):
    from training.prepare import parser

    with pytest.raises(ValueError, match=words):
        parser().read_values({"input": ["raw"], **changes})
