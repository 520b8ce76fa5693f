"""Classifier-free guidance, for teachers: a distilled generator has it in its weights."""

from torch import Tensor


def guided(conditional: Tensor, unconditional: Tensor, scale: float | Tensor) -> Tensor:
    """Classifier-free guidance, v = v_u + scale (v_c - v_u).

    Args:
        conditional, unconditional: [B, C, T, h, w] velocities with and without the prompt.
        scale: one for all samples, or [B, 1, 1, 1, 1] one for each; 1 is no guidance.

    Returns:
        [B, C, T, h, w] velocity.
    """
    return unconditional + scale * (conditional - unconditional)
