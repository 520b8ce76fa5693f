"""Reading checkpoints: strictly, under Wan's names, and never with two copies of the weights in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..networks import WanVace, WanVaceConfig
from ..text import shown
from .diagnose import VACE_MODULE
from .ggml_types import dequantize
from .info import CheckpointInfo, Entry, Survey
from .scaled import expand_scaled
from .streams import require_unchanged
from .survey import survey
from .tensor_files import all_finite, require_finite

# While weights are converted, the file is mapped in parts of this size, so that the pages already read
# do not add up to a second copy.
_PARTS = 32
_MIN_PART_BYTES = 16 * 2**20


@dataclass(frozen=True)
class NetworkWeights:
    """A network's weights under Wan's own names, with the file's config and info."""

    config: WanVaceConfig
    state_dict: Mapping[str, torch.Tensor]
    info: CheckpointInfo


def inspect(
    path: str | Path | tuple[str | Path, str | Path],
    *,
    vace: str | Path | None = None,
    config: WanVaceConfig | None = None,
) -> CheckpointInfo:
    """Describe a checkpoint from its headers alone.

    Args:
        path: a weight file, a folder of shards, an index, one shard of a set, or a pair (base, VACE module).
        vace: the VACE module that goes with a T2V network at `path`.
        config: sizes of a network whose file does not carry them.
    Returns:
        Layout, config, dtypes and counts; `problem` says why it cannot be loaded, and is empty where it can.
    Raises:
        ValueError: a file is missing, truncated, corrupt, unsafe or of a format that is not read.
    """
    return survey(*_pair(path, vace), config).info


def read_weights(
    path: str | Path | tuple[str | Path, str | Path],
    *,
    vace: str | Path | None = None,
    config: WanVaceConfig | None = None,
    dtype: torch.dtype | None = None,
) -> NetworkWeights:
    """Read a network's weights, memory-mapped where the format allows and no conversion is asked for.

    A file that was cut or exchanged meanwhile is refused. Cutting one that stays mapped, later on, ends the
    process at the next use of its values; `open_weights` reads without a map. Converted values, and those of
    `open_weights`, are refused if they are not finite; a map is not read for that: `verify` checks every one.

    Args:
        path: as for `inspect`, or a pair (base T2V network, VACE module).
        vace: the VACE module, where `path` is a base T2V network.
        config: sizes of a network whose file does not carry them.
        dtype: convert every parameter; None keeps each in the file's dtype, fp8 and bf16 included.
    Returns:
        Config, state dict (Wan's names) and info.
    Raises:
        ValueError: not a complete, loadable network; the message names the first ten faults and the cause.
    """
    checkpoint = loadable(path, vace, config, dtype)
    targets = dict.fromkeys(checkpoint.entries, dtype)
    return NetworkWeights(
        checkpoint.info.config, _collect(checkpoint.entries, targets, None), checkpoint.info
    )


