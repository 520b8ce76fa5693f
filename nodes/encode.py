"""VCU + VAE + text -> CONDITIONING, and the LATENT to sample."""

import torch
from comfy_api.latest import io

from ..vdot_core.choices import ALL_STEPS
from ..vdot_core.text import counted
from .comfy_bridge import empty_latents, report, vace_conditioning, with_values
from .comfy_checks import size_of, vace_contexts
from .comfy_trim import ReferenceCount
from .comfy_vae import check_vae, clips_at_once, latent_cache, vae_encoder
from .guard import CheckedNode
from .inputs import MAX_STRENGTH, VCUType

REFERENCE_KEY = "vdot_num_reference_latents"
LENGTH_KEY = "vdot_num_latent_frames"
ZERO_TEXT_KEY = "vdot_zero_text"
MAX_UNITS = 3


def _strength(name: str, optional: bool) -> io.Float.Input:
    return io.Float.Input(
        name,
        default=1.0,
        min=0.0,
        max=MAX_STRENGTH,
        step=0.05,
        optional=optional,
        advanced=optional or None,
        tooltip="How strongly the unit steers the video. 1 is what the model was trained with.",
    )


def _further_units() -> list[io.Input]:
    inputs: list[io.Input] = []
    for number in range(2, MAX_UNITS + 1):
        tooltip = (
            "A further unit with its own strength, of the same size and length. Units that can share "
            "one strength are better joined by VDOT Compose."
        )
        inputs.append(VCUType.Input(f"unit_{number}", optional=True, tooltip=tooltip))
        inputs.append(_strength(f"strength_{number}", optional=True))
    return inputs


class VDOTEncode(CheckedNode):
    """Encodes units as conditioning and an empty latent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDOTEncode",
            display_name="VDOT Encode",
            category="VDOT/conditioning",
            description=(
                "Turns a unit (what to keep, what to follow, what to show) into conditioning for the model, "
                "and makes the empty latent of the right size and length. The outputs also fit ComfyUI's "
                "own VACE models and samplers."
            ),
            search_aliases=["vace encode", "WanVaceToVideo"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="What the video shows, from CLIP Text Encode."),
                io.Vae.Input("vae", tooltip="The Wan 2.1 VAE."),
                VCUType.Input("unit", tooltip="The task, from one of the VDOT task nodes or VDOT Compose."),
                _strength("strength", optional=False),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="What to avoid. Only used when the sampler's cfg is not 1.",
                ),
                *_further_units(),
            ],
            outputs=[
                io.Conditioning.Output(
                    "positive_out", "positive", tooltip="For the sampler's positive input."
                ),
                io.Conditioning.Output(
                    "negative_out",
                    "negative",
                    tooltip=(
                        "For the sampler's negative input. Without a text it is only a placeholder: to use "
                        "cfg, connect CLIP Text Encode to this node's negative."
                    ),
                ),
                io.Latent.Output(
                    "latent", tooltip="For the sampler. It remembers how many references it holds."
                ),
                io.Int.Output(
                    "trim_latent",
                    tooltip=(
                        "Number of reference frames at the start. With KSampler connect this to Trim Video "
                        "Latent. VDOT Sampler cuts them off by itself: right behind it, Trim Video Latent "
                        "may stay and changes nothing; remove it behind a second sampler."
                    ),
                ),
            ],
        )

    @classmethod
    def execute(cls, positive, vae, unit, strength, negative=None, **further) -> io.NodeOutput:
        from ..vdot_core import vcu

        _check_inputs(vae, positive, negative)
        names, units = _with_strengths(unit, strength, further)
        _check_earlier(units, positive, negative)
        context = vcu.encode(units, vae_encoder(vae), names=names, **encode_options(vae))
        lines = _describe(context, names) + _earlier_lines(positive, negative)
        positive, negative, latent = conditioned(context, positive, negative)
        trim = ReferenceCount(context.num_reference_latents)
        return io.NodeOutput(positive, negative, latent, trim, ui=report(lines))


def encode_options(vae) -> dict:
    """Arguments of `vcu.encode` for ComfyUI's VAE."""
    return {"cache": latent_cache(vae), "vae": vae.first_stage_model, "max_batch": clips_at_once(vae)}


