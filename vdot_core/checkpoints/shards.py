"""A checkpoint in several parts with an index, as transformers and diffusers write it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import torch

from ..files import new_files
from ..text import shown
from .folders import INDEX_SUFFIX, MAX_SHARDS
from .safetensors_files import fill_safetensors
from .targets import earlier_forms, remove, require_apart, require_free
from .tensor_files import TensorSpec
from .write import writing_order


def write_shards(
    target: Path,
    groups: Mapping[str, Mapping[str, TensorSpec]],
    stream: Iterator[tuple[str, torch.Tensor]],
    metadata: Mapping[str, str],
    max_bytes: int,
    *,
    overwrite: bool = False,
    sources: Sequence[Path] = (),
) -> Path:
    """Write parts and their index, which take their names together once all are complete.

    An index that is replaced is removed right before, so that no part is read with others than its own; what
    else the target's name stood for (`earlier_forms`) is removed last.

    Args:
        target: 'NAME.safetensors'; parts are 'NAME-00001-of-00003.safetensors'.
        groups: parameter -> the tensors that it is stored as, which stay in one part.
        stream: those tensors, group by group.
        metadata: strings of every part's header.
        max_bytes: of a part's tensors; a group that is larger is a part by itself.
        overwrite: replace existing files.
        sources: files that the stream reads; none of them is replaced.
    Returns:
        The index.
    Raises:
        ValueError: a file exists already or cannot be written, or there are too many parts.
    """
    shards = _divide(groups, max_bytes)
    if len(shards) > MAX_SHARDS:
        raise ValueError(f"{len(shards)} parts, expected at most {MAX_SHARDS}; give a larger shard size")
    index = target.with_name(target.name + INDEX_SUFFIX)
    names = [f"{target.stem}-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    paths = [index, *map(target.with_name, names)]
    for path in paths:
        require_free(path, overwrite)
    require_apart(paths, sources)
    earlier = earlier_forms(target, paths, overwrite=overwrite, sources=sources)
    outdated = [index] if overwrite else []
    with new_files(target, [*paths[1:], index], overwrite=overwrite, outdated=outdated) as partial_of:
        for path, specs in zip(paths[1:], shards, strict=True):
            tensors = islice(stream, len(specs))
            fill_safetensors(partial_of(path), writing_order(specs), tensors, metadata)
        assert next(stream, None) is None, "tensors are left over"  # and the source is checked for changes
        weight_map = {tensor: name for name, specs in zip(names, shards, strict=True) for tensor in specs}
        num_bytes = sum(spec.num_bytes for specs in shards for spec in specs.values())
        content = {"metadata": {"total_size": num_bytes}, "weight_map": dict(sorted(weight_map.items()))}
        partial_of(index).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    remove(earlier)
    return index


def parse_size(text: str) -> int:
    """Number of bytes in a size such as '5GB' or '500MB' (powers of ten).

    Raises:
        ValueError: no such size.
    """
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
    number, unit = text[:-2].strip(), text[-2:].upper()
    if unit not in units or not number.isdecimal() or not 0 < int(number) < 10**6:
        raise ValueError(f"got the size '{shown(text, 40)}'; give a number of KB, MB or GB, such as 5GB")
    return int(number) * units[unit]


def _divide(groups: Mapping[str, Mapping[str, TensorSpec]], max_bytes: int) -> list[dict[str, TensorSpec]]:
    """Consecutive groups, in parts of at most `max_bytes`."""
    shards: list[dict[str, TensorSpec]] = [{}]
    size = 0
    for specs in groups.values():
        num_bytes = sum(spec.num_bytes for spec in specs.values())
        if shards[-1] and size + num_bytes > max_bytes:
            shards.append({})
            size = 0
        shards[-1].update(specs)
        size += num_bytes
    return shards
