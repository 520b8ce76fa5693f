"""The evaluation program on a model of random weights: rows, resuming, ceilings and the report."""

import json
import shutil
import time
from dataclasses import replace

import pytest
import yaml

from tiny import evaluate
from tiny.evaluation import generate as making
from tiny.evaluation.config import EvaluationConfig, PlannedRun, SamplerConfig, TaskConfig, parse_config
from tiny.evaluation.curves import read_curves
from tiny.evaluation.report import read_results, write_report
from training.distributed import precision
from training.engine.lock import claimed

SCORE = {"color": 1.0, "shape": 1.0, "kept_score": 2.0, "reference_kept": 1.0, "object_iou": 1.0}
ROWS = [
    {"task": "text", "family": "text", "seeds": 2},
    {"task": "inpainting", "family": "keep"},
    {"task": "depth", "family": "control"},
    {"task": "reference", "name": "reference_only", "family": "reference", "prompt": "none"},
]


def _config_file(assets, folder, **changes):
    config = {
        "assets": str(assets),
        "evaluator": str(assets / "evaluator.safetensors"),
        "out_dir": str(folder / "out"),
        "samplers": {"quick": {"steps": 2, "guidance": 2.0}},
        "clips": 3,
        "batch": 2,
        "pictures": 2,
        "score": SCORE,
        "tasks": ROWS,
        "run": "teacher",
        "bf16": False,
        **changes,
    }
    path = folder / "evaluation.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="module")
def evaluated(assets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    path = _config_file(assets, folder)
    evaluate.main(["--config", str(path)])
    return folder, path


def test_every_row_is_written_with_its_figures(evaluated):
    folder, _ = evaluated
    results = read_results(folder / "out")
    assert set(results) == {"teacher / quick", "teacher / truth", "teacher / vae"}
    rows = results["teacher / quick"]
    assert set(rows) == {"text", "inpainting", "depth", "reference_only"}
    assert rows["text"]["videos"] == 6 and rows["text"]["evaluations"] == 4
    assert rows["text"]["metrics"]["diversity"] > 0 and rows["depth"]["videos"] == 3
    assert 0 <= rows["inpainting"]["metrics"]["kept_score"] <= 1
    assert {"depth_error", "object_iou", "flow_error_px"} <= rows["depth"]["metrics"].keys()
    assert "background_color" not in rows["reference_only"]["metrics"]
    assert "reference_kept" in rows["reference_only"]["metrics"]
    assert (folder / "out" / "teacher" / "quick" / "text.jpg").is_file()


def test_the_drawn_clips_themselves_are_their_own_ceiling(evaluated):
    folder, _ = evaluated
    results = read_results(folder / "out")
    true = results["teacher / truth"]["inpainting"]["metrics"]
    assert true["kept_psnr"] == 60 and true["kept_score"] == 1
    assert true["frechet_distance"] == pytest.approx(0, abs=1e-6)
    assert true["smoothness_db"] == pytest.approx(true["smoothness_db_true"])
    through = results["teacher / vae"]["inpainting"]["metrics"]
    # Reconstructions are kept in half precision.
    assert through["kept_psnr"] == pytest.approx(through["kept_psnr_vae"], abs=0.01)


def test_done_rows_are_left_and_changed_ones_are_made_again(evaluated):
    folder, path = evaluated
    files = {file: file.stat().st_mtime_ns for file in (folder / "out").rglob("*.json")}
    evaluate.main(["--config", str(path), "--only", "[text, depth]"])
    assert {file: file.stat().st_mtime_ns for file in files} == files
    depth = folder / "out" / "teacher" / "quick" / "depth.json"
    depth.unlink()
    with claimed(depth):
        evaluate.main(["--config", str(path), "--only", "[depth]", "--use", "[quick]"])
        assert not depth.exists(), "another process is evaluating it"
    evaluate.main(["--config", str(path), "--only", "[text, depth]", "--use", "[quick]"])
    changed = {file for file in files if file.stat().st_mtime_ns != files[file]}
    assert {file.stem for file in changed} == {"depth"}
    evaluate.main(["--config", str(path), "--only", "[text]", "--use", "[quick]", "--seed", "1"])
    row = json.loads((folder / "out" / "teacher" / "quick" / "text.json").read_text())
    assert (folder / "out" / "teacher" / "quick" / "text.json").stat().st_mtime_ns > max(files.values())
    assert row["sampler"] == "quick"


def test_rows_of_other_clips_are_made_again_and_not_compared(evaluated, tmp_path, monkeypatch):
    folder, path = evaluated
    shutil.copytree(folder / "out", tmp_path / "out")
    arguments = ["--config", str(path), "--out_dir", str(tmp_path / "out"), "--only", "[text]"]
    file = tmp_path / "out" / "teacher" / "truth" / "text.json"
    before = file.stat().st_mtime_ns
    evaluate.main([*arguments, "--use", "[truth]"])
    assert file.stat().st_mtime_ns == before
    monkeypatch.setattr(evaluate, "CLIPS_VERSION", 0)
    evaluate.main([*arguments, "--use", "[truth]"])
    assert file.stat().st_mtime_ns > before
    with pytest.raises(ValueError, match="clips or versions of the clips and cannot be compared"):
        write_report(tmp_path / "out", tmp_path)


def test_seconds_are_of_the_processor_not_of_the_clock(assets, tmp_path, monkeypatch):
    def slept(self, row, cases, sampler, truth, bound):
        time.sleep(0.5)
        return truth

    monkeypatch.setattr(evaluate.Evaluation, "_videos", slept)
    config, _ = parse_config(["--config", str(_config_file(assets, tmp_path, clips=1))])
    result = evaluate.Evaluation(config).row(TaskConfig("text"), "quick", tmp_path)
    assert result["cpu_seconds"] < 0.25


@pytest.mark.parametrize("hardware", [True, False])
def test_a_row_says_which_precision_auto_chose(assets, tmp_path, monkeypatch, hardware):
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: hardware)
    path = _config_file(assets, tmp_path, bf16="auto", clips=1, tasks=ROWS[2:3], pictures=1)
    evaluate.main(["--config", str(path), "--use", "[quick]"])
    assert json.loads((tmp_path / "out" / "teacher" / "quick" / "depth.json").read_text())["bf16"] is hardware


