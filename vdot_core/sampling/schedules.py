"""Noise levels of the few-step samplers, and the timestep labels that the network gets for them.

The flow path is x_t = (1 - sigma) x0 + sigma noise; a shift s maps sigma to s sigma / (1 + (s - 1) sigma).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..text import listed, shown

NUM_TRAIN_TIMESTEPS = 1000
# Wan's UniPC reads its first level from a float32 table, 1.3e-8 above 0.999: that decides labels such as 666.
WAN_FIRST_LEVEL = float(torch.tensor(1.0 - 1.0 / NUM_TRAIN_TIMESTEPS, dtype=torch.float32))
LABELINGS = ("wan", "exact")


@dataclass(frozen=True, eq=False)
class Schedule:
    """Noise levels from high to low, with one label for each network call.

    Args:
        sigmas: [S + 1] float32, strictly descending within [0, 1]; the last is where sampling ends, 0 for a
            clean video.
        timesteps: [S] float32 in [0, 1000], the network's timestep at each call.
    Raises:
        ValueError: lengths, order or range are wrong.
    """

    sigmas: Tensor
    timesteps: Tensor

    def __post_init__(self):
        for name in ("sigmas", "timesteps"):
            value = torch.as_tensor(getattr(self, name), dtype=torch.float32).detach().cpu()
            if value.ndim != 1:
                raise ValueError(f"{name} has shape {list(value.shape)}, expected one dimension")
            object.__setattr__(self, name, value)
        if len(self.timesteps) < 1 or len(self.sigmas) != len(self.timesteps) + 1:
            raise ValueError(
                f"{len(self.sigmas)} sigmas for {len(self.timesteps)} timesteps; expected one sigma more"
            )
        if not bool((self.sigmas[1:] < self.sigmas[:-1]).all()):
            raise ValueError(f"sigmas {listed(self.sigmas.tolist(), 4)} do not descend")
        if not (0 <= float(self.sigmas[-1]) and float(self.sigmas[0]) <= 1):
            raise ValueError(
                f"sigmas range over {self.sigmas[-1]:.4g}..{self.sigmas[0]:.4g}, expected within 0..1"
            )
        if not bool(((self.timesteps >= 0) & (self.timesteps <= NUM_TRAIN_TIMESTEPS)).all()):
            raise ValueError(f"timesteps {listed(self.timesteps.tolist(), 4)} leave 0..{NUM_TRAIN_TIMESTEPS}")

    @property
    def num_steps(self) -> int:
        return len(self.timesteps)

    def __eq__(self, other) -> bool:
        if not isinstance(other, Schedule):
            return NotImplemented
        return torch.equal(self.sigmas, other.sigmas) and torch.equal(self.timesteps, other.timesteps)

    def __hash__(self) -> int:
        return hash((tuple(self.sigmas.tolist()), tuple(self.timesteps.tolist())))

    @classmethod
    def shifted(cls, steps: int, shift: float, *, labels: str = "wan", denoise: float = 1.0) -> Schedule:
        """Evenly spaced levels, shifted toward high noise.

        Args:
            steps: number of network calls.
            shift: 1 = even; the larger, the more steps at high noise.
            denoise: where the even levels start, as a part of the first one. As in ComfyUI's KSampler, these
                are the last `steps` levels of a schedule with `steps / denoise` steps.
            labels: 'wan' as Wan's own UniPC (wan/utils/fm_solvers_unipc.py): levels start at 0.999 before the
                shift, labels are floor(1000 sigma) with 0.999 rounded to float32. 'exact': levels start at 1,
                labels are 1000 sigma, not truncated (the rollout in training).
        Raises:
            ValueError: fewer than one step, a shift that is not positive, a denoise outside 0..1, or unknown
                labels.
        """
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise ValueError(f"steps is {_quoted(steps)}, expected an integer of at least 1")
        if not isinstance(shift, (int, float)) or not 0 < shift < math.inf:
            raise ValueError(f"shift is {_quoted(shift)}, expected a positive number")
        if not isinstance(denoise, (int, float)) or not 0 < denoise <= 1:
            raise ValueError(f"denoise is {_quoted(denoise)}, expected a number above 0, at most 1")
        if labels not in LABELINGS:
            raise ValueError(f"labels is {_quoted(labels)}, expected one of {', '.join(LABELINGS)}")
        if labels == "exact":
            sigmas = _levels(denoise, steps, shift)
            return cls(sigmas, sigmas[:-1] * NUM_TRAIN_TIMESTEPS)
        timesteps = _levels(denoise * WAN_FIRST_LEVEL, steps, shift)[:-1] * NUM_TRAIN_TIMESTEPS
        return cls(_levels(denoise * (1.0 - 1.0 / NUM_TRAIN_TIMESTEPS), steps, shift), timesteps.floor())

    def ending(self, step: int) -> Schedule:
        """The first steps, the last of which goes straight to a clean video.

        Args:
            step: number of steps to keep, 1 .. num_steps.
        Raises:
            ValueError: there is no such step.
        """
        if not 1 <= step <= self.num_steps:
            raise ValueError(f"step is {_quoted(step)}, expected 1..{self.num_steps}")
        return Schedule(torch.cat([self.sigmas[:step], torch.zeros(1)]), self.timesteps[:step])


def _quoted(value: object) -> str:
    """A value in an error; text in quotes, since "4" is not 4."""
    return f"'{shown(value, 58)}'" if isinstance(value, str) else shown(value, 60)


def _levels(first: float, steps: int, shift: float) -> Tensor:
    """Levels [steps + 1] float64 from the shifted `first` down to 0."""
    even = torch.linspace(first, 0.0, steps + 1, dtype=torch.float64)
    return shift * even / (1 + (shift - 1) * even)


def released(steps: int = 4, shift: float = 16.0, denoise: float = 1.0) -> Schedule:
    """The authors' demo, for 'unipc': labels 999, 979, 941, 841."""
    return Schedule.shifted(steps, shift, labels="wan", denoise=denoise)


def trained(steps: int = 4, shift: float = 8.0, denoise: float = 1.0) -> Schedule:
    """The levels of the rollout in training, for 'renoise': 1000, 960, 888.9, 727.3."""
    return Schedule.shifted(steps, shift, labels="exact", denoise=denoise)


def sharp(steps: int = 4, shift: float = 3.75, denoise: float = 1.0) -> Schedule:
    """Best imaging quality found by tuning on the depth task, for 'unipc': labels 999, 918, 789, 555."""
    return Schedule.shifted(steps, shift, labels="wan", denoise=denoise)


def vace(steps: int = 25, shift: float = 16.0, denoise: float = 1.0) -> Schedule:
    """VACE before any distillation, for 'unipc' with guidance 5: the numbers of VACE's own demo.

    From vace/gradios/vace_wan_demo.py; its command line takes 50 steps.
    """
    return Schedule.shifted(steps, shift, labels="wan", denoise=denoise)


class Preset(NamedTuple):
    """A schedule's factory (steps, shift, denoise), and the solver and guidance that it is meant for."""

    schedule: Callable[..., Schedule]
    solver: str
    guidance: float = 1.0


PRESETS = {
    "released": Preset(released, "unipc"),
    "trained": Preset(trained, "renoise"),
    "sharp": Preset(sharp, "unipc"),
    "vace": Preset(vace, "unipc", 5.0),
}
