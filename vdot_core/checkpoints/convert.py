"""Converts any readable checkpoint to this project's formats, tensor by tensor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ..networks import WanVaceConfig
from ..text import described
from .forms import FORMS, encode, form_specs, is_block_matrix
from .info import CheckpointInfo, Survey
from .read import inspect, iterate_tensors, loadable
from .shards import write_shards
from .streams import compared_with_a_copy, reported, unchanged
from .targets import by_one_process, checked_path, earlier_forms, remove, require_apart, require_free
from .tensor_files import TensorSpec
from .write import result_header, writing_order


@by_one_process
def convert(
    source: str | Path,
    target: str | Path,
    *,
    vace: str | Path | None = None,
    config: WanVaceConfig | None = None,
    dtype: torch.dtype | None = None,
    form: str = "",
    shard_bytes: int | None = None,
    plain: bool = False,
    overwrite: bool = False,
) -> CheckpointInfo:
    """Rewrite a checkpoint in safetensors under Wan's names with its config in the header.

    Args:
        source: anything that `read_weights` reads, or a VACE module alone.
        target: the `.safetensors` file to write; it appears only when complete.
        vace: the VACE module to join to a T2V network.
        config: sizes of a network whose file does not carry them.
        dtype: convert every parameter; None keeps each dtype.
        form: one of `FORMS`, in which the blocks' matrices are stored; the others keep their dtype.
        shard_bytes: write parts of at most this size and their index, `target` + '.index.json'.
        plain: leave the config out, so that ComfyUI opens the file with its own network, also without this
            pack; for released sizes alone, which are known from their shapes.
        overwrite: replace an existing target, in one file or in parts.
    Returns:
        The `inspect` result of the new file.
    Raises:
        ValueError: the source cannot be read, or the target cannot be written or exists already.
    """
    from .safetensors_files import write_safetensors

    if form and (form not in FORMS or dtype is not None):
        raise ValueError(
            f"got form {described(form)} and dtype {dtype}; give a form ({', '.join(FORMS)}) or a dtype"
        )
    target = checked_path(target)
    if shard_bytes is None:
        require_free(target, overwrite)
    checkpoint = loadable(source, vace, config, torch.bfloat16 if form else dtype, module_alone=True)
    files = checkpoint.info.files
    if len(files) > 1:
        require_apart([target], files)
    earlier = []
    if shard_bytes is None:
        earlier = earlier_forms(target, [target], overwrite=overwrite, sources=files)
    groups, targets = _plan(checkpoint, dtype, form)
    metadata = result_header(checkpoint, plain=plain)
    stream = unchanged(iterate_tensors(checkpoint.entries, targets, mapped=False), checkpoint.entries)
    if form:
        stream = encode(form, {name: group[name] for name, group in groups.items() if len(group) > 1}, stream)
    specs = {name: spec for group in groups.values() for name, spec in group.items()}
    stream = reported(stream, sum(spec.num_bytes for spec in specs.values()))
    with compared_with_a_copy(files, target):
        if shard_bytes is not None:
            target = write_shards(
                target,
                groups,
                stream,
                metadata,
                shard_bytes,
                overwrite=overwrite,
                sources=files,
            )
        else:
            write_safetensors(target, writing_order(specs), stream, metadata, overwrite=overwrite)
            remove(earlier)
    return inspect(target)


def _plan(
    checkpoint: Survey, dtype: torch.dtype | None, form: str
) -> tuple[dict[str, dict[str, TensorSpec]], dict[str, torch.dtype | None]]:
    """Tensors that each parameter is stored as (name in the file -> spec), and the dtype to read it in."""
    groups: dict[str, dict[str, TensorSpec]] = {}
    targets: dict[str, torch.dtype | None] = {}
    for name, entry in checkpoint.entries.items():
        if form and is_block_matrix(name, entry.spec):
            groups[name] = form_specs(form, name, entry.spec)
            # Numbers of at least 16 bits are quantized as they are, to save a float32 copy of the matrix.
            is_plain = not entry.is_encoded and entry.spec.dtype.itemsize > 1
            targets[name] = None if is_plain else torch.float32
        else:
            targets[name] = torch.bfloat16 if form and entry.is_encoded else dtype
            stored = targets[name] or entry.spec.dtype
            groups[name] = {name: replace(entry.spec, dtype=stored, ggml_type="")}
    return groups, targets
