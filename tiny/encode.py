"""Encoding of drawn clips by `vdot_core.vcu.encode`, each for several tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from training.data.encoded import EncodedSample
from training.data.wan_vae import encode_video
from vdot_core import vcu

from .config import CacheGroup
from .tasks import build_unit, draw_scenes


@torch.no_grad()
def encode_clips(
    vae: nn.Module,
    text: Callable[[Sequence[str]], tuple[Tensor, ...]],
    group: CacheGroup,
    numbers: range,
    name: str,
    *,
    bf16: bool,
) -> Iterator[EncodedSample]:
    """Draw clips and encode them for the group's tasks.

    Args:
        vae: The VAE, frozen.
        text: Captions -> the embedding of each.
        group: Size and tasks.
        numbers: Scenes of the training split.
        name: First part of the samples' ids.
        bf16: Encode under bfloat16 autocast.

    Yields:
        About `len(numbers) * len(group.tasks)` samples, on the CPU.
    """
    device = next(vae.parameters()).device

    def vae_encode(video: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return encode_video(vae, video.to(device)).float().cpu()

    gray, size = vcu.GrayCache(), (group.num_frames, group.height, group.width)
    count = 0
    for number in numbers:
        rng = np.random.default_rng([number, 13])
        extra = [str(rng.choice(group.extra))] if group.extra else []
        tasks, videos = [*group.tasks, *extra], {}
        scenes = draw_scenes(tasks, number, "train", group.texture_share, size, simple=group.simple)
        for task in tasks:
            scene = scenes[task]
            if id(scene) not in videos:
                videos[id(scene)] = vae_encode(scene.frames[None])[0]
            encoded = vcu.encode(build_unit(task, scene, rng), vae_encode, cache=gray, vae=vae)
            contexts, num_references = encoded.contexts[0], encoded.num_reference_latents
            references = contexts[0, : vcu.LATENT_CHANNELS, :num_references]
            yield EncodedSample(
                id=f"{name}-{count:03d}",
                task=task,
                latents=torch.cat([references, videos[id(scene)]], dim=1).half(),
                contexts=contexts.half(),
                texts=text(scene.captions),
                num_reference_latents=num_references,
                clip=str(number),
            )
            count += 1
