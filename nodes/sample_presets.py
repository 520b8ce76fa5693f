"""The schedule, solver and guidance that VDOT Sampler's settings stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..vdot_core.text import counted
from .encode import ZERO_TEXT_KEY
from .sample_inputs import AUTO, CUSTOM, Settings

if TYPE_CHECKING:
    from ..vdot_core.checkpoints.purpose import Purpose
    from ..vdot_core.sampling import Schedule

UNDISTILLED = "vace"


@dataclass(frozen=True, eq=False)
class Sampling:
    """Schedule, solver and guidance of a run, and the lines that the node shows."""

    schedule: Schedule
    solver: str
    cfg: float
    lines: tuple[str, ...]


def choose_sampling(settings: Settings, cfg: float, model: Any, negative: list | None) -> Sampling:
    """The numbers of a preset or of custom settings.

    Args:
        settings: of the node.
        cfg: of the node; a preset with guidance has its own.
        model: ModelPatcher, which decides for the preset auto.
        negative: conditioning, where it is connected.

    Raises:
        ValueError: auto cannot know the numbers, or needs a text that is not there.
    """
    from ..vdot_core import sampling

    name, reason, numbers = settings.preset, "", {}
    if name == AUTO:
        purpose = _purpose(model, negative)
        name, numbers, reason = purpose.preset, purpose.numbers, f" ({purpose.reason})"
    labels = "exact" if settings.solver == "renoise" else "wan"  # as in the presets with these solvers
    custom = sampling.Schedule.shifted(
        settings.steps, settings.shift, labels=labels, denoise=settings.denoise
    )
    if name == CUSTOM:
        return Sampling(custom, settings.solver, cfg, (_line(CUSTOM, custom, settings.solver, cfg),))
    preset = sampling.PRESETS[name]
    schedule = preset.schedule(denoise=settings.denoise, **numbers)
    guidance = preset.guidance if preset.guidance != 1 else cfg
    if settings.preset == AUTO:
        line = _line(f"{AUTO}: {name}{reason}", schedule, preset.solver, guidance)
        return Sampling(schedule, preset.solver, guidance, (line,))
    lines = [_line(name, schedule, preset.solver, guidance)]
    # The page writes a preset's own settings into the unused widgets; the defaults are left alone too.
    untouched = settings.custom_values == Settings().custom_values
    if not untouched and (schedule, preset.solver) != (custom, settings.solver):
        lines.append("steps, shift and solver are only used with the preset 'custom'")
    return Sampling(schedule, preset.solver, guidance, tuple(lines))


def _line(name: str, schedule: Schedule, solver: str, cfg: float) -> str:
    timesteps = "/".join(f"{label:.4g}" for label in schedule.timesteps.tolist())
    timesteps = timesteps if schedule.num_steps <= 8 else f"{timesteps[:24]}.."
    guidance = f", cfg {cfg:g}" if cfg != 1 else ""
    return f"{name}: {counted(schedule.num_steps, 'step')}, {solver}{guidance}, timesteps {timesteps}"


def _purpose(model: Any, negative: list | None) -> Purpose:
    """The preset that auto resolves to for a model."""
    from .comfy_purpose import purpose_of_model

    purpose = purpose_of_model(model)
    if purpose is None:
        raise ValueError(
            "auto cannot tell from this model's file what it was trained for; choose the preset: released "
            "for VDOT, trained for the demo, vace for VACE that is not distilled"
        )
    if purpose.preset != UNDISTILLED:
        return purpose
    if model.patches:
        raise ValueError(
            "auto cannot tell whether the LoRA on this VACE model makes it a few-step one; choose the "
            "preset: released behind a few-step LoRA such as VDOT's, vace without one"
        )
    has_text = bool(negative) and not any(ZERO_TEXT_KEY in extra for _, extra in negative)
    if not has_text:
        raise ValueError(
            f"this model is not distilled ({purpose.reason}): it needs 20 to 50 steps and guidance. Connect "
            "CLIP Text Encode to VDOT Encode's negative and that to negative here, for the preset vace; or "
            "choose released if it is a few-step model"
        )
    return purpose
