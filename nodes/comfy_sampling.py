"""vdot_core's few-step samplers as a ComfyUI sampler function, with progress and canceling.

Shape letters: B batch, C channels, T latent frames, h w latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import comfy.model_management
import comfy.model_sampling
import comfy.sample
import comfy.samplers
import torch

from ..vdot_core.text import shown
from .comfy_checks import broken_weight, require_numbers
from .comfy_step_range import with_step_ranges
from .sample_steps import CONTENT, LEFTOVER_KEY, NOISE, Leftover, StepPlan

if TYPE_CHECKING:
    from ..vdot_core.sampling import Pause
    from ..vdot_core.sampling.solvers import NoiseSource

CURE_OF_NAN = "remove LoRAs and other changes from the model, or load it with the weight_dtype bf16"


def network_sigmas(timesteps: torch.Tensor, multiplier: float = 1000.0) -> torch.Tensor:
    """The float32 sigmas for which ComfyUI shows the network exactly these timesteps.

    ComfyUI gives a network `sigma * multiplier`. Dividing and multiplying again may be off by one unit in
    the last place; the neighbor that comes back exactly is taken where there is one. Labels under 1 count
    as 1: a velocity cannot be read off a result denoised at sigma 0.
    """
    labels = timesteps.to(torch.float32).clamp(min=1.0)
    sigmas = labels / multiplier
    for direction in (0.0, 2.0):
        neighbor = torch.nextafter(sigmas, torch.full_like(sigmas, direction))
        better = (sigmas * multiplier != labels) & (neighbor * multiplier == labels)
        sigmas = torch.where(better, neighbor, sigmas)
    return sigmas


def fresh_noise_of(seed: int, places: Sequence[int], shape: Sequence[int], start: int) -> NoiseSource:
    """The noise that 'renoise' adds at each step, of every sample on its own: one of a batch is as if alone.

    Args:
        seed: of the run.
        places: of the samples in their batch, as in ComfyUI's batch_index.
        shape: [B, C, T, h, w].
        start: number of steps whose noise was used before.
    """
    generators = [torch.Generator().manual_seed((seed + place) % 2**64) for place in places]

    def draw(like: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.randn((1, *like.shape[1:]), generator=own) for own in generators])

    for _ in range(1 + start):  # fresh noise continues after the first, and after that of earlier steps
        draw(torch.empty(shape, device="meta"))
    return draw


def few_step_sampler(plan: StepPlan, part: range, fresh: NoiseSource, pauses: list[Pause]):
    """A ComfyUI sampler that runs steps of `vdot_core.sampling` on ComfyUI's model.

    The solver steps on the schedule's exact sigmas; the network is called at the sigmas that show it the
    schedule's own timestep labels, and its velocity is read off the denoised result at that same sigma.
    Noise is used at scale 1.

    Args:
        plan: schedule, solver, and what the first step starts from.
        part: the steps to run.
        fresh: the noise that 'renoise' adds, from that of the first step on.
        pauses: where to resume, if not empty; gets where the part stopped.

    Returns:
        comfy.samplers.KSAMPLER
    """
    from ..vdot_core.sampling import resume

    schedule = plan.schedule

    def vdot_few_step(model, x, sigmas, extra_args=None, callback=None, disable=None):
        def velocity(latents, timestep):
            comfy.model_management.throw_exception_if_processing_interrupted()
            inputs = latents.to(x.dtype)
            sigma = network_sigmas(timestep).to(inputs.device)
            denoised = model(inputs, sigma, **(extra_args or {}))
            return ((inputs - denoised) / sigma.view(-1, 1, 1, 1, 1)).to(latents.dtype)

        def on_step(step, num_steps, x0, latents):
            _check_step(model, x0, f"the video after step {step + 1} of {num_steps}")
            if callback is not None:
                index = step - part.start
                sigma = sigmas[index]
                callback({"i": index, "x": latents, "denoised": x0, "sigma": sigma, "sigma_hat": sigma})

        start = pauses[-1].to(x.device) if pauses else _start(plan, model)
        reached = resume(velocity, start, schedule, part.stop, plan.solver, fresh, on_step)
        pauses.append(reached.to(comfy.model_management.intermediate_device()))
        mask = (extra_args or {}).get("denoise_mask")
        if mask is None or sigmas[-1] > 0:
            return reached.x
        # The truncated labels leave a trace of noise in kept regions; ComfyUI has blended the soft ones.
        return torch.where(mask == 0, model.latent_image.to(reached.x), reached.x)

    return comfy.samplers.KSAMPLER(vdot_few_step)


def _check_step(model, x0: torch.Tensor, what: str) -> None:
    """Refuse a video of NaN, and name the weight that has it where one does."""
    try:
        require_numbers(x0, what, CURE_OF_NAN)
    except ValueError as error:
        network = getattr(getattr(model.inner_model, "inner_model", None), "diffusion_model", None)
        name = broken_weight(network) if network is not None else ""
        if not name:
            raise
        raise ValueError(
            f"{what} holds NaN, since the model's weight {shown(name, 80)} holds NaN or infinite numbers; "
            "download the model's file again, or remove the LoRA that changes it"
        ) from error


def _start(plan: StepPlan, model) -> Pause:
    """The latents of the first step. ComfyUI's own were scaled by the network's sigma, 0.999 at most."""
    from ..vdot_core.sampling import Pause

    sigma = float(plan.schedule.sigmas[plan.start])
    if plan.source == NOISE:
        return Pause(plan.start, model.noise)
    if plan.source == CONTENT:
        return Pause(plan.start, sigma * model.noise + (1 - sigma) * model.latent_image)
    return Pause(plan.start, (1 - sigma) * model.latent_image)  # as ComfyUI's samplers leave it


def run_plan(plan: StepPlan, models: list, texts: dict, latent: dict, *, seed, cfg=1.0, callback=None):
    """Sample with ComfyUI's guider, so that hooks, wrappers, offloading and canceling work as always.

    Args:
        plan: steps, solver and start.
        models: one, or two of which the second takes over where the plan says.
        texts: ComfyUI's conditioning, "positive" and, for guidance, "negative".
        latent: ComfyUI's LATENT; its samples give the size and, where the plan starts from them or under a
            noise mask, the content.
        seed: of the noise.
        cfg: guidance; 1 makes no second pass.
        callback: ComfyUI's sampling callback (step, x0, x, num_steps).

    Returns:
        (latents [B, 16, T, h, w] in raw VAE space, reference frames included; what is left for a next
        sampler, or None).
    """
    leftover = latent.get(LEFTOVER_KEY) if plan.pause is not None else None
    content = latent["samples"] if leftover is None else leftover.content
    pauses = [] if plan.pause is None else [plan.pause]
    out = content
    for number, start, end in plan.parts:
        model, part = with_step_ranges(models[number]), range(start, end)
        samples = comfy.sample.fix_empty_latent_channels(model, content)
        noise = comfy.sample.prepare_noise(samples, seed, latent.get("batch_index"))
        fresh = fresh_noise_of(seed, latent.get("batch_index") or range(len(samples)), samples.shape, start)
        guider = comfy.samplers.CFGGuider(model)
        guider.inner_set_conds(texts)
        guider.set_cfg(cfg)
        schedule = plan.schedule
        sigmas = torch.cat([network_sigmas(schedule.timesteps[start:end]), schedule.sigmas[end : end + 1]])
        mask = latent.get("noise_mask")
        out = guider.sample(
            noise,
            samples,
            few_step_sampler(plan, part, fresh, pauses),
            sigmas,
            denoise_mask=None if mask is None else mask.float(),
            callback=shifted(callback, start - plan.start, plan.num_steps),
            seed=seed,
        )
    out = out.to(comfy.model_management.intermediate_device())
    if plan.end == plan.schedule.num_steps:
        return out, None
    return out, Leftover(pauses[-1], plan.schedule, plan.solver, out, content)


def shifted(callback, first: int, num_steps: int):
    """A callback for a part of the steps, which counts all of them."""
    if callback is None:
        return None
    return lambda step, x0, x, total_steps: callback(first + step, x0, x, num_steps)
