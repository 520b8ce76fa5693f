"""Settings of a VDOT distillation: networks, rollout, learning rates; its losses are in `loss_config.py`.

Noise levels are timesteps of 0..1000; a shift s maps sigma = t / 1000 to s sigma / (1 + (s - 1) sigma). Keys
that the recipe `released` changes are listed once, in `recipes.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vdot_core.networks import PRESETS
from vdot_core.text import described

from ..data.checks import require, require_range
from ..engine.adapters import AdapterConfig
from ..engine.config import OptimConfig, RunConfig
from ..engine.weight_only import check_unsharded
from .loss_config import LossConfig


@dataclass(frozen=True)
class ModelConfig:
    """The networks.

    Attributes:
        preset: Network sizes, a name in `vdot_core.networks.PRESETS`; null: those of the real_score file.
        real_score: File of the teacher, which stays frozen.
        generator: File the generator starts from; null: real_score.
        fake_score: File the fake score starts from; null: real_score.
        acc_wan_init: Stage 1's exported generator, whose Wan part overwrites the generator's; null: none.
        text_only: Leave the VACE branch out of all three networks (stage 1 from captions alone).
        frozen: Prefixes of the names of generator parameters that are not trained, such as vace_.
        adapters: Low-rank adapters in place of full networks; off by default.
        taps: Blocks of the fake score that the discriminator reads, 0-based; null: chosen by depth.
        discriminator_width: Width of the discriminator's tokens; null: 512, or 64 for a tiny network.
        discriminator_heads: Attention heads of the discriminator; null: 8, or 4 for a tiny network.
    """

    preset: str | None = "vdot_tiny"
    real_score: str | None = None
    generator: str | None = None
    fake_score: str | None = None
    acc_wan_init: str | None = None
    text_only: bool = False
    frozen: list[str] = field(default_factory=list)
    adapters: AdapterConfig = field(default_factory=AdapterConfig)
    taps: list[int] | None = None
    discriminator_width: int | None = None
    discriminator_heads: int | None = None

    def __post_init__(self) -> None:
        require(
            self.preset is None or self.preset in PRESETS,
            f"model.preset is {described(self.preset)}; expected null or one of {', '.join(PRESETS)}",
        )
        require(
            (self.discriminator_width is None) == (self.discriminator_heads is None),
            "model.discriminator_width and discriminator_heads go together; give both or neither",
        )
        width, heads = self.discriminator_width, self.discriminator_heads
        require(
            width is None or (width > 0 and heads > 0 and width % heads == 0),
            f"model.discriminator_width is {width} and discriminator_heads {heads}; expected numbers above "
            "0, the width a multiple of the heads",
        )
        for role in self.adapters.roles if self.adapters.rank else ():
            path = getattr(self, role)
            require(
                path is None or path == self.real_score,
                f"model.{role} is {path}, and model.adapters makes it an adapter of real_score; set it null, "
                f"or take {role} out of model.adapters.roles",
            )


@dataclass(frozen=True)
class RolloutConfig:
    """Rollout of the generator in training (backward simulation).

    Attributes:
        steps: Network calls of a full rollout; each training rollout exits at a random one.
        shift: Shift of the generator's timestep labels.
        noise_shift: Shift of its noise levels; differs from `shift` in the recipe `released`.
    """

    steps: int = 4
    shift: float = 8.0
    noise_shift: float = 8.0

    def __post_init__(self) -> None:
        require_range(self, "rollout.", 1, 1000, "steps")
        for name in ("shift", "noise_shift"):
            value = getattr(self, name)
            require(value > 0, f"rollout.{name} is {value}; expected above 0")
        require_range(self, "rollout.", 0.001, 1000, "shift", "noise_shift")


@dataclass(frozen=True)
class DistillOptimConfig(OptimConfig):
    """Optimizers of the generator and of the critic (fake score and discriminator).

    Attributes:
        generator_lr: Learning rate of the generator.
        critic_lr: Learning rate of the fake score.
        discriminator_lr: Learning rate of the discriminator; null: critic_lr.
        generator_every: Steps between generator updates; the critic is updated in every step.
    """

    generator_lr: float = 2e-6
    critic_lr: float = 4e-7
    discriminator_lr: float | None = None
    generator_every: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.optimizer == "adamw",
            f"optim.optimizer is {self.optimizer}, which updates one network, and the critic of a "
            "distillation is two; set adamw",
        )
        for name in ("generator_lr", "critic_lr", "discriminator_lr"):
            value = getattr(self, name)
            valid = (value is None and name == "discriminator_lr") or (value is not None and 0 <= value < 1)
            require(valid, f"optim.{name} is {value}; expected 0 or more, and below 1")
        require(self.generator_every >= 1, f"optim.generator_every is {self.generator_every}; give 1 or up")


@dataclass(frozen=True)
class DistillConfig(RunConfig):
    """One distillation run.

    Attributes:
        out_dir: Folder for checkpoints, logs, samples and the export; a second start resumes from it.
        recipe: corrected or released: defaults of the losses, overridden by explicit keys.
        stage: 1 (few steps from captions) or 2 (all tasks); only for logs and the export's metadata.
        steps: Critic updates in all.
        model: Networks.
        rollout: Rollout of the generator.
        losses: Losses.
        optim: Optimizers.
    """

    out_dir: str = "runs/distill"
    recipe: Literal["corrected", "released"] = "corrected"
    stage: Literal[1, 2] = 2
    steps: int = 1200
    model: ModelConfig = field(default_factory=ModelConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    optim: DistillOptimConfig = field(default_factory=DistillOptimConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_unsharded(self.model.adapters.base, self.parallel.fsdp is True)


def update_kinds(config: DistillConfig, step: int) -> tuple[str, ...]:
    """Names of a step's updates, in order: methods of `Vdot`."""
    kind = "gan" if config.losses.gan and step % 2 == 1 else "matching"
    every = config.optim.generator_every
    # With an even rate the generator's turns shift by one each time, so that half of them are adversarial.
    if step % every != (0 if every % 2 else step // every % 2):
        return (f"critic_{kind}",)
    matches = config.losses.dmd or config.losses.otd
    return (f"generator_{kind if matches else 'gan'}", f"critic_{kind}")