def conditioned(context, positive, negative) -> tuple[list, list, dict]:
    """A `VCUContext` as conditioning, and the empty latent to sample; without a negative, zeros."""
    values = vace_conditioning(context.contexts, context.context_scale, context.step_ranges)
    negative = _placeholder(positive) if negative is None else negative
    positive, negative = (
        _with_context(text, values, context.num_reference_latents) for text in (positive, negative)
    )
    samples = empty_latents(context.latent_shape)
    latent = {"samples": samples, REFERENCE_KEY: context.num_reference_latents}
    latent[LENGTH_KEY] = samples.shape[2]
    return positive, negative, latent


def _check_inputs(vae, positive, negative) -> None:
    """Refuse another VAE, and conditioning whose earlier contexts do not fit; encoding takes long."""
    check_vae(vae)
    vace_contexts(positive, "positive")
    vace_contexts(negative or [], "negative")


def _check_earlier(units: list, positive, negative) -> None:
    """Refuse conditioning that another VDOT Encode made for another size or number of references."""
    from ..vdot_core import vcu

    for name, text in (("positive", positive), ("negative", negative or [])):
        contexts = vace_contexts(text, name)
        shape = vcu.latent_shape(units) if contexts else ()
        for frames in contexts:
            if tuple(frames.shape[2:]) != shape[2:]:
                raise ValueError(
                    f"{name} was encoded before, for {size_of(frames.shape)}; with its references this task "
                    f"has {size_of(shape)}. Give both VDOT Encode the same width, height, length and number "
                    "of references, or connect CLIP Text Encode"
                )


def _earlier_lines(positive, negative) -> list[str]:
    """Lines where an earlier node gave the texts units already."""
    lines = []
    for name, text in (("positive", positive), ("negative", negative or [])):
        count = max((len(vace_contexts([entry], name)) for entry in text), default=0)
        before = "a unit" if count == 1 else f"{count} units"
        line = f"{name} has {before} of an earlier node: all act; for these alone, connect CLIP Text Encode"
        lines += [line] * bool(count)
    return lines


def _with_strengths(unit, strength: float, further: dict) -> tuple[list[str], list]:
    """The connected inputs' names in order, and their units, each with its own strength times the node's."""
    units = {"unit": unit.scaled(strength, "strength")}
    for number in range(2, MAX_UNITS + 1):
        extra, name = further.get(f"unit_{number}"), f"strength_{number}"
        if extra is not None:
            units[f"unit_{number}"] = extra.scaled(further.get(name, 1.0), name)
    return list(units), list(units.values())


def _with_context(text, values: dict, num_references: int) -> list:
    return with_values(with_values(text, values, append=True), {REFERENCE_KEY: num_references})


def _placeholder(positive) -> list:
    """Zeros, marked so that the sampler does not guide by them: an empty prompt is not zeros."""
    return [[torch.zeros_like(tokens), {**extra, ZERO_TEXT_KEY: True}] for tokens, extra in positive]


def _describe(context, names: list[str]) -> list[str]:
    from ..vdot_core.vcu.alike import strength_shown

    references = context.num_reference_latents
    what = f"{context.width}x{context.height}, {counted(context.num_frames, 'frame')}"
    ranged = zip(context.context_scale.frames, context.step_ranges, strict=True)
    strengths = ", ".join(strength_shown(scale) + _part(step_range) for scale, step_range in ranged)
    lines = [f"{what}, {counted(references, 'reference')}, strength {strengths}", *context.notes]
    scales = context.context_scale.frames
    for name, scale in zip(names, scales, strict=True):
        if not any(scale if isinstance(scale, tuple) else (scale,)):
            lines.append(f"{name} has strength 0 and no effect; raise it, or disconnect it")
    return lines


def _part(step_range: tuple[float, float]) -> str:
    from ..vdot_core.vcu.alike import percents

    return "" if step_range == ALL_STEPS else f" from {percents(step_range)} of the steps"
