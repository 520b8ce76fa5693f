"""Schedules have the published labels, and equal the levels diffusers and Wan's formula give."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vdot_core.sampling import PRESETS, SOLVERS, Schedule, released, sharp, trained


@pytest.mark.parametrize(
    "shift, labels",
    [
        (16, [999, 979, 941, 841]),
        (8, [999, 959, 888, 727]),
        (5, [999, 937, 833, 624]),
        (3.75, [999, 918, 789, 555]),
    ],
)
def test_published_labels(shift, labels):
    assert Schedule.shifted(4, shift).timesteps.tolist() == labels


def test_presets():
    assert released().timesteps.tolist() == [999, 979, 941, 841]
    np.testing.assert_allclose(released().sigmas[:2], [0.99994, 0.97951], atol=5e-6)
    np.testing.assert_allclose(trained().timesteps, [1000, 960, 888.9, 727.3], atol=0.05)
    np.testing.assert_allclose(trained().sigmas, [1, 0.96, 0.8889, 0.7273, 0], atol=5e-5)
    assert sharp().timesteps.tolist() == [999, 918, 789, 555]
    assert {name: preset.solver for name, preset in PRESETS.items()} == {
        "released": "unipc",
        "trained": "renoise",
        "sharp": "unipc",
        "vace": "unipc",
    }
    assert {name for name, preset in PRESETS.items() if preset.guidance != 1} == {"vace"}
    for factory, solver, _ in PRESETS.values():
        assert factory(steps=7, shift=2.0).num_steps == 7 and solver in SOLVERS


def wan_unipc(steps: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Sigmas and labels of Wan2.1's FlowUniPCMultistepScheduler, in the number types it works in."""
    table = (1.0 - np.linspace(1, 1 / 1000, 1000)[::-1]).astype(np.float32)
    sigmas = np.linspace(table[0].item(), table[-1].item(), steps + 1)[:-1]
    sigmas = shift * sigmas / (1 + (shift - 1) * sigmas)
    return np.append(sigmas, 0).astype(np.float32), (sigmas * 1000).astype(np.int64)


@pytest.mark.parametrize("shift", [1.0, 3.0, 3.75, 5.0, 8.0, 12.0, 16.0])
def test_labels_equal_wans_scheduler(shift):
    for steps in range(1, 51):
        sigmas, labels = wan_unipc(steps, shift)
        schedule = Schedule.shifted(steps, shift)
        assert schedule.timesteps.tolist() == labels.tolist(), steps
        np.testing.assert_allclose(schedule.sigmas, sigmas, rtol=1.2e-7)


@pytest.mark.parametrize("steps", [1, 3, 4, 50])
@pytest.mark.parametrize("shift", [1.0, 3.75, 16.0])
def test_levels_equal_diffusers(steps, shift):
    from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )
    scheduler.set_timesteps(sigmas=np.linspace(np.float32(0.999).item(), 0, steps + 1)[:-1])
    schedule = Schedule.shifted(steps, shift)
    torch.testing.assert_close(schedule.sigmas, scheduler.sigmas, atol=1e-7, rtol=0)
    assert schedule.timesteps.tolist() == scheduler.timesteps.tolist()


@given(
    steps=st.integers(1, 100),
    shift=st.floats(0.1, 30),
    labels=st.sampled_from(["wan", "exact"]),
)
def test_every_schedule_descends_to_zero(steps, shift, labels):
    schedule = Schedule.shifted(steps, shift, labels=labels)
    assert schedule.num_steps == steps and schedule.sigmas[-1] == 0 and schedule.sigmas[0] <= 1
    assert (schedule.sigmas.diff() < 0).all()
    gap = 1000 * schedule.sigmas[:-1].double() - schedule.timesteps.double()
    assert gap.abs().max() < (1 + 1e-3 if labels == "wan" else 1e-3)
    assert schedule == Schedule.shifted(steps, shift, labels=labels) and hash(schedule)


def test_wrong_schedules_are_named():
    for build, words in (
        (lambda: Schedule([1, 0.5, 0], [1000.0]), "3 sigmas for 1 timesteps"),
        (lambda: Schedule([0.5, 0.7, 0], [500.0, 700.0]), "do not descend"),
        (lambda: Schedule([2.0, 0], [1000.0]), "within 0..1"),
        (lambda: Schedule([1.0, 0], [1001.0]), "leave 0..1000"),
        (lambda: Schedule.shifted(0, 8), "steps is 0"),
        (lambda: Schedule.shifted(4, -1), "shift is -1"),
        (lambda: Schedule.shifted(4.5, 8), "steps is 4.5"),
        (lambda: Schedule.shifted("4", 8), "steps is '4'"),
        (lambda: Schedule.shifted(True, 8), "steps is True"),
        (lambda: Schedule.shifted(4, float("inf")), "shift is inf"),
        (lambda: Schedule.shifted(4, 8, denoise=0.0), "denoise is 0.0, expected a number above 0"),
        (lambda: Schedule.shifted(4, 8, denoise=1.5), "denoise is 1.5"),
        (lambda: Schedule.shifted(4, 8).ending(5), "step is 5, expected 1..4"),
        (lambda: Schedule.shifted(4, 8, labels="rounded"), "'rounded', expected one of wan, exact"),
    ):
        with pytest.raises(ValueError, match=words):
            build()


@pytest.mark.parametrize("labels", ["wan", "exact"])
@pytest.mark.parametrize("steps, total", [(4, 8), (3, 4), (2, 20)])
def test_denoise_takes_the_last_levels_of_a_longer_schedule(labels, steps, total):
    """As ComfyUI's KSampler: `int(steps / denoise)` steps, of which the last ones run."""
    part = Schedule.shifted(steps, 8.0, labels=labels, denoise=steps / total)
    whole = Schedule.shifted(total, 8.0, labels=labels)
    torch.testing.assert_close(part.sigmas, whole.sigmas[-steps - 1 :], atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(part.timesteps, whole.timesteps[-steps:], atol=1e-3, rtol=0)


def test_a_schedule_that_ends_early_ends_clean():
    early = released().ending(2)
    assert torch.equal(early.sigmas, torch.cat([released().sigmas[:2], torch.zeros(1)]))
    assert torch.equal(early.timesteps, released().timesteps[:2]) and released().ending(4) == released()
