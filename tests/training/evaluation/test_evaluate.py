"""The evaluation program on a model of random weights: rows, resuming, ceilings and the report."""

import json
import shutil

import pytest
import torch
import yaml

from training import evaluate, text, vae
from training.evaluation import generate as making
from training.evaluation.cases import full_caption, row_cases
from training.evaluation.config import EvaluationConfig, PlannedRun, SamplerConfig, TaskConfig, parse_config
from training.evaluation.curves import read_curves
from training.evaluation.network import Evaluator, EvaluatorWidths, save_evaluator
from training.evaluation.report import read_results, write_report
from training.evaluation.score import compare, family_scores, weighted_score
from training.evaluation.tables import against_teacher
from vdot_core.checkpoints import save_network
from vdot_core.networks import WanVace, WanVaceConfig

SCORE = {"colour": 1.0, "shape": 1.0, "kept_score": 2.0, "reference_kept": 1.0, "object_iou": 1.0}
ROWS = [
    {"task": "text", "family": "text", "seeds": 2},
    {"task": "inpainting", "family": "keep"},
    {"task": "depth", "family": "control"},
    {"task": "reference", "name": "reference_only", "family": "reference", "prompt": "none"},
]


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assets")
    torch.manual_seed(0)
    network = vae.build_vae(4)
    vae.initialize_vae(network, torch.Generator().manual_seed(0))
    vae.save_vae(network, folder / making.VAE_FILE)
    tokenizer = text.Tokenizer(text.train_vocabulary(num_captions=20))
    config = text.umt5_config(1, len(tokenizer))
    text.save_text_encoder(text.build_encoder(config), config, tokenizer, folder / text.FILE_NAME)
    small = WanVaceConfig(
        dim=32,
        ffn_dim=64,
        num_heads=2,
        num_layers=2,
        vace_layers=(0,),
        text_dim=128,
        freq_dim=32,
        text_len=64,
    )
    model = WanVace(small)
    model.initialize_weights(torch.Generator().manual_seed(0))
    torch.nn.init.normal_(model.head.head.weight, std=0.1)
    save_network(folder / making.TRANSFORMER_FILE, model)
    widths = EvaluatorWidths(fine=8, middle=16, coarse=16, slot=16, scene=8, motion=16)
    save_evaluator(Evaluator(widths), folder / "evaluator.safetensors")
    return folder


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
    assert "background_colour" not in rows["reference_only"]["metrics"]
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
    (folder / "out" / "teacher" / "quick" / "depth.json").unlink()
    evaluate.main(["--config", str(path), "--only", "[text, depth]", "--use", "[quick]"])
    changed = {file for file in files if file.stat().st_mtime_ns != files[file]}
    assert {file.stem for file in changed} == {"depth"}
    evaluate.main(["--config", str(path), "--only", "[text]", "--use", "[quick]", "--seed", "1"])
    row = json.loads((folder / "out" / "teacher" / "quick" / "text.json").read_text())
    assert (folder / "out" / "teacher" / "quick" / "text.json").stat().st_mtime_ns > max(files.values())
    assert row["sampler"] == "quick"


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
        "## Bars",
        "images/results/scores.png",
    ):
        assert words in page
    assert (tmp_path / "images" / "results" / "scores.png").stat().st_size > 2000
    assert (tmp_path / "images" / "results" / "teacher-quick-text.jpg").is_file()
    with pytest.raises(ValueError, match="no results"):
        write_report(tmp_path / "nothing", tmp_path / "other")


def test_rows_that_cannot_be_compared_are_refused(evaluated, tmp_path):
    folder, _ = evaluated
    shutil.copytree(folder / "out", tmp_path / "out")
    path = tmp_path / "out" / "teacher" / "vae" / "text.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "measured_with": "another"}))
    with pytest.raises(
        ValueError, match=r"vae/text\.json and .* were scored with different evaluation networks"
    ):
        write_report(tmp_path / "out", tmp_path)


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
    assert evaluate.main(["--config", str(path)]) == 0
    made = sorted(
        file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*.json")
    )
    assert made == ["student/quick/text.json", "teacher/quick/depth.json", "teacher/quick/text.json"]
    assert "student / quick" in (tmp_path / "docs" / "RESULTS.md").read_text()


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


def test_a_video_does_not_depend_on_its_batch(assets):
    model = making.load_tiny(assets)
    config = EvaluationConfig(run="x", clips=3)
    cases = list(row_cases(config, TaskConfig("inpainting")))
    sampler = SamplerConfig(steps=2, guidance=3.0)
    contexts, count = making.UnitEncoder(model)([case.unit for case in cases])
    prompts, seeds = [case.prompt for case in cases], [case.seed for case in cases]
    together = making.generate(model, contexts, count, prompts, sampler, seeds)
    alone = making.generate(model, contexts[2:], count, prompts[2:], sampler, seeds[2:])
    torch.testing.assert_close(together[2:], alone, atol=1e-4, rtol=1e-4)
    assert together.shape == (3, 17, 64, 64, 3)
    unguided = making.generate(
        model, contexts[2:], count, prompts[2:], SamplerConfig(2, guidance=1.0), seeds[2:]
    )
    assert not torch.allclose(unguided, alone, atol=1e-3)


def test_prompts_name_all_that_is_scored_and_held_out_rows_hold_such_pairs():
    config = EvaluationConfig(run="x", clips=12)
    for case in row_cases(config, TaskConfig("text", held_out=True, clips=3)):
        assert case.prompt == full_caption(case.drawn)
        for track in case.drawn.objects:
            assert f"{track.size_name} {track.colour} {track.shape}" in case.prompt
        assert case.drawn.background in case.prompt
    figure = next(row_cases(config, TaskConfig("pose")))
    assert "stick figure" in figure.prompt and figure.drawn.background in figure.prompt


def test_scores_are_weighted_means_of_what_a_row_has():
    weights = {"colour": 1.0, "kept_score": 3.0}
    assert weighted_score({"colour": 0.5, "kept_score": 1.0}, weights) == pytest.approx(0.875)
    assert weighted_score({"colour": 0.5, "kept_score": None}, weights) == 0.5
    assert weighted_score({"depth_error": 0.1}, weights) is None
    rows = {
        "a": {"family": "x", "score": 0.2},
        "b": {"family": "x", "score": 0.4},
        "c": {"family": "y", "score": 0.9},
    }
    assert family_scores(rows) == pytest.approx({"x": 0.3, "y": 0.9, "overall": 0.6})
    half = {"a": {"family": "x", "score": 0.1}, "c": {"family": "y", "score": 0.45}}
    assert compare({"student": half, "teacher": rows}, "student", "teacher") == pytest.approx(0.5)


def test_a_student_is_set_beside_its_teacher():
    def run(score, seconds, evaluations, diversity):
        row = {"family": "x", "score": score, "seconds": seconds, "evaluations": evaluations}
        return {"text": {**row, "metrics": {"diversity": diversity}}}

    results = {"teacher / guided50": run(0.8, 1.0, 100, 2.0), "student / four": run(0.6, 0.04, 4, 1.5)}
    (line, _) = against_teacher(results)
    assert "student / four: 75.0% of teacher / guided50's score, 25.0 times as fast with" in line
    assert "75% of its diversity" in line


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
    config, report = parse_config(["--config", "training/configs/tiny_evaluation.yaml", "--report"])
    assert report and config.samplers["guided50"].evaluations == 100
    assert all(task.family or task.held_out or task.seeds > 1 for task in config.tasks)
