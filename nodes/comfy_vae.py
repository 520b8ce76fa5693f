"""ComfyUI's VAE as a vdot_core encoder: checked, several clips in one pass if they fit, latents cached.

Shape letters: B batch, F pixel frames, T latent frames, H W pixels, h w latents.
"""

import copy
import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import comfy.latent_formats
import comfy.ldm.wan.vae
import comfy.model_management
import comfy.patcher_extension
import comfy.taesd.taehv
import torch

from ..vdot_core.memory import check_size
from ..vdot_core.progress import part
from ..vdot_core.text import counted
from .comfy_checks import require_numbers

WAN_WIDTH = 96
"""Channels of Wan 2.1's VAE, for which ComfyUI estimates memory."""
CURE_OF_NAN = "load an undamaged VAE, or start ComfyUI with --bf16-vae or --fp32-vae"
MAX_CLIPS_AT_ONCE = 2
"""The two halves of a masked clip; larger batches gain nothing and need more memory."""

_log = logging.getLogger("vdot")


def check_vae(vae) -> None:
    """Refuse anything but a Wan 2.1 VAE (or its tiny stand-in, TAE): others have latents of the same shape.

    Raises:
        ValueError: the VAE's latents are not Wan 2.1's.
    """
    network, channels = vae.first_stage_model, getattr(vae, "latent_channels", "unknown")
    expected = comfy.latent_formats.Wan21.latent_channels
    is_wan = isinstance(network, (comfy.ldm.wan.vae.WanVAE, comfy.taesd.taehv.TAEHV))
    if not is_wan or channels != expected:
        raise ValueError(
            f"this VAE is a {type(network).__name__} with latents of {channels} channels; VDOT needs the Wan "
            f"2.1 VAE ({expected} channels): load wan_2.1_vae.safetensors with Load VAE"
        )


def vae_encoder(vae) -> Callable[[torch.Tensor], torch.Tensor]:
    """ComfyUI's VAE as vdot_core wants it.

    Returns:
        function: video [B, F, H, W, 3] float in [0, 1] -> latents [B, 16, T, h, w] float32 in the network's
            space. Several videos go through the VAE together where it can, one by one when that runs out of
            memory.
    """
    latent_format = comfy.latent_formats.Wan21()

    def encode(video: torch.Tensor) -> torch.Tensor:
        _check_memory(vae, video.shape)
        with _reported(vae.first_stage_model, video.shape[1]):
            latents = _encode_together(vae, video) if len(video) > 1 and _can_batch(vae) else None
        if latents is None:
            latents = torch.cat([_encode_one(vae, clip) for clip in video])
        require_numbers(latents, "the clip, after the VAE encoded it,", CURE_OF_NAN)
        return latent_format.process_in(latents.float())

    return encode


def _encode_one(vae, clip: torch.Tensor) -> torch.Tensor:
    with _reported(vae.first_stage_model, len(clip)):
        return vae.encode(clip)


@contextmanager
def _reported(network: torch.nn.Module, num_frames: int) -> Iterator[None]:
    """Report each two frames that Wan's encoder finishes: a long clip shows progress and can be canceled."""
    if not isinstance(network, comfy.ldm.wan.vae.WanVAE):
        yield
        return
    total, count = 1 + (num_frames - 1) // 2, 0

    def on_part(module, inputs, output):
        nonlocal count
        count += 1
        part(count, total)

    hook = network.encoder.register_forward_hook(on_part)
    try:
        yield
    finally:
        hook.remove()


def _check_memory(vae, shape: tuple[int, ...]) -> None:
    """Refuse what does not fit on the CPU, where ComfyUI cannot notice it and fall back to tiles."""
    if vae.device.type != "cpu":
        return
    _, num_frames, height, width, channels = shape
    num_bytes = vae.memory_used_encode((1, channels, num_frames, height, width), vae.vae_dtype)
    num_bytes *= getattr(vae.first_stage_model, "dim", WAN_WIDTH) / WAN_WIDTH
    check_size(
        num_bytes,
        f"encoding a clip of {counted(num_frames, 'frame')} of {width}x{height} on the CPU",
        "give the task a smaller width or height",
    )


def clips_at_once(vae) -> Callable[[tuple[int, ...]], int]:
    """Number of clips that fit into free memory, by the VAE's own estimate.

    Memory that models hold is not counted as free: a second clip is not worth unloading one.

    Returns:
        function: shape (F, H, W, 3) of a clip -> 1 or MAX_CLIPS_AT_ONCE.
    """

    def decide(shape: tuple[int, ...]) -> int:
        if not _can_batch(vae):
            return 1
        num_frames, height, width, channels = shape
        clip_bytes = vae.memory_used_encode((1, channels, num_frames, height, width), vae.vae_dtype)
        free_bytes = comfy.model_management.get_free_memory(vae.device)
        free_bytes -= max(0, vae.patcher.model_size() - vae.patcher.loaded_size())
        return MAX_CLIPS_AT_ONCE if free_bytes >= MAX_CLIPS_AT_ONCE * clip_bytes else 1

    return decide


def _can_batch(vae) -> bool:
    """TAE takes the videos of a batch one by one anyway; a VAE that always crops cannot take a batch."""
    return isinstance(vae.first_stage_model, comfy.ldm.wan.vae.WanVAE) and hasattr(vae, "crop_input")


class _NoMemoryError(Exception):
    """The videos of a batch do not fit together."""


def _encode_together(vae, video: torch.Tensor) -> torch.Tensor | None:
    """Raw latents [B, 16, T, h, w] of a batch in one pass, or None where memory ran out."""

    def give_up(*args, **kwargs):
        raise _NoMemoryError

    together = copy.copy(vae)
    # VAE.encode takes the frame axis of a batch of videos for an image's side and crops it to a multiple of
    # 8. There is nothing to crop: a unit's size fits the VAE.
    together.crop_input = False
    # Its answer to running out of memory is tiles, which change the result; one by one comes first.
    together.encode_tiled_3d = together._encode_tiled_owned = give_up
    try:
        return together.encode(video)
    except _NoMemoryError:
        _log.warning("not enough memory to encode %d clips at once; encoding them one by one", len(video))
    return None


_latent_cache = None
_watched: "weakref.WeakSet[torch.nn.Module]" = weakref.WeakSet()


def latent_cache(vae):
    """The bounded cache of encoded clips, which knows each VAE by its weights.

    What ComfyUI's unloading of a VAE is to free, the memory of that VAE's device, is freed of latents too.
    """
    global _latent_cache
    if _latent_cache is None:
        from ..vdot_core.vcu import LatentCache

        _latent_cache = LatentCache()
    if vae.first_stage_model not in _watched:
        _watched.add(vae.first_stage_model)
        on_detach = comfy.patcher_extension.CallbacksMP.ON_DETACH
        vae.patcher.add_callback_with_key(on_detach, "vdot", _on_detach)
    return _latent_cache


def _on_detach(patcher, unpatch_all: bool) -> None:
    """Drop latents where a VAE is unloaded; ComfyUI also detaches a loaded one right before each use."""
    if unpatch_all:
        _latent_cache.clear(patcher.load_device)
