"""The few-step samplers, used for inference and for training's rollouts.

Shape letters: B batch, C channels, T latent frames, h w latents. The network predicts v = noise - x0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..text import shown
from .schedules import Schedule

SOLVERS = ("unipc", "renoise", "euler")

Velocity = Callable[[Tensor, Tensor], Tensor]
Callback = Callable[[int, int, Tensor, Tensor], None]
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


def sample(
    velocity: Velocity,
    noise: Tensor,
    schedule: Schedule,
    solver: str = "unipc",
    generator: NoiseSource = None,
    callback: Callback | None = None,
) -> Tensor:
    """Turn noise into latents with one network call per step of the schedule.

    Args:
        velocity: (x [B, C, T, h, w] float32, timestep [B] float32 in 0..1000) -> velocity of x's shape, any
            float dtype.
        noise: standard normal, of the latents' shape; it is not scaled.
        schedule: noise levels and labels.
        solver: 'unipc' (Wan's flow UniPC, order 2), 'renoise' (predict x0, add fresh noise) or 'euler'.
        generator: source of the fresh noise of 'renoise'; on the CPU it gives the same noise for every
            device. Or a callable, tensor -> noise of its shape.
        callback: called after each step as (index, num_steps, x0, x).
    Returns:
        Latents of noise's shape, float32, on its device.
    Raises:
        ValueError: the solver is unknown, or velocity returns another shape.
    """
    return resume(velocity, Pause(0, _as_noise(noise)), schedule, None, solver, generator, callback).x


def resume(
    velocity: Velocity,
    pause: Pause,
    schedule: Schedule,
    end_step: int | None = None,
    solver: str = "unipc",
    generator: NoiseSource = None,
    callback: Callback | None = None,
) -> Pause:
    """Run a part of a schedule's steps; parts that follow each other give what one run gives.

    Args:
        velocity, schedule, solver, callback: as in `sample`, where the callback's steps are the schedule's.
        pause: where to start. Without a history, UniPC starts with a step of order 1, as at its first.
        end_step: the first step that is not run, above pause.step; None runs to the end.
        generator: of 'renoise'; at each step it draws one noise, also for a later part.
    Returns:
        Where the part stopped.
    Raises:
        ValueError: the steps are not the schedule's, and as in `sample`.
    """
    end_step = schedule.num_steps if end_step is None else end_step
    if not 0 <= pause.step < end_step <= schedule.num_steps:
        raise ValueError(
            f"cannot run from step {pause.step} to {end_step}; expected a start from 0 and a later end, at "
            f"most {schedule.num_steps}"
        )
    state = _solver(solver, schedule, generator)
    state.restore(pause)
    x = pause.x
    for step in _steps(velocity, x, schedule, state, range(pause.step, end_step)):
        x = state.advance(step)
        if callback is not None:
            callback(step.index, schedule.num_steps, step.x0, x)
    return Pause(end_step, x, state.history())


def trajectory(
    velocity: Velocity,
    noise: Tensor,
    schedule: Schedule,
    solver: str = "unipc",
    generator: NoiseSource = None,
) -> Iterator[Step]:
    """The steps of `sample`, one at a time, for a caller that stops early or inspects them.

    Nothing runs before the first `next`; each step runs in the grad mode of its `next`.

    Args:
        velocity, noise, schedule, solver, generator: as in `sample`.
    Yields:
        A `Step` per network call.
    """
    state = _solver(solver, schedule, generator)
    return _steps(velocity, _as_noise(noise), schedule, state, range(schedule.num_steps))


def rollout(
    velocity: Velocity,
    noise: Tensor,
    schedule: Schedule,
    exit_step: int,
    solver: str = "renoise",
    generator: NoiseSource = None,
) -> Step:
    """Backward simulation: run up to a step as in sampling, with gradient in that last step only.

    Args:
        velocity, noise, schedule, solver, generator: as in `sample`.
        exit_step: which step is the last, 1 .. schedule.num_steps.
    Returns:
        The exit step; its x0 is the sample, and the only thing with gradient.
    Raises:
        ValueError: exit_step is out of range.
    """
    if not 1 <= exit_step <= schedule.num_steps:
        raise ValueError(f"exit_step is {exit_step}, expected 1..{schedule.num_steps}")
    steps = trajectory(velocity, noise, schedule, solver, generator)
    with torch.no_grad():
        for _ in range(exit_step - 1):
            next(steps)
    return next(steps)


def fresh_noise(like: Tensor, generator: NoiseSource = None) -> Tensor:
    """Standard normal float32 of a tensor's shape, drawn on the generator's device, then moved.

    A callable in the generator's place is given the tensor and draws itself, as training does, where each
    sample's noise must not depend on its neighbors in the batch.
    """
    if callable(generator):
        return generator(like).to(like.device, torch.float32)
    device = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, device=device, dtype=torch.float32).to(like.device)


def _as_noise(noise: Tensor) -> Tensor:
    if noise.ndim < 2 or not noise.is_floating_point():
        raise ValueError(
            f"noise is {noise.dtype} of shape {list(noise.shape)}, expected float [B, C, T, h, w]"
        )
    return noise.float()


def _steps(velocity: Velocity, x: Tensor, schedule: Schedule, state: _Solver, steps: range) -> Iterator[Step]:
    """The loop itself: call, predict, advance."""
    for index in steps:
        sigma = float(schedule.sigmas[index])
        timestep = schedule.timesteps[index].to(x.device).expand(x.shape[0])
        v = velocity(x, timestep)
        if v.shape != x.shape:
            raise ValueError(
                f"velocity returned shape {list(v.shape)} for latents {list(x.shape)}; expected the same"
            )
        v = v.float()
        step = Step(index, sigma, x, x - sigma * v, v)
        yield step
        if index != steps[-1]:
            x = state.advance(step)


class _Solver:
    """A step from one noise level to the next; `advance` is called once per step."""

    def __init__(self, schedule: Schedule, generator: NoiseSource):
        self.schedule, self.generator = schedule, generator
        self._done: tuple[int, Tensor] | None = None

    def advance(self, step: Step) -> Tensor:
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


class _Euler(_Solver):
    """Euler step along the velocity."""

    def _next(self, step: Step, sigma: float) -> Tensor:
        return step.x + (sigma - step.sigma) * step.velocity


class _Renoise(_Solver):
    """Add fresh noise to the predicted x0 at the next level."""

    def _next(self, step: Step, sigma: float) -> Tensor:
        if sigma == 0:
            return step.x0
        return (1 - sigma) * step.x0 + sigma * fresh_noise(step.x0, self.generator)


_UNIPC_HISTORY = ("model_outputs", "timestep_list", "last_sample", "lower_order_nums", "this_order")


class _UniPC(_Solver):
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


def _solver(name: str, schedule: Schedule, generator: NoiseSource) -> _Solver:
    solvers = dict(zip(SOLVERS, (_UniPC, _Renoise, _Euler), strict=True))
    if name not in solvers:
        raise ValueError(f"solver is '{shown(name, 60)}', expected one of {', '.join(SOLVERS)}")
    return solvers[name](schedule, generator)
