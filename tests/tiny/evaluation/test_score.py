"""From what is seen to a row's figures: references, objects too many, weights, and models side by side."""

from dataclasses import replace

import pytest
import torch

from tiny.clips.shapes import OBJECT_COLORS
from tiny.evaluation.cases import row_cases
from tiny.evaluation.config import EvaluationConfig, TaskConfig, parse_config
from tiny.evaluation.score import RowScores, compare, family_scores, weighted_score
from tiny.evaluation.tables import BARS, against_teacher, bar_lines, row_tables

CONFIG = EvaluationConfig(run="x", clips=12)


def _pair_case(row):
    """A case with two objects of different shapes."""
    for case in row_cases(CONFIG, row):
        if len({track.shape for track in case.scene.objects}) == 2:
            return case
    raise AssertionError("no clip shows two shapes")


def _misread(observation, scene, number):
    """The same observation with one object in another shape than any drawn one."""
    slot, shape = OBJECT_COLORS.index(scene.objects[number].color), observation.shape.clone()
    used_shapes = observation.shape.sum(0) > 0
    shape[slot] = 0
    shape[slot, int(used_shapes.logical_not().nonzero()[0])] = 1
    return replace(observation, shape=shape)


def _summary(row, case, observation, weights=None):
    scores = RowScores(row)
    scores.add(case, case.scene.frames, case.scene.frames, observation, observation)
    return scores.summary(weights or {"reference_kept": 1.0})


@pytest.mark.parametrize("prompt", ["full", "none"])
def test_a_reference_is_kept_by_the_object_that_it_shows(observe_perfectly, prompt):
    row = TaskConfig("reference", prompt=prompt)
    case = _pair_case(row)
    observation = observe_perfectly(case.scene)
    far, near = (_misread(observation, case.scene, number) for number in (0, 1))
    scores = [_summary(row, case, one)["metrics"]["reference_kept"] for one in (observation, far, near)]
    assert scores == [1.0, 1.0, 0.0], "the nearer of the two is the reference"
    objects = [_summary(row, case, one)["objects"] for one in (observation, far, near)]
    shapes = [1.0, 0.5, 0.5] if prompt == "full" else [1.0, 1.0, 0.0]
    assert [one["shape"] for one in objects] == shapes, "without a prompt nobody asks for the other object"
    assert objects[0]["count"] == (2 if prompt == "full" else 1)


def test_each_of_two_references_counts(observe_perfectly):
    row = TaskConfig("references")
    case = _pair_case(row)
    observation = observe_perfectly(case.scene)
    wrong = [_misread(observation, case.scene, number) for number in (0, 1)]
    assert [_summary(row, case, one)["metrics"]["reference_kept"] for one in wrong] == [0.5, 0.5]


def test_a_video_that_shows_every_color_pays_for_it(observe_perfectly):
    row = TaskConfig("text")
    case = next(row_cases(CONFIG, row))
    observation = observe_perfectly(case.scene)
    crowded = replace(observation, presence=torch.ones_like(observation.presence))
    weights = parse_config(["--config", "tiny/configs/tiny_evaluation.yaml"])[0].score
    true, gamed = (_summary(row, case, one, weights) for one in (observation, crowded))
    assert gamed["objects"]["color"] == 1 and gamed["metrics"]["extra_score"] == 0
    assert true["score"] == 1 and gamed["score"] <= 0.9
    silent = TaskConfig("reference", prompt="none")
    case = next(row_cases(CONFIG, silent))
    assert "extra_score" not in _summary(silent, case, observe_perfectly(case.scene))["metrics"]


def test_frechet_distances_stand_only_where_rows_have_equally_many_clips(observe_perfectly):
    rows = {
        "all": TaskConfig("text"),
        "short": TaskConfig("text", clips=12),
        "seeds": TaskConfig("text", seeds=2),
    }
    has = {}
    for name, row in rows.items():
        scores = RowScores(row)
        for case in row_cases(replace(CONFIG, clips=4), replace(row, clips=None)):
            observation = observe_perfectly(case.scene)
            scores.add(case, case.scene.frames, case.scene.frames, observation, observation)
        has[name] = "frechet_distance" in scores.summary({})["metrics"]
    assert has == {"all": True, "short": False, "seeds": False}


def test_scores_are_weighted_means_of_what_a_row_has():
    weights = {"color": 1.0, "kept_score": 3.0}
    assert weighted_score({"color": 0.5, "kept_score": 1.0}, weights) == pytest.approx(0.875)
    assert weighted_score({"color": 0.5, "kept_score": None}, weights) == 0.5
    assert weighted_score({"depth_error": 0.1}, weights) is None
    rows = {
        "a": {"family": "x", "score": 0.2},
        "b": {"family": "x", "score": 0.4},
        "c": {"family": "y", "score": 0.9},
    }
    assert family_scores(rows) == pytest.approx({"x": 0.3, "y": 0.9, "overall": 0.6})
    half = {"a": {"family": "x", "score": 0.1}, "c": {"family": "y", "score": 0.45}}
    assert compare({"student": half, "teacher": rows}, "student", "teacher") == pytest.approx(0.5)


def test_a_student_is_compared_with_its_teacher_over_counted_rows():
    def run(score, evaluations, diversity):
        row = {"score": score, "evaluations": evaluations, "metrics": {}, "family": None}
        seeds = {**row, "metrics": {"diversity": diversity}}
        return {"text": {**row, "family": "x"}, "depth": {**row, "family": "y"}, "face": row, "seeds": seeds}

    results = {"teacher / guided50": run(0.8, 100, 2.0), "student / four": run(0.6, 4, 1.5)}
    (line, _) = against_teacher(results)
    assert line == (
        "- student / four: 75.0% of teacher / guided50's score (2 rows that count), 75% of its diversity."
    )
    rows = results["student / four"]
    assert against_teacher({**results, "student / four": {"face": rows["face"]}}) == [""]


def test_bars_are_of_rows_and_metrics_that_the_shipped_evaluation_has(observe_perfectly):
    config, _ = parse_config(["--config", "tiny/configs/tiny_evaluation.yaml"])
    rows = {row.title: row for row in config.tasks}
    results = {}
    for title in {bar.row for bar in BARS}:
        case = next(row_cases(CONFIG, rows[title]))
        results[title] = _summary(rows[title], case, observe_perfectly(case.scene))
    lines = bar_lines({"model / truth": results})
    assert len(lines) == len(BARS) + 5 and all(line.endswith("✓ |") for line in lines[4:-1]), lines
    results["inpainting"]["metrics"]["object_iou"] = 0.69
    failed = [line for line in bar_lines({"model / truth": results})[4:] if "✗" in line]
    assert len(failed) == 1 and "object IoU with a mask" in failed[0] and "| 0.7 |" in failed[0]


def test_short_rows_are_marked():
    row = {
        **{"score": 0.5, "objects": {}, "videos": 40, "clips": 40},
        "metrics": {"smoothness_db": 1.0, "smoothness_db_true": 1.0},
    }
    results = {"a / b": {"face": row, "text": {**row, "videos": 200, "clips": 200}}}
    page = "\n".join(row_tables(results))
    assert "| face (short) | 40 |" in page and "| text | 200 |" in page
