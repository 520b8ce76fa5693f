"""Finds clips that show the same: by perceptual hashes, over all clips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


class Duplicates:
    """Clips in the order in which they are added; of those that show the same the first one is used.

    Args:
        max_distance: Bits in which each of the three frames' hashes may differ; -1: nothing is a duplicate.
        max_motion_distance: The same of the fourth one.
    """

    def __init__(self, max_distance: int, max_motion_distance: int) -> None:
        self.limits = np.array([max_distance] * 3 + [max_motion_distance])
        self._ids: list[str] = []
        self._hashes = np.zeros((4, 1024), np.uint64)

    def add(self, clip_id: str, hashes: Sequence[str]) -> str | None:
        """The earlier clip that a clip repeats; None for a new one, which is remembered."""
        row = np.array([int(text, 16) for text in hashes], np.uint64)
        count = len(self._ids)
        if count:
            # The first hash tells most clips apart.
            near = np.flatnonzero(_num_bits(self._hashes[0, :count] ^ row[0]) <= self.limits[0])
            same = (_num_bits(self._hashes[:, near] ^ row[:, None]) <= self.limits[:, None]).all(axis=0)
            if same.any():
                return self._ids[int(near[same.argmax()])]
        if count == self._hashes.shape[1]:
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)], axis=1)
        self._hashes[:, count] = row
        self._ids.append(clip_id)
        return None


def find_duplicates(
    clips: Iterable[tuple[str, Sequence[str]]], max_distance: int, max_motion_distance: int
) -> dict[str, str]:
    """Clip -> the earlier clip that it repeats, of (id, hashes) in order; limits as of `Duplicates`.

    The time grows with the square of the number of clips: 250,000 take about a minute.
    """
    seen = Duplicates(max_distance, max_motion_distance)
    pairs = ((clip_id, seen.add(clip_id, hashes)) for clip_id, hashes in clips)
    return {clip_id: first for clip_id, first in pairs if first is not None}


def _num_bits(values: np.ndarray) -> np.ndarray:
    """Number of ones in each uint64; numpy's own is there from 2.0 on."""
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(values)
    return np.unpackbits(values[..., None].view(np.uint8), axis=-1).sum(-1)
