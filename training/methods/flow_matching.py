"""Flow matching: train a VACE transformer on real clips, for all tasks at once.

x_t = (1 - sigma) x0 + sigma noise; the network predicts the velocity noise - x0; its timestep is 1000 sigma.
Letters: B batch, T latent frames (references included), h w latents, L tokens, D text width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from vdot_core.distill import add_noise, flow_matching_loss
from vdot_core.dtypes import DTYPES
from vdot_core.networks import WanVace, expected_shapes
from vdot_core.sampling import Schedule, guided, sample

from ..data.batch import Batch
from ..distributed.world import World
from ..engine.draws import Draws, keyed_generator
from ..engine.eight_bit import moment_bytes
from ..engine.method import Losses, Update, pad_text, trained_names
from ..engine.networks import (
    build_transformer,
    check_text,
    check_transformer,
    network_sizes,
    read_transformer,
    velocity,
)
from ..engine.space import OutputBytes
from .flow_matching_config import FineTuneConfig, FlowMatchingLossConfig


class FlowMatching:
    """Flow-matching training as a method of the engine; see `training.engine.method.Method`.

    Args:
        config: The run.
        world: The processes.
        empty_text: [1, L, D] embedding of the empty prompt.

    Raises:
        ValueError: The transformer's file is missing or does not fit, or the captions have another width.
    """

    averaged, needs_latents = "transformer", True

    def __init__(self, config: FineTuneConfig, world: World, empty_text: Tensor) -> None:
        self.config, self.world, self.empty_text = config, world, empty_text
        self.losses = config.losses
        self.sizes = network_sizes(config.model.preset, None)
        check_text(empty_text, self.sizes)
        self.transformer = build_transformer(self._first_weights(), self.sizes, world, config.parallel)
        self.networks = {"transformer": self.transformer}
        self.frozen = {"transformer": config.model.frozen}
        self.learning_rates = {"transformer": {"transformer": config.optim.lr}}

    @staticmethod
    def check(config: FineTuneConfig, processes: int = 1) -> list[str]:
        """Raise ValueError where the file to start from or the frozen parameters do not fit."""
        sizes = network_sizes(config.model.preset, None)
        if config.model.start_from:
            check_transformer(config.model.start_from, sizes, "model.start_from")
        trained_names(expected_shapes(sizes), config.model.frozen)
        return []

    @staticmethod
    def output_bytes(config: FineTuneConfig) -> OutputBytes:
        """Sizes of the files that a run writes: weights, their average and moments; the weights alone."""
        shapes = expected_shapes(network_sizes(config.model.preset, None))
        count = sum(map(math.prod, shapes.values()))
        moments = sum(moment_bytes(tuple(shape), config.optim.state_bits) for shape in shapes.values())
        checkpoint = 2 * 4 * count + (2 if config.optim.betas[0] > 0 else 1) * moments
        return OutputBytes(checkpoint, count * DTYPES[config.export_dtype].itemsize)

    def _first_weights(self) -> Mapping[str, Tensor]:
        """The configured file's weights, or fresh ones from the seed."""
        if self.config.model.start_from:
            return read_transformer(self.config.model.start_from, self.sizes, "model.start_from")
        network = WanVace(self.sizes)
        network.initialize_weights(keyed_generator(self.config.seed, "transformer"))
        return network.state_dict()

    def text_drop(self, task: str) -> float:
        """Probability that a sample of this task is trained without its caption."""
        return self.losses.task_text_drop.get(task, self.losses.text_drop)

    def updates(self, step: int) -> list[Update]:
        """The one update of a step."""
        return [Update("transformer", ("transformer",), self.flow_matching)]

    def kinds_of_updates(self) -> list[Update]:
        """The one update."""
        return self.updates(0)

    def operations(self, step: int, batch: Batch) -> float:
        """Floating-point operations of a forward and a backward pass of a micro-batch."""
        from ..planning.flops import pass_flops
        from ..planning.workload import Workload

        one = pass_flops(self.sizes, Workload.of_batch(self.sizes, batch))
        return len(batch) * (one.forward + one.backward())

    def flow_matching(self, batch: Batch, draws: Draws) -> Losses:
        """mean || v(x_t, t) - (noise - x0) ||^2; reference frames are part of it, as they are of sampling."""
        x0, device = batch.latents.float(), self.world.device
        noise = draws.normal(batch.shape, "noise", device)
        timestep = 1000 * draw_sigmas(draws, self.losses, device)
        x = add_noise(x0, noise, timestep)
        loss = flow_matching_loss(velocity(self.transformer, x, timestep, batch, self.world), x0, noise)
        return Losses(loss, {})

    @torch.no_grad()
    def sample(self, batch: Batch, draws: Draws) -> Tensor:
        """[B, 16, T, h, w] latents by Euler steps with classifier-free guidance."""
        settings, length = self.config.samples, batch.text.shape[1]
        empty = pad_text(self.empty_text.to(batch.text), length)[:, :length].expand(len(batch), -1, -1)
        without = dataclasses.replace(batch, text=empty)

        def guided_velocity(x: Tensor, timestep: Tensor) -> Tensor:
            conditional = velocity(self.transformer, x, timestep, batch, self.world)
            if settings.guidance == 1:
                return conditional
            unconditional = velocity(self.transformer, x, timestep, without, self.world)
            return guided(conditional, unconditional, settings.guidance)

        noise = draws.normal(batch.shape, "preview", self.world.device)
        return sample(guided_velocity, noise, Schedule.shifted(settings.steps, settings.shift), "euler")

    def metadata(self) -> dict[str, str]:
        """Metadata of an exported transformer."""
        return {"trained_by": "training/finetune.py"}

    def adapted_from(self) -> None:
        """All weights are trained."""
        return None


def draw_sigmas(draws: Draws, losses: FlowMatchingLossConfig, device: torch.device | str = "cpu") -> Tensor:
    """[B] noise levels in (0, 1]: logit-normal for a share, the rest uniform, shifted toward noise."""
    normal = torch.sigmoid(draws.normal((), "logit-normal sigma", device))
    uniform, shift = draws.uniform("uniform sigma", device), losses.timestep_shift
    shifted = shift * uniform / (1 + (shift - 1) * uniform)
    pick = draws.uniform("kind of sigma", device) < losses.logit_normal_share
    return torch.where(pick, normal, shifted).clamp(1e-3, 1.0)
