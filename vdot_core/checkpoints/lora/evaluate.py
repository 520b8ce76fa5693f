"""The effect of a LoRA on a network's output: student, base, and base + LoRA on the same random input."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ...networks import WanVace, WanVaceConfig
from ..read import loadable
from ..streamed import Reader, random_inputs, reader, stream_weights
from .read import Lora, read_lora

_TIMESTEPS = (999.0, 750.0, 250.0)


@dataclass(frozen=True)
class OutputErrors:
    """Relative differences of outputs from the student's, each the mean over the timesteps.

    Args:
        base: of the base alone.
        lora: of the base with the LoRA.
    """

    base: float
    lora: float

    def summary(self) -> str:
        """One line, for a terminal."""
        return (
            f"output on random input, relative difference from the student: base {100 * self.base:.2f} %, "
            f"base + LoRA {100 * self.lora:.2f} %"
        )


@torch.no_grad()
def output_errors(
    student: str | Path,
    base: str | Path,
    lora: str | Path,
    *,
    vace: str | Path | None = None,
    config: WanVaceConfig | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> OutputErrors:
    """Run the three networks in turn, the weights of one block in memory at a time.

    Args:
        student, base, vace, config: as for `extract_lora`.
        lora: the LoRA file.
        dtype: to compute in.
        device: where to compute.
        seed: of the input: latents, text and contexts from a normal distribution.
    Returns:
        Differences of base and base + LoRA from the student.
    """
    first = loadable(student, None, config, dtype)
    second = loadable(base, vace, config, dtype)
    own, other = reader(first.entries), reader(second.entries)
    specs = {name: entry.spec for name, entry in second.entries.items()}
    merged = _with_lora(other, read_lora(lora, specs))
    config = first.info.config
    expected, *outputs = (_outputs(config, read, device, dtype, seed) for read in (own, other, merged))
    errors = [
        sum(float((got - want).norm() / want.norm()) for got, want in zip(output, expected, strict=True))
        for output in outputs
    ]
    return OutputErrors(*(error / len(_TIMESTEPS) for error in errors))


def _with_lora(read: Reader, lora: Lora) -> Reader:
    def merged(name: str) -> torch.Tensor:
        weight = read(name)
        if name in lora.updates:
            weight = weight.clone(memory_format=torch.contiguous_format)
            lora.updates[name].add_to(weight, 1.0)
        return weight

    return merged


def _outputs(
    config: WanVaceConfig, read: Reader, device: torch.device | str, dtype: torch.dtype, seed: int
) -> list[torch.Tensor]:
    """Velocities at each timestep, in float32 on the CPU."""
    network = WanVace(config, device="meta", dtype=dtype).eval()
    stream_weights(network, read, device)
    x, text, contexts = random_inputs(config, device, dtype, seed)
    times = (torch.tensor([time], device=device) for time in _TIMESTEPS)
    return [network(x, time, text, contexts).float().cpu() for time in times]
