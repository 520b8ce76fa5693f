"""`lora STUDENT BASE OUT`: the difference of two networks as a LoRA."""

from __future__ import annotations

import argparse
import sys

from ...dtypes import DTYPES
from ...text import shown
from ..lora import LoraOptions, extract_lora, output_errors
from ..lora.names import LORA_NAMINGS
from .arguments import add_vace

HELP = "write the difference of two networks as a LoRA"
_AUTO_RANK, _AUTO_ENERGY = 256, 0.95


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("student", metavar="STUDENT", help="the network to reach, such as vdot_14b.pt")
    parser.add_argument("base", metavar="BASE", help="the network to start from, such as VACE-Wan2.1-14B")
    parser.add_argument("target", metavar="OUT", help="the .safetensors file to write")
    add_vace(parser, "BASE")
    parser.add_argument(
        "--rank",
        default="64",
        metavar="N|auto",
        help="rank of each layer; auto: the smallest that keeps --energy, at most --max_rank (default: 64)",
    )
    parser.add_argument(
        "--energy",
        type=float,
        metavar="E",
        help=f"part of the change to keep (default: {_AUTO_ENERGY})",
    )
    parser.add_argument("--max_rank", type=int, metavar="N", help=f"largest rank (default: {_AUTO_RANK})")
    parser.add_argument("--dtype", choices=("bf16", "fp16", "fp32"), default="bf16", help="default: bf16")
    parser.add_argument(
        "--naming",
        choices=tuple(LORA_NAMINGS),
        default="comfyui",
        help="key names for ComfyUI and trainers, or for diffusers (default: comfyui)",
    )
    parser.add_argument("--device", default="cpu", help="where to compute, such as cuda (default: cpu)")
    parser.add_argument(
        "--eval",
        action="store_true",
        help="also run student, base, and base with the LoRA on random input and compare their outputs",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def run(options: argparse.Namespace) -> int:
    """Extract, and print what is kept; returns the exit code."""
    report = extract_lora(
        options.student,
        options.base,
        options.target,
        _lora_options(options),
        vace=options.vace,
        overwrite=options.overwrite,
    )
    sys.stdout.write(report.summary() + "\n")
    if options.eval:
        errors = output_errors(
            options.student, options.base, options.target, vace=options.vace, device=options.device
        )
        sys.stdout.write(errors.summary() + "\n")
    return 0


def _lora_options(options: argparse.Namespace) -> LoraOptions:
    auto = options.rank == "auto"
    if not auto and (options.energy is not None or options.max_rank is not None):
        raise ValueError("--energy and --max_rank belong to --rank auto; leave them out, or give --rank auto")
    if not auto and not (options.rank.isdecimal() and len(options.rank) < 10):
        raise ValueError(f"--rank is '{shown(options.rank, 40)}'; give a number, or auto")
    rank = (_AUTO_RANK if options.max_rank is None else options.max_rank) if auto else int(options.rank)
    energy = (_AUTO_ENERGY if options.energy is None else options.energy) if auto else None
    return LoraOptions(rank, energy, DTYPES[options.dtype], options.naming, options.device)