def load_network(
    path: str | Path | tuple[str | Path, str | Path],
    *,
    vace: str | Path | None = None,
    config: WanVaceConfig | None = None,
    operations: Any = torch.nn,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> WanVace:
    """Load a network with the weights of a checkpoint; as for `read_weights`, the file must not change.

    Args:
        path, vace, config: as for `read_weights`.
        operations: where the network's layers come from.
        device: where the weights go; None leaves them on the CPU, as a private memory map where nothing
            has to be converted (changing them never changes the file).
        dtype: as the network's own: every parameter but the two patch embeddings, which become float32.
            None keeps the file's dtypes.
    Returns:
        The network, in evaluation mode.
    Raises:
        ValueError: as for `read_weights`.
    """
    checkpoint = loadable(path, vace, config, dtype)
    network = WanVace(checkpoint.info.config, operations, device="meta", dtype=dtype)
    own = {name: parameter.dtype for name, parameter in network.named_parameters()}
    targets = {name: None if dtype is None else own[name] for name in checkpoint.entries}
    network.load_state_dict(_collect(checkpoint.entries, targets, device), strict=True, assign=True)
    unloaded = [name for name, tensor in network.state_dict(keep_vars=True).items() if tensor.is_meta]
    assert not unloaded, f"not loaded: {unloaded[:10]}"
    return network.eval()


def iterate_tensors(
    entries: Mapping[str, Entry],
    targets: Mapping[str, torch.dtype | None],
    *,
    bounded: bool = True,
    mapped: bool = True,
    finite: bool = True,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Read parameters one at a time, in the order of `entries`.

    Args:
        entries: Wan name -> its location.
        targets: Wan name -> dtype to convert to; None keeps the file's.
        bounded: release the file's pages regularly; for callers that do not keep the mapped tensors.
        mapped: map files where possible. Otherwise tensors are read one by one: a little more memory, but a
            file that is cut meanwhile is an error instead of the end of the process.
        finite: refuse NaN and infinity in tensors that are read here; those of a map are read at their use.
    Yields:
        (Wan name, tensor on the CPU).
    Raises:
        ValueError: a value is not finite, or out of float16's range.
    """
    for batch in _batches(entries, bounded):
        file = batch[0][1].file
        load = None if mapped else file.load
        tensors = file.read() if load is None else {}
        for name, entry in batch:
            if load is not None:
                tensors = {part: load(part) for part in (entry.name, entry.scale) if part}
            scale = tensors[entry.scale] if entry.scale else None
            tensor = _convert(name, entry, tensors.pop(entry.name), scale, targets[name])
            if finite and (load is not None or targets[name] is not None):
                require_finite(name, tensor, file.path)
            yield name, tensor
            del tensor
        del tensors


def loadable(
    path: str | Path | tuple[str | Path, str | Path],
    vace: str | Path | None,
    config: WanVaceConfig | None,
    dtype: torch.dtype | None,
    *,
    branch_of_vace: bool = False,
    module_alone: bool = False,
) -> Survey:
    """Survey a checkpoint; ValueError where it is none that can be loaded in `dtype`.

    Args:
        path, vace, config, dtype: as for `read_weights`.
        branch_of_vace: as for `survey`.
        module_alone: a VACE module without its base is one too.
    """
    path, vace = _pair(path, vace)
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"dtype is {dtype}; give a floating point dtype, such as torch.bfloat16")
    checkpoint = survey(path, vace, config, branch_of_vace=branch_of_vace)
    is_module = checkpoint.info.layout == VACE_MODULE.layout and checkpoint.info.usage
    if checkpoint.info.problem and not (module_alone and is_module):
        raise ValueError(checkpoint.info.problem)
    if checkpoint.info.formats:
        raise ValueError(
            f"{shown(path)} is quantized as {' and '.join(checkpoint.info.formats)}, which only ComfyUI "
            "reads: open it with VDOT Load Model, or give a bf16, fp16, fp8 or int8 file"
        )
    if checkpoint.info.encoded_as and dtype is None:
        raise ValueError(
            f"{shown(path)} holds quantized weights ({checkpoint.info.encoded_as}), which have to be "
            "expanded; give dtype=torch.bfloat16, or convert the file with --dtype bf16"
        )
    return checkpoint


def _pair(path, vace):
    """(path, vace) of a path alone, of both, or of a pair."""
    if not isinstance(path, (tuple, list)):
        return path, vace
    if len(path) != 2 or vace is not None:
        raise ValueError(
            f"got {len(path)} paths{' and vace=' if vace else ''}; give (base, vace) or path and vace="
        )
    return path


def _collect(
    entries: Mapping[str, Entry], targets: Mapping[str, torch.dtype | None], device: torch.device | str | None
) -> dict[str, torch.Tensor]:
    """Read all parameters: unchanged ones from one map of each file, converted ones tensor by tensor."""
    elsewhere = device is not None and torch.device(device).type != "cpu"
    direct = {
        name: entry
        for name, entry in entries.items()
        if not elsewhere and not entry.is_encoded and targets[name] in (None, entry.spec.dtype)
    }
    read = dict(iterate_tensors(direct, targets, bounded=False))
    changed = {name: entry for name, entry in entries.items() if name not in direct}
    for name, tensor in iterate_tensors(changed, targets):
        read[name] = tensor.to(device) if elsewhere else tensor
    require_unchanged(entries)
    return {name: read[name] for name in entries}


def _batches(entries: Mapping[str, Entry], bounded: bool) -> Iterator[list[tuple[str, Entry]]]:
    """Consecutive parameters of one file; in small groups if the file's pages are to be released."""
    total = sum(entry.spec.num_bytes for entry in entries.values())
    limit = max(total // _PARTS, _MIN_PART_BYTES)
    batch: list[tuple[str, Entry]] = []
    size = 0
    for name, entry in entries.items():
        full = bounded and entry.file.mapped and size + entry.spec.num_bytes > limit
        if batch and (full or entry.file is not batch[0][1].file):
            yield batch
            batch, size = [], 0
        batch.append((name, entry))
        size += entry.spec.num_bytes
    if batch:
        yield batch


def _convert(
    name: str, entry: Entry, tensor: torch.Tensor, scale: torch.Tensor | None, dtype: torch.dtype | None
) -> torch.Tensor:
    if dtype is None:
        return tensor
    if entry.spec.ggml_type:
        converted = dequantize(tensor, entry.spec.ggml_type, entry.spec.shape, dtype)
    elif scale is not None:
        converted = expand_scaled(tensor, scale, dtype, entry.group_size)
    else:
        converted = tensor.to(dtype)
    if dtype == torch.float16 and tensor.dtype != dtype and not all_finite(converted) and all_finite(tensor):
        raise ValueError(f"{shown(name)} has values outside float16's range; use bfloat16 instead")
    return converted
