"""MODEL + CONDITIONING + LATENT -> LATENT in a few steps, reference frames removed."""

from dataclasses import dataclass

from comfy_api.latest import io

from .comfy_bridge import report
from .encode import REFERENCE_KEY, ZERO_TEXT_KEY
from .guard import CheckedNode
from .sample_inputs import Settings, advanced_inputs, cfg_input, preset_inputs, preview_input, seed_input
from .sample_latent import count_references, cut_line, sampled_latent, with_mask_of_latents, with_references
from .sample_presets import choose_sampling
from .sample_steps import NOISE, StepPlan, plan_steps


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
                seed_input("Picks the random noise. The same seed and inputs give the same video."),
                *preset_inputs(),
                cfg_input(
                    "Guidance. Leave at 1: the distilled model needs none, and anything else doubles "
                    "the time. The preset vace has its own. Needs the negative input."
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="The negative output of VDOT Encode. Only used with cfg or nag_scale.",
                ),
                preview_input(
                    "Show a moving preview on this node, and the prediction of each step. Sharp with "
                    "lighttaew2_1 in models/vae_approx."
                ),
                *advanced_inputs(),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The video, ready for VAE Decode.")],
        )

    @classmethod
    def execute(
        cls, model, positive, latent, seed, cfg=1.0, negative=None, preview=True, **settings
    ) -> io.NodeOutput:
        run = prepared(model, positive, negative, latent, cfg, Settings(**settings))
        samples, leftover = run.sample(seed, run.callback(preview, seed))
        lines = [*run.lines, *cut_line(run.num_references, leftover), *run.warnings]
        out = sampled_latent(run.latent, samples, leftover, run.num_references)
        return io.NodeOutput(out, ui=report(lines))


@dataclass(frozen=True, eq=False)
class Run:
    """A checked run of the sampler.

    Args:
        plan: its steps.
        models: one or two, with their guidance.
        texts: ComfyUI's conditioning by name.
        latent: ComfyUI's LATENT to start from.
        cfg: guidance.
        num_references: leading latent frames that are references.
        lines, warnings: what the user should know, about what is done and about unusual settings.
    """

    plan: StepPlan
    models: list
    texts: dict
    latent: dict
    cfg: float
    num_references: int
    lines: list[str]
    warnings: list[str]

    def callback(self, animated: bool, seed: int, num_steps: int = 0):
        """ComfyUI's progress and the previews of this run, or of one that repeats it up to `num_steps`."""
        from .comfy_preview import Steps, preview_callback

        plan = self.plan
        steps = Steps(plan.schedule.sigmas[plan.start : plan.end].tolist(), plan.start, seed)
        num_steps = num_steps or plan.num_steps
        return preview_callback(self.models[0], num_steps, self.num_references, animated, steps)

    def sample(self, seed: int, callback) -> tuple:
        """As `comfy_sampling.run_plan`."""
        from . import comfy_sampling

        return comfy_sampling.run_plan(
            self.plan, self.models, self.texts, self.latent, seed=seed, cfg=self.cfg, callback=callback
        )


def prepared(model, positive, negative, latent: dict, cfg: float, settings: Settings) -> Run:
    """Check all inputs of the sampler, before anything heavy runs.

    Raises:
        ValueError: they do not fit each other.
    """
    models = [model] if settings.second_model is None else [model, settings.second_model]
    latent = _checked_latent(models, positive, latent, settings)
    chosen = choose_sampling(settings, cfg, model, negative)
    plan, cfg = plan_steps(chosen.schedule, chosen.solver, latent, settings), chosen.cfg
    texts = {"positive": positive} if cfg == 1.0 else {"positive": positive, "negative": negative}
    warnings = _validate(models, positive, negative, latent, plan, _uses_of_negative(cfg, settings))
    models = _with_nag(models, negative, settings)
    count, counted_lines = count_references(latent, positive)
    return Run(
        plan, models, texts, latent, cfg, count, [*chosen.lines, *plan.lines, *counted_lines], warnings
    )


def _checked_latent(models: list, positive, latent: dict, settings: Settings) -> dict:
    """The latent, with references in front of its video where sampling starts from that."""
    from .comfy_checks import check_latent, check_model

    for model in models:
        check_model(model)
    check_latent(models[0], latent, REFERENCE_KEY)
    latent = with_mask_of_latents(latent)
    if not settings.uses_content:
        return latent
    noisy = settings.start_step > 0 and not settings.add_noise
    return with_references(latent, positive, noisy)


def _uses_of_negative(cfg: float, settings: Settings) -> dict[str, str]:
    """Settings that read the negative text -> the value that turns each off."""
    uses = {}
    if cfg != 1.0:
        uses[f"cfg is {cfg:g}"] = "cfg to 1"
    if settings.nag_scale > 0:
        uses[f"nag_scale is {settings.nag_scale:g}"] = "nag_scale to 0"
    return uses


def _with_nag(models: list, negative, settings: Settings) -> list:
    """The models, with Normalized Attention Guidance where it is set."""
    if not settings.nag_scale:
        return models
    from .comfy_nag import Guidance, with_nag

    guidance = Guidance(settings.nag_scale, settings.nag_tau, settings.nag_alpha)
    return [with_nag(model, negative, guidance) for model in models]


def _validate(models: list, positive, negative, latent: dict, plan: StepPlan, uses: dict) -> list[str]:
    """Refuse impossible settings before anything heavy runs; returns messages about unusual ones."""
    from .comfy_checks import check_conditioning
    from .comfy_step_range import check_text_in_steps, step_lines

    samples, lines = latent["samples"], []
    for use, off in uses.items():
        if negative is None:
            raise ValueError(f"{use} but nothing is connected to negative; connect it, or set {off}")
    for model in models:
        lines += check_conditioning(model, positive, samples.shape, "positive")
    for use, off in uses.items():
        if any(ZERO_TEXT_KEY in extra for _, extra in negative):
            raise ValueError(
                f"{use}, but VDOT Encode's negative has no text: connect CLIP Text Encode to it "
                f"(it may be empty), or set {off}"
            )
    for model in models:
        if uses:
            lines += check_conditioning(model, negative, samples.shape, "negative")
        if "model_sampling" in model.object_patches:
            line = "the shift set on the model is not used: this node's preset, or its own shift, decides"
            lines.append(line)
    levels = (plan.schedule.timesteps[plan.start : plan.end] / 1000).tolist()
    check_text_in_steps(models[0], positive, levels, plan.schedule.num_steps, plan.start)
    lines += step_lines(models[0], positive, levels, plan.schedule.num_steps, plan.start)
    lines += _latent_lines(latent, plan)
    if not uses and negative and not any(ZERO_TEXT_KEY in extra for _, extra in negative):
        lines.append("negative has a text, which is not used at cfg 1: raise cfg or nag_scale")
    return list(dict.fromkeys(lines))


def _latent_lines(latent: dict, plan: StepPlan) -> list[str]:
    """Messages about a latent's content that is not used, or that is kept and shows nothing."""
    samples, mask = latent["samples"], latent.get("noise_mask")
    if mask is None:
        unused = samples.any() and plan.source == NOISE
        line = "the latent is not empty: sampling starts from noise and does not use its content"
        return [line] if unused else []
    if not mask.any():
        return ["the latent's noise mask is black everywhere: nothing is generated"]
    if mask.min() < 1 and not samples.any():
        return ["the latent's noise mask keeps a part of it, but it is empty; connect VAE Encode's latent"]
    return []
