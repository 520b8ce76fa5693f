"""Writes a checkpoint as GGUF for ComfyUI-GGUF's loader and ours, tensor by tensor.

Formats, names and what stays unquantized are those of city96/ComfyUI-GGUF (tools/convert.py and lcpp.patch):
the blocks' matrices take the format; vectors, modulations and patch embeddings are float32; others keep their
dtype. The `gguf` package, an extra of this project, quantizes and writes.
"""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..files import new_file, scratch_file
from ..networks import WanVaceConfig
from ..text import shown
from .forms import is_block_matrix
from .ggml_types import GGML_BY_NAME, num_packed_bytes
from .gguf_files import METADATA
from .gguf_header import ORIGINAL_SHAPE
from .info import CheckpointInfo, Survey
from .read import inspect, iterate_tensors, loadable
from .streams import compared_with_a_copy, reported, unchanged
from .targets import require_apart, require_free
from .tensor_files import TensorSpec
from .write import result_header

if TYPE_CHECKING:
    import gguf
    import numpy as np

GGUF_TYPES = ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "BF16", "F16")
K_TYPES = ("Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K")
_ARCHITECTURE = "wan"
_SMALL = 1024  # values of a tensor that is not worth fewer bits
_MAX_LLAMA_AXES = 4


def convert_to_gguf(
    source: str | Path,
    target: str | Path,
    kind: str,
    *,
    vace: str | Path | None = None,
    config: WanVaceConfig | None = None,
    llama_quantize: str | Path | None = None,
    overwrite: bool = False,
) -> CheckpointInfo:
    """Rewrite a checkpoint as one GGUF file with its config among the fields.

    Args:
        source: anything that `read_weights` reads, or a VACE module alone.
        target: the `.gguf` file to write; it appears only when complete.
        kind: one of `GGUF_TYPES`, or of `K_TYPES` with llama_quantize.
        vace: the VACE module to join to a T2V network.
        config: sizes of a network whose file does not carry them.
        llama_quantize: the llama-quantize program, built with ComfyUI-GGUF's patch; it writes K types.
        overwrite: replace an existing target.
    Returns:
        The `inspect` result of the new file.
    Raises:
        ValueError: the source cannot be read, the target cannot be written or exists already, the `gguf`
            package or llama-quantize is missing, or llama-quantize fails.
    """
    target = _checked_target(target, kind, llama_quantize, overwrite)
    checkpoint = loadable(source, vace, config, torch.bfloat16, module_alone=True)
    if len(checkpoint.info.files) > 1:
        require_apart([target], checkpoint.info.files)
    with (
        compared_with_a_copy(checkpoint.info.files, target),
        new_file(target, overwrite=overwrite) as partial,
    ):
        if kind in GGUF_TYPES:
            _write(checkpoint, partial, kind)
        else:
            with scratch_file(target) as full:
                _write(checkpoint, full, "BF16", max_axes=_MAX_LLAMA_AXES)
                _run_llama_quantize(str(llama_quantize), full, partial, kind)
        written = inspect(partial, config=checkpoint.info.config)
        if written.problem and not written.usage:
            raise ValueError(f"cannot write {shown(target)}: {written.problem}")
    return inspect(target)


def format_of(name: str, spec: TensorSpec, kind: str) -> str:
    """Format of a parameter in a file.

    Args:
        name: Wan name.
        spec: its shape and dtype in the source.
        kind: the file's type, one of `GGUF_TYPES`.
    """
    if len(spec.shape) in (1, 5) or spec.num_elements <= _SMALL or name.endswith(".modulation"):
        return "F32"
    if is_block_matrix(name, spec):
        # As in ComfyUI-GGUF, where a row is no number of whole blocks.
        return kind if spec.shape[-1] % GGML_BY_NAME[kind].block_size == 0 else "F16"
    if kind == "F16" or spec.dtype == torch.float16:
        return "F16"
    return "F32" if spec.dtype == torch.float32 and not spec.ggml_type else "BF16"


