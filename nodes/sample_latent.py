"""References in front of a latent's video: counted, added where sampling starts from a video, cut off.

Shape letters: B batch, T latent frames, h w latents.
"""

import torch

from ..vdot_core.text import counted
from .comfy_bridge import noise_mask_like
from .comfy_checks import vace_contexts
from .comfy_trim import trim_references
from .encode import LENGTH_KEY, REFERENCE_KEY
from .sample_steps import LEFTOVER_KEY, Leftover
from .tracks import VAE_STRIDE_FRAMES


def count_references(latent: dict, positive: list) -> tuple[int, list[str]]:
    """Number of latent frames to cut off the start, and a message if the count no longer holds.

    A latent of another node does not know it; one that fits the context has the context's references.
    """
    count, num_frames = latent.get(REFERENCE_KEY, _of_contexts(positive)), latent["samples"].shape[2]
    if latent.get(LENGTH_KEY, num_frames) != num_frames:
        return 0, ["the latent's length changed since VDOT Encode: nothing is cut off its start"]
    if count >= num_frames:
        raise ValueError(
            f"the latent has {counted(num_frames, 'frame')}, and VDOT Encode "
            f"counted {counted(count, 'reference')} in front of the video; "
            "take the latent straight from VDOT Encode"
        )
    return count, []


def _known_references(latent: dict) -> int | None:
    """Number of references in front, as VDOT Encode counted them; None where the latent does not say.

    A node that cut the latent, such as Trim Video Latent, leaves the number and not the length.
    """
    num_frames = latent["samples"].shape[2]
    return latent.get(REFERENCE_KEY) if latent.get(LENGTH_KEY, num_frames) == num_frames else None


def with_references(latent: dict, positive: list, noisy: bool = False) -> dict:
    """A video's latent with the references of its conditioning in front, where it has the video alone.

    Args:
        latent: of VAE Encode, or of a sampler whose references were cut off.
        positive: of VDOT Encode.
        noisy: the sampler takes the noise that the latent holds.

    Returns:
        The latent itself, or one of the context's length; a noise mask generates its references.

    Raises:
        ValueError: the video holds noise, which the references would be without.
    """
    count, contexts = _of_contexts(positive), vace_contexts(positive, "positive")
    samples = latent["samples"].as_subclass(torch.Tensor)
    missing = contexts and samples.shape[2] + count == contexts[0].shape[2]
    if _known_references(latent) is not None or not count or not missing:
        return latent
    if noisy:
        raise ValueError(
            f"add_noise is off, but the latent is the video alone, its {counted(count, 'reference')} cut "
            "off: these need the noise that the sampler before left; remove Trim Video Latent between the "
            "two samplers, or turn add_noise on"
        )
    frames = [_reference(positive, place) for place in range(count)]
    references = torch.cat(frames, dim=2).to(samples)
    if references.shape[3:] != samples.shape[3:]:
        return latent  # the check of sizes explains it
    added = {REFERENCE_KEY: count, LENGTH_KEY: samples.shape[2] + count}
    if latent.get("noise_mask") is not None:
        mask = noise_mask_like(samples, latent["noise_mask"])
        added["noise_mask"] = torch.cat([torch.ones_like(mask[:, :, :1]).repeat(1, 1, count, 1, 1), mask], 2)
    references = references.expand(len(samples), -1, -1, -1, -1)
    return {**latent, "samples": torch.cat([references, samples], dim=2), **added}


def with_mask_of_latents(latent: dict) -> dict:
    """The latent, with its noise mask by latent frame where that has one for each of the video's frames.

    ComfyUI stretches a mask over the latent frames, of which the first is one frame of the video and each
    other one four, and over the references: frame 0 would not be kept by a mask that is black there alone. A
    latent frame is generated where any of its frames is.

    Args:
        latent: of the sampler; its mask [F, H, W] or [F, 1, H, W].
    """
    mask, count = latent.get("noise_mask"), _known_references(latent) or 0
    num_latent = latent["samples"].shape[2] - count
    if mask is None or mask.ndim not in (3, 4) or (mask.ndim == 4 and 1 not in mask.shape[:2]):
        return latent
    frames = mask.reshape(-1, *mask.shape[-2:])
    if num_latent > 1 and len(frames) == (num_latent - 1) * VAE_STRIDE_FRAMES + 1:
        rest = frames[1:].unflatten(0, (num_latent - 1, VAE_STRIDE_FRAMES)).amax(1)
        frames = torch.cat([frames[:1], rest])
    elif len(frames) != num_latent or not count:
        return latent
    references = frames.new_ones(count, *frames.shape[1:])
    return {**latent, "noise_mask": torch.cat([references, frames])[None, None]}


def sampled_latent(latent: dict, samples: torch.Tensor, leftover: Leftover | None, count: int) -> dict:
    """The node's output: the video without references, or, where noise is left, all for the next sampler."""
    if leftover is not None:
        return {**latent, "samples": samples, LEFTOVER_KEY: leftover}
    used_up = (REFERENCE_KEY, LENGTH_KEY, LEFTOVER_KEY, "noise_mask")
    out = {key: value for key, value in latent.items() if key not in used_up}
    return {**out, "samples": trim_references(samples, count)}


def cut_line(count: int, leftover: Leftover | None) -> list[str]:
    """A line that says what was cut off."""
    if not count or leftover is not None:
        return []
    cut = "1 reference was" if count == 1 else f"{count} references were"
    return [f"{cut} cut off the start: connect VAE Decode directly, no Trim Video Latent is needed"]


def _of_contexts(positive: list) -> int:
    return max((extra.get(REFERENCE_KEY, 0) for _, extra in positive if extra.get("vace_frames")), default=0)


def _reference(positive: list, place: int) -> torch.Tensor:
    """Latents [1, 16, 1, h, w] of a reference, from the context that keeps it."""
    pairs = [
        (frames, mask)
        for _, extra in positive
        for frames, mask in zip(extra.get("vace_frames", []), extra.get("vace_mask", []), strict=False)
    ]
    unmasked = (frames for frames, mask in pairs if not mask[:, :, place].any())
    return next(unmasked, pairs[0][0])[:1, :16, place : place + 1]
