"""VDOT's losses as pure functions: distribution matching, GAN and flow matching."""

from ..sampling import rollout
from .flow_matching import add_noise, flow_matching_loss, predict_x0, sample_timestep
from .gan import GAN_FORMS, GanLosses, approximate_gradient_penalty, gan_losses
from .matching import (
    DMD_WEIGHTINGS,
    OTD_METHODS,
    REDUCTIONS,
    MatchingGradient,
    dmd_gradient,
    matching_loss,
    otd_gradient,
    through_score,
)
from .unrolled import unrolled_gradient

__all__ = [
    "DMD_WEIGHTINGS",
    "GAN_FORMS",
    "OTD_METHODS",
    "REDUCTIONS",
    "GanLosses",
    "MatchingGradient",
    "add_noise",
    "approximate_gradient_penalty",
    "dmd_gradient",
    "flow_matching_loss",
    "gan_losses",
    "matching_loss",
    "otd_gradient",
    "predict_x0",
    "rollout",
    "sample_timestep",
    "through_score",
    "unrolled_gradient",
]
