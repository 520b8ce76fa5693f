"""The split of sources: a draw that holds out none or all of them is told, with what to set."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from training.preparation.config import TaskConfig
from training.preparation.make_rows import is_held_out, one_sided
from training.preparation.prepare import prepare

NAMES = [f"clip {number}" for number in range(7)]


def held_out(names, share, seed):
    return [name for name in names if is_held_out(name, TaskConfig(held_out=share, seed=seed))]


@pytest.mark.parametrize("seed", range(40))
def test_the_share_that_is_named_holds_out_the_source_that_is_named(seed):
    text = one_sided(NAMES, TaskConfig(held_out=0.1, seed=seed))
    if held_out(NAMES, 0.1, seed):
        assert text is None
        return
    assert "none of 7 sources is held out" in text
    share, name = re.search(r"; tasks.held_out ([\d.]+) holds out (.*)$", text).groups()
    assert name in held_out(NAMES, float(share), seed)
    assert one_sided(NAMES, TaskConfig(held_out=float(share), seed=seed)) is None
    assert len(held_out(NAMES, float(share), seed)) == 1


def test_a_split_on_purpose_and_one_of_nothing_are_not_told():
    assert one_sided(NAMES, TaskConfig(held_out=0.0)) is None
    assert one_sided([], TaskConfig()) is None


def test_nothing_to_train_on_is_told():
    text = one_sided(NAMES, TaskConfig(held_out=0.999))
    assert "all 7 sources are held out" in text and "nothing to train on; set tasks.held_out 0" in text
    assert "the only source is held out" in one_sided(NAMES[:1], TaskConfig(held_out=0.999))
    only = one_sided(NAMES[:1], TaskConfig(held_out=1e-9))
    assert "the only source is trained on" in only and "add sources, or set tasks.held_out 0" in only


def test_the_log_and_the_page_tell_it(config, caplog):
    settings = config(tasks=TaskConfig(weights={"text": 1.0}, held_out=1e-9))
    prepare(settings)
    sentence = "none of 2 sources is held out (tasks.held_out 1e-09"
    page = Path(settings.out_dir, "contact_sheet.html")
    assert sentence in caplog.text and sentence in page.read_text()
    caplog.clear()
    prepare(replace(settings, tasks=replace(settings.tasks, held_out=0.0)))
    assert sentence not in caplog.text and sentence not in page.read_text()
