"""Settings that every method shares: data, optimizer, processes, log, and the run's folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vdot_core.text import described

from ..data.checks import require, require_range, require_tasks
from ..data.config import DataConfig
from ..data.held_out import ValidationConfig
from ..distributed.config import ParallelConfig

TASK_TABLES = (("data", "task_weights"), ("losses", "task_guidance"), ("losses", "task_text_drop"))
"""Settings by task. A cache or a producer may have tasks of its own, rows have those of docs/TASKS.md."""


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer settings.

    Attributes:
        optimizer: adamw, or muon: Muon for weight matrices and AdamW for the rest (one process holds all).
        warmup: Steps over which the learning rates rise from 0.
        schedule: Learning rates after the warm-up: constant; cosine, down to final_lr of them; or wsd
            (warm-up, stable, decay): constant, then linear down to final_lr in the last part of the steps.
        final_lr: Share of the learning rates at the end of cosine and wsd.
        decay: Share of the steps in which wsd goes down.
        betas: AdamW's decay rates; a first one of 0 keeps no first moment.
        weight_decay: Decoupled weight decay.
        state_bits: 32, or 8: the optimizer's moments take a quarter of the memory (needs torchao).
        clip: Largest norm of a gradient.
        ema: Decay of the averaged weights, per update.
    """

    optimizer: Literal["adamw", "muon"] = "adamw"
    warmup: int = 0
    schedule: Literal["constant", "cosine", "wsd"] = "constant"
    final_lr: float = 0.02
    decay: float = 0.2
    betas: tuple[float, float] = (0.0, 0.999)
    weight_decay: float = 0.01
    state_bits: Literal[32, 8] = 32
    clip: float = 5.0
    ema: float = 0.99

    def __post_init__(self) -> None:
        require(self.warmup >= 0, f"optim.warmup is {self.warmup} steps; expected 0 or more")
        require(0 <= self.final_lr <= 1, f"optim.final_lr is {self.final_lr}; expected a share in [0, 1]")
        require(0 < self.decay <= 1, f"optim.decay is {self.decay}; expected a share above 0, at most 1")
        first, second = self.betas
        valid = 0 <= first < 1 and 0 <= second < 1
        require(valid, f"optim.betas are {first}, {second}; expected decays in [0, 1)")
        decay = self.weight_decay
        require(0 <= decay <= 10, f"optim.weight_decay is {decay}; expected 0 to 10")
        require(0 <= self.ema < 1, f"optim.ema is {self.ema}; expected a decay in [0, 1)")
        require(self.clip > 0, f"optim.clip is {self.clip}; expected above 0")
        require(
            self.optimizer == "adamw" or self.state_bits == 32,
            "optim.state_bits is 8 and optim.optimizer muon, which keeps its momentum in 32 bits; set "
            "optimizer adamw, or state_bits 32",
        )


@dataclass(frozen=True)
class LogConfig:
    """Run logging: console, TensorBoard, W&B, checkpoints, sample videos.

    Attributes:
        every: Steps between log lines, each with the mean speed since the last and the peak memory (of a GPU
            since the last line, on a CPU since the start); the numbers of every step are written then to
            metrics.jsonl, TensorBoard and W&B.
        save_every: Steps between checkpoints.
        keep: Number of checkpoints to keep, the newest.
        asynchronous: Write checkpoints while training continues.
        checkpoint_files: Files of each process's part of a checkpoint, of about equal size.
        wandb: Log to Weights & Biases too.
        vae: VAE that decodes sample videos, as data.vae: a file, or a diffusers folder; null: no samples.
        sample_every: Steps between sample videos; 0: never.
        num_samples: Sample videos each time, over all processes: one of each task, in the order of
            data.task_weights (without them: of the data), then a second of each, and so on.
        profile: Steps that torch.profiler traces on the first process, into out_dir/profile; 0: none.
        profile_after: Steps of this start before the traced ones, which are slower than the others at first.
        memory_snapshot: Also record the GPU memory's allocations in these steps, for pytorch.org/memory_viz.
    """

    every: int = 1
    save_every: int = 50
    keep: int = 2
    asynchronous: bool = True
    checkpoint_files: int = 1
    wandb: bool = False
    vae: str | None = None
    sample_every: int = 0
    num_samples: int = 4
    profile: int = 0
    profile_after: int = 3
    memory_snapshot: bool = False

    def __post_init__(self) -> None:
        require(
            not self.memory_snapshot or self.profile > 0,
            "log.memory_snapshot is true and log.profile 0; give the number of steps to record",
        )
        for name in ("profile", "profile_after"):
            require(
                getattr(self, name) >= 0, f"log.{name} is {getattr(self, name)}; expected 0 or more steps"
            )
        for name in ("every", "save_every", "keep", "num_samples", "checkpoint_files"):
            require(getattr(self, name) >= 1, f"log.{name} is {getattr(self, name)}; expected at least 1")
        require_range(self, "log.", 1, 1024, "num_samples", "checkpoint_files")
        require(
            self.sample_every >= 0, f"log.sample_every is {self.sample_every}; expected 0 (never) or more"
        )
        require(
            not self.sample_every or bool(self.vae),
            f"log.sample_every is {self.sample_every} and log.vae is not set; give the VAE that decodes "
            "sample videos, or sample_every 0 to make none",
        )


@dataclass(frozen=True)
class RunConfig:
    """One training run.

    Attributes:
        out_dir: Folder for checkpoints, logs, samples and the export; a second start resumes from it.
        seed: Seed of every draw: noise, timesteps, exit steps, data order, fresh weights.
        steps: Training steps in all.
        max_steps: Stop at this step with the schedule unchanged; null: run to the end.
        export_dtype: Dtype of the exported weights: bf16, fp16 or fp32.
        allow_changes: Resume although settings that the run's result depends on differ from the checkpoint's.
        data: Training data.
        optim: Optimizers.
        parallel: Processes and precision.
        log: Logging and checkpoints.
        validation: Losses and sample videos of samples that are not trained on.
    """

    out_dir: str = "runs/run"
    seed: int = 0
    steps: int = 1200
    max_steps: int | None = None
    export_dtype: Literal["bf16", "fp16", "fp32"] = "bf16"
    allow_changes: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    log: LogConfig = field(default_factory=LogConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    def __post_init__(self) -> None:
        seed = f"seed is {described(self.seed, 40)}; expected 0 or more, below 2^64"
        require(0 <= self.seed < 2**64, seed)
        require(self.steps >= 1, f"steps is {self.steps}; expected at least 1")
        most = self.max_steps
        require(most is None or most >= 1, f"max_steps is {most}; expected at least 1, or null for all steps")
        if self.data.source in ("manifest", "webdataset"):
            for section, table in TASK_TABLES:
                require_tasks(getattr(getattr(self, section, None), table, ()), f"{section}.{table}")
