"""Description of a checkpoint: its layout, its config, and the location of every parameter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..networks import WanVaceConfig
from .quantized import PackedWeight
from .tensor_files import TensorFile, TensorSpec


@dataclass(frozen=True)
class CheckpointInfo:
    """Description of a checkpoint, from its headers.

    Args:
        path: the checkpoint.
        layout: 'vdot' (ours), 'vdot-pt' (the release), 'wan', 'comfyui', 'diffusers', 'vace-module', two of
            these joined by ' + ', or what else it is: 'lora', 'vae', 'text-encoder', 'i2v', 'unknown', ...
        config: the network's sizes; None where they cannot be known.
        dtypes: number of parameters by dtype, as in {'bfloat16': 17337592896}, or by GGUF's format.
        num_parameters: all parameters of the network; quantization scales are not counted.
        files: the weight files.
        metadata: the strings of the files' headers.
        problem: why it cannot be loaded by itself; empty where it can.
        usage: use of a file that is complete, but no network by itself: a VACE module, a LoRA; else empty.
        encodings: forms of weights with scale factors: 'scaled fp8', 'int8'.
        formats: formats of weights that only ComfyUI's layers read, such as 'nvfp4'.
        ggml_types: formats of a GGUF file's blocks, such as 'Q4_K'.
    """

    path: Path
    layout: str
    config: WanVaceConfig | None
    dtypes: dict[str, int]
    num_parameters: int
    files: tuple[Path, ...]
    metadata: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    usage: str = ""
    encodings: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    ggml_types: tuple[str, ...] = ()

    @property
    def encoded_as(self) -> str:
        """Form of weights that have to be decoded, and so need a dtype to be read; empty where none have."""
        return ", ".join((*self.encodings, *self.ggml_types))


@dataclass(frozen=True)
class Entry:
    """Location of one parameter.

    Args:
        file: that holds it.
        name: in the file.
        spec: shape of its values and dtype of its storage.
        scale: name of its factors in the same file, where `expand_scaled` decodes it.
        group_size: columns that were rotated together before; 0: none were.
        packed: its form for ComfyUI's quantized layers; `parts` are names in the same file.
    """

    file: TensorFile
    name: str
    spec: TensorSpec
    scale: str | None = None
    group_size: int = 0
    packed: PackedWeight | None = None

    @property
    def is_encoded(self) -> bool:
        """The file's numbers are not the parameter's values."""
        return self.scale is not None or bool(self.spec.ggml_type)


@dataclass(frozen=True)
class Survey:
    """The `inspect` result, and the location of each parameter by its Wan name."""

    info: CheckpointInfo
    entries: dict[str, Entry]


def with_counts(info: CheckpointInfo, specs: Mapping[str, TensorSpec]) -> CheckpointInfo:
    """`info` with the dtypes and the number of parameters of `specs`."""
    dtypes: Counter[str] = Counter()
    for spec in specs.values():
        dtypes[spec.ggml_type or str(spec.dtype).removeprefix("torch.")] += spec.num_elements
    return replace(info, dtypes=dict(dtypes), num_parameters=sum(dtypes.values()))
