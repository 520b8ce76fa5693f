"""VACE contexts that act in a part of the sampling steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.patcher_extension
import torch

from ..vdot_core.choices import ALL_STEPS
from ..vdot_core.text import listed
from .comfy_network import ComfyWanVace
from .sample_steps import SAME_SIGMA

ONLY_OUR_STEPS = (
    "a unit acts in a part of the steps only, which ComfyUI's own VACE network cannot do in this sampler; "
    "use VDOT Sampler, or load the model with VDOT Load Model and network 'vdot'"
)


@dataclass(frozen=True)
class StepScale:
    """A context's scale in a part of the sampling steps; 0 in the others.

    Args:
        scale: in that part, as ComfyUI's network or ours reads it.
        start: of the part, as ComfyUI's percent: 0 is the first step.
        end: of the part, exclusive; 1 is the end of sampling.
    """

    scale: Any
    start: float
    end: float

    def acts(self, sigma: float, sampling) -> bool:
        """Tell whether the context acts at a noise level.

        Args:
            sigma: ComfyUI's.
            sampling: the model's, whose shift says which part of the steps a level belongs to.
        """
        first, last = (float(sampling.percent_to_sigma(part)) for part in (self.start, self.end))
        return last + SAME_SIGMA < sigma <= first + SAME_SIGMA

    def __mul__(self, other):
        raise ValueError(ONLY_OUR_STEPS)

    __rmul__ = __mul__


def in_steps(scale: Any, step_range: tuple[float, float]) -> Any:
    """An entry of vace_strength that is `scale` in a part of the steps; see `StepScale`."""
    return scale if step_range == ALL_STEPS else StepScale(scale, *step_range)


def at_step(model, sigma: torch.Tensor, values: dict) -> dict:
    """A network's keyword arguments with those contexts alone that act at a noise level.

    Args:
        model: a comfy.model_base.BaseModel.
        sigma: [B], all alike.
        values: vace_context [B, K, 96, T, h, w] and vace_strength of K entries, among others.

    Returns:
        The same, without `StepScale`. Where none acts, our network gets no context, and ComfyUI's the first
        one at strength 0.
    """
    strengths = values.get("vace_strength")
    if strengths is None or not any(isinstance(strength, StepScale) for strength in strengths):
        return values
    level, contexts = float(sigma.max()), values["vace_context"]
    acting = {
        place: strength.scale if isinstance(strength, StepScale) else strength
        for place, strength in enumerate(strengths[: contexts.shape[1]])
        if not isinstance(strength, StepScale) or strength.acts(level, model.model_sampling)
    }
    # Forward passes that other nodes put in ours' place ask for a context.
    forward = getattr(model.diffusion_model.forward_orig, "__func__", None)
    if not acting and forward is ComfyWanVace.forward_orig:
        removed = ("vace_context", "vace_strength")
        return {name: value for name, value in values.items() if name not in removed}
    acting = acting or {0: 0.0}
    return {**values, "vace_context": contexts[:, list(acting)], "vace_strength": list(acting.values())}


def with_step_ranges(model):
    """A MODEL on which units may act in a part of the steps: ours itself, a clone of ComfyUI's own."""
    if isinstance(model.model.diffusion_model, ComfyWanVace):
        return model

    def wrapper(executor, x, t, *args, **kwargs):
        return executor(x, t, *args, **at_step(executor.class_obj, t, kwargs))

    clone = model.clone()
    clone.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "vdot_step_ranges", wrapper)
    return clone


def step_lines(model, conditioning, sigmas: Sequence[float], num_steps: int, first: int) -> list[str]:
    """Say in which of a run's steps each unit acts that acts in a part of them.

    Args:
        model: a ModelPatcher.
        conditioning: ComfyUI's.
        sigmas: ComfyUI's noise level at each step of the run.
        num_steps: of the schedule.
        first: the run's first step, from 0.
    """
    sampling, lines = model.get_model_object("model_sampling"), []
    for _, extra in conditioning:
        for number, strength in enumerate(extra.get("vace_strength", []), 1):
            if isinstance(strength, StepScale):
                steps = [first + n + 1 for n, sigma in enumerate(sigmas) if strength.acts(sigma, sampling)]
                where = f"{', '.join(map(str, steps))} of {num_steps}" if steps else "none of this run"
                lines.append(f"steps in which unit {number} acts: {where}")
    return list(dict.fromkeys(lines))


def check_text_in_steps(model, conditioning, sigmas: Sequence[float], num_steps: int, first: int) -> None:
    """Refuse a positive text that some steps of the run are without: ComfyUI makes zeros of them.

    Args:
        model, sigmas, num_steps, first: as in `step_lines`.
        conditioning: ComfyUI's, of Conditioning (Set Timestep Range).

    Raises:
        ValueError: names the steps that have no text.
    """
    sampling = model.get_model_object("model_sampling")
    spans = []
    for _, extra in conditioning:
        start = max(extra.get("start_percent", 0.0), extra.get("clip_start_percent", 0.0))
        end = min(extra.get("end_percent", 1.0), extra.get("clip_end_percent", 1.0))
        spans.append([float(sampling.percent_to_sigma(part)) for part in (start, end)])
    bare = [
        first + number
        for number, sigma in enumerate(sigmas, 1)
        if not any(last - SAME_SIGMA <= sigma <= begin + SAME_SIGMA for begin, last in spans)
    ]
    if bare:
        raise ValueError(
            f"positive has no text in {'step' if len(bare) == 1 else 'steps'} {listed(bare, 6)} of "
            f"{num_steps}, so that nothing would be generated; remove Conditioning (Set Timestep Range), or "
            "combine it with a text for these steps"
        )
