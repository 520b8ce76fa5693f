"""Schedules and few-step samplers, for inference and for training's rollouts."""

from ..choices import SOLVERS
from .guidance import guided
from .samplers import resume, rollout, sample, trajectory
from .schedules import PRESETS, Preset, Schedule, released, sharp, trained, vace
from .solvers import Pause, Step, fresh_noise

__all__ = [
    "PRESETS",
    "SOLVERS",
    "Pause",
    "Preset",
    "Schedule",
    "Step",
    "fresh_noise",
    "guided",
    "released",
    "resume",
    "rollout",
    "sample",
    "sharp",
    "trained",
    "trajectory",
    "vace",
]
