"""Previews of a sampling run: ComfyUI's own, and the moving ones on the node.

Shape letters: B batch, F pixel frames, T latent frames, H W pixels, h w latents.
"""

from __future__ import annotations

import base64
import io
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import comfy.sd
import folder_paths
import torch
from einops import rearrange

from ..vdot_core.checkpoints import read_tensors
from ..vdot_core.text import shown

PREVIEW_EVENT = "vdot.preview"
PREVIEW_VERSION = 1
MAX_PREVIEW_FRAMES = 32
MAX_SIDE, MAX_DECODED_SIDE = 128, 256
MAX_BYTES, MAX_DECODED_BYTES = 192 * 1024, 384 * 1024  # of JPEG, before base64 adds a third
FPS = 16.0  # of Wan videos
FRAMES_PER_LATENT = 4
DECODER_FOLDER = "vae_approx"
MAX_SAFE_SEED = 2**53  # larger numbers are not exact in a page

Decode = Callable[[torch.Tensor], torch.Tensor]

_log = logging.getLogger("vdot")
_decoders: dict[str, Decode] = {}


@dataclass(frozen=True)
class Steps:
    """Noise levels, numbers, seed and start time of a run's steps, for the page.

    Args:
        sigmas: noise level of each step; they repeat where a run has several rounds of them.
        first: the schedule's number of the first of them, from 0.
        seed: of the noise.
    """

    sigmas: Sequence[float] = ()
    first: int = 0
    seed: int = 0
    began: float = field(default_factory=time.perf_counter)

    def described(self, step: int) -> dict:
        """Of a step from 0: noise level, seconds since the start, the schedule's number, the seed."""
        told = {"first": self.first, "seconds": round(time.perf_counter() - self.began, 1)}
        if self.sigmas:
            told["sigma"] = round(float(self.sigmas[step % len(self.sigmas)]), 3)
        if self.seed <= MAX_SAFE_SEED:
            told["seed"] = self.seed
        return told


def preview_callback(model, num_steps: int, num_reference_latents: int, animated=True, steps=None):
    """ComfyUI's own progress and still preview without the reference frames, plus the animated preview.

    After every step the client that queued the prompt gets a websocket event `vdot.preview` whose data hold
    `version`, `node_id`, `display_node_id`, `prompt_id`, `step` (1-based), `num_steps`, `fps`, `num_frames`,
    `width`, `height`, `mime` ("image/jpeg"), `frames`, a list of base64 JPEGs of the predicted video, and
    what `Steps.described` adds. It does not depend on ComfyUI's preview method, which is off by default and
    sets only the still; but where that is latent2rgb, the moving preview is too.

    Args:
        model: ComfyUI's ModelPatcher.
        num_steps: of the run.
        num_reference_latents: latent frames in front of the video.
        animated: send the moving preview.
        steps: a `Steps`; None tells nothing of them.
    """
    import latent_preview

    stock = latent_preview.prepare_callback(model, num_steps)
    latent_format = model.model.latent_format
    decode = small_decoder(latent_format) if animated else None
    steps = Steps() if steps is None else steps

    def callback(step, x0, x, total_steps):
        video = x0[:, :, num_reference_latents:]
        stock(step, video, x, total_steps)
        if animated:
            told = steps.described(step)
            _send(preview_message(video, step + 1, total_steps, latent_format, decode) | told)

    return callback


