"""Weights that stay in their files until they are asked for, and are never mapped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from .info import Entry
from .read import NetworkWeights, iterate_tensors, loadable
from .tensor_files import require_finite


class StoredWeights(Mapping[str, torch.Tensor]):
    """A network's weights by Wan's names, each read into memory whenever it is asked for.

    A file that is cut meanwhile is a ValueError, where one that is mapped ends the process; a tensor with NaN
    or infinity is one too. A plain pickle, which torch wrote before 1.6, is read at once.

    Args:
        entries: Wan name -> location of the parameter.
    """

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = dict(entries)
        self._pickles: dict[Path, dict[str, torch.Tensor]] = {}

    def __getitem__(self, name: str) -> torch.Tensor:
        entry = self._entries[name]
        if entry.file.load is None:
            if entry.file.path not in self._pickles:
                self._pickles[entry.file.path] = entry.file.read()
            tensor = self._pickles[entry.file.path][entry.name]
            require_finite(name, tensor, entry.file.path)
            return tensor
        ((_, tensor),) = iterate_tensors({name: entry}, {name: None}, mapped=False)
        entry.file.require_unchanged()
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def without(self, prefixes: tuple[str, ...]) -> StoredWeights:
        """The same weights but for those whose names begin with one of the prefixes."""
        return StoredWeights({n: entry for n, entry in self._entries.items() if not n.startswith(prefixes)})


def open_weights(path: str | Path) -> NetworkWeights:
    """Open a network's weights to read them one by one; nothing stays in memory, and nothing is mapped.

    Args:
        path: as for `inspect`, of a network with its VACE branch or of one without.
    Returns:
        Config, `StoredWeights` in the files' dtypes, and info.
    Raises:
        ValueError: as for `read_weights`.
    """
    checkpoint = loadable(path, None, None, None)
    return NetworkWeights(checkpoint.info.config, StoredWeights(checkpoint.entries), checkpoint.info)
