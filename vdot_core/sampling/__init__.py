"""Schedules and few-step samplers, for inference and for training's rollouts."""

from .guidance import guided
from .samplers import SOLVERS, Step, fresh_noise, rollout, sample, trajectory
from .schedules import PRESETS, Preset, Schedule, released, sharp, trained

__all__ = [
    "PRESETS",
    "SOLVERS",
    "Preset",
    "Schedule",
    "Step",
    "fresh_noise",
    "guided",
    "released",
    "rollout",
    "sample",
    "sharp",
    "trained",
    "trajectory",
]
