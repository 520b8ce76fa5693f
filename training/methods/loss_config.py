"""Settings of a distillation run's losses: their choice, weights and constants.

Noise levels are timesteps of 0..1000; a shift s moves sigma = t / 1000 to s sigma / (1 + (s - 1) sigma).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

from vdot_core.distill import DMD_WEIGHTINGS, GAN_FORMS
from vdot_core.text import described

from ..data.checks import require, require_range


@dataclass(frozen=True)
class LossConfig:
    """Choice of losses, their weights and constants.

    Attributes:
        dmd: Enable the DMD gradient in the generator's matching update.
        otd: Enable the optimal-transport gradient in the generator's matching update.
        gan: Make odd steps adversarial; false: every step is a matching step.
        dmd_weight: Weight of the DMD gradient (lambda).
        otd_weight: Weight of the optimal-transport gradient.
        gan_weight: Weight of the adversarial losses, the generator's and the discriminator's.
        guidance: Classifier-free guidance scale of the real score.
        task_guidance: Task -> its guidance scale; lower for tasks that keep given frames.
        batch_guidance: Evaluate the real score with and without text in one batch; faster, more memory.
        score_shift: Shift of the uniformly drawn timesteps of the scores and of the critic's own loss.
        gan_shift: Shift of the discriminator's timesteps.
        min_timestep: Lowest timestep drawn, of 1000.
        max_timestep: Highest timestep drawn, of 1000.
        dmd_weighting: normalized (1 / mean abs(x0 - real)), timestep (t / 1000) or none.
        eps: Entropic regularization, in the unit that eps_mode says.
        eps_mode: Unit of eps: mean_cost (share of the mean cost) or absolute.
        debias: Subtract the transport of the fake cloud onto itself.
        cost: Ground cost, sqeuclidean or l1.
        rho_fake: Relaxation of the fake cloud's marginal, in units of eps; null: hard.
        rho_real: The same for the real cloud; with debias the two are equal.
        tol: Marginal L1 error at which a frame's transport stops.
        iterations: Most iterations of the transport.
        otd_gradient: envelope (exact, streamed) or unrolled (autograd of the plan's cost, as released: all
            iterations, eps absolute, cost sqeuclidean, hard marginals, not debiased).
        otd_through: Entry of the transport's gradient: prediction, or xt (through the fake score).
        otd_pool: Average-pool the predictions by this factor before the transport; 1: every latent position.
        otd_scale: Norm of a frame's unrolled gradient; not with envelope.
        otd_reduction: mean, or sum as released.
        shared_scores: One score evaluation for DMD and the transport (3 forward passes), or one for each (6).
        gan_form: softplus (relativistic), or linear as the paper writes it.
        gan_shared_noise: The same noise on real and generated latents in the generator's GAN update.
        gan_trains_score: The discriminator's loss also trains the fake score's blocks below the taps.
        r1: Weight of the finite-difference penalty on real latents.
        r2: The same on generated latents.
        penalty_sigma: Standard deviation of the perturbation in r1 and r2.
        text_drop: Probability that a sample is trained without its caption in a step.
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
    dmd_weighting: str = "normalized"
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
        """True if the real score is also evaluated without text, for guidance."""
        return any(scale != 1 for scale in (self.guidance, *self.task_guidance.values()))

    def __post_init__(self) -> None:
        require(self.dmd or self.otd or self.gan, "losses: dmd, otd and gan are all false; set one true")
        require(
            self.dmd_weighting in DMD_WEIGHTINGS,
            f"losses.dmd_weighting is {described(self.dmd_weighting)}; expected one of "
            f"{', '.join(DMD_WEIGHTINGS)}",
        )
        require(
            self.gan_form in GAN_FORMS,
            f"losses.gan_form is {described(self.gan_form)}; expected one of {', '.join(GAN_FORMS)}",
        )
        require(
            0 <= self.min_timestep < self.max_timestep <= 1000,
            f"losses: timesteps {self.min_timestep}..{self.max_timestep}; expected rising, within 0..1000",
        )
        scales = {"guidance": self.guidance}
        scales |= {f"task_guidance.{task}": scale for task, scale in self.task_guidance.items()}
        for name, scale in scales.items():
            require(scale >= 0, f"losses.{name} is {scale}; expected 0 or more, 1 for none")
        require(0 <= self.text_drop <= 1, f"losses.text_drop is {self.text_drop}; expected 0..1")
        for name in ("dmd_weight", "otd_weight", "gan_weight", "r1", "r2"):
            value = getattr(self, name)
            require(value >= 0, f"losses.{name} is {value}; expected 0 or more")
        for name in ("score_shift", "gan_shift", "eps", "tol", "iterations", "otd_pool", "penalty_sigma"):
            value = getattr(self, name)
            require(value > 0, f"losses.{name} is {value}; expected above 0")
        require_range(self, "losses.", 0, 1e6, "dmd_weight", "otd_weight", "gan_weight", "r1", "r2", "eps")
        require_range(self, "losses.", 0, 1000, "guidance", "penalty_sigma")
        require_range(self, "losses.", 0.001, 1000, "score_shift", "gan_shift")
        require_range(self, "losses.", 1e-12, 1, "tol")
        require_range(self, "losses.", 1, 1_000_000, "iterations")
        require_range(self, "losses.", 1, 1024, "otd_pool")
        for name in ("rho_fake", "rho_real"):
            value = getattr(self, name)
            valid = value is None or value > 0
            require(valid, f"losses.{name} is {value}; expected above 0, or null for a hard marginal")
        if self.otd:
            self._check_transport()

    def _check_transport(self) -> None:
        """Refuse what the transport would ignore, and a debiasing that leaves a bias."""
        unrolled = self.otd_gradient == "unrolled"
        fixed, other = (_UNROLLED, "envelope") if unrolled else ({"otd_scale": 1.0}, "unrolled")
        for name, only in fixed.items():
            value = getattr(self, name)
            require(
                value == only,
                f"losses.{name} is {_shown(value)} and losses.otd_gradient {self.otd_gradient}, which "
                f"ignores it; set {name} {_shown(only)}, or otd_gradient {other}",
            )
        require(
            not self.debias or self.rho_fake == self.rho_real,
            f"losses.debias is true, rho_fake {_shown(self.rho_fake)} and rho_real {_shown(self.rho_real)}; "
            "that needs both marginals relaxed equally: give both rho the same value, or set debias false",
        )


def _shown(value: object) -> str:
    """As YAML writes it."""
    return json.dumps(value).strip('"')


_UNROLLED = {
    "eps_mode": "absolute",
    "debias": False,
    "cost": "sqeuclidean",
    "rho_fake": None,
    "rho_real": None,
    "tol": LossConfig.tol,
}
"""The only values with `unrolled`, which computes no other transport and does not look at the marginals."""
