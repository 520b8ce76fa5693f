"""Finds the weight files of a network from any path to it: file, folder, shard or index."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import read_file
from ..text import MAX_JSON_BYTES, listed, parse_json, shown

INDEX_SUFFIX = ".index.json"
_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-\d{5}(?P<suffix>\.safetensors|\.bin)")
_HAS_CONFIG = re.compile(r"diffusion_pytorch_model.*")
MAX_SHARDS = 1_000


@dataclass(frozen=True)
class WeightSet:
    """The files of one network, with their index and config.json.

    Args:
        files: the weight files, in order.
        owners: tensor name -> file, as a shard index says; None for a single file.
        config: content of the config.json in the same folder; None if there is none.
    """

    files: tuple[Path, ...]
    owners: dict[str, Path] | None = None
    config: dict[str, Any] | None = None


def find_weights(path: str | Path) -> WeightSet:
    """Find the files of the network that `path` names.

    Args:
        path: a weight file; a folder of shards with its index, of one file, or with such a `transformer/`
            in it; an index; or any one shard of a set.
    Returns:
        The files, none of them opened yet.
    Raises:
        ValueError: nothing there, several candidates, a shard that is missing or outside the folder.
    """
    path = Path(path)
    if os.path.isdir(path):
        return _in_folder(path)
    if not os.path.exists(path):
        raise ValueError(f"{shown(path)} does not exist; give a weight file or a folder with a shard index")
    if path.name.endswith(INDEX_SUFFIX):
        return _from_index(path)
    shard = _SHARD.fullmatch(path.name)
    if shard:
        index = path.with_name(f"{shard['stem']}{shard['suffix']}{INDEX_SUFFIX}")
        if not os.path.isfile(index):
            raise ValueError(
                f"{shown(path)} is one shard of several, and {shown(index.name)} is not in its folder; put "
                "all shards and the index in one folder"
            )
        return _from_index(index)
    config = _read_config(path.parent) if _HAS_CONFIG.fullmatch(path.name) else None
    return WeightSet((path,), config=config)


def listed_shards(index: Path) -> list[str]:
    """Names of the files that an index places tensors in.

    Raises:
        ValueError: no readable index, or names of files outside its folder.
    """
    return sorted(set(_weight_map(index).values()))


def _in_folder(folder: Path) -> WeightSet:
    indices = sorted(folder.glob(f"*{INDEX_SUFFIX}"))
    preferred = folder / f"diffusion_pytorch_model.safetensors{INDEX_SUFFIX}"
    if preferred in indices or len(indices) == 1:
        index = preferred if preferred in indices else indices[0]
        single = index.with_name(index.name.removesuffix(INDEX_SUFFIX))
        if os.path.isfile(single):
            raise ValueError(
                f"{shown(folder)} has both {shown(single.name, 80)} and the index of its parts; give the one "
                "to read"
            )
        return _from_index(index)
    if indices:
        raise ValueError(f"{shown(folder)} has several indices ({_names(indices)}); give the one to read")
    files = sorted(folder.glob("*.safetensors")) or sorted(
        file for suffix in ("gguf", "pt", "pth") for file in folder.glob(f"*.{suffix}")
    )
    files = [file for file in files if file.name == "diffusion_pytorch_model.safetensors"] or files
    if len(files) == 1:
        if _SHARD.fullmatch(files[0].name):
            return find_weights(files[0])
        return WeightSet((files[0],), config=_read_config(folder))
    if files and all(_SHARD.fullmatch(file.name) for file in files):
        raise ValueError(
            f"{shown(folder)} holds shards ({_names(files)}) without their index; put the file "
            f"*{INDEX_SUFFIX} of the same download into it"
        )
    if files:
        raise ValueError(
            f"{shown(folder)} has no index and several weight files ({_names(files)}); give the one to read"
        )
    if os.path.isdir(folder / "transformer"):
        return _in_folder(folder / "transformer")
    raise ValueError(
        f"{shown(folder)} holds no weights: no *{INDEX_SUFFIX}, no .safetensors, .gguf, .pt or .pth; give "
        "another"
    )


def _names(files: list[Path]) -> str:
    return listed([file.name for file in files], 5)


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor name -> file, checked to be in the index's folder."""
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{shown(index)} has no weight_map (tensor name -> shard file); download it again")
    for name, shard in weight_map.items():
        # Names only, and no resolving: a download cache keeps its files as links out of the folder.
        if not isinstance(shard, str) or shard in ("", ".", "..") or re.search(r"[/\\:\0]", shard):
            raise ValueError(
                f"{shown(index)} is refused: it places '{shown(name)}' in '{shown(shard, 80)}'; a "
                "shard must be a file in the same folder: download it again"
            )
    return weight_map


def _from_index(index: Path) -> WeightSet:
    weight_map = _weight_map(index)
    shards = sorted(set(weight_map.values()))
    if len(shards) > MAX_SHARDS:
        raise ValueError(
            f"{shown(index)} lists {len(shards)} shards, expected at most {MAX_SHARDS}; download it again"
        )
    missing = [shard for shard in shards if not os.path.isfile(index.parent / shard)]
    if missing:
        raise ValueError(
            f"{shown(index.parent)} lacks {len(missing)} of {len(shards)} shards: {listed(missing)}; "
            "download them"
        )
    owners = {name: index.parent / shard for name, shard in weight_map.items()}
    return WeightSet(tuple(index.parent / shard for shard in shards), owners, _read_config(index.parent))


def _read_config(folder: Path) -> dict[str, Any] | None:
    path = folder / "config.json"
    return _read_json(path) if os.path.isfile(path) else None


def _read_json(path: Path) -> dict[str, Any]:
    content = read_file(path, MAX_JSON_BYTES)
    try:
        value = parse_json(content)
    except ValueError as error:
        raise ValueError(f"{shown(path)} is not readable JSON ({error}); download it again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{shown(path)} holds a {type(value).__name__}; expected a JSON object")
    return value