def test_a_task_can_have_its_own_guidance(assets, tmp_path):
    own = {"steps": 2, "guidance": 2.0, "task_guidance": {"inpainting": 1.0}}
    path = _config_file(assets, tmp_path, samplers={"own": own, "none": {"steps": 2, "guidance": 1.0}})
    evaluate.main(["--config", str(path), "--use", "[own, none]", "--only", "[inpainting, depth]"])
    results = read_results(tmp_path / "out")
    own, none = results["teacher / own"], results["teacher / none"]
    assert own["inpainting"]["metrics"] == none["inpainting"]["metrics"]
    assert own["depth"]["metrics"] != none["depth"]["metrics"]
    assert [own[row]["evaluations"] for row in ("inpainting", "depth")] == [2, 4]


def test_the_report_has_every_run_and_nothing_of_before(evaluated, tmp_path):
    folder, _ = evaluated
    old = tmp_path / "images" / "results" / "student-old-text.jpg"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    (tmp_path / "results.json").write_text('{"student / old": {}}')
    page = write_report(folder / "out", tmp_path).read_text()
    assert not old.exists() and "student / old" not in page + (tmp_path / "results.json").read_text()
    for words in (
        "teacher / quick",
        "teacher / truth",
        "reference_only",
        "CPU s a video",
        "## Bars",
        "images/results/scores.png",
    ):
        assert words in page
    assert (tmp_path / "images" / "results" / "scores.png").stat().st_size > 2000
    assert (tmp_path / "images" / "results" / "teacher-quick-text.jpg").is_file()
    assert "times as fast" not in page
    with pytest.raises(ValueError, match="no results"):
        write_report(tmp_path / "nothing", tmp_path / "other")


