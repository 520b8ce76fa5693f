"""Finished chunks on disk, so that a video that was interrupted is resumed and not made again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...files import atomic_write, new_file, read_file
from ...text import listed, parse_json, shown
from ...vcu import VCU
from ...vcu.unit import dense

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 20
SAMPLES_PER_TENSOR = 16


class Record:
    """A folder with the sampled latents of finished chunks, and the facts that they depend on.

    Latents as sampled, not pixels: they are small, and what follows from them is computed again, exactly.

    Args:
        folder: made if it does not exist.
        facts: name -> value of all that decides the video; shown where they differ.
        resume: use what the folder holds; False empties it.
    Raises:
        ValueError: to resume, but there is nothing, or it was made from other facts.
    """

    def __init__(self, folder: Path, facts: Mapping[str, str], resume: bool):
        self.folder = folder
        if resume:
            self._check(facts)
            return
        if (folder / MANIFEST).is_file():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with new_file(folder / MANIFEST) as partial:
            partial.write_text(json.dumps({"format": 1, "facts": dict(facts)}, indent=1))

    def _check(self, facts: Mapping[str, str]) -> None:
        saved = read_manifest(self.folder)
        if saved is None:
            raise ValueError(
                f"there is nothing to resume in {shown(self.folder.name)}; turn resume off to begin"
            )
        changed = [
            f"{name} ({shown(saved.get(name), 20)}, now {shown(value, 20)})"
            for name, value in facts.items()
            if saved.get(name) != value
        ]
        if changed:
            raise ValueError(
                f"the unfinished video {shown(self.folder.name)} was made with another {listed(changed, 4)}; "
                "set it back, or turn resume off to start over"
            )

    def load(self, index: int) -> Tensor | None:
        """Latents of a chunk, or None where it is not finished.

        Raises:
            ValueError: its file is damaged.
        """
        from safetensors.torch import load

        path = self._path(index)
        if not path.is_file():
            return None
        try:
            return load(read_file(path, 1 << 34))["latents"]
        except Exception as error:
            raise ValueError(
                f"{path.name} in {shown(self.folder.name)} is damaged; delete it to make that chunk again"
            ) from error

    def keep(self, index: int, latents: Tensor) -> None:
        """Store a chunk's latents; they are complete or absent."""
        from safetensors.torch import save_file

        with atomic_write(self._path(index)) as partial:
            save_file({"latents": latents.detach().cpu().contiguous()}, partial)

    @property
    def num_finished(self) -> int:
        """Number of finished chunks from the start."""
        count = 0
        while self._path(count).is_file():
            count += 1
        return count

    def remove(self) -> None:
        """Delete the folder: the video is finished."""
        shutil.rmtree(self.folder)

    def _path(self, index: int) -> Path:
        return self.folder / f"chunk_{index:05}.safetensors"


def read_manifest(folder: Path) -> dict[str, str] | None:
    """The facts of a record; None where a folder has none, or no readable one."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        facts = parse_json(read_file(path, MAX_MANIFEST_BYTES))["facts"]
    except (ValueError, KeyError, TypeError):
        return None
    return facts if isinstance(facts, dict) else None


def digest_of(*values: object) -> str:
    """Hash of units, tensors and what prints them, in this order: 16 hexadecimal digits."""
    total = hashlib.sha256()
    for value in values:
        _add(total, value)
    return total.hexdigest()[:16]


def sampled_digest(tensors: Mapping[str, Tensor]) -> str:
    """Hash of many tensors by name, shape, type and their first values: weights of any size in a moment."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        # Quantized tensors of other packages have no plain values.
        if type(tensor) in (torch.Tensor, torch.nn.Parameter) and not tensor.is_meta:
            _add(total, tensor.detach().reshape(-1)[:SAMPLES_PER_TENSOR])
    return total.hexdigest()[:16]


def _add(total, value: object) -> None:
    if isinstance(value, VCU):
        fields = (value.kind, value.strength, value.step_range, value.frames, value.masks, value.region)
        for part in (*fields, *value.references):
            _add(total, part)
    elif isinstance(value, Tensor):
        total.update(f"{tuple(value.shape)}{value.dtype}".encode())
        compact = dense(value.detach()) if value.ndim else value.detach().reshape(1)
        for part in compact:  # one at a time: a clip may be as large as the memory
            plain = part.cpu().reshape(-1).clone(memory_format=torch.contiguous_format)
            total.update(plain.view(torch.uint8).numpy())
    elif isinstance(value, (list, tuple)):
        for part in value:
            _add(total, part)
    else:
        total.update(f"{type(value).__name__}{value}".encode())
