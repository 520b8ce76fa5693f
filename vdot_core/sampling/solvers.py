"""Solvers: one step from a noise level to the next.

Shape letters: B batch, C channels, T latent frames, h w latents. The network predicts v = noise - x0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..choices import SOLVERS
from ..text import shown
from .schedules import Schedule

NoiseSource = torch.Generator | Callable[[Tensor], Tensor] | None


@dataclass(frozen=True, eq=False)
class Step:
    """One network call.

    Args:
        index: from 0.
        sigma: noise level the network was called at.
        x: what it was called with, float32.
        x0: the clean latents it predicts, x - sigma v, float32.
        velocity: what it returned, float32.
    """

    index: int
    sigma: float
    x: Tensor
    x0: Tensor
    velocity: Tensor


@dataclass(frozen=True, eq=False)
class Pause:
    """A run that stopped between two steps.

    Args:
        step: the next step, from 0.
        x: latents at that step's noise level, float32.
        history: what a multistep solver remembers of the steps before, by its own names; empty: nothing.
    """

    step: int
    x: Tensor
    history: Mapping[str, Any] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> Pause:
        """The same on another device."""
        return Pause(self.step, self.x.to(device), _moved(self.history, device))


def fresh_noise(like: Tensor, generator: NoiseSource = None) -> Tensor:
    """Standard normal float32 of a tensor's shape, drawn on the generator's device, then moved.

    A callable in the generator's place is given the tensor and draws itself, as training does, where each
    sample's noise must not depend on its neighbors in the batch.
    """
    if callable(generator):
        return generator(like).to(like.device, torch.float32)
    device = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, device=device, dtype=torch.float32).to(like.device)


class Solver:
    """A step from one noise level to the next; `advance` is called once per step."""

    def __init__(self, schedule: Schedule, generator: NoiseSource):
        self.schedule, self.generator = schedule, generator
        self._done: tuple[int, Tensor] | None = None

    def advance(self, step: Step) -> Tensor:
        """The latents at the next step's noise level, float32."""
        if self._done is None or self._done[0] != step.index:
            self._done = (step.index, self._next(step, float(self.schedule.sigmas[step.index + 1])))
        return self._done[1]

    def _next(self, step: Step, sigma: float) -> Tensor:
        raise NotImplementedError

    def history(self) -> dict[str, Any]:
        """State of earlier steps that later ones need; see `Pause`."""
        return {}

    def restore(self, pause: Pause) -> None:
        """Start where another run stopped."""


class _Euler(Solver):
    """Euler step along the velocity."""

    def _next(self, step: Step, sigma: float) -> Tensor:
        return step.x + (sigma - step.sigma) * step.velocity


class _Renoise(Solver):
    """Add fresh noise to the predicted x0 at the next level."""

    def _next(self, step: Step, sigma: float) -> Tensor:
        if sigma == 0:
            return step.x0
        return (1 - sigma) * step.x0 + sigma * fresh_noise(step.x0, self.generator)


_UNIPC_HISTORY = ("model_outputs", "timestep_list", "last_sample", "lower_order_nums", "this_order")


class _UniPC(Solver):
    """Wan's flow variant of UniPC (bh2, order 2), by diffusers, on this schedule's untruncated sigmas."""

    def __init__(self, schedule: Schedule, generator: NoiseSource):
        super().__init__(schedule, generator)
        from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

        self._scheduler = UniPCMultistepScheduler(
            solver_order=2, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0
        )
        self._scheduler.set_timesteps(schedule.num_steps)
        # Setting the levels here works in every diffusers release; its own argument for them is recent.
        # At sigma = 1 its log(1 - sigma) is infinite, so it stays the 1e-6 below that diffusers itself uses.
        self._scheduler.sigmas = schedule.sigmas.clamp(max=1 - 1e-6)
        self._scheduler.timesteps = schedule.timesteps
        self._scheduler.set_begin_index(0)
        self._scheduler.this_order = 0  # the library sets it at the first step

    def _next(self, step: Step, sigma: float) -> Tensor:
        timestep = self.schedule.timesteps[step.index]
        return self._scheduler.step(step.velocity, timestep, step.x, return_dict=False)[0]

    def history(self) -> dict[str, Any]:
        return {name: copy(getattr(self._scheduler, name)) for name in _UNIPC_HISTORY}

    def restore(self, pause: Pause) -> None:
        self._scheduler.set_begin_index(pause.step)
        for name, value in pause.history.items():
            setattr(self._scheduler, name, copy(value))


def _moved(value: Any, device: torch.device | str) -> Any:
    """A history's tensors on another device."""
    if isinstance(value, Mapping):
        return {name: _moved(part, device) for name, part in value.items()}
    if isinstance(value, list):
        return [_moved(part, device) for part in value]
    return value.to(device) if isinstance(value, Tensor) and value.ndim else value


def make_solver(name: str, schedule: Schedule, generator: NoiseSource) -> Solver:
    """The solver of a name, one of `SOLVERS`; ValueError for an unknown one."""
    solvers = dict(zip(SOLVERS, (_UniPC, _Renoise, _Euler), strict=True))
    if name not in solvers:
        raise ValueError(f"solver is '{shown(name, 60)}', expected one of {', '.join(SOLVERS)}")
    return solvers[name](schedule, generator)