def _checked_target(
    target: str | Path, kind: str, llama_quantize: str | Path | None, overwrite: bool
) -> Path:
    target = Path(target)
    if target.suffix != ".gguf":
        raise ValueError(f"cannot write {shown(target)}: the format is GGUF; give a name that ends in .gguf")
    if kind not in (*GGUF_TYPES, *K_TYPES):
        kinds = ", ".join((*GGUF_TYPES, *K_TYPES))
        raise ValueError(f"got type '{shown(kind, 20)}'; expected one of {kinds}")
    if kind in K_TYPES and llama_quantize is None:
        raise ValueError(
            f"{kind} is written by llama.cpp's llama-quantize; give the program, built with ComfyUI-GGUF's "
            "patch, by --llama_quantize, or another type, such as Q5_0"
        )
    if kind in K_TYPES and shutil.which(llama_quantize) is None:
        raise ValueError(f"{shown(llama_quantize)} is no program that can be run; give llama-quantize's path")
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise ValueError("writing GGUF needs the gguf package: pip install gguf, then try again") from error
    require_free(target, overwrite)
    return target


def _write(checkpoint: Survey, path: Path, kind: str, *, max_axes: int = 5) -> None:
    """Write all tensors; those of more than `max_axes` axes as matrices, their shape among the fields."""
    import gguf

    formats = {name: format_of(name, entry.spec, kind) for name, entry in checkpoint.entries.items()}
    writer = gguf.GGUFWriter(None, _ARCHITECTURE)
    with closing(writer):
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind}"])
        for key, value in result_header(checkpoint).items():
            writer.add_string(METADATA + key, value)
        total = 0
        for name, entry in checkpoint.entries.items():
            shape = entry.spec.shape
            if len(shape) > max_axes:
                writer.add_array(ORIGINAL_SHAPE + name, list(shape))
                shape = (shape[0], math.prod(shape[1:]))
            total += _announce(writer, name, shape, formats[name])
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for _, values in reported(_packed_values(checkpoint, formats), total):
            writer.write_tensor_data(values)
            del values


def _announce(writer: gguf.GGUFWriter, name: str, shape: tuple[int, ...], kind: str) -> int:
    """Add a tensor to the file's table; returns its number of bytes."""
    import gguf
    import numpy as np

    num_bytes = num_packed_bytes(kind, math.prod(shape))
    # The package takes the shape of the bytes.
    byte_shape = (*shape[:-1], num_packed_bytes(kind, shape[-1]))
    writer.add_tensor_info(name, byte_shape, np.dtype(np.uint8), num_bytes, gguf.GGMLQuantizationType[kind])
    return num_bytes


def _packed_values(checkpoint: Survey, formats: Mapping[str, str]) -> Iterator[tuple[str, np.ndarray]]:
    """Parameters' bytes in their formats; quantized ones from float32."""
    import gguf

    dtypes = {name: GGML_BY_NAME[kind].dtype for name, kind in formats.items()}
    targets = {name: dtype or torch.float32 for name, dtype in dtypes.items()}
    stream = iterate_tensors(checkpoint.entries, targets, mapped=False)
    for name, tensor in unchanged(stream, checkpoint.entries):
        if dtypes[name] is not None:
            yield name, tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
        else:
            kind = gguf.GGMLQuantizationType[formats[name]]
            packed = gguf.quants.quantize(tensor.contiguous().numpy(), kind)
            _require_finite_scales(name, packed, formats[name])
            yield name, packed
        del tensor


def _require_finite_scales(name: str, packed: np.ndarray, kind: str) -> None:
    """ValueError where a block's float16 scale, its first two bytes, or the minimum after it is infinite."""
    import numpy as np

    num_bytes = 4 if kind.endswith("_1") else 2
    scales = packed.reshape(-1, num_packed_bytes(kind, GGML_BY_NAME[kind].block_size))[:, :num_bytes]
    if not np.isfinite(np.ascontiguousarray(scales).view(np.float16)).all():
        raise ValueError(
            f"{shown(name)} has values outside the range of {kind}, whose scales are float16; use BF16 "
            "instead"
        )


def _run_llama_quantize(program: str, source: Path, target: Path, kind: str) -> None:
    """Quantize a GGUF file of full precision; ValueError with the program's last words where it fails."""
    try:
        run = subprocess.run(
            [program, source, target, kind], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError as error:
        raise ValueError(
            f"{shown(program)} cannot be run ({shown(error, 80)}); give llama-quantize"
        ) from error
    if run.returncode:
        lines = (run.stderr or run.stdout).decode("utf-8", "replace").strip().splitlines()
        reason = shown(lines[-1] if lines else "no message")
        raise ValueError(
            f"{shown(program, 80)} ended with {run.returncode}: {reason}; give a llama-quantize that is "
            "built with ComfyUI-GGUF's patch, which knows the architecture 'wan'"
        )
