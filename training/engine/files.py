"""Files of a run: complete or absent, so that a killed run never leaves half of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from vdot_core.files import atomic_write


def save_safetensors(tensors: dict[str, Tensor], path: str | Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file in one step; its folder is created.

    Args:
        tensors: Name -> tensor.
        path: Destination.
        metadata: Strings for the header; "format": "pt" is added.
    """
    from safetensors.torch import save_file

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    ready = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    with atomic_write(path) as partial:
        save_file(ready, str(partial), metadata={"format": "pt", **metadata})


def write_json(values: Any, path: str | Path) -> None:
    """Write a JSON file in one step; its folder is created."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(values, indent=1))