def test_rows_that_cannot_be_compared_are_refused(evaluated, tmp_path):
    folder, _ = evaluated
    shutil.copytree(folder / "out", tmp_path / "out")
    path = tmp_path / "out" / "teacher" / "vae" / "text.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "measured_with": "another"}))
    old = {key: value for key, value in json.loads(path.read_text()).items() if key != "cpu_seconds"}
    with pytest.raises(
        ValueError, match=r"vae/text\.json and .* were scored with different evaluation networks"
    ):
        write_report(tmp_path / "out", tmp_path)
    path.write_text(json.dumps(old))
    with pytest.raises(ValueError, match=r"text\.json is of an older evaluation; evaluate it again"):
        write_report(tmp_path / "out", tmp_path)
    path.write_text('{"cpu_seconds": 1}')
    with pytest.raises(ValueError, match=r"text\.json is damaged \(it has no measured_with\); delete it"):
        write_report(tmp_path / "out", tmp_path)


@pytest.mark.parametrize("line", ["[1]", "{}", '{"step": "x"}', '{"step": 1', "\0"])
def test_a_log_with_a_damaged_line_is_named(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n' + line)
    with pytest.raises(ValueError, match=r"metrics\.jsonl line 2 is damaged .*; remove the line"):
        read_curves({"student": tmp_path})


def test_what_is_missing_is_named_before_the_first_row(assets, tmp_path, capsys):
    shutil.copytree(assets, tmp_path / "assets")
    (tmp_path / "assets" / making.VAE_FILE).unlink()
    lost, made_by = str(tmp_path / "lost.safetensors"), "python training/distill.py --config some.yaml"
    plan = [
        {"run": "teacher", "use": ["quick"], "only": ["text"]},
        {"run": "student", "transformer": lost, "made_by": made_by, "use": ["quick"], "only": ["text"]},
    ]
    changes = {"assets": str(tmp_path / "assets"), "evaluator": str(tmp_path / "none.safetensors")}
    path = _config_file(assets, tmp_path, run=None, plan=plan, clips=1)
    overrides = [word for name, value in changes.items() for word in (f"--{name}", value)]
    assert evaluate.main(["--config", str(path), *overrides]) == 2
    lines = [line.partition(" ")[2] for line in capsys.readouterr().err.splitlines()]
    assert not (tmp_path / "out").exists() and len(lines) == 3
    assert any(making.VAE_FILE in line and "`assets`" in line for line in lines)
    assert any("none.safetensors" in line and "tiny/train.py" in line for line in lines)
    assert (
        f"{lost} is missing: the transformer of the planned run 'student'; make it with `{made_by}`, or take "
        "the run out of `plan`"
    ) in lines


def test_mistakes_end_with_a_line_and_status_2(assets, tmp_path, capsys):
    path = str(_config_file(assets, tmp_path))
    wrong = {
        "only names": ["--only", "[face]"],
        "no results in": ["--report"],
        "other.safetensors is missing: the transformer of the run 'teacher'": [
            "--transformer", str(tmp_path / "other.safetensors"),
        ],
        "unknown task 'colorize'": ["--tasks", "[{task: colorize}]"],
        "tasks is empty": ["--tasks", "[]"],
        "tasks: family is 'lines'": ["--tasks", "[{task: text, family: lines}]"],
        "tasks has '../text'": ["--tasks", "[{task: text, name: ../text}]"],
        "samplers has 'a/b'": ["--samplers", "{a/b: {steps: 2}}"],
        "samplers: steps is 0; expected 1 to 1000": ["--samplers", "{quick: {steps: 0}}"],
        "split is 'test'": ["--split", "test"],
        "out_dir is empty": ["--out_dir", ""],
        "batch is 1000000": ["--batch", "1000000"],
    }  # fmt: skip
    for words, arguments in wrong.items():
        assert evaluate.main(["--config", path, *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
    assert not (tmp_path / "out").exists()


def test_one_command_evaluates_every_planned_run_and_reports(assets, tmp_path, monkeypatch):
    shutil.copy(assets / making.TRANSFORMER_FILE, tmp_path / "other.safetensors")
    plan = [
        {"run": "teacher", "use": ["quick"], "only": ["text", "depth"]},
        {
            "run": "student",
            "transformer": str(tmp_path / "other.safetensors"),
            "use": ["quick"],
            "only": ["text"],
        },
    ]
    path = _config_file(assets, tmp_path, run=None, plan=plan, clips=1)
    monkeypatch.setattr(evaluate, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "RESULTS.md"
    page.write_text("old\n<!-- kept -->\n## Of a sweep\n<!-- end of kept -->\nold\n")
    assert evaluate.main(["--config", str(path)]) == 0
    files = sorted(
        file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*.json")
    )
    assert files == ["student/quick/text.json", "teacher/quick/depth.json", "teacher/quick/text.json"]
    text = page.read_text()
    assert "student / quick" in text and "old" not in text
    assert "<!-- kept -->\n## Of a sweep\n<!-- end of kept -->\n" in text


def test_the_report_shows_models_side_by_side_and_their_training(evaluated, tmp_path):
    from PIL import Image

    folder, _ = evaluated
    shutil.copytree(folder / "out", tmp_path / "out")
    shutil.copytree(folder / "out" / "teacher" / "quick", tmp_path / "out" / "student" / "quick")
    for path in (tmp_path / "out" / "student").glob("*/*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "run": "student"}))
    log = [
        {"step": step, "critic/denoising": 0.5, **({"generator/otd": 1 / step} if step % 2 else {})}
        for step in [*range(1, 41), *range(31, 61)]
    ]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text("\n".join(map(json.dumps, log)) + "\n")
    runs = {"student": tmp_path / "run", "other": tmp_path / "none"}
    page = write_report(tmp_path / "out", tmp_path, trainings=runs).read_text()
    assert "student / quick, teacher / quick" in page.split("## Side by side")[1].splitlines()[1]
    with Image.open(tmp_path / "images" / "results" / "text.webp") as joined:
        assert joined.n_frames == 17
        with Image.open(folder / "out" / "teacher" / "quick" / "text.webp") as one:
            assert joined.width == one.width * 4 // 3 and joined.height == one.height
    assert (tmp_path / "images" / "results" / "distillation.png").stat().st_size > 2000
    curves = read_curves(runs)
    assert curves.keys() == {"student"}
    assert [step for step, _ in curves["student"]["critic's flow matching"]] == [25, 50, 60]
    assert curves["student"]["half the mean square of the transport's gradient"][-1][0] == 59


def test_wrong_configurations_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="share a name"):
        EvaluationConfig(run="x", tasks=[TaskConfig("text"), TaskConfig("text")])
    with pytest.raises(ValueError, match="samplers are"):
        EvaluationConfig(run="x", use=["guided"])
    with pytest.raises(ValueError, match="rows are"):
        EvaluationConfig(run="x", only=["depth"], tasks=[TaskConfig("text")])
    with pytest.raises(ValueError, match="only names"):
        EvaluationConfig(plan=[PlannedRun("x", only=["depth"])], tasks=[TaskConfig("text")])
    with pytest.raises(ValueError, match=r"task_guidance names \['inpaint'\]; the rows' tasks are"):
        EvaluationConfig(
            run="x", samplers={"a": SamplerConfig(task_guidance={"inpaint": 1.0})}, tasks=[TaskConfig("text")]
        )
    with pytest.raises(ValueError, match="neither run nor plan"):
        EvaluationConfig()
    with pytest.raises(ValueError, match="give --run NAME too"):
        EvaluationConfig(plan=[PlannedRun("x")], only=["text"], tasks=[TaskConfig("text")])
    config, report = parse_config(["--config", "tiny/configs/tiny_evaluation.yaml", "--report"])
    assert report and config.samplers["guided50"].evaluations == 100


@pytest.mark.parametrize("name", ["/tmp/elsewhere", "../elsewhere", "a/b", "..", ""])
def test_a_name_that_leads_out_of_the_folder_is_refused(name):
    config, _ = parse_config(["--config", "tiny/configs/tiny_evaluation.yaml"])
    with pytest.raises(ValueError, match=r"run has .*a name in out_dir"):
        replace(config, run=name)
