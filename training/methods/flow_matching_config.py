"""Settings of flow-matching training of a VACE transformer."""

from __future__ import annotations

from dataclasses import dataclass, field

from vdot_core.networks import PRESETS
from vdot_core.text import described

from ..data.checks import require, require_range
from ..engine.config import OptimConfig, RunConfig


@dataclass(frozen=True)
class TransformerConfig:
    """The network.

    Attributes:
        preset: Network sizes, a name in `vdot_core.networks.PRESETS`.
        start_from: File or folder of a transformer in any published layout; null: fresh weights.
        frozen: Prefixes of the names of parameters that are not trained, such as blocks.
    """

    preset: str = "wan_vace_1_3b"
    start_from: str | None = None
    frozen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        require(
            self.preset in PRESETS,
            f"model.preset is {described(self.preset)}; expected one of {', '.join(PRESETS)}",
        )


@dataclass(frozen=True)
class FlowMatchingLossConfig:
    """Noise levels and caption dropout.

    Attributes:
        timestep_shift: Shift of the uniformly drawn noise levels.
        logit_normal_share: Probability that a noise level is logit-normal instead.
        text_drop: Probability that a caption is replaced by the empty one.
        task_text_drop: Task -> that probability for its samples, where it differs.
    """

    timestep_shift: float = 5.0
    logit_normal_share: float = 0.3
    text_drop: float = 0.1
    task_text_drop: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        valid = self.timestep_shift > 0
        require(valid, f"losses.timestep_shift is {self.timestep_shift}; give one above 0")
        require_range(self, "losses.", 0.001, 1000, "timestep_shift")
        shares = {"logit_normal_share": self.logit_normal_share, "text_drop": self.text_drop}
        shares |= {f"task_text_drop.{task}": share for task, share in self.task_text_drop.items()}
        for name, share in shares.items():
            require(0 <= share <= 1, f"losses.{name} is {share}; expected a probability in [0, 1]")


@dataclass(frozen=True)
class SampleConfig:
    """Sampling of sample videos.

    Attributes:
        steps: Euler steps.
        shift: Shift of the schedule.
        guidance: Classifier-free guidance scale.
    """

    steps: int = 20
    shift: float = 5.0
    guidance: float = 5.0

    def __post_init__(self) -> None:
        require(self.steps >= 1, f"samples.steps is {self.steps}; expected at least 1")
        require(self.shift > 0, f"samples.shift is {self.shift}; expected above 0")
        require_range(self, "samples.", 0.001, 1000, "shift")
        require_range(self, "samples.", 0, 1000, "steps", "guidance")
        require(self.guidance >= 0, f"samples.guidance is {self.guidance}; expected 0 or more")


@dataclass(frozen=True)
class FineTuneOptimConfig(OptimConfig):
    """Optimizer of the transformer.

    Attributes:
        lr: Learning rate.
        betas: AdamW's decay rates.
        clip: Largest norm of a gradient.
        ema: Decay of the averaged weights, per step.
    """

    lr: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    ema: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.lr < 1, f"optim.lr is {self.lr}; expected 0 or more, and below 1")


@dataclass(frozen=True)
class FineTuneConfig(RunConfig):
    """One run of flow-matching training.

    Attributes:
        out_dir: Folder for checkpoints, logs, samples and the export; a second start resumes from it.
        model: The network.
        losses: Noise levels and caption dropout.
        optim: Optimizer.
        samples: Sampling of sample videos.
    """

    out_dir: str = "runs/finetune"
    model: TransformerConfig = field(default_factory=TransformerConfig)
    losses: FlowMatchingLossConfig = field(default_factory=FlowMatchingLossConfig)
    optim: FineTuneOptimConfig = field(default_factory=FineTuneOptimConfig)
    samples: SampleConfig = field(default_factory=SampleConfig)
