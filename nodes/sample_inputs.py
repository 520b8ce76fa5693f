"""The inputs of VDOT Sampler: presets in front, advanced settings at the end."""

from dataclasses import dataclass
from typing import Any

from comfy_api.latest import io

from ..vdot_core.choices import SOLVERS

AUTO, CUSTOM = "auto", "custom"
PRESETS = (AUTO, "released", "trained", "sharp", "vace", CUSTOM)
MAX_STEPS = 100


@dataclass(frozen=True)
class Settings:
    """The values of `preset_inputs` and `advanced_inputs`, with the defaults of their widgets."""

    preset: str = AUTO
    steps: int = 4
    shift: float = 16.0
    solver: str = "unipc"
    denoise: float = 1.0
    start_step: int = 0
    end_step: int = 0
    add_noise: bool = True
    leftover_noise: bool = True
    second_model: Any = None
    switch_step: int = 0
    switch_sigma: float = 0.875
    nag_scale: float = 0.0
    nag_tau: float = 2.5
    nag_alpha: float = 0.25

    @property
    def custom_values(self) -> tuple[int, float, str]:
        """Steps, shift and solver of the preset custom."""
        return self.steps, self.shift, self.solver

    @property
    def uses_content(self) -> bool:
        """Sampling starts from the latent's content, not from noise alone."""
        return self.denoise < 1 or self.start_step > 0 or not self.add_noise


def seed_input(tooltip: str) -> io.Input:
    """The seed of the noise."""
    return io.Int.Input(
        "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip=tooltip
    )


def cfg_input(tooltip: str) -> io.Input:
    """The guidance; 1 is none."""
    return io.Float.Input(
        "cfg", default=1.0, min=0.0, max=30.0, step=0.1, optional=True, advanced=True, tooltip=tooltip
    )


def preview_input(tooltip: str) -> io.Input:
    """The switch of the moving preview."""
    return io.Boolean.Input("preview", default=True, optional=True, advanced=True, tooltip=tooltip)


def preset_inputs() -> list[io.Input]:
    """The preset, and the three settings that a custom one has."""
    return [
        io.Combo.Input(
            "preset",
            options=list(PRESETS),
            default=Settings.preset,
            tooltip=(
                "auto: what the model was trained for, by its file; the node says what that is. released: as "
                "the authors' own program, for their weights. trained: as the model saw it in training; the "
                "demo's. sharp: more steps spent on fine detail. vace: 25 steps with cfg 5, for VACE that is "
                "not distilled. custom: uses the three settings below."
            ),
        ),
        io.Int.Input(
            "steps",
            default=Settings.steps,
            min=1,
            max=MAX_STEPS,
            tooltip="Number of steps, for the preset 'custom' only. The model is made for 4.",
        ),
        io.Float.Input(
            "shift",
            default=Settings.shift,
            min=0.1,
            max=100.0,
            step=0.05,
            tooltip="For the preset 'custom' only. Higher: more steps for motion; lower: for detail.",
        ),
        io.Combo.Input(
            "solver",
            options=list(SOLVERS),
            default=Settings.solver,
            tooltip="For the preset 'custom' only. unipc is what the released model is used with.",
        ),
    ]


def advanced_inputs() -> list[io.Input]:
    """Part of the steps, a second model, and a negative prompt without guidance."""
    return [*_step_inputs(), *model_inputs(), *nag_inputs()]


def _advanced(kind: Any, name: str, tooltip: str, **limits: Any) -> io.Input:
    default = getattr(Settings, name)
    return kind.Input(name, default=default, optional=True, advanced=True, tooltip=tooltip, **limits)


def _step_inputs() -> list[io.Input]:
    return [
        _advanced(
            io.Float,
            "denoise",
            "Below 1: starts from the video in latent (from VAE Encode), with this much noise on it. The "
            "number of steps stays the same. The lower, the closer to that video.",
            min=0.01,
            max=1.0,
            step=0.01,
        ),
        _advanced(
            io.Int,
            "start_step",
            "Skips this many steps and starts from the video in latent. Leave at 0 behind a VDOT Sampler "
            "that stopped early: the latent says where to resume.",
            min=0,
            max=MAX_STEPS,
        ),
        _advanced(
            io.Int,
            "end_step",
            "Stops after this many of all steps; 0 runs all. Connect another VDOT Sampler for the rest.",
            min=0,
            max=MAX_STEPS,
        ),
        _advanced(
            io.Boolean,
            "add_noise",
            "Turn off only where latent holds noise that another pack's sampler left, and set start_step. "
            "What a VDOT Sampler left is recognized without this.",
        ),
        _advanced(
            io.Boolean,
            "leftover_noise",
            "Where end_step stops early. On: keeps the noise for the next sampler. Off: the last step "
            "removes all of it, ready for VAE Decode.",
        ),
    ]


def model_inputs() -> list[io.Input]:
    """A second model for the last steps."""
    return [
        io.Model.Input(
            "second_model",
            optional=True,
            tooltip=(
                "Takes over for the last steps: the low-noise model of Wan 2.2's pair (model is then the "
                "high-noise one), or a finetune behind VDOT's first steps."
            ),
        ),
        _advanced(
            io.Int,
            "switch_step",
            "The second model takes over after this many of all steps; 0: where switch_sigma says.",
            min=0,
            max=MAX_STEPS,
        ),
        _advanced(
            io.Float,
            "switch_sigma",
            "The second model takes over below this noise level: 0.875 is Wan 2.2's. Used while switch_step "
            "is 0.",
            min=0.0,
            max=1.0,
            step=0.005,
        ),
    ]


def nag_inputs() -> list[io.Input]:
    """A negative prompt without guidance."""
    return [
        _advanced(
            io.Float,
            "nag_scale",
            "Normalized Attention Guidance: makes the negative text work at cfg 1, at a small cost. 0: off; "
            "5 to 11 is usual. Connect a text to VDOT Encode's negative.",
            min=0.0,
            max=100.0,
            step=0.1,
        ),
        _advanced(
            io.Float,
            "nag_tau",
            "For nag_scale: upper limit of its effect. Lower it if the video shows artifacts.",
            min=0.0,
            max=10.0,
            step=0.05,
        ),
        _advanced(
            io.Float,
            "nag_alpha",
            "For nag_scale: how much of its effect is mixed in; 0: nothing, 1: all of it.",
            min=0.0,
            max=1.0,
            step=0.01,
        ),
    ]
