"""Ten chunks by the tiny model and VAE: what the joining of long videos promises."""

import pytest

from benchmarks import long
from benchmarks._long_models import Continuer, Student, read_clip, scene
from vdot_core import vcu

pytestmark = pytest.mark.full
LEVEL = 1.0


def figures_of(unit, truth, sample) -> dict[str, dict]:
    """Way -> figures of ten chunks."""
    return long.compared(unit, truth, long.chained(unit, dict.fromkeys(long.JOININGS, sample)))[0]


def test_a_model_that_drifts_is_held(shared_data):
    """It makes the clip in the colors of its overlap, with an error of its own in every chunk."""
    width, height = long.SIZE
    clip = read_clip(shared_data / "test2.mp4", long.LENGTH, width, height)
    unit = vcu.text(width=width, height=height, num_frames=len(clip))
    rows = figures_of(unit, clip, Continuer(clip, bias=0.1))
    naive, ours, vae = rows[long.NAIVE], rows[long.OURS], rows["the VAE alone"]
    assert naive["drift"] > 4, "nothing to correct"
    assert ours["drift"] <= naive["drift"] / 2 and ours["drift"] <= vae["drift"] + 4
    assert ours["seam"] <= 1.5 and ours["motion"] >= 0.8
    assert 0.85 <= ours["sharpness"] <= 1.15 and ours["error"] <= 1.2


@pytest.mark.parametrize("seed", [0, 1])
def test_a_model_that_does_not_drift_is_left_alone(seed):
    unit, prompt, frames = scene("depth", seed, long.LENGTH)
    rows = figures_of(unit, frames, Student(prompt, seed))
    naive, ours = rows[long.NAIVE], rows[long.OURS]
    assert ours["drift"] <= naive["drift"] + LEVEL and ours["seam"] <= 1.5
    assert 0.85 <= ours["sharpness"] / naive["sharpness"] <= 1.15
    assert ours["error"] <= 1.2 * naive["error"] and ours["motion"] >= 0.8
