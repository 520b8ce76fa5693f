"""Caches of encoded clips: of gray ones, which most units need, and of every clip of a graph.

Shape letters: F pixel frames, H W pixels, T latent frames, h w latents.
"""

from __future__ import annotations

import hashlib
import weakref
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor

from .clips import Clip

GRAY_KEY = "gray"
"""First part of the key of a gray clip."""


@dataclass(frozen=True)
class _Entry:
    """Latents, and the objects with which they are forgotten."""

    latents: Tensor
    vae: weakref.ref
    source: weakref.ref | None


class GrayCache:
    """Latents of all-gray clips, kept per VAE and shape; the least recently used is dropped first.

    A VAE is known by the object it belongs to, and forgotten with it.

    Args:
        max_entries: how many to keep; one is 8 MB at 480 x 832 and 81 frames.
    """

    def __init__(self, max_entries: int = 8):
        self.max_entries = max_entries
        self._entries: OrderedDict[tuple, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self, device: torch.device | None = None) -> None:
        """Forget all latents, or only those that one device holds."""
        for key, entry in list(self._entries.items()):
            if device is None or entry.latents.device == device:
                del self._entries[key]

    def key(self, clip: Clip) -> tuple | None:
        """Key under which a clip's latents are kept; None for one that is not remembered."""
        return (GRAY_KEY, clip.shape) if clip.is_gray() else None

    def get(self, vae: object, key: tuple) -> Tensor | None:
        """The latents [16, T, h, w] of a clip with this key, or None."""
        full_key = (id(vae), key)
        entry = self._entries.get(full_key)
        # An id may be given again after its object is gone; only the same living object counts.
        if entry is None or entry.vae() is not vae:
            return None
        self._entries.move_to_end(full_key)
        return entry.latents

    def put(self, vae: object, key: tuple, latents: Tensor, source: object | None = None) -> None:
        """Remember latents until the VAE is gone, or the source of a clip that is not gray."""
        full_key = (id(vae), key)
        entries = self._entries

        def forget(reference: weakref.ref) -> None:
            entry = entries.get(full_key)
            if entry is not None and (reference is entry.vae or reference is entry.source):
                del entries[full_key]

        has_source = source is not None and key[0] != GRAY_KEY
        source_ref = weakref.ref(source, forget) if has_source else None
        entries[full_key] = _Entry(latents, weakref.ref(vae, forget), source_ref)
        entries.move_to_end(full_key)
        while self._is_full():
            entries.popitem(last=False)

    def _is_full(self) -> bool:
        return len(self._entries) > self.max_entries


class LatentCache(GrayCache):
    """Latents of all clips, known by their content, so that one that was changed in place is another.

    Those of a clip are forgotten with the tensor that it was rendered from, those of gray clips are kept.

    Args:
        max_bytes: how much to keep.
    """

    def __init__(self, max_bytes: int = 2**28):
        super().__init__()
        self.max_bytes = max_bytes

    def key(self, clip: Clip) -> tuple:
        return super().key(clip) or (clip.shape, _digest(clip))

    def _is_full(self) -> bool:
        return sum(entry.latents.nbytes for entry in list(self._entries.values())) > self.max_bytes


def _digest(clip: Clip) -> bytes:
    """Hash of a clip's pixels: sha256, for which most CPUs have instructions (1.8 GB a second)."""
    total = hashlib.sha256(str(clip.frames.dtype).encode())
    for index in range(clip.shape[0]):
        pixels = clip.frame(index).detach().cpu().contiguous()
        total.update(pixels.view(-1).view(torch.uint8).numpy())
    return total.digest()
