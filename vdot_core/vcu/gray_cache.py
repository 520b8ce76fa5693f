"""A cache of the latents of gray clips, which most units need."""

from __future__ import annotations

import weakref
from collections import OrderedDict

from torch import Tensor


class GrayCache:
    """Latents of all-gray clips, kept per VAE and shape; the least recently used is dropped first.

    A VAE is known by the object it belongs to, and forgotten with it.

    Args:
        max_entries: how many to keep; one is 8 MB at 480 x 832 and 81 frames.
    """

    def __init__(self, max_entries: int = 8):
        self.max_entries = max_entries
        self._entries: OrderedDict[tuple, tuple[weakref.ref, Tensor]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        self._entries.clear()

    def get(self, vae: object, shape: tuple[int, ...]) -> Tensor | None:
        """The latents of a gray clip of this shape, or None."""
        key = (id(vae), shape)
        entry = self._entries.get(key)
        # An id may be given again after its object is gone; only the same living object counts.
        if entry is None or entry[0]() is not vae:
            return None
        self._entries.move_to_end(key)
        return entry[1]

    def put(self, vae: object, shape: tuple[int, ...], latents: Tensor) -> None:
        key = (id(vae), shape)
        entries = self._entries

        def forget(reference: weakref.ref) -> None:
            if key in entries and entries[key][0] is reference:
                del entries[key]

        entries[key] = (weakref.ref(vae, forget), latents)
        while len(self._entries) > self.max_entries:
            self._entries.popitem(last=False)
