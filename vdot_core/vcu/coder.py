"""Encoding of clips by the VAE, each distinct one once.

Shape letters: B batch, F pixel frames, H W pixels, T latent frames, h w latents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..progress import steps
from .clips import Clip, stacked
from .latent_cache import GRAY_KEY, GrayCache
from .unit import VAE_STRIDE, gray_frames, num_latent_frames

LATENT_CHANNELS = 16

VaeEncode = Callable[[Tensor], Tensor]
MaxBatch = Callable[[tuple[int, ...]], int]


@dataclass
class _Pending:
    """A clip to encode, where its latents go, and what to remember them by."""

    clip: Clip
    key: tuple | None
    places: list[int]


class Coder:
    """Encodes clips, each distinct one once.

    Args:
        vae_encode, cache, owner, max_batch: as in `encode`; owner is the object that the cache knows the VAE
            by.
    """

    def __init__(self, vae_encode: VaeEncode, cache: GrayCache, owner: object, max_batch: int | MaxBatch):
        self.vae_encode, self.cache, self.owner, self.max_batch = vae_encode, cache, owner, max_batch
        self.device: torch.device | None = None

    def encode(self, clips: Sequence[Clip]) -> list[Tensor]:
        """Encode clips of one shape, [16, T, h, w] float32 each."""
        results: list[Tensor | None] = [None] * len(clips)
        pending: list[_Pending] = []
        for index, clip in enumerate(clips):
            key = self.cache.key(clip)
            cached = None if key is None else self.cache.get(self.owner, key)
            if cached is not None:
                results[index] = cached
                continue
            twin = next((item for item in pending if _is_twin(item, clip, key)), None)
            if twin is None:
                if key is not None and key[0] == GRAY_KEY:
                    clip = Clip(gray_frames(*clip.shape[:3], clip.frames.device))  # rendered, it fills memory
                pending.append(_Pending(clip, key, [index]))
            else:
                twin.places.append(index)
        for item, latents in zip(pending, self._run([item.clip for item in pending]), strict=True):
            if item.key is not None:
                self.cache.put(self.owner, item.key, latents, item.clip.source)
            for index in item.places:
                results[index] = latents
        # A VAE may have moved since the cache was filled: what it gives now says where it is.
        if results and self.device is None:
            self.device = results[0].device
        return [latents.to(self.device) for latents in results]

    def _run(self, clips: list[Clip]) -> list[Tensor]:
        results: list[Tensor] = []
        for start in steps(range(len(clips))):
            if start < len(results):
                continue  # was encoded with the one before
            group = clips[len(results) : len(results) + self._batch_size(clips[len(results) :])]
            latents = self._call(stacked(group))
            # Copies, so that one that is kept does not keep the others.
            results.extend(part.clone() if len(group) > 1 else part for part in latents)
        return results

    def _batch_size(self, clips: list[Clip]) -> int:
        if len(clips) == 1:
            return 1
        size = self.max_batch(clips[0].shape) if callable(self.max_batch) else self.max_batch
        if size < 1:
            raise ValueError(f"max_batch is {size}; give 1 (one clip at a time) or more")
        return size

    def _call(self, video: Tensor) -> Tensor:
        latents = self.vae_encode(video)
        batch, num_frames, height, width, _ = video.shape
        _, stride_y, stride_x = VAE_STRIDE
        size = (num_latent_frames(num_frames), height // stride_y, width // stride_x)
        expected = (batch, LATENT_CHANNELS, *size)
        if tuple(latents.shape) != expected:
            raise ValueError(
                f"the VAE gave latents {list(latents.shape)} for a video {list(video.shape)}, expected "
                f"{list(expected)}; use the Wan 2.1 VAE"
            )
        self.device = latents.device
        return latents.float()


def _is_twin(item: _Pending, clip: Clip, key: tuple | None) -> bool:
    """True if a clip waiting to be encoded is the same; clips with keys are the same where those are."""
    return item.key == key and (key is not None or item.clip.equals(clip))