def preview_message(x0: torch.Tensor, step: int, num_steps: int, latent_format, decode=None) -> dict:
    """The part of a `vdot.preview` message that depends on the latents.

    Args:
        x0: [B, 16, T, h, w] in the network's space, references removed; the first of the batch is shown.
        step: steps finished, 1-based.
        num_steps: steps in all.
        latent_format: ComfyUI's; gives the linear map from latents to colors.
        decode: of `small_decoder`; None uses that map: a pixel for each latent, at most MAX_SIDE a side.
    """
    count = x0.shape[2]
    rgb = _mapped(x0[0], latent_format) if decode is None else decode(x0[:1])
    max_side, max_bytes = (MAX_SIDE, MAX_BYTES) if decode is None else (MAX_DECODED_SIDE, MAX_DECODED_BYTES)
    picks = torch.linspace(0, len(rgb) - 1, min(len(rgb), MAX_PREVIEW_FRAMES)).round().long()
    pixels = _fitted(rgb[picks.to(rgb.device)], max_side)
    frames = _encode_jpegs(pixels, max_bytes)
    return {
        "version": PREVIEW_VERSION,
        "step": step,
        "num_steps": num_steps,
        "fps": FPS / FRAMES_PER_LATENT * len(frames) / count,
        "num_frames": len(frames),
        "width": pixels.shape[2],
        "height": pixels.shape[1],
        "mime": "image/jpeg",
        "frames": [base64.b64encode(frame).decode("ascii") for frame in frames],
    }


def small_decoder(latent_format) -> Decode | None:
    """The decoder in models/vae_approx that ComfyUI knows for these latents (Wan 2.1: lighttaew2_1).

    Returns:
        function: x0 [1, 16, T, h, w] -> frames [F, 3, H, W] in [0, 1]. None where there is no such file, it
            cannot be read, or ComfyUI's preview method is latent2rgb.
    """
    from comfy.cli_args import LatentPreviewMethod, args

    name = latent_format.taesd_decoder_name
    if name is None or args.preview_method == LatentPreviewMethod.Latent2RGB:
        return None
    files = folder_paths.get_filename_list(DECODER_FOLDER)
    path = next((folder_paths.get_full_path(DECODER_FOLDER, f) for f in files if f.startswith(name)), None)
    if path is None:
        return None
    if path not in _decoders:
        try:
            _decoders[path] = _loaded_decoder(path)
        except Exception as error:  # a preview is no reason to end a run
            _log.warning("previews are rough: %s cannot be used: %s", shown(path), shown(error, 400))
            return None
    return _decoders[path]


def _loaded_decoder(path: str) -> Decode:
    weights, _ = read_tensors(path, "a preview decoder")
    vae = comfy.sd.VAE(weights)
    vae.throw_exception_if_invalid()
    vae.first_stage_model.show_progress_bar = False

    def decode(x0: torch.Tensor) -> torch.Tensor:
        return vae.decode(x0)[0].movedim(-1, 1)

    return decode


def _mapped(latents: torch.Tensor, latent_format) -> torch.Tensor:
    """Frames [T, 3, h, w] in [0, 1] of latents [16, T, h, w], by ComfyUI's linear map."""
    factors = torch.tensor(latent_format.latent_rgb_factors, dtype=torch.float32, device=latents.device)
    bias = torch.tensor(latent_format.latent_rgb_factors_bias or [0.0] * 3, device=latents.device)
    rgb = torch.einsum("cthw,cr->trhw", latents.float(), factors) + bias.view(1, 3, 1, 1)
    return rgb.add(1).div(2)


def _fitted(rgb: torch.Tensor, max_side: int):
    """Bytes [F, H, W, 3] of frames [F, 3, H, W], no side longer than that."""
    scale = min(1.0, max_side / max(rgb.shape[-2:]))
    if scale < 1:
        size = [max(1, int(side * scale)) for side in rgb.shape[-2:]]
        rgb = torch.nn.functional.interpolate(rgb, size=size, mode="area")
    pixels = rgb.clamp(0, 1).mul(255).byte()
    return rearrange(pixels, "frames channels h w -> frames h w channels").cpu().numpy()


def _encode_jpegs(pixels, max_bytes: int) -> list[bytes]:
    """JPEGs of [F, H, W, 3] bytes, at the best quality that keeps them all under `max_bytes`."""
    from PIL import Image

    frames: list[bytes] = []
    for quality in (85, 60, 30, 10):
        frames = []
        for frame in pixels:
            buffer = io.BytesIO()
            Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
            frames.append(buffer.getvalue())
        if sum(map(len, frames)) <= max_bytes:
            break
    return frames


def _send(message: dict) -> None:
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
