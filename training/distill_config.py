"""Every constant of a distillation run, typed; units are in the names or said below.

Noise levels are timesteps of 0..1000; a shift s moves sigma = t / 1000 to s sigma / (1 + (s - 1) sigma).
What the recipe `released` sets otherwise stands once, in `training/recipes.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vdot_core.distill import DMD_WEIGHTINGS, GAN_FORMS
from vdot_core.networks import PRESETS

from .dataset.config import DataConfig


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


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
        _require(
            self.preset is None or self.preset in PRESETS,
            f"model.preset is {self.preset!r}; expected null or one of {', '.join(PRESETS)}",
        )
        _require(
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
        _require(self.steps >= 1, f"rollout.steps is {self.steps}; expected at least 1")
        _require(min(self.shift, self.noise_shift) > 0, "rollout.shift and noise_shift must be positive")


@dataclass(frozen=True)
class LossConfig:
    """Which losses, their weights and their constants.

    Attributes:
        dmd: Whether the distribution-matching gradient is in the generator's matching update.
        otd: Whether the optimal-transport gradient is in it.
        gan: Whether odd steps are adversarial; off: every step is a matching step.
        dmd_weight: Weight of DMD beside the transport (lambda).
        otd_weight: Weight of the transport.
        gan_weight: Weight of both players' adversarial losses.
        guidance: Classifier-free guidance scale of the real score.
        task_guidance: Task -> its own scale. Less where frames are given and should stay as they are.
        batch_guidance: Evaluate the teacher with and without text in one batch; faster, more memory.
        score_shift: Shift of the uniformly drawn timesteps of the scores and of the critic's own loss.
        gan_shift: Shift of the timesteps at which the discriminator looks.
        min_timestep: Lowest timestep drawn, of 1000.
        max_timestep: Highest timestep drawn, of 1000.
        dmd_weighting: normalised (1 / mean abs(x0 - real)), timestep (t / 1000) or none.
        eps: Entropic regularisation.
        eps_mode: Unit of eps: mean_cost (share of the mean cost) or absolute.
        debias: Subtract the transport of the fake cloud onto itself.
        cost: Ground cost, sqeuclidean or l1.
        rho_fake: Relaxation of the fake cloud's marginal, in units of eps; null: hard.
        rho_real: The same for the real cloud.
        tol: Marginal L1 error at which a frame's transport stops.
        iterations: Most iterations of the transport.
        otd_gradient: envelope (exact, streamed) or unrolled (autograd of the plan's cost, as released).
        otd_through: Where the transport's gradient enters: the prediction, or xt (through the fake score).
        otd_pool: Average-pool the predictions by this factor before the transport; 1: every latent position.
        otd_scale: Factor on unrolled gradients of unit norm per frame; envelope ignores it.
        otd_reduction: mean, or sum as released.
        shared_scores: One score evaluation for DMD and the transport (3 forward passes), or one for each (6).
        gan_form: softplus (relativistic), or linear as the paper writes it.
        gan_shared_noise: The same noise on real and generated latents in the generator's GAN update.
        gan_trains_score: The discriminator's loss also trains the fake score's blocks it looks through.
        r1: Weight of the finite-difference penalty on real latents.
        r2: The same on generated latents.
        penalty_sigma: Standard deviation of the perturbation in r1 and r2.
        text_drop: Chance that a sample is without its caption for a whole step.
    """

    dmd: bool = True
    otd: bool = True
    gan: bool = True
    dmd_weight: float = 0.25
    otd_weight: float = 1.0
    gan_weight: float = 0.1
    guidance: float = 3.0
    task_guidance: dict[str, float] = field(default_factory=dict)
    batch_guidance: bool = True
    score_shift: float = 5.0
    gan_shift: float = 12.0
    min_timestep: float = 20.0
    max_timestep: float = 980.0
    dmd_weighting: str = "normalised"
    eps: float = 0.05
    eps_mode: Literal["mean_cost", "absolute"] = "mean_cost"
    debias: bool = True
    cost: Literal["sqeuclidean", "l1"] = "sqeuclidean"
    rho_fake: float | None = None
    rho_real: float | None = None
    tol: float = 1e-3
    iterations: int = 200
    otd_gradient: Literal["envelope", "unrolled"] = "envelope"
    otd_through: Literal["prediction", "xt"] = "prediction"
    otd_pool: int = 1
    otd_scale: float = 1.0
    otd_reduction: Literal["mean", "sum"] = "mean"
    shared_scores: bool = True
    gan_form: str = "softplus"
    gan_shared_noise: bool = True
    gan_trains_score: bool = True
    r1: float = 0.0
    r2: float = 0.0
    penalty_sigma: float = 0.01
    text_drop: float = 0.0

    @property
    def guides(self) -> bool:
        """Whether the teacher is ever evaluated without text too."""
        return any(scale != 1 for scale in (self.guidance, *self.task_guidance.values()))

    def __post_init__(self) -> None:
        _require(self.dmd or self.otd or self.gan, "losses: dmd, otd and gan are all off; switch one on")
        _require(
            self.dmd_weighting in DMD_WEIGHTINGS,
            f"losses.dmd_weighting is {self.dmd_weighting!r}; expected one of {', '.join(DMD_WEIGHTINGS)}",
        )
        _require(
            self.gan_form in GAN_FORMS,
            f"losses.gan_form is {self.gan_form!r}; expected one of {', '.join(GAN_FORMS)}",
        )
        _require(
            0 <= self.min_timestep < self.max_timestep <= 1000,
            f"losses: timesteps {self.min_timestep}..{self.max_timestep}; expected rising, within 0..1000",
        )
        for task, scale in self.task_guidance.items():
            _require(scale >= 0, f"losses.task_guidance.{task} is {scale}; expected 0 or more, 1 for none")
        _require(0 <= self.text_drop <= 1, f"losses.text_drop is {self.text_drop}; expected 0..1")
        for name in ("score_shift", "gan_shift", "eps", "tol", "iterations", "otd_pool"):
            _require(getattr(self, name) > 0, f"losses.{name} is {getattr(self, name)}; expected above 0")


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
        _require(0 <= self.ema < 1, f"optim.ema is {self.ema}; expected a decay in [0, 1)")
        _require(self.generator_every >= 1, f"optim.generator_every is {self.generator_every}; give 1 or up")
        _require(self.clip > 0, f"optim.clip is {self.clip}; expected above 0")


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
        _require(self.hsdp_replicas >= 1, f"parallel.hsdp_replicas is {self.hsdp_replicas}; give 1 or more")
        _require(self.checkpoint_every >= 0, "parallel.checkpoint_every is negative; give 0 (none) or more")


@dataclass(frozen=True)
class LogConfig:
    """What a person sees, and what is kept.

    Attributes:
        every: Steps between progress lines and TensorBoard points.
        save_every: Steps between checkpoints.
        keep: Checkpoints kept, the newest.
        asynchronous: Write checkpoints while training goes on.
        wandb: Send the scalars to Weights & Biases too.
        vae: VAE file for sample videos; null: none are made.
        sample_every: Steps between sample videos; 0: never.
        num_samples: Sample videos a time and process.
    """

    every: int = 1
    save_every: int = 50
    keep: int = 2
    asynchronous: bool = True
    wandb: bool = False
    vae: str | None = None
    sample_every: int = 0
    num_samples: int = 2

    def __post_init__(self) -> None:
        for name in ("every", "save_every", "keep"):
            _require(getattr(self, name) >= 1, f"log.{name} is {getattr(self, name)}; expected at least 1")


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
        _require(self.steps >= 1, f"steps is {self.steps}; expected at least 1")
