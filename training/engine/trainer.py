"""The loop of a training run: batches -> updates -> log -> checkpoint. It knows no method's loss."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.loader import step_batches
from ..data.source import Source
from ..distributed.world import World, average_gradients
from .average import AveragedWeights
from .checkpoint import Checkpoints
from .config import RunConfig
from .damage import OPTIMIZER
from .draws import Draws
from .method import Method, Update, prepare, set_trained, trainable
from .optimizers import Optimizer, clip_gradients
from .profiling import check_recording, recorded
from .progress import Progress, Values
from .record import export_path, require_output, settings, versions, write_record
from .resume import Resuming, check_saved
from .samples import shows_samples, write_samples
from .stopping import StopRequest, stop_request
from .validation import Validation

logger = logging.getLogger("vdot")
MAX_BAD_STEPS = 3


class TrainingStoppedError(RuntimeError):
    """The run cannot continue; the message says from which checkpoint it can be resumed."""


class Trainer:
    """A run and all its state.

    Args:
        config: The run.
        method: Its networks and losses.
        source: Its batches.
        world: The processes.

    Raises:
        ValueError: A checkpoint in `config.out_dir` does not fit the run.
    """

    def __init__(self, config: RunConfig, method: Method, source: Source, world: World) -> None:
        self.config, self.method, self.source, self.world = config, method, source, world
        self.shows_samples = shows_samples(config.log)
        check_recording(config.log, world.device)
        self.optimizers = {
            optimizer: Optimizer(
                {name: trainable(method.networks[name], method.frozen.get(name, ())) for name in rates},
                rates,
                config.optim,
                world,
            )
            for optimizer, rates in method.learning_rates.items()
        }
        self.average = AveragedWeights(method.networks[method.averaged], config.optim.ema)
        self.checkpoints = Checkpoints(
            Path(config.out_dir) / "checkpoints",
            world,
            keep=config.log.keep,
            asynchronous=config.log.asynchronous,
            files=config.log.checkpoint_files,
        )
        self.step, self.bad_steps, self.stopped = 0, 0, False
        self.stop, self.stop_agreed = StopRequest(), False
        # One process looks at the files for all.
        self.settings = world.gather(settings(config) if world.rank == 0 else {})[0]
        # A cache that another VAE or text encoder made has the same samples by name.
        self.settings["data.encoding"] = source.encoding
        require_output(export_path(config, method.averaged), self.settings)
        self._resume()
        if world.rank == 0:
            write_record(config)
        self.validation = Validation(config, method, source, world) if source.held_out else None
        self.progress = Progress(config, world, self.step)

    def run(self) -> int:
        """Train until `steps` or `max_steps`, or until a `stop_request`, after which `stopped` is True.

        Returns:
            The step reached.

        Raises:
            TrainingStoppedError: Three steps in a row were not finite.
        """
        last = min(self.config.steps, self.config.max_steps or self.config.steps)
        world, workers = self.world, self.config.data.workers
        with stop_request() as self.stop, recorded(self.config, world) as record:
            loader = step_batches(self.source, self.step, last, world.rank, world.size, workers=workers)
            for batches in loader:
                begin = time.monotonic()
                metrics, tokens = self.train_step(batches)
                self.step += 1
                seconds = time.monotonic() - begin
                if self.validation and self.step % self.config.validation.every == 0:
                    metrics |= self.validation.losses()
                operations = sum(self.method.operations(self.step - 1, batch) for batch in batches)
                self.progress.report(self.step, last, metrics, tokens, seconds, operations)
                record()
                self.checkpoints.poll()
                stops = self.stop_agreed or (self.stop.made and world.size == 1)
                self.stopped = stops and self.step < last
                self._save_in_turn(last)
                if self.stopped:
                    self.checkpoints.wait()  # while a repeated signal still does no harm
                    break
        self.checkpoints.wait()
        self.progress.close()
        if self.bad_steps and world.rank == 0:
            logger.warning(
                "bad steps at the end: %d, to step %d; the weights saved are finite, without their updates",
                self.bad_steps, self.step,
            )  # fmt: skip
        return self.step

    def _save_in_turn(self, last: int) -> None:
        """Write the checkpoint and the sample videos that are due after a step."""
        # After a bad step nothing is saved, so that the newest checkpoint follows a good one; at the end it
        # is: an update that was not finite was skipped and changed no weight.
        due = self.stopped or self.step % self.config.log.save_every == 0
        if self.step == last or (due and not self.bad_steps):
            self.save()
        if self.shows_samples and self.step % self.config.log.sample_every == 0 and not self.stopped:
            videos = write_samples(self.method, self.average, self.config, self.source, self.world, self.step)
            self.progress.videos(videos, self.step)

    def train_step(self, batches: Sequence[Batch]) -> tuple[Values, Tensor]:
        """One step: each of the method's updates, over all micro-batches.

        Args:
            batches: This process's micro-batches.

        Returns:
            Numbers for the log, means over the global batch, and the step's latent tokens.
        """
        ready = []
        for batch in batches:
            draws = Draws(self.config.seed, self.step, batch.positions)
            ready.append((prepare(batch, draws, self.method, self.world.device), draws))
        metrics: Values = {}
        healthy = True
        for update in self.method.updates(self.step):
            values, finite = self._update(update, ready)
            if finite and self.method.averaged in update.trained:
                self.average.update(self.method.networks[self.method.averaged])
            metrics |= values
            healthy &= finite
        self._count_bad(healthy)
        return metrics, self._count_tokens(batches)

    def _update(self, update: Update, batches: Sequence[tuple[Batch, Draws]]) -> tuple[Values, bool]:
        """Accumulate gradients over the micro-batches, then step, unless a value is not finite."""
        optimizer = self.optimizers[update.optimizer]
        optimizer.set_rates(self.step, self.config.steps)
        optimizer.zero_grad()
        set_trained(self.method, update.trained)
        # The source gives every process as many micro-batches of as many samples.
        share = 1 / (self.world.size * sum(len(batch) for batch, _ in batches))
        sums: dict[str, Tensor] = {}
        totals = []
        for batch, draws in batches:
            losses = update.loss(batch, draws)
            weight = len(batch) * share
            # Sharded gradients are means over processes, so that a process's part counts `size` times.
            (losses.total * (weight * self.world.size)).backward()
            totals.append(losses.total.detach())
            for name, value in {"loss": totals[-1], **losses.metrics}.items():
                sums[name] = sums.get(name, 0) + value.float() * weight
        parameters = optimizer.with_gradients()
        average_gradients(parameters, self.world)
        norm = clip_gradients(parameters, self.config.optim.clip)
        # The one place where a step waits for the device, and for other processes.
        good = torch.isfinite(torch.stack([norm.to(totals[0]), *totals])).all()
        finite, self.stop_agreed = self.world.agree(good, self.stop.made)
        if finite:
            optimizer.step()
        else:
            self._report_bad(update.optimizer, batches, totals, norm)
        optimizer.zero_grad()
        means = self.world.sum(torch.stack(list(sums.values())))
        values: Values = dict(zip(sums, means, strict=True)) | {"gradient_norm": norm}
        names = [f"{name}_lr" if number else "lr" for number, name in enumerate(optimizer.parameters)]
        values |= dict(zip(names, optimizer.rates(), strict=True))
        return {f"{update.optimizer}/{name}": value for name, value in values.items()}, finite

    def _report_bad(self, name: str, batches: Sequence, totals: Sequence[Tensor], norm: Tensor) -> None:
        ids = [i for batch, _ in batches for i in batch.ids]
        bad_batches = [b for (b, _), total in zip(batches, totals, strict=True) if not total.isfinite()]
        bad = [i for batch in bad_batches for i in batch.ids]
        everyone = self.world.gather((bad, ids))
        with_bad_loss = [i for losses, _ in everyone for i in losses]
        logger.error(
            "step %d: the %s's %s is not finite (gradient norm %.4g); its update is skipped. Batch: %s",
            self.step, name, "loss" if with_bad_loss else "gradient", norm.item(),
            ", ".join(with_bad_loss or [i for _, named in everyone for i in named]),
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

    def _count_tokens(self, batches: Sequence[Batch]) -> Tensor:
        t, h, w = self.method.sizes.patch_size
        tokens = sum(len(b) * b.shape[1] // t * -(-b.shape[2] // h) * -(-b.shape[3] // w) for b in batches)
        return self.world.sum(torch.tensor(float(tokens), device=self.world.device))

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that a resumed run needs, by name."""
        named = {
            f"{network}.{name}": parameter.detach()
            for network, module in self.method.networks.items()
            for name, parameter in module.named_parameters()
        }
        names = [name for name, _ in self.method.networks[self.method.averaged].named_parameters()]
        named |= {f"average.{n}": p for n, p in zip(names, self.average.parameters, strict=True)}
        for name, state in self.optimizer_states():
            named |= {f"{name}.{key}": value for key, value in state.items() if isinstance(value, Tensor)}
        return named

    def optimizer_states(self) -> list[tuple[str, dict]]:
        """Name of each parameter that is trained -> its optimizer's state."""
        return [
            (f"{OPTIMIZER}{name}", state)
            for optimizer in self.optimizers.values()
            for name, state in optimizer.states()
        ]

    def save(self) -> None:
        """Write a checkpoint of the steps done so far."""
        # All randomness is keyed by (seed, step, sample): these two are the state of every generator.
        progress = {
            "seed": self.config.seed,
            "step": self.step,
            "bad_steps": self.bad_steps,
            "average_updates": self.average.num_updates,
            "state_bits": self.config.optim.state_bits,
            "optimizer_steps": {name: s["step"] for name, s in self.optimizer_states() if "step" in s},
            "network": self.method.sizes.to_dict(),
            "data": self.source.state_dict(),
            "processes": self.world.size,
            "settings": self.settings,
            "versions": versions(),
        }
        self.progress.flush()
        self.checkpoints.save(self.step, self.tensors(), progress)

    def _resume(self) -> None:
        tensors, states = self.tensors(), self.optimizer_states()
        sizes, logs = self.method.sizes.to_dict(), self.world.rank == 0
        run = Resuming(self.config, self.settings, sizes, tensors, states, logs)
        restored = self.checkpoints.restore(tensors, partial(check_saved, run))
        if restored is None:
            return
        newest, progress = restored
        self.step, self.bad_steps = progress["step"], progress["bad_steps"]
        self.average.num_updates = progress["average_updates"]
        for name, state in states:
            if "step" in state:
                state["step"] = progress["optimizer_steps"][name]
        self.source.load_state_dict(progress["data"])
        logger.info("resuming from step %d of %s", self.step, newest.path)
