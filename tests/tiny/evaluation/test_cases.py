"""The questions of a row: whose clips, which pairs, what is told and what the video should become."""

from dataclasses import replace

import pytest
import torch

from tiny.clips.shapes import HELD_OUT, split_of
from tiny.evaluation.cases import full_caption, row_cases
from tiny.evaluation.config import EvaluationConfig, TaskConfig, parse_config
from tiny.evaluation.metrics import kept_psnr, object_scores, scene_scores
from tiny.tasks import COMPOSITE, SINGLE, task_named

CONFIG = EvaluationConfig(run="x", clips=6)


def _pairs(case):
    return {(track.color, track.shape) for track in case.scene.objects}


@pytest.mark.parametrize("task", ["text", "reference"])
def test_every_case_of_a_held_out_row_shows_a_pair_that_training_never_does(task):
    cases = list(row_cases(CONFIG, TaskConfig(task, held_out=True)))
    assert len({case.index for case in cases}) == 6
    for case in cases:
        assert _pairs(case) & HELD_OUT, f"clip {case.index} shows {_pairs(case)}"


def test_other_rows_take_the_clips_as_they_come_from_the_evaluation_split():
    cases = list(row_cases(CONFIG, TaskConfig("text", seeds=2)))
    assert [case.index for case in cases[::2]] == sorted({case.index for case in cases})
    assert cases[-2].index < 12 and not all(_pairs(case) & HELD_OUT for case in cases)
    assert {split_of(case.scene.seed) for case in cases} == {"evaluation"}
    assert len({case.seed for case in cases}) == 12, "noise is another for every clip and seed"


def test_prompts_name_all_that_is_scored():
    for case in row_cases(CONFIG, TaskConfig("text")):
        assert case.prompt == full_caption(case.scene)
        for track in case.scene.objects:
            assert f"{track.size_name} {track.color} {track.shape}" in case.prompt
        assert case.scene.background in case.prompt
    figure = next(row_cases(CONFIG, TaskConfig("pose")))
    assert "stick figure" in figure.prompt and figure.scene.background in figure.prompt


@pytest.mark.parametrize("task", ["reference", "depth", "pose"])
def test_without_a_prompt_the_unit_alone_can_tell(task):
    silent, prompted = (
        list(row_cases(CONFIG, TaskConfig(task, prompt=prompt))) for prompt in ("none", "full")
    )
    assert [case.prompt for case in silent] == [""] * 6 and all(case.prompt for case in prompted)
    assert [case.unit for case in silent] == [case.unit for case in prompted]


def test_what_is_removed_is_neither_asked_for_nor_counted_as_right(observe_perfectly):
    for case in row_cases(CONFIG, TaskConfig("removal")):
        scene = case.scene
        (remaining,) = scene.objects
        assert torch.equal(case.unit.frames[case.unit.masks < 0.5], scene.frames[case.unit.masks < 0.5])
        assert kept_psnr(scene.frames, case.unit) == 60
        assert (
            f"{remaining.size_name} {remaining.color} {remaining.shape}" in case.prompt
            and " and a" not in case.prompt
        )
        observation = observe_perfectly(scene)
        (record,) = object_scores(observation, scene)
        assert record["pair"] == 1 and scene_scores(observation, scene)["extra_score"] == 1
    both, plain = (next(row_cases(CONFIG, TaskConfig(task))) for task in ("references", "removal"))
    assert both.index == plain.index and len(both.scene.objects) == 2
    gone = observe_perfectly(both.scene)
    assert scene_scores(gone, plain.scene)["extra_score"] == 0, "the removed object still shows"


def test_the_words_of_a_removal_keep_the_backgrounds_drift():
    config = EvaluationConfig(run="x", clips=30)
    pairs = zip(*(row_cases(config, TaskConfig(task)) for task in ("references", "removal")), strict=True)
    drifts = [[case.prompt.partition("the background drifts")[2] for case in pair] for pair in pairs]
    assert all(before == after for before, after in drifts) and len({before for before, _ in drifts}) > 2


def test_the_shipped_rows_ask_every_task_of_the_pack():
    config, _ = parse_config(["--config", "tiny/configs/tiny_evaluation.yaml"])
    assert {task.task for task in config.tasks} == {*SINGLE, *COMPOSITE}
    counted = [task for task in config.tasks if task.family]
    assert all(task.clips is None and task.seeds == 1 and not task.held_out for task in counted)
    for row in config.tasks:
        case = next(row_cases(CONFIG, replace(row, clips=1, held_out=False)))
        assert len(case.unit.references) == task_named(row.task).num_references


def test_every_planned_transformer_that_is_not_bundled_says_how_it_is_made():
    config, _ = parse_config(["--config", "tiny/configs/tiny_evaluation.yaml"])
    for planned in config.plan:
        if planned.transformer and not planned.transformer.startswith("assets/"):
            words = planned.made_by.split()
            assert words[:3] == ["python", "training/distill.py", "--config"]
            from training.methods.programs import distill_parser

            assert planned.transformer.startswith(distill_parser().read(words[2:])[0].out_dir + "/")
