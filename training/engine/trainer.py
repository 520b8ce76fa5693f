"""The loop of a distillation run: batches -> generator and critic updates -> log -> checkpoint."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..data.batch import Batch
from ..distributed.world import World, average_gradients
from ..methods.vdot import Loss, StepContext, losses_of
from .adamw import AdamW
from .checkpoint import Checkpoints, read_progress
from .config import DistillConfig, OptimConfig
from .networks import Networks, build_networks, trainable
from .progress import Progress
from .samples import shows_samples, write_samples

if TYPE_CHECKING:
    from ..data.cache import Cache

logger = logging.getLogger("vdot")
MAX_BAD_STEPS = 3


class Source(Protocol):
    """Where the batches come from; see `training.data`. Sample videos are made of its cache."""

    empty_text: Tensor
    cache: Cache

    def batches(self, step: int, rank: int, world_size: int) -> list[Batch]:
        """This process's micro-batches of a step, a pure function of the arguments."""

    def state_dict(self) -> dict[str, Any]:
        """What the batches depend on besides the step."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Compare with, or restore, `state_dict`'s."""


class TrainingStoppedError(RuntimeError):
    """The run cannot go on; the message says from which checkpoint it can."""


class Trainer:
    """A run and all its state.

    Args:
        config: The run.
        source: Its batches.
        world: The processes.
    """

    def __init__(self, config: DistillConfig, source: Source, world: World) -> None:
        self.config, self.source, self.world = config, source, world
        self.shows_samples = shows_samples(config.log)
        self.networks: Networks = build_networks(config, world)
        self.generator = trainable(self.networks.generator, config.model.frozen)
        self.fake = trainable(self.networks.fake_score)
        self.discriminator = trainable(self.networks.discriminator)
        optim = config.optim
        given = {"betas": tuple(optim.betas), "weight_decay": optim.weight_decay}
        given |= {"state_bits": optim.state_bits}
        self.generator_optimizer = AdamW(self.generator.values(), lr=optim.generator_lr, **given)
        head_lr = optim.critic_lr if optim.discriminator_lr is None else optim.discriminator_lr
        groups = [
            {"params": list(self.fake.values()), "lr": optim.critic_lr},
            {"params": list(self.discriminator.values()), "lr": head_lr},
        ]
        self.critic_optimizer = AdamW(groups, **given)
        self.base_lrs = [[group["lr"] for group in o.param_groups] for o in self._optimizers]
        out = Path(config.out_dir)
        log = config.log
        self.checkpoints = Checkpoints(
            out / "checkpoints", world, keep=log.keep, asynchronous=log.asynchronous
        )
        self.step, self.bad_steps = 0, 0
        self._resume()
        self.progress = Progress(config, world, self.step)

    @property
    def _optimizers(self) -> tuple[AdamW, AdamW]:
        return self.generator_optimizer, self.critic_optimizer

    def run(self) -> int:
        """Train until `steps` or `max_steps`.

        Returns:
            The step reached.

        Raises:
            TrainingStoppedError: three steps in a row were not finite.
        """
        last = min(self.config.steps, self.config.max_steps or self.config.steps)
        while self.step < last:
            begun = time.monotonic()
            metrics, tokens = self.train_step()
            self.step += 1
            self.progress.report(self.step, last, metrics, tokens, time.monotonic() - begun)
            self.checkpoints.poll()
            # Amid bad steps nothing is saved, so that the newest checkpoint stays one after which steps were
            # good; but at the end it is: what was not finite was left out and changed no weight.
            if self.step == last or (self.step % self.config.log.save_every == 0 and not self.bad_steps):
                self.save()
            self._samples()
        self.checkpoints.wait()
        self.progress.close()
        if self.bad_steps and self.world.rank == 0:
            logger.warning(
                "bad steps at the end: %d, to step %d; the weights saved are finite, without their updates",
                self.bad_steps, self.step,
            )  # fmt: skip
        return self.step

    def _samples(self) -> None:
        if self.shows_samples and self.step % self.config.log.sample_every == 0:
            videos = write_samples(self.networks, self.config, self.source, self.step)
            self.progress.videos(videos, self.step)

    def train_step(self) -> tuple[dict[str, float], int]:
        """One step: the generator's update if it is its turn, then the critic's.

        Returns:
            Numbers for the log, means over the global batch, and the step's latent tokens.
        """
        batches = self.source.batches(self.step, self.world.rank, self.world.size)
        _set_lrs(self._optimizers, self.base_lrs, self.config.optim, self.step)
        context = StepContext(self.networks, self.config, self.source.empty_text, self.step)
        generator_loss, critic_loss = losses_of(self.config, self.step)
        metrics, healthy = {}, True
        if generator_loss is not None:
            self.networks.train_generator()
            found, fine = self._update("generator", generator_loss, context, batches)
            if fine:
                self.networks.average.update(self.networks.generator)
            metrics |= found
            healthy &= fine
        fake_trained = critic_loss.__name__ != "critic_gan_loss" or self.config.losses.gan_trains_score
        self.networks.train_critic(fake_trained)
        found, fine = self._update("critic", critic_loss, context, batches)
        self._count_bad(healthy and fine)
        return metrics | found, _count_tokens(batches, self.networks, self.world)

    def _update(
        self, player: str, loss_of: Loss, context: StepContext, batches: list[Batch]
    ) -> tuple[dict[str, float], bool]:
        """Accumulate gradients over the micro-batches, then step, unless anything is not finite."""
        optimizer = self.generator_optimizer if player == "generator" else self.critic_optimizer
        optimizer.zero_grad(set_to_none=True)
        share = self._sample_share(batches)
        sums: dict[str, Tensor] = {}
        bad_ids: list[str] = []
        for batch in batches:
            losses = loss_of(context, batch)
            # Sharded gradients are means over processes, so that a process's part counts `size` times.
            (losses.total * (len(batch) * share * self.world.size)).backward()
            if not bool(torch.isfinite(losses.total.detach())):
                bad_ids += batch.ids
            for name, value in {"loss": losses.total.detach(), **losses.metrics}.items():
                sums[name] = sums.get(name, 0) + value.float() * (len(batch) * share)
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        average_gradients(parameters, self.world)
        norm = _clip(parameters, self.config.optim.clip)
        fine = self.world.all_true(not bad_ids and bool(torch.isfinite(norm)))
        if fine:
            optimizer.step()
        else:
            self._say_bad(player, bad_ids or [i for batch in batches for i in batch.ids], bool(bad_ids), norm)
        optimizer.zero_grad(set_to_none=True)
        means = self.world.sum(torch.stack(list(sums.values()))).tolist()
        metrics = dict(zip(sums, means, strict=True)) | {"gradient_norm": norm.item()}
        rates = [group["lr"] for group in optimizer.param_groups]
        metrics |= dict(zip(("lr", "discriminator_lr"), rates, strict=False))
        return {f"{player}/{name}": value for name, value in metrics.items()}, fine

    def _sample_share(self, batches: list[Batch]) -> float:
        """1 / samples of the global batch; every process must have as many micro-batches."""
        counts = self.world.gather((len(batches), sum(len(batch) for batch in batches)))
        if len({number for number, _ in counts}) != 1:
            raise ValueError(f"processes have {[n for n, _ in counts]} micro-batches; give each as many")
        return 1 / sum(samples for _, samples in counts)

    def _say_bad(self, player: str, ids: list[str], is_loss: bool, norm: Tensor) -> None:
        everyone = self.world.gather((ids if is_loss else [], ids))
        losses = [i for found, _ in everyone for i in found]
        what = "loss" if losses else "gradient"
        named = losses or [i for _, found in everyone for i in found]
        logger.error(
            "step %d: the %s's %s is not finite (gradient norm %.4g); its update is skipped. Batch: %s",
            self.step, player, what, norm.item(), ", ".join(named),
        )  # fmt: skip

    def _count_bad(self, healthy: bool) -> None:
        self.bad_steps = 0 if healthy else self.bad_steps + 1
        if self.bad_steps < MAX_BAD_STEPS:
            return
        self.checkpoints.wait()
        newest = self.checkpoints.newest
        where = f"the last good checkpoint is {newest.path}" if newest else "there is no checkpoint yet"
        raise TrainingStoppedError(
            f"losses or gradients of {MAX_BAD_STEPS} steps in a row, to step {self.step}, were not finite; "
            f"{where}. Look at the samples named above, or lower the learning rates"
        )

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that a resumed run needs, by name."""
        networks = self.networks
        named = {f"generator.{n}": p.detach() for n, p in networks.generator.named_parameters()}
        named |= {f"fake_score.{n}": p.detach() for n, p in networks.fake_score.named_parameters()}
        named |= {f"discriminator.{n}": p.detach() for n, p in networks.discriminator.named_parameters()}
        names = [name for name, _ in networks.generator.named_parameters()]
        named |= {f"average.{n}": p for n, p in zip(names, networks.average.parameters, strict=True)}
        for prefix, optimizer, parameter_name, parameter in self._optimized():
            for key, value in optimizer.state[parameter].items():
                if isinstance(value, Tensor):
                    named[f"{prefix}.{parameter_name}.{key}"] = value
        return named

    def _optimized(self) -> Iterator[tuple[str, AdamW, str, nn.Parameter]]:
        for prefix, optimizer, parameters in (
            ("optimizer.generator", self.generator_optimizer, self.generator),
            ("optimizer.fake_score", self.critic_optimizer, self.fake),
            ("optimizer.discriminator", self.critic_optimizer, self.discriminator),
        ):
            for name, parameter in parameters.items():
                yield prefix, optimizer, name, parameter

    def save(self) -> None:
        """Write a checkpoint of the steps done so far."""
        # All randomness is keyed by (seed, step, sample): these two are the state of every generator.
        progress = {
            "seed": self.config.seed,
            "step": self.step,
            "bad_steps": self.bad_steps,
            "average_updates": self.networks.average.num_updates,
            "state_bits": self.config.optim.state_bits,
            "optimizer_steps": {f"{a}.{n}": o.state[p]["step"] for a, o, n, p in self._optimized()},
            "network": self.networks.config.to_dict(),
            "data": self.source.state_dict(),
            "processes": self.world.size,
        }
        self.checkpoints.save(self.step, self.tensors(), progress)

    def _resume(self) -> None:
        newest = self.checkpoints.newest
        if newest is None:
            return
        progress = read_progress(newest)
        if progress["network"] != self.networks.config.to_dict():
            raise ValueError(
                f"{newest.path} holds networks of other sizes, {progress['network']}; it does not fit this "
                "run: give the configuration it was made with, or another out_dir"
            )
        for key, given, saved in (
            ("seed", self.config.seed, progress["seed"]),
            ("optim.state_bits", self.config.optim.state_bits, progress.get("state_bits", 32)),
        ):
            if given != saved:
                raise ValueError(
                    f"{key} is {given}, and {newest.path} was made with {saved}; give it, or another out_dir"
                )
        self.checkpoints.load(newest, self.tensors())
        self.step, self.bad_steps = progress["step"], progress["bad_steps"]
        self.networks.average.num_updates = progress["average_updates"]
        for prefix, optimizer, name, parameter in self._optimized():
            optimizer.state[parameter]["step"] = progress["optimizer_steps"][f"{prefix}.{name}"]
        self.source.load_state_dict(progress["data"])
        logger.info("going on from step %d of %s", self.step, newest.path)


def _set_lrs(optimizers: tuple[AdamW, ...], base: list[list[float]], optim: OptimConfig, step: int) -> None:
    rise = min(1.0, (step + 1) / optim.warmup) if optim.warmup else 1.0
    for optimizer, lrs in zip(optimizers, base, strict=True):
        for group, lr in zip(optimizer.param_groups, lrs, strict=True):
            group["lr"] = lr * rise


def _clip(parameters: list[nn.Parameter], limit: float) -> Tensor:
    """Clip by the global norm; returns the norm before, the same on every process."""
    if not parameters:
        return torch.zeros(())
    norm = nn.utils.get_total_norm([p.grad for p in parameters])
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    if bool(torch.isfinite(norm)) and norm > limit:
        for parameter in parameters:
            parameter.grad.mul_(limit / norm)
    return norm


def _count_tokens(batches: list[Batch], networks: Networks, world: World) -> int:
    t, h, w = networks.config.patch_size
    tokens = sum(len(b) * b.shape[1] // t * -(-b.shape[2] // h) * -(-b.shape[3] // w) for b in batches)
    return int(world.sum(torch.tensor(float(tokens), device=world.device)).item())
