"""Encoding of drawn clips by `vdot_core.vcu.encode`, each for several tasks.

Letters: N samples, T latent frames (references included), h w latents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from training.data.wan_vae import encode_video
from vdot_core import vcu

from .config import CacheGroup
from .tasks import build_unit, draw_scenes


@dataclass(frozen=True)
class Samples:
    """Encoded samples of one size.

    Attributes:
        latents: [N, 16, T, h, w] float16, what is to be generated, normalised; references first.
        contexts: [N, 96, T, h, w] float16.
        tasks: N task names; captions: N tuples of true captions.
    """

    latents: Tensor
    contexts: Tensor
    tasks: list[str]
    captions: list[list[str]]


def _chosen_tasks(group: CacheGroup, rng: np.random.Generator) -> list[str]:
    return [*group.tasks, *([str(rng.choice(group.extra))] if group.extra else [])]


@torch.no_grad()
def encode_clips(
    vae: nn.Module, group: CacheGroup, split: str, first: int, count: int, *, bf16: bool
) -> Samples:
    """Draw clips and encode them for the group's tasks.

    Args:
        vae: The VAE, frozen.
        group: Size and tasks.
        split: Whose seeds.
        first, count: Which of the split's scenes.
        bf16: Whether to encode under bfloat16 autocast.

    Returns:
        The samples, about `count * len(group.tasks)` of them, on the CPU.
    """
    device = next(vae.parameters()).device

    def vae_encode(video: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return encode_video(vae, video.to(device)).float().cpu()

    latents, contexts, tasks, captions = [], [], [], []
    grey, size = vcu.GreyCache(), (group.num_frames, group.height, group.width)
    for index in range(first, first + count):
        rng = np.random.default_rng([index, 13])
        chosen, videos = _chosen_tasks(group, rng), {}
        scenes = draw_scenes(chosen, index, split, group.texture_share, size, simple=group.simple)
        for task in chosen:
            scene = scenes[task]
            if id(scene) not in videos:
                videos[id(scene)] = vae_encode(scene.frames[None])[0]
            video = videos[id(scene)]
            encoded = vcu.encode(build_unit(task, scene, rng), vae_encode, cache=grey, vae=vae)
            context = encoded.contexts[0, 0]
            references = context[:16, : encoded.num_reference_latents]
            latents.append(torch.cat([references, video], dim=1).half())
            contexts.append(context.half())
            tasks.append(task)
            captions.append(list(scene.captions))
    return Samples(torch.stack(latents), torch.stack(contexts), tasks, captions)
