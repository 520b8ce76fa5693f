"""`convert IN OUT`: rewrite a checkpoint in this project's formats."""

from __future__ import annotations

import argparse

from ...dtypes import DTYPES
from ..convert import convert
from ..forms import FORMS
from ..gguf_write import GGUF_TYPES, K_TYPES, convert_to_gguf
from ..info import CheckpointInfo
from ..shards import parse_size
from .arguments import add_plain, add_source, add_vace
from .summary import print_summary

HELP = "write a checkpoint as safetensors or GGUF with its config"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_source(parser)
    parser.add_argument("target", metavar="OUT", help="the .safetensors or .gguf file to write")
    add_vace(parser)
    parser.add_argument(
        "--dtype",
        choices=("bf16", "fp16", "fp32", *FORMS),
        help="bf16, fp16, fp32: convert every parameter. fp8_scaled, int8: store the blocks' matrices in "
        "ComfyUI's quantized forms and keep the other dtypes. By default all dtypes are kept",
    )
    parser.add_argument(
        "--shard_size",
        metavar="SIZE",
        help="write parts of at most this size, such as 5GB, and OUT.index.json",
    )
    parser.add_argument(
        "--type",
        choices=(*GGUF_TYPES, *K_TYPES),
        help="of a .gguf file: the format of the blocks' matrices",
    )
    parser.add_argument(
        "--llama_quantize",
        metavar="PROGRAM",
        help="llama.cpp's llama-quantize with ComfyUI-GGUF's patch, which writes the types with K",
    )
    add_plain(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def run(options: argparse.Namespace) -> int:
    """Convert, and print the new file's summary; returns the exit code."""
    if options.type or str(options.target).endswith(".gguf"):
        return print_summary(_to_gguf(options))
    if options.llama_quantize:
        raise ValueError("--llama_quantize is for GGUF files; give an OUT that ends in .gguf, and --type")
    info = convert(
        options.source,
        options.target,
        vace=options.vace,
        dtype=DTYPES.get(options.dtype),
        form=options.dtype if options.dtype in FORMS else "",
        shard_bytes=parse_size(options.shard_size) if options.shard_size else None,
        plain=options.plain,
        overwrite=options.overwrite,
    )
    return print_summary(info)


def _to_gguf(options: argparse.Namespace) -> CheckpointInfo:
    if options.type is None:
        raise ValueError(f"a GGUF file needs its type; give --type, one of {', '.join(GGUF_TYPES)}")
    if options.dtype or options.shard_size or options.plain:
        raise ValueError("a GGUF file takes --type; leave --dtype, --shard_size and --plain out")
    return convert_to_gguf(
        options.source,
        options.target,
        options.type,
        vace=options.vace,
        llama_quantize=options.llama_quantize,
        overwrite=options.overwrite,
    )
