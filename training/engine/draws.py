"""Randomness of a training step: each draw depends on (seed, step, place in the global batch, purpose) alone.

Neither the number of processes nor the size of a micro-batch changes what a sample gets. B batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vdot_core.distill import sample_timestep


def keyed_generator(*key: int | str) -> torch.Generator:
    """A CPU generator whose stream is a function of the key."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))


@dataclass(frozen=True)
class Draws:
    """The draws of one micro-batch in one step.

    Attributes:
        seed: The run's.
        step: The training step.
        positions: B places in the global batch.
    """

    seed: int
    step: int
    positions: tuple[int, ...]

    def _each(self, purpose: str) -> list[torch.Generator]:
        return [keyed_generator(self.seed, self.step, position, purpose) for position in self.positions]

    def shared_integer(self, high: int, purpose: str) -> int:
        """An integer in 1..high, the same for every sample of the step on every process."""
        generator = keyed_generator(self.seed, self.step, purpose)
        return int(torch.randint(1, high + 1, (), generator=generator))

    def normal(self, shape: tuple[int, ...], purpose: str, device: torch.device | str = "cpu") -> Tensor:
        """[B, *shape] standard normal float32, drawn on the CPU."""
        samples = [torch.randn(shape, generator=generator) for generator in self._each(purpose)]
        return torch.stack(samples).to(device)

    def uniform(self, purpose: str, device: torch.device | str = "cpu") -> Tensor:
        """[B] uniform in [0, 1)."""
        return torch.stack([torch.rand((), generator=g) for g in self._each(purpose)]).to(device)

    def timesteps(
        self, purpose: str, *, shift: float, low: float, high: float, device: torch.device | str = "cpu"
    ) -> Tensor:
        """[B] timesteps in [low, high] of 1000, uniform before the shift."""
        samples = [
            sample_timestep(1, shift=shift, low=low, high=high, generator=generator)
            for generator in self._each(purpose)
        ]
        return torch.cat(samples).to(device)

    def noise_source(self, purpose: str) -> Callable[[Tensor], Tensor]:
        """For `vdot_core.sampling`: fresh noise of a tensor's shape, another with every call."""
        calls = 0

        def draw(like: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return self.normal(tuple(like.shape[1:]), f"{purpose} {calls}", like.device)

        return draw
