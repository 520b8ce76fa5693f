"""Every constant of a distillation run, typed; units are in the names or said below.

Noise levels are timesteps of 0..1000; a shift s moves sigma = t / 1000 to s sigma / (1 + (s - 1) sigma).
What the recipe `released` sets otherwise stands once, in `training/methods/recipes.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from vdot_core.networks import PRESETS

from ..data.config import DataConfig
from ..methods.loss_config import LossConfig, require


@dataclass(frozen=True)
class ModelConfig:
    """The networks.

    Attributes:
        preset: Sizes, a name in `vdot_core.networks.PRESETS`; null: as the real_score file says.
        real_score: File of the frozen teacher.
        generator: File the generator starts from; null: real_score.
        fake_score: File the fake score starts from; null: real_score.
        acc_wan_init: Stage 1's exported generator, whose Wan part overwrites the generator's; null: none.
        text_only: Leave the VACE branch out of all three networks (stage 1 from captions alone).
        frozen: Beginnings of the names of generator parameters that are not trained, such as vace_.
        taps: Blocks of the fake score that the discriminator reads, 0-based; null: as fits the depth.
        discriminator_width: Width of the discriminator's tokens; null: 512, or 64 beside a tiny network.
        discriminator_heads: Attention heads of the discriminator; null: 8, or 4 beside a tiny network.
    """

    preset: str | None = "vdot_tiny"
    real_score: str | None = None
    generator: str | None = None
    fake_score: str | None = None
    acc_wan_init: str | None = None
    text_only: bool = False
    frozen: list[str] = field(default_factory=list)
    taps: list[int] | None = None
    discriminator_width: int | None = None
    discriminator_heads: int | None = None

    def __post_init__(self) -> None:
        require(
            self.preset is None or self.preset in PRESETS,
            f"model.preset is {self.preset!r}; expected null or one of {', '.join(PRESETS)}",
        )
        require(
            (self.discriminator_width is None) == (self.discriminator_heads is None),
            "model.discriminator_width and discriminator_heads go together; give both or neither",
        )


@dataclass(frozen=True)
class RolloutConfig:
    """How the generator makes a sample in training.

    Attributes:
        steps: Network calls of a whole rollout; each exits at a random one.
        shift: Of the timesteps that the generator is told.
        noise_shift: Of the levels that it is noised to; the recipe `released` has them differ.
    """

    steps: int = 4
    shift: float = 8.0
    noise_shift: float = 8.0

    def __post_init__(self) -> None:
        require(self.steps >= 1, f"rollout.steps is {self.steps}; expected at least 1")
        for name in ("shift", "noise_shift"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"rollout.{name} is {value}; expected above 0")


@dataclass(frozen=True)
class OptimConfig:
    """Optimisers: AdamW for the generator, and for the critic (fake score and discriminator).

    Attributes:
        generator_lr: Learning rate of the generator.
        critic_lr: Learning rate of the fake score.
        discriminator_lr: Learning rate of the discriminator; null: critic_lr.
        warmup: Steps over which all rates rise from 0.
        betas: AdamW's decay rates; a first one of 0 keeps no first moment.
        weight_decay: Decoupled weight decay.
        state_bits: 32, or 8: the optimisers' moments take a quarter of the memory (needs torchao).
        clip: Largest norm of a gradient.
        generator_every: The generator is updated every so many steps, the critic in each.
        ema: Decay of the generator's averaged weights, per generator update.
    """

    generator_lr: float = 2e-6
    critic_lr: float = 4e-7
    discriminator_lr: float | None = None
    warmup: int = 0
    betas: tuple[float, float] = (0.0, 0.999)
    weight_decay: float = 0.01
    state_bits: Literal[32, 8] = 32
    clip: float = 5.0
    generator_every: int = 5
    ema: float = 0.99

    def __post_init__(self) -> None:
        for name in ("generator_lr", "critic_lr", "discriminator_lr"):
            value = getattr(self, name)
            fine = (value is None and name == "discriminator_lr") or (value is not None and 0 <= value < 1)
            require(fine, f"optim.{name} is {value}; expected 0 or more, and below 1")
        require(self.warmup >= 0, f"optim.warmup is {self.warmup} steps; expected 0 or more")
        betas = self.betas
        fine = all(0 <= beta < 1 for beta in betas)
        require(fine, f"optim.betas are {betas[0]}, {betas[1]}; expected decays in [0, 1)")
        decay = self.weight_decay
        require(0 <= decay < math.inf, f"optim.weight_decay is {decay}; expected 0 or more")
        require(0 <= self.ema < 1, f"optim.ema is {self.ema}; expected a decay in [0, 1)")
        require(self.generator_every >= 1, f"optim.generator_every is {self.generator_every}; give 1 or up")
        require(self.clip > 0, f"optim.clip is {self.clip}; expected above 0")


@dataclass(frozen=True)
class ParallelConfig:
    """How the work is spread and what is traded for memory.

    Attributes:
        fsdp: Shard parameters over the processes: auto (when there are several), true or false (replicate).
        hsdp_replicas: Groups of processes that each hold the whole model; 1: sharded over all.
        checkpoint_every: Blocks of a group that keeps only its input and runs again; 1: each block, 0: off.
        compile: Compile the blocks with torch.compile.
        cpu_offload: Keep sharded parameters, gradients and optimiser states in CPU memory.
        precision: bf16 (fp32 master weights and reductions) or fp32.
        device: auto, cpu or cuda.
        threads: CPU threads of a process; 0: torch's own choice.
        timeout_s: Seconds after which a collective that a lost process left hanging ends the job.
    """

    fsdp: bool | Literal["auto"] = "auto"
    hsdp_replicas: int = 1
    checkpoint_every: int = 4
    compile: bool = False
    cpu_offload: bool = False
    precision: Literal["bf16", "fp32"] = "bf16"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 0
    timeout_s: int = 1800

    def __post_init__(self) -> None:
        for name, least in (("hsdp_replicas", 1), ("checkpoint_every", 0), ("threads", 0), ("timeout_s", 1)):
            value = getattr(self, name)
            require(value >= least, f"parallel.{name} is {value}; expected {least} or more")
        for name, without in (("cpu_offload", False), ("hsdp_replicas", 1)):
            require(
                self.fsdp is not False or getattr(self, name) == without,
                f"parallel.{name} is {str(getattr(self, name)).lower()} and parallel.fsdp false, which "
                f"ignores it; set fsdp auto, or {name} {str(without).lower()}",
            )


@dataclass(frozen=True)
class LogConfig:
    """What a person sees, and what is kept.

    Attributes:
        every: Steps between lines of the log, each with the mean speed since the last and the most memory
            held: of a GPU since the last, on a CPU since the start, as the system keeps one peak of a
            process; what a step measures is written to metrics.jsonl, TensorBoard and wandb at every step.
        save_every: Steps between checkpoints.
        keep: Checkpoints kept, the newest.
        asynchronous: Write checkpoints while training goes on.
        wandb: Send the numbers and the sample videos to Weights & Biases too.
        vae: VAE for sample videos, as data.vae: a file, or a diffusers folder; null: none are made.
        sample_every: Steps between sample videos; 0: never.
        num_samples: Sample videos each time, of all processes together: one of each task, in the order of
            data.task_weights (without them: of the data), and from the first task on again.
    """

    every: int = 1
    save_every: int = 50
    keep: int = 2
    asynchronous: bool = True
    wandb: bool = False
    vae: str | None = None
    sample_every: int = 0
    num_samples: int = 4

    def __post_init__(self) -> None:
        for name in ("every", "save_every", "keep", "num_samples"):
            require(getattr(self, name) >= 1, f"log.{name} is {getattr(self, name)}; expected at least 1")
        require(
            self.sample_every >= 0, f"log.sample_every is {self.sample_every}; expected 0 (never) or more"
        )


@dataclass(frozen=True)
class DistillConfig:
    """One distillation run.

    Attributes:
        out_dir: Folder for checkpoints, logs, samples and the export; a second start goes on from there.
        seed: Of every draw: noise, timesteps, exit steps, data order, the discriminator's first weights.
        recipe: corrected or released: the defaults of the losses; keys that are given override it.
        stage: 1 (few steps from captions) or 2 (all tasks); said in logs and in the export.
        steps: Critic updates in the whole run.
        max_steps: Stop at this step, all else unchanged; null: run to the end.
        export_dtype: Of the exported weights: bf16, fp16 or fp32.
    """

    out_dir: str = "runs/distill"
    seed: int = 0
    recipe: Literal["corrected", "released"] = "corrected"
    stage: Literal[1, 2] = 2
    steps: int = 1200
    max_steps: int | None = None
    export_dtype: Literal["bf16", "fp16", "fp32"] = "bf16"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        require(self.steps >= 1, f"steps is {self.steps}; expected at least 1")
        most = self.max_steps
        require(most is None or most >= 1, f"max_steps is {most}; expected at least 1, or null for all steps")
