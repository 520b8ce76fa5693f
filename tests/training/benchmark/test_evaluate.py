"""An evaluation from its configuration to tables and pages, after kills and by several processes too."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from tests.support.processes import torchrun
from training.benchmark import generate
from training.benchmark.config import ModelConfig, SamplerConfig
from training.benchmark.evaluate import evaluate
from training.benchmark.generate import seed_of, video_path
from training.benchmark.index import read_benchmark
from training.engine.lock import claimed
from training.evaluate import main, parser

from .conftest import ROOT, STUDENT, write_benchmark

PROGRAM = ROOT / "training/evaluate.py"


def results(folder):
    """results.json."""
    return json.loads((Path(folder) / "results.json").read_text(encoding="utf-8"))


def digests(folder):
    """Every video and score, by a digest of its bytes."""
    files = [p for name in ("videos", "scores") for p in (Path(folder) / name).rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def write_config(path, config):
    """A configuration as a file."""
    values = asdict(config)
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_the_real_clips_of_a_folder_get_their_table(config):
    settings = config()
    assert evaluate(settings) == []
    values = results(settings.out_dir)
    assert values["tasks"] == ["gray", "extension", "R2V_face", "reference+gray"]
    means = {group["name"]: group["means"] for group in values["groups"]}
    assert means["gray"]["control_fidelity"]["real"]["value"] > 0.95
    assert means["extension"]["kept_psnr"]["real"]["value"] > 40
    assert values["not_run"]["VBench"].startswith("vbench.command is empty")
    page = (Path(settings.out_dir) / "results.md").read_text(encoding="utf-8")
    assert "VBench: vbench.command is empty" in page and "| all | real |" in page
    assert "VBench" not in page.split("## Not run")[0]


def test_a_model_of_ours_is_compared_with_the_first(bench, config):
    tasks = ["extension", "R2V_face"]
    settings = config(models=[*config().models, STUDENT], samples_per_task=1, tasks=tasks)
    assert evaluate(settings) == []
    values = results(settings.out_dir)
    everything = values["groups"][0]
    assert everything["means"]["motion"]["student"]["count"] == 2
    assert everything["differences"]["kept_psnr"]["student"]["value"] < -5
    before = digests(settings.out_dir)
    videos = {path: path.stat().st_mtime_ns for path in (Path(settings.out_dir) / "videos").rglob("*.mp4")}
    assert len(videos) == 4
    assert evaluate(settings) == [] and digests(settings.out_dir) == before
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in videos.items())
    # A row's video depends on its row alone.
    (sample,) = read_benchmark(bench).chosen(["R2V_face"], 1).samples
    alone = replace(settings, out_dir=f"{settings.out_dir} alone", models=[STUDENT], tasks=[sample.task])
    evaluate(alone)
    paths = (video_path(one, STUDENT, sample) for one in (alone, settings))
    assert len({path.read_bytes() for path in paths}) == 1


def test_other_settings_make_the_videos_again(bench, config):
    settings = config(models=[STUDENT], samples_per_task=1, tasks=["gray"])
    sample = read_benchmark(bench).chosen(["gray"], 1).samples[0]
    evaluate(settings)
    first = video_path(settings, STUDENT, sample).read_bytes()
    changed = replace(STUDENT, sampler=SamplerConfig(steps=1, guidance=4.0))
    evaluate(replace(settings, models=[changed]))
    second = video_path(settings, STUDENT, sample).read_bytes()
    evaluate(replace(settings, seed=1, models=[changed]))
    third = video_path(settings, STUDENT, sample).read_bytes()
    assert len({first, second, third}) == 3
    assert seed_of(sample, 0) != seed_of(sample, 1)


def test_guidance_of_a_task_makes_its_videos_again_alone(bench, config):
    def made(task_guidance):
        model = replace(STUDENT, sampler=SamplerConfig(steps=1, task_guidance=task_guidance))
        settings = config(models=[model], samples_per_task=1, tasks=["gray", "extension"])
        assert evaluate(settings) == []
        samples = read_benchmark(bench).chosen(settings.tasks, 1).samples
        return {row.task: video_path(settings, model, row).stat().st_mtime_ns for row in samples}

    first = made({"gray": 2.0, "extension": 3.0})
    assert made({"extension": 3.0, "gray": 2.0}) == first, "the order of the settings made them again"
    second = made({"gray": 4.0, "extension": 3.0})
    assert second["extension"] == first["extension"] and second["gray"] != first["gray"]


def test_what_another_process_makes_is_left_to_it(bench, config, caplog):
    settings = config(models=[STUDENT], samples_per_task=1, tasks=["gray", "extension"])
    gray, extension = read_benchmark(bench).chosen(settings.tasks, 1).samples
    path = video_path(settings, STUDENT, gray)
    path.parent.mkdir(parents=True)
    hold = (
        "import sys, time\nfrom training.engine.lock import claimed\n"
        "with claimed(sys.argv[1]) as mine:\n    print(mine, flush=True)\n    time.sleep(3600)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", hold, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline().strip() == "True"
        with claimed(path) as mine:
            assert not mine
        with caplog.at_level("INFO", "vdot"):
            assert evaluate(settings) == []
        assert "1 video left to other processes" in caplog.text
        assert not path.exists() and video_path(settings, STUDENT, extension).is_file()
        assert not (Path(settings.out_dir) / "results.json").exists()
    finally:
        other.kill()
        other.wait()
    # The claim of a process that was killed is taken over.
    assert evaluate(settings) == []
    assert path.is_file() and results(settings.out_dir)
    assert not list(Path(settings.out_dir).rglob(".*.mp4.lock"))


def test_missing_and_broken_videos_are_named_and_the_status_says_so(bench, config, tmp_path, capsys):
    (bench / "real" / "gray" / "0001.mp4").unlink()
    (bench / "real" / "R2V_face" / "0000.mp4").write_bytes(b"no video")
    index = bench / "indices" / "uvcbench_single.txt"
    index.write_text(index.read_text(encoding="utf-8") + '{"subtask": 1}\n', encoding="utf-8")
    settings = config()
    assert main(["--config", str(write_config(tmp_path / "config.yaml", settings))]) == 1
    said = capsys.readouterr().err
    for words in ("uvcbench_single.txt line 7", "gray/0001", "R2V_face/0000"):
        assert words in said
    values = results(settings.out_dir)
    assert len(values["left_out"]) == 3
    assert values["groups"][0]["means"]["motion"]["real"]["count"] == 6
    page = (Path(settings.out_dir) / "gallery.html").read_text(encoding="utf-8")
    assert "gray/0001.mp4" in page and "Left out" in page
    shown = json.loads((Path(settings.out_dir) / "blind_key.json").read_text(encoding="utf-8"))["videos"]
    assert len(shown) == 6


def test_rows_that_fail_now_keep_no_numbers_of_an_earlier_run(bench, config):
    settings = config(tasks=["gray", "extension"])
    assert evaluate(settings) == []
    (bench / "real" / "gray" / "0001.mp4").unlink()
    (bench / "assets" / "mask0.mp4").write_bytes(b"no video")
    assert len(evaluate(settings)) == 2
    values = results(settings.out_dir)
    assert values["groups"][0]["means"]["motion"]["real"]["count"] == 2
    page = (Path(settings.out_dir) / "gallery.html").read_text(encoding="utf-8")
    assert page.count("views/real/") == 2


def test_a_video_of_numbers_that_are_not_finite_is_no_black_one(config, monkeypatch):
    def maker(sample, conditions, seed):
        return conditions.frames * float("nan")

    monkeypatch.setattr(generate, "make_maker", lambda *_: maker)
    settings = config(models=[STUDENT], tasks=["gray"], samples_per_task=1)
    (line,) = evaluate(settings)
    assert "gray/0000" in line and "not finite" in line
    assert not list((Path(settings.out_dir) / "videos").rglob("*.mp4"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"benchmark": "/nowhere"}, "holds no .txt"),
        ({"tasks": ["depht"]}, "tasks has 'depht'"),
        ({"models": [ModelConfig("gone", "folder", "/nowhere")]}, "gone: /nowhere does not exist"),
        ({"models": [replace(STUDENT, path="README.md")]}, "README.md"),
    ],
)
def test_a_users_mistake_has_status_2(config, tmp_path, capsys, change, words):
    path = write_config(tmp_path / "config.yaml", config(samples_per_task=1, tasks=["gray"]))
    values = yaml.safe_load(path.read_text()) | {
        name: [asdict(model) for model in value] if name == "models" else value
        for name, value in change.items()
    }
    path.write_text(yaml.safe_dump(values))
    assert main(["--config", str(path)]) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said


def test_guidance_of_a_task_that_is_not_there_is_told(bench, config, caplog):
    sampler = SamplerConfig(task_guidance={"gray": 2.0, "grya": 2.0})
    models = [ModelConfig("real", "folder", str(bench / "real"), sampler=sampler)]
    with caplog.at_level("WARNING", "vdot"):
        evaluate(config(models=models, samples_per_task=1, tasks=["gray"]))
    (line,) = (line for line in caplog.messages if "task_guidance" in line)
    assert line.startswith("models: real: sampler.task_guidance has grya, which the benchmark has not")


def test_an_estimator_whose_weights_are_none_ends_it_in_a_sentence(bench, config, tmp_path, capsys):
    index = bench / "indices" / "uvcbench_single.txt"
    index.write_text(index.read_text(encoding="utf-8").replace('"gray"', '"flow"'), encoding="utf-8")
    (bench / "real" / "gray").rename(bench / "real" / "flow")
    settings = config(samples_per_task=1, tasks=["flow"], flow_model="README.md")
    assert main(["--config", str(write_config(tmp_path / "config.yaml", settings))]) == 2
    said = capsys.readouterr().err
    assert "README.md is not a readable weight file" in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"models": []}, "models is empty"),
        ({"models": [{"name": "../up", "path": "x"}]}, "a name is '../up'"),
        ({"models": [{"name": "a", "path": "x"}]}, "a has no vae"),
        ({"models": [{"name": "a", "kind": "folder", "path": "x"}] * 2}, "two are named 'a'"),
        ({"width": 40}, "width"),
        ({"num_frames": 18}, "num_frames is 18"),
        ({"estimators": ["canny"]}, "estimators has 'canny'"),
        ({"judge": {"url": "ftp://x"}}, "judge.url is 'ftp://x'"),
        (
            {"models": [{"name": "a", "path": "x", "sampler": {"task_guidance": {"gray": -1}}}]},
            "task_guidance.gray is -1",
        ),
        ({"tsaks": []}, "did you mean tasks"),
    ],
)
def test_wrong_settings_are_refused_with_the_key(bench, change, words):
    values = {"benchmark": str(bench), "models": [{"name": "real", "kind": "folder", "path": "x"}]}
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        parser().read_values(values | change)
    assert len(str(error.value)) <= 400


def test_the_example_finds_the_bundled_models_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, _ = parser().read(["--config", str(ROOT / "training/configs/evaluate_example.yaml")])
    assert [Path(model.path).is_file() for model in config.models] == [True, True, False]
    assert all(Path(model.vae).is_file() for model in config.models[:2])


@pytest.mark.full
@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_killed_twice_it_ends_with_the_same_videos_and_numbers(bench, config, tmp_path):
    settings = config(models=[*config().models, STUDENT], out_dir=str(tmp_path / "killed"))
    path = write_config(tmp_path / "config.yaml", settings)
    command = [sys.executable, str(PROGRAM), "--config", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    own = Path(settings.out_dir) / "videos" / "student"
    for count in (2, 5):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while process.poll() is None and len(list(own.rglob("[!.]*.mp4"))) < count:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (Path(settings.out_dir) / "results.json").exists()
    assert subprocess.run(command, env=environment).returncode == 0
    straight = replace(settings, out_dir=str(tmp_path / "straight"))
    assert evaluate(straight) == []
    assert digests(settings.out_dir) == digests(straight.out_dir)
    tables = [{**results(one.out_dir), "config": None} for one in (settings, straight)]
    assert tables[0] == tables[1]


@pytest.mark.full
def test_processes_of_torchrun_share_the_work(tmp_path, config):
    bench = write_benchmark(tmp_path / "larger", 3)
    settings = config(benchmark=str(bench), models=[STUDENT])
    path = write_config(tmp_path / "config.yaml", settings)
    process = torchrun(tmp_path, str(PROGRAM), "--config", str(path), cwd=ROOT)
    assert process.wait(300) == 0, (tmp_path / "log.txt").read_text()
    log = (tmp_path / "log.txt").read_text()
    made = re.findall(r"student: (\S+), [\d.]+ s", log)
    assert len(made) == len(set(made)) == 12
    straight = replace(settings, out_dir=str(tmp_path / "straight"))
    evaluate(straight)
    assert digests(settings.out_dir) == digests(straight.out_dir)
    assert results(settings.out_dir)["groups"] == results(straight.out_dir)["groups"]
