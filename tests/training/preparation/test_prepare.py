"""A folder of raw videos becomes a manifest and shards, the same after kills."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow.parquet
import pytest
import yaml

from training.data.conditioning import part_names, task_names
from training.data.config import DataConfig
from training.data.manifest import ManifestRows, Row
from training.data.rows import load_inputs
from training.data.shards import TarRows
from training.preparation import stages
from training.preparation.config import CaptionConfig, ClipConfig, ExecutorConfig, PrepareConfig, TaskConfig
from training.preparation.prepare import estimate, prepare
from training.preparation.rules import PART_RULES, WHOLE_RULES
from training.preparation.store import Store
from training.prepare import main, parser

from .conftest import LIMITS

ROOT = Path(__file__).resolve().parents[3]


def table(path):
    """Rows of a Parquet file."""
    return pyarrow.parquet.read_table(path).to_pylist()


def results(folder):
    """Every file that training reads, by a digest of its bytes."""
    patterns = ("*.tar", "manifest.parquet", "held_out.parquet")
    files = [file for pattern in patterns for file in Path(folder).glob(pattern)]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    """A finished preparation of every task, with its clips."""
    config = PrepareConfig(
        input=[str(raw)],
        out_dir=str(tmp_path_factory.mktemp("prepared")),
        annotators=["scribble", "flow", "depth"],
        rows_per_shard=8,
        samples_per_task=1,
        clips=ClipConfig(num_frames=17, min_frames=9, clips_per_shot=1, buckets=[[48, 32]]),
        quality=LIMITS,
        tasks=TaskConfig(held_out=0.5),
        executor=ExecutorConfig("inline"),
    )
    return config, prepare(config)


def test_bad_sources_are_named_with_a_reason(prepared):
    config, clips = prepared
    rows = table(f"{config.out_dir}/clips.parquet")
    reasons = {row["id"]: row["rejected_because"] or "" for row in rows}
    expected = {
        "static": "static",
        "dark": "dark",
        "short": "too short",
        "bars": "black borders",
        "small": "too small",
        "broken": "decoded",
        "z-pan": "duplicate (of pan-",
    }
    for name, reason in expected.items():
        (text,) = (text for row_id, text in reasons.items() if row_id.startswith(name))
        assert reason in text
    assert "broken.mp4" in [row["source_name"] for row in rows]
    page = Path(config.out_dir, "contact_sheet.html").read_text(encoding="utf-8")
    assert "<figcaption>broken.mp4: cannot be decoded" in page
    assert sorted(clip_id.rsplit("-", 2)[0] for clip_id in clips.used()) == ["day-two-shots"] * 2 + ["pan"]


def test_every_row_can_be_trained_on(prepared):
    config, _ = prepared
    settings = DataConfig(
        source="manifest",
        path=f"{config.out_dir}/manifest.parquet",
        frame_rate=16,
        num_frames=17,
        min_frames=9,
    )
    count = 0
    for name in ("manifest", "held_out"):
        rows = ManifestRows(f"{config.out_dir}/{name}.parquet", 100)
        for row in (row for shard in range(rows.num_shards) for row in rows.rows(shard)):
            assert isinstance(row, Row), row
            inputs = load_inputs(row, settings)
            assert inputs.target.shape[1:] == (32, 48, 3) and len(inputs.target) in (9, 13, 17)
            count += 1
    assert count >= 30


def test_tars_hold_the_manifests_rows(prepared):
    config, _ = prepared
    rows = TarRows(f"{config.out_dir}/train-*.tar")
    tars = [row for shard in range(rows.num_shards) for row in rows.rows(shard)]
    manifest = table(f"{config.out_dir}/manifest.parquet")
    assert [(row.task, row.prompts[0]) for row in tars] == [(r["task_name"], r["prompt"]) for r in manifest]
    assert tars[0].target.data == Path(config.out_dir, manifest[0]["target_video_path"]).read_bytes()


def test_no_source_is_on_both_sides(prepared):
    config, clips = prepared
    sides = {}
    for name in ("manifest", "held_out"):
        for row in table(f"{config.out_dir}/{name}.parquet"):
            sides.setdefault(clips.starts[row["clip"]]["source"], set()).add(name)
    assert sorted(map(len, sides.values())) == [1, 1] and set.union(*sides.values()) == {
        "manifest",
        "held_out",
    }


def test_captions_come_from_the_text_file_first(prepared):
    config, _ = prepared
    rows = table(f"{config.out_dir}/manifest.parquet") + table(f"{config.out_dir}/held_out.parquet")
    captions = {(row["prompt"], row["caption_source"]) for row in rows}
    assert captions == {("a wall of clouds moves left", "file"), ("A video of two shots.", "template")}


def test_the_page_says_what_is_missing(prepared):
    config, _ = prepared
    page = Path(config.out_dir, "contact_sheet.html").read_text()
    expected = ("depth has no model", "references need the annotator", "black borders", "data:image/webp")
    assert [text for text in expected if text not in page] == []


def test_samples_are_of_many_clips(prepared):
    config, clips = prepared
    page = Path(config.out_dir, "contact_sheet.html").read_text()
    rows = re.findall(r"<figcaption>([\w-]+)\.(\w+): ", page.split("<h2>Samples</h2>")[1])
    assert len(rows) == len({task for _, task in rows}) >= 10
    assert {clip for clip, _ in rows} == {*clips.used()}


def test_every_task_has_a_rule():
    parts = {part for name in task_names() for part in part_names(name)}
    assert parts <= {*PART_RULES, *WHOLE_RULES}


class KilledError(BaseException):
    """Ends a run as a kill would: nothing handles it."""


def test_killed_twice_it_ends_in_the_same_bytes(config, tmp_path, monkeypatch):
    first = config(out_dir=str(tmp_path / "one"))
    prepare(first)
    second = config(out_dir=str(tmp_path / "two"))
    put, counts = Store.put, []
    for limit in (7, 11):
        count = 0

        def killed(self, *values, limit=limit):
            nonlocal count
            count += 1
            if count == limit:
                # The last rows are lost, as those since the last commit are.
                self._database.rollback()
                self._database.execute("begin")
                raise KilledError
            put(self, *values)

        monkeypatch.setattr(Store, "put", killed)
        monkeypatch.setattr("training.preparation.store.COMMIT_S", 0.0)
        with pytest.raises(KilledError):
            prepare(second)
        counts.append(count)
    calls = []

    def counted(self, stage, *rest):
        calls.append(stage)
        put(self, stage, *rest)

    monkeypatch.setattr(Store, "put", counted)
    prepare(second)
    assert counts == [7, 11]
    assert calls.count("shots") < 9, "the shots of all sources were detected again"
    assert results(first.out_dir) == results(second.out_dir)


@pytest.mark.full
def test_sigkill_twice_in_real_processes(config, tmp_path):
    first, second = config(out_dir=str(tmp_path / "one")), config(out_dir=str(tmp_path / "two"))
    prepare(first)
    settings = tmp_path / "prepare.yaml"
    settings.write_text(json.dumps(asdict(second)))
    for limit in (9, 12):
        program = (
            "import os; from training.preparation.store import Store; put = Store.put; calls = []\n"
            f"def counted(*a): put(*a); calls.append(1); len(calls) == {limit} and os.kill(os.getpid(), 9)\n"
            "Store.put = counted\n"
            f"from training.prepare import main, parser; main(['--config', {str(settings)!r}])"
        )
        assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == -signal.SIGKILL
    command = [sys.executable, "training/prepare.py", "--config", str(settings)]
    assert subprocess.run(command, cwd=ROOT, env={**os.environ}).returncode == 0
    assert results(first.out_dir) == results(second.out_dir)


def test_a_changed_stage_runs_again_with_what_depends_on_it(config, monkeypatch):
    settings = config()
    prepare(settings)
    calls = []
    put = Store.put

    def counted(self, stage, *rest):
        calls.append(stage)
        put(self, stage, *rest)

    monkeypatch.setattr(Store, "put", counted)
    prepare(settings)
    assert not calls
    prepare(replace(settings, captions=CaptionConfig(template="something else")))
    assert {*calls} == {"captions", "tasks"}
    calls.clear()
    monkeypatch.setattr(stages, "MOTION", replace(stages.MOTION, version=99))
    monkeypatch.setattr("training.preparation.pipeline.MOTION", stages.MOTION)
    prepare(replace(settings, captions=CaptionConfig(template="something else")))
    assert {*calls} == {"motion", "tasks"}


def test_a_replaced_source_is_cut_again(config, raw, tmp_path):
    import shutil

    own = tmp_path / "own"
    own.mkdir()
    shutil.copy(raw / "pan.mp4", own / "a.mp4")
    settings = config(input=[str(own)])
    before = prepare(settings).used()
    digest = results(settings.out_dir)
    shutil.copy(raw / "day" / "two shots.mp4", own / "a.mp4")
    assert len(prepare(settings).used()) == 2 > len(before)
    assert results(settings.out_dir) != digest


def test_weights_choose_the_rows_of_a_clip(config):
    weights = {"text": 1.0, "gray": 1000.0, "outpainting": 0.0}
    settings = config(tasks=TaskConfig(weights=weights, per_clip=1, held_out=0.0))
    prepare(settings)
    tasks = [row["task_name"] for row in table(f"{settings.out_dir}/manifest.parquet")]
    assert tasks == ["gray"] * 3


def test_the_program_says_what_is_wrong(config, raw, tmp_path, capsys):
    command = ["--out_dir", str(tmp_path / "o"), "--executor.name", "inline", "--annotators", "[]"]
    assert main([*command, "--input", f"[{tmp_path}/nothing]"]) == 2
    assert "no video is there" in capsys.readouterr().err
    assert main([*command, "--input", f"[{raw}/dark.mp4]", "--clips.buckets", "[[48, 32]]"]) == 2
    assert "no clip was left" in capsys.readouterr().err
    assert main([*command, "--input", f"[{raw}]", "--clips.threshold", "-1"]) == 2
    assert "clips.threshold is -1.0; expected above 0" in capsys.readouterr().err
    for option, value, words in (
        ("--budget", "0", "--budget is 0; expected the number of clips"),
        ("--executor.gpus", "{flow: -1}", "executor.gpus.flow is -1.0; expected 0 to 64"),
    ):
        assert main([*command, "--input", f"[{raw}]", option, value]) == 2
        assert words in capsys.readouterr().err
    assert main([*command, "--input", f"[{raw}]", "--annotators", "[pose_]"]) == 2
    assert "annotators has 'pose_'" in capsys.readouterr().err


def test_the_example_is_valid():
    values = yaml.safe_load((ROOT / "training/configs/prepare_example.yaml").read_text())
    assert parser().read_values(values).clips.num_frames == 17


def test_hours_for_many_clips_follow_from_those_measured(prepared):
    config, _ = prepared
    text = estimate(config, 250_000)
    assert "250000 clips on 1 worker: " in text and "shots" in text
    store = Store(Path(config.out_dir) / "state.sqlite")
    seconds, trimmed = sum(seconds for _, seconds in store.times().values()), store.times()["trim"][0]
    store.close()
    assert float(text.split()[-2]) == pytest.approx(seconds / trimmed * 250_000 / 3600, abs=0.06)
