"""MODEL + CONDITIONING + LATENT -> LATENT in a few steps, reference frames removed."""

from comfy_api.latest import io

from ..vdot_core.text import counted
from .comfy_bridge import report
from .encode import LENGTH_KEY, REFERENCE_KEY, ZERO_TEXT_KEY
from .guard import CheckedNode
from .trim import trim_references

CUSTOM = "custom"
PRESETS = ("released", "trained", "sharp", CUSTOM)
SOLVERS = ("unipc", "renoise", "euler")
DEFAULT_STEPS, DEFAULT_SHIFT, DEFAULT_SOLVER = 4, 16.0, "unipc"


class VDOTSampler(CheckedNode):
    """The few-step sampler of the distilled model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDOTSampler",
            display_name="VDOT Sampler",
            category="VDOT/sampling",
            description=(
                "Generates the video in four steps. It steps exactly as the model was trained, shows a "
                "moving preview, and returns the video without reference frames: connect VAE Decode directly."
            ),
            search_aliases=["vace sampler", "4 steps", "wan sampler", "unipc"],
            inputs=[
                io.Model.Input("model", tooltip="The VDOT (or any VACE-Wan 2.1) model."),
                io.Conditioning.Input("positive", tooltip="The positive output of VDOT Encode."),
                io.Latent.Input(
                    "latent", tooltip="The latent output of VDOT Encode. It sets the size and length."
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Picks the random noise. The same seed and inputs give the same video.",
                ),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="released",
                    tooltip=(
                        "released: as the authors' own program, for their weights. trained: as the model "
                        "saw it in training; the one for VDOT Load Demo. sharp: more steps spent on fine "
                        "detail. custom: uses the three settings below."
                    ),
                ),
                io.Int.Input(
                    "steps",
                    default=DEFAULT_STEPS,
                    min=1,
                    max=100,
                    tooltip="Number of steps, for the preset 'custom' only. The model is made for 4.",
                ),
                io.Float.Input(
                    "shift",
                    default=DEFAULT_SHIFT,
                    min=0.1,
                    max=100.0,
                    step=0.05,
                    tooltip="For the preset 'custom' only. Higher: more steps for motion; lower: for detail.",
                ),
                io.Combo.Input(
                    "solver",
                    options=list(SOLVERS),
                    default=DEFAULT_SOLVER,
                    tooltip="For the preset 'custom' only. unipc is what the released model is used with.",
                ),
                io.Float.Input(
                    "cfg",
                    default=1.0,
                    min=0.0,
                    max=30.0,
                    step=0.1,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "Guidance. Leave at 1: the distilled model needs none, and anything else doubles "
                        "the time. For models that are not distilled; needs the negative input."
                    ),
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="The negative output of VDOT Encode. Only used when cfg is not 1.",
                ),
                io.Boolean.Input(
                    "preview",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="Show a moving preview on this node. It costs almost nothing.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The video, ready for VAE Decode.")],
        )

    @classmethod
    def execute(
        cls, model, positive, latent, seed, preset, steps, shift, solver, cfg=1.0, negative=None, preview=True
    ) -> io.NodeOutput:
        from . import comfy_sampling

        lines = _validate(model, positive, negative, latent, cfg)
        schedule, solver, described = _schedule(preset, steps, shift, solver)
        num_references, trimmed = _references(latent, positive)
        callback = comfy_sampling.preview_callback(model, schedule.num_steps, num_references, preview)
        used_negative = None if cfg == 1.0 else negative
        samples = comfy_sampling.run_sampler(
            model,
            positive,
            used_negative,
            latent,
            seed=seed,
            schedule=schedule,
            solver=solver,
            cfg=cfg,
            callback=callback,
        )
        used_up = (REFERENCE_KEY, LENGTH_KEY, "noise_mask")
        out = {key: value for key, value in latent.items() if key not in used_up}
        out["samples"] = trim_references(samples, num_references)
        return io.NodeOutput(out, ui=report([*described, *trimmed, *lines]))


def _references(latent: dict, positive: list) -> tuple[int, list[str]]:
    """Number of latent frames to cut off the start, and a message if the count no longer holds.

    A latent of another node does not know it; one that fits the context has the context's references.
    """
    counts = [extra.get(REFERENCE_KEY, 0) for _, extra in positive if extra.get("vace_frames")]
    count, num_frames = latent.get(REFERENCE_KEY, max(counts, default=0)), latent["samples"].shape[2]
    if latent.get(LENGTH_KEY, num_frames) != num_frames:
        return 0, ["the latent's length changed since VDOT Encode: nothing is cut off its start"]
    if count >= num_frames:
        raise ValueError(
            f"the latent has {counted(num_frames, 'frame')}, and VDOT Encode "
            f"counted {counted(count, 'reference')} in front of the video; "
            "take the latent straight from VDOT Encode"
        )
    if not count:
        return 0, []
    cut = "1 reference was" if count == 1 else f"{count} references were"
    return count, [f"{cut} cut off the start: connect VAE Decode directly, no Trim Video Latent is needed"]


def _schedule(preset: str, steps: int, shift: float, solver: str):
    """(Schedule, solver, lines that describe them) of a preset or of custom settings."""
    from ..vdot_core import sampling

    labels = "exact" if solver == "renoise" else "wan"  # as in the presets that use these solvers
    schedule = custom = sampling.Schedule.shifted(steps, shift, labels=labels)
    requested = solver
    if preset != CUSTOM:
        factory, solver = sampling.PRESETS[preset]
        schedule = factory()
    timesteps = "/".join(f"{label:.4g}" for label in schedule.timesteps.tolist())
    lines = [f"{preset}: {counted(schedule.num_steps, 'step')}, {solver}, timesteps {timesteps}"]
    # The page writes a preset's own settings into the unused widgets; the defaults are left alone too.
    untouched = (steps, shift, requested) == (DEFAULT_STEPS, DEFAULT_SHIFT, DEFAULT_SOLVER)
    if not untouched and (schedule != custom or solver != requested):
        lines.append("steps, shift and solver are only used with the preset 'custom'")
    return schedule, solver, lines


def _validate(model, positive, negative, latent: dict, cfg: float) -> list[str]:
    """Refuse impossible settings before anything heavy runs; returns messages about unusual ones."""
    from .comfy_checks import check_conditioning, check_latent, check_model

    check_model(model)
    check_latent(model, latent, REFERENCE_KEY)
    samples = latent["samples"]
    if cfg != 1.0 and negative is None:
        raise ValueError(f"cfg is {cfg:g} but nothing is connected to negative; connect it, or set cfg to 1")
    lines = check_conditioning(model, positive, samples.shape, "positive")
    if cfg != 1.0:
        if any(ZERO_TEXT_KEY in extra for _, extra in negative):
            raise ValueError(
                f"cfg is {cfg:g}, but VDOT Encode's negative has no text: connect CLIP Text Encode to it "
                "(it may be empty), or set cfg to 1"
            )
        lines += check_conditioning(model, negative, samples.shape, "negative")
    if "model_sampling" in model.object_patches:
        lines.append("the shift set on the model is not used: this node's preset, or its own shift, decides")
    if "noise_mask" not in latent and samples.any():
        lines.append("the latent is not empty: sampling starts from noise and does not use its content")
    return lines
