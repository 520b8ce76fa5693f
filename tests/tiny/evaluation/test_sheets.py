"""Pictures of a row show the inputs: references next to the frames, in sheets and in animations."""

import numpy
import pytest
import torch
from PIL import Image

from tiny.evaluation.cases import row_cases
from tiny.evaluation.config import EvaluationConfig, TaskConfig
from tiny.evaluation.sheets import (
    COLUMN_PX,
    GAP_PX,
    contact_sheet,
    join_animations,
    save_animation,
    save_sheet,
)

STRIP = 4 * 64  # pixels: four frames


def _shown(task):
    """Cases with videos of one gray each."""
    cases = list(row_cases(EvaluationConfig(run="x", clips=2), TaskConfig(task)))
    return [(case, torch.full_like(case.scene.frames, 0.25)) for case in cases]


@pytest.mark.parametrize(("task", "count"), [("depth", 0), ("reference", 1), ("references", 2)])
def test_a_sheet_shows_drawn_references_frames_and_made(task, count):
    pairs = _shown(task)
    sheet = contact_sheet(pairs)
    parts = [STRIP, *[64] * count, STRIP, STRIP]
    assert sheet.shape == (2 * 64 + GAP_PX, sum(parts) + GAP_PX * (len(parts) - 1), 3)
    for number, (case, video) in enumerate(pairs):
        row, at, pictures = sheet[number * (64 + GAP_PX) :][:64], 0, []
        for width in parts:
            pictures.append(row[:, at : at + width])
            at += width + GAP_PX
        assert torch.equal(pictures[0][:, :64], case.scene.frames[0])
        for picture, reference in zip(pictures[1:-2], case.unit.references, strict=True):
            assert torch.equal(picture, reference)
        assert torch.equal(pictures[-2][:, 64:128], case.unit.frames[5])
        assert torch.equal(pictures[-1][:, -64:], video[16])


@pytest.mark.parametrize(("task", "count"), [("depth", 0), ("references", 2)])
def test_animations_show_references_and_are_joined_by_what_models_made(task, count, tmp_path):
    pairs = _shown(task)
    for name, gray in (("one", 0.25), ("two", 0.75)):
        save_animation([(case, video * 0 + gray) for case, video in pairs], tmp_path / f"{name}.webp")
    join_animations([tmp_path / "one.webp", tmp_path / "two.webp"], tmp_path / "joined.webp")
    with Image.open(tmp_path / "one.webp") as one, Image.open(tmp_path / "joined.webp") as joined:
        assert one.size == ((3 + count) * COLUMN_PX, 2 * COLUMN_PX) and one.n_frames == 17
        assert joined.size == ((4 + count) * COLUMN_PX, 2 * COLUMN_PX) and joined.n_frames == 17
        picture = torch.from_numpy(numpy.array(joined.convert("RGB"))) / 255
    columns = [picture[4:60, at * COLUMN_PX + 4 :][:, :56] for at in range(4 + count)]
    inputs = [pairs[0][0].scene.frames[0], *pairs[0][0].unit.references, pairs[0][0].unit.frames[0]]
    for column, expected in zip(columns, inputs, strict=False):
        assert (column - expected[4:60, 4:60]).abs().mean() < 0.05
    assert [column.mean().item() for column in columns[-2:]] == pytest.approx([0.25, 0.75], abs=0.03)


def test_pictures_are_written_and_nothing_without_clips(tmp_path):
    save_sheet(_shown("reference"), tmp_path / "new" / "sheet.jpg")
    assert (tmp_path / "new" / "sheet.jpg").stat().st_size > 2000
    save_sheet([], tmp_path / "none.jpg")
    save_animation([], tmp_path / "none.webp")
    assert not list(tmp_path.glob("none.*"))
