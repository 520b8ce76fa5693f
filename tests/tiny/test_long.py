"""Ten chunks by the tiny model and VAE: what the joining of long videos promises."""

import pytest

from benchmarks import long
from benchmarks._long_models import (
    Continuer,
    Student,
    colors_of,
    depth_error,
    gray_error,
    read_clip,
    scene,
    subjects_of,
    task_of,
)

pytestmark = pytest.mark.full
LEVEL = 1.0


def figures_of(case) -> dict[str, dict]:
    """Way -> figures of ten chunks."""
    return long.compared(case, long.chained(case.unit, dict.fromkeys(long.JOININGS, case.sample)))[0]


def test_a_model_that_drifts_is_held(shared_data):
    """It makes the clip in the colors of its overlap, with an error of its own in every chunk."""
    clip = read_clip(shared_data / "test2.mp4", long.LENGTH, *long.SIZE)
    model, alike = Continuer(clip, bias=0.1), colors_of(clip[0])
    case = long.Case("", task_of(clip, "gray"), clip, model, None, alike, gray_error(clip))
    rows = figures_of(case)
    naive, ours, vae = rows[long.NAIVE], rows[long.OURS], rows[long.VAE]
    assert naive["drift"] > 4, "nothing to correct"
    assert ours["drift"] <= naive["drift"] / 2 and ours["drift"] <= vae["drift"] + 4
    assert ours["seam"] <= 1.5 < naive["seam"] and ours["motion"] >= 0.8
    assert 0.85 <= ours["sharpness"] <= 1.15 and ours["error"] <= 1.2
    assert ours["reference"] >= 0.95 and ours["control"] <= 1.2


@pytest.mark.parametrize("seed", [0, 1])
def test_a_model_that_does_not_drift_is_left_alone(seed):
    unit, prompt, drawn = scene("depth", seed, long.LENGTH)
    case = long.Case("", unit, drawn.frames, Student(prompt, seed), prompt, None, depth_error(drawn))
    rows = figures_of(case)
    naive, ours = rows[long.NAIVE], rows[long.OURS]
    assert ours["drift"] <= naive["drift"] + LEVEL and ours["seam"] <= 1.5
    assert 0.85 <= ours["sharpness"] / naive["sharpness"] <= 1.15
    assert ours["error"] <= 1.2 * naive["error"] and ours["motion"] >= 0.8


def test_a_reference_is_kept():
    unit, prompt, drawn = scene("reference", 0, long.LENGTH)
    alike = subjects_of(drawn, len(unit.references))
    case = long.Case("", unit, None, Student(prompt, 0), prompt, alike)
    assert figures_of(case)[long.OURS]["reference"] >= 0.95
