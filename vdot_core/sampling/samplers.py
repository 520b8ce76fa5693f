"""The few-step samplers, used for inference and for training's rollouts.

Shape letters: B batch, C channels, T latent frames, h w latents. The network predicts v = noise - x0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .schedules import Schedule
from .solvers import NoiseSource, Pause, Solver, Step, make_solver

Velocity = Callable[[Tensor, Tensor], Tensor]
Callback = Callable[[int, int, Tensor, Tensor], None]


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
    state = make_solver(solver, schedule, generator)
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
    state = make_solver(solver, schedule, generator)
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


def _as_noise(noise: Tensor) -> Tensor:
    if noise.ndim < 2 or not noise.is_floating_point():
        raise ValueError(
            f"noise is {noise.dtype} of shape {list(noise.shape)}, expected float [B, C, T, h, w]"
        )
    return noise.float()


def _steps(velocity: Velocity, x: Tensor, schedule: Schedule, state: Solver, steps: range) -> Iterator[Step]:
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
