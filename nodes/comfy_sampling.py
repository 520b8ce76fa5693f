"""vdot_core's few-step samplers as a ComfyUI sampler function, with progress, canceling and previews.

Shape letters: B batch, C channels, T latent frames, h w latents.
"""

from __future__ import annotations

import base64
import io
import logging
import sys
from typing import TYPE_CHECKING

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_sampling
import comfy.sample
import comfy.samplers
import torch
from einops import rearrange

from ..vdot_core.text import shown
from .comfy_checks import broken_weight, require_numbers
from .comfy_step_range import with_step_ranges
from .sample_steps import CONTENT, LEFTOVER_KEY, NOISE, Leftover, StepPlan

if TYPE_CHECKING:
    from ..vdot_core.sampling import Pause

PREVIEW_EVENT = "vdot.preview"
PREVIEW_VERSION = 1
MAX_PREVIEW_FRAMES = 32
MAX_PREVIEW_SIDE = 128
MAX_PREVIEW_BYTES = 192 * 1024  # of JPEG, before base64 adds a third
CURE_OF_NAN = "remove LoRAs and other changes from the model, or load it with the weight_dtype bf16"
LATENT_FPS = 4.0  # Wan videos have 16 frames a second, a latent frame covers four of them

_log = logging.getLogger("vdot")


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


def few_step_sampler(plan: StepPlan, part: range, generator: torch.Generator, pauses: list[Pause]):
    """A ComfyUI sampler that runs steps of `vdot_core.sampling` on ComfyUI's model.

    The solver steps on the schedule's exact sigmas; the network is called at the sigmas that show it the
    schedule's own timestep labels, and its velocity is read off the denoised result at that same sigma.
    Noise is used at scale 1.

    Args:
        plan: schedule, solver, and what the first step starts from.
        part: the steps to run.
        generator: of the fresh noise of 'renoise', at that of the first step.
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
        reached = resume(velocity, start, schedule, part.stop, plan.solver, generator, on_step)
        pauses.append(reached.to(comfy.model_management.intermediate_device()))
        mask = (extra_args or {}).get("denoise_mask")
        if mask is None or sigmas[-1] > 0:
            return reached.x
        # The truncated labels leave a trace of noise in kept regions.
        return reached.x * mask + model.latent_image * (1 - mask)

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
        generator = torch.Generator().manual_seed(seed)
        for _ in range(1 + start):  # fresh noise continues after the first, and after that of earlier steps
            torch.randn(samples.shape, generator=generator)
        guider = comfy.samplers.CFGGuider(model)
        guider.inner_set_conds(texts)
        guider.set_cfg(cfg)
        schedule = plan.schedule
        sigmas = torch.cat([network_sigmas(schedule.timesteps[start:end]), schedule.sigmas[end : end + 1]])
        mask = latent.get("noise_mask")
        out = guider.sample(
            noise,
            samples,
            few_step_sampler(plan, part, generator, pauses),
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


def preview_callback(model, num_steps: int, num_reference_latents: int, animated: bool = True):
    """ComfyUI's own progress and still preview without the reference frames, plus the animated preview.

    After every step the client that queued the prompt gets a websocket event `vdot.preview` whose data hold
    `version`, `node_id`, `display_node_id`, `prompt_id`, `step` (1-based), `num_steps`, `fps`, `num_frames`,
    `width`, `height`, `mime` ("image/jpeg") and `frames`, a list of base64 JPEGs: the video's latent frames
    from the first one on, at most MAX_PREVIEW_FRAMES of at most MAX_PREVIEW_SIDE px. It does not depend on
    ComfyUI's preview method, which is off by default and sets only the still.
    """
    import latent_preview

    stock = latent_preview.prepare_callback(model, num_steps)

    def callback(step, x0, x, total_steps):
        video = x0[:, :, num_reference_latents:]
        stock(step, video, x, total_steps)
        if animated:
            _send_preview(preview_message(video, step + 1, total_steps, model.model.latent_format))

    return callback


def preview_message(x0: torch.Tensor, step: int, num_steps: int, latent_format) -> dict:
    """The part of a `vdot.preview` message that depends on the latents.

    Args:
        x0: [B, 16, T, h, w] in the network's space, references removed; the first of the batch is shown.
        step: steps finished, 1-based.
        num_steps: steps in all.
        latent_format: ComfyUI's; gives the linear map from latents to colors.
    """
    count = x0.shape[2]
    picks = torch.linspace(0, count - 1, min(count, MAX_PREVIEW_FRAMES)).round().long().to(x0.device)
    factors = torch.tensor(latent_format.latent_rgb_factors, dtype=torch.float32, device=x0.device)
    bias = torch.tensor(latent_format.latent_rgb_factors_bias or [0.0] * 3, device=x0.device)
    rgb = torch.einsum("cthw,cr->trhw", x0[0, :, picks].float(), factors) + bias.view(1, 3, 1, 1)
    scale = min(1.0, MAX_PREVIEW_SIDE / max(rgb.shape[-2:]))
    if scale < 1:
        size = [max(1, int(side * scale)) for side in rgb.shape[-2:]]
        rgb = torch.nn.functional.interpolate(rgb, size=size, mode="area")
    pixels = rgb.add(1).div(2).clamp(0, 1).mul(255).byte()
    pixels = rearrange(pixels, "t channels h w -> t h w channels").cpu().numpy()
    frames = _encode_jpegs(pixels)
    return {
        "version": PREVIEW_VERSION,
        "step": step,
        "num_steps": num_steps,
        "fps": LATENT_FPS * len(picks) / count,
        "num_frames": len(frames),
        "width": pixels.shape[2],
        "height": pixels.shape[1],
        "mime": "image/jpeg",
        "frames": [base64.b64encode(frame).decode("ascii") for frame in frames],
    }


def _encode_jpegs(pixels) -> list[bytes]:
    """JPEGs of [T, h, w, 3] bytes, at the best quality that keeps them all under MAX_PREVIEW_BYTES."""
    from PIL import Image

    frames: list[bytes] = []
    for quality in (85, 60, 30, 10):
        frames = []
        for frame in pixels:
            buffer = io.BytesIO()
            Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
            frames.append(buffer.getvalue())
        if sum(map(len, frames)) <= MAX_PREVIEW_BYTES:
            break
    return frames


def _send_preview(message: dict) -> None:
    """Send to the client that queued the prompt; a script that uses the nodes without a server has none."""
    prompt_server = getattr(sys.modules.get("server"), "PromptServer", None)
    server = getattr(prompt_server, "instance", None)
    if server is None or server.client_id is None:
        return
    from comfy_execution.progress import get_progress_state
    from comfy_execution.utils import get_executing_context

    context = get_executing_context()
    if context is None:
        return
    display = get_progress_state().dynprompt.get_display_node_id(context.node_id)
    where = {"node_id": context.node_id, "display_node_id": display, "prompt_id": context.prompt_id}
    server.send_sync(PREVIEW_EVENT, {**message, **where}, server.client_id)
