"""The steps of a schedule that a run of VDOT Sampler takes, what they start from, and their model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..vdot_core.text import counted
from .sample_inputs import Settings

if TYPE_CHECKING:
    from ..vdot_core.sampling import Pause, Schedule

LEFTOVER_KEY = "vdot_leftover"
SAME_SIGMA = 1e-5  # levels of ComfyUI and of a sampler are rounded differently
NOISE, CONTENT, LEFTOVER = "noise", "content", "leftover"


@dataclass(frozen=True, eq=False)
class Leftover:
    """State that a sampler that stopped early leaves in its LATENT for the next one.

    Args:
        pause: where it stopped, in the network's space.
        schedule: that it ran.
        solver: that it ran.
        samples: what it gave out, to see whether another node changed it.
        content: the latent that it was given; a noise mask keeps parts of it.
    """

    pause: Pause
    schedule: Schedule
    solver: str
    samples: torch.Tensor
    content: torch.Tensor

    @property
    def sigma(self) -> float:
        """Noise level of the latent."""
        return float(self.schedule.sigmas[self.pause.step])


@dataclass(frozen=True, eq=False)
class StepPlan:
    """The steps of one run.

    Args:
        schedule: all steps.
        solver: one of vdot_core.sampling.SOLVERS.
        start: the first step to run, from 0.
        switch: the first step of the second model; `end` where it has none.
        end: the first step that is not run.
        source: of the first latents: NOISE; CONTENT, the latent's with noise added; or LEFTOVER, the latent's
            with the noise that it holds.
        pause: exact latents to resume from, instead of the latent's.
        lines: what the user should know.
    """

    schedule: Schedule
    solver: str
    start: int
    switch: int
    end: int
    source: str
    pause: Pause | None = None
    lines: tuple[str, ...] = ()

    @property
    def num_steps(self) -> int:
        return self.end - self.start

    @property
    def parts(self) -> list[tuple[int, int, int]]:
        """(number of the model, first step, first step not run) of each model that runs."""
        parts = [(0, self.start, self.switch), (1, self.switch, self.end)]
        return [part for part in parts if part[1] < part[2]]


def resumable(latent: dict) -> Leftover | None:
    """The state that the sampler before left, if its latent arrives unchanged."""
    leftover = latent.get(LEFTOVER_KEY)
    if not isinstance(leftover, Leftover):
        return None
    samples = latent["samples"]
    same = samples is leftover.samples or (
        samples.shape == leftover.samples.shape and torch.equal(samples, leftover.samples.to(samples))
    )
    return leftover if same else None


def plan_steps(schedule: Schedule, solver: str, latent: dict, settings: Settings) -> StepPlan:
    """Decide which steps to run.

    Args:
        schedule: all steps of the preset.
        solver: of the preset.
        latent: ComfyUI's LATENT.
        settings: the node's settings.

    Raises:
        ValueError: the settings contradict each other, or what the latent holds.
    """
    leftover, lines = resumable(latent), []
    pause, start, source = None, settings.start_step, NOISE
    if leftover is not None:
        start, source = _resumed_step(schedule, leftover, settings), LEFTOVER
        pause = _pause(leftover, start, schedule, solver)
        lines.append(f"resumes at step {start + 1} of {schedule.num_steps}")
    elif settings.uses_content:
        source = CONTENT if settings.add_noise else LEFTOVER
        _check_content(latent, settings)
    end = min(settings.end_step or schedule.num_steps, schedule.num_steps)
    if start >= end:
        raise ValueError(
            f"nothing to sample: the run starts after {counted(start, 'step')} and ends after {end} of "
            f"{schedule.num_steps}; give an end_step above the start, or 0"
        )
    if source == CONTENT:
        lines.append(f"starts from the latent's video at noise level {float(schedule.sigmas[start]):.3g}")
    if latent.get(LEFTOVER_KEY) is not None and leftover is None and source == NOISE:
        lines.append("the noise that VDOT Sampler left was changed since, so sampling starts from new noise")
    switch, switched = _switch(schedule, start, end, settings)
    if end < schedule.num_steps:
        lines.append(_stop_line(end, schedule.num_steps, settings.leftover_noise))
        schedule = schedule if settings.leftover_noise else schedule.ending(end)
    return StepPlan(schedule, solver, start, switch, end, source, pause, (*lines, *switched))


def _resumed_step(schedule: Schedule, leftover: Leftover, settings: Settings) -> int:
    """The step of this schedule at whose noise level the sampler before stopped."""
    gaps = (schedule.sigmas[:-1] - leftover.sigma).abs()
    step = int(gaps.argmin())
    if float(gaps[step]) > SAME_SIGMA:
        levels = ", ".join(f"{sigma:.4g}" for sigma in schedule.sigmas[:-1].tolist())
        raise ValueError(
            f"the latent holds noise of level {leftover.sigma:.4g}, and this sampler's steps start at "
            f"{levels}; give it the preset, steps, shift and denoise of the sampler before"
        )
    if settings.start_step not in (0, step):
        raise ValueError(
            f"start_step is {settings.start_step}, but the sampler before stopped after "
            f"{counted(step, 'step')}; set start_step to 0 or {step}"
        )
    return step


def _pause(leftover: Leftover, step: int, schedule: Schedule, solver: str) -> Pause:
    """The exact latents, with the solver's history where the steps before are the same."""
    from ..vdot_core.sampling import Pause

    past = slice(0, step + 1)
    same = solver == leftover.solver and torch.equal(schedule.sigmas[past], leftover.schedule.sigmas[past])
    return Pause(step, leftover.pause.x, leftover.pause.history if same else {})


def _check_content(latent: dict, settings: Settings) -> None:
    """Refuse to start from a latent that has nothing to start from."""
    named = f"denoise is {settings.denoise:g}" if settings.denoise < 1 else None
    named = named or (f"start_step is {settings.start_step}" if settings.start_step else "add_noise is off")
    if not latent["samples"].any():
        raise ValueError(
            f"{named}, but the latent is empty; connect a video's latent (VAE Encode), or set denoise to 1, "
            "start_step to 0 and add_noise to on"
        )
    if not settings.add_noise and settings.start_step == 0:
        raise ValueError(
            "add_noise is off, but start_step is 0, where a video is all noise; set start_step to the step "
            "where the sampler before stopped, or turn add_noise on"
        )


def _switch(schedule: Schedule, start: int, end: int, settings: Settings) -> tuple[int, list[str]]:
    """The first step of the second model within the run, and lines that say who runs what."""
    if settings.second_model is None:
        unused = [f"switch_step is {settings.switch_step}, but nothing is connected to second_model"]
        return end, unused if settings.switch_step else []
    # Wan 2.2 compares the network's timestep with the boundary (wan/text2video.py).
    above = int((schedule.timesteps / 1000 >= settings.switch_sigma).sum())
    switch = min(max(settings.switch_step or above, start), end)
    if switch == end:
        return switch, ["the second model has no step: lower switch_step or raise switch_sigma"]
    if switch == start:
        return switch, ["the second model takes every step: raise switch_step or lower switch_sigma"]
    return switch, [f"second model from step {switch + 1} of {schedule.num_steps}"]


def _stop_line(end: int, num_steps: int, leftover_noise: bool) -> str:
    if not leftover_noise:
        return f"stopped after step {end} of {num_steps}, without noise"
    return (
        f"stopped after step {end} of {num_steps} with noise left: connect the latent to another VDOT Sampler"
    )
