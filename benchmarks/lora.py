"""Measures time, memory and error of extracting a LoRA at the width of VACE-Wan2.1-14B.

    python benchmarks/lora.py [--ranks 32 128] [--width 5120 --ffn 13824] [--device cuda]

The networks are one backbone block and one VACE block with random weights, and the embeddings. The student
differs by a change of a planted spectrum, index^-0.35 over 512 directions, so that the best possible energy
is known; both are rounded to bfloat16, which adds to the change. Each rank runs in a separate process. Time
and size of the complete network are extrapolated by its number of parameters. Prints a Markdown table.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from vdot_core.checkpoints import LoraOptions, extract_lora  # noqa: E402
from vdot_core.checkpoints.safetensors_files import write_safetensors  # noqa: E402
from vdot_core.checkpoints.tensor_files import TensorSpec  # noqa: E402
from vdot_core.checkpoints.write import header  # noqa: E402
from vdot_core.networks import WanVaceConfig, expected_shapes, wan_vace_14b  # noqa: E402

EXPONENT = -0.35
COMPONENTS = 512
RELATIVE_CHANGE = 0.027  # of the tiny student


def main() -> int:
    """Write the two networks, extract at each rank, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[32, 128], help="default: 32 128")
    parser.add_argument("--width", type=int, default=wan_vace_14b().dim)
    parser.add_argument("--ffn", type=int, default=wan_vace_14b().ffn_dim)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", metavar="FOLDER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return extract_one(Path(args.one), args.ranks[0], args.device)
    config = WanVaceConfig(args.width, args.ffn, args.width // 128, 1, vace_layers=(0,))
    count = sum(torch.Size(shape).numel() for shape in expected_shapes(config).values())
    total = sum(torch.Size(shape).numel() for shape in expected_shapes(wan_vace_14b()).values())
    print(f"torch {torch.__version__}, {args.device}, {torch.get_num_threads()} threads; "
          f"{count / 1e9:.2f} of 14B's {total / 1e9:.2f} billion parameters\n")  # fmt: skip
    print("| rank | energy kept | best possible | s | 14B, min (extrapolated) | peak memory, GB | LoRA, GB |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        write_networks(Path(folder), config)
        for rank in args.ranks:
            command = [
                sys.executable,
                __file__,
                "--one",
                folder,
                "--ranks",
                str(rank),
                "--device",
                args.device,
            ]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            kept, seconds, peak, size = json.loads(output)
            cells = (f"{100 * kept:.1f} %", f"{100 * best(rank):.1f} %", f"{seconds:.0f}",
                     f"{seconds * total / count / 60:.0f}",
                     f"{peak / 1e9:.2f}", f"{size * total / count / 1e9:.2f}")  # fmt: skip
            print(f"| {rank} | {' | '.join(cells)} |", flush=True)
    return 0


def write_networks(folder: Path, config: WanVaceConfig) -> None:
    """Write base.safetensors and student.safetensors in bfloat16, one tensor in memory at a time."""
    shapes = expected_shapes(config)
    specs = {name: TensorSpec(shape, torch.bfloat16) for name, shape in shapes.items()}
    for part in ("base", "student"):
        stream = ((name, weight(number, shapes[name], part)) for number, name in enumerate(shapes))
        write_safetensors(folder / f"{part}.safetensors", specs, stream, header(config, None))


def weight(seed: int, shape: tuple[int, ...], part: str) -> torch.Tensor:
    """A random parameter of the base, or the student's, which is changed."""
    generator = torch.Generator().manual_seed(seed)
    value = torch.randn(shape, generator=generator) * shape[-1] ** -0.5
    if part == "student":
        change = planted(shape, generator) if len(shape) == 2 else torch.randn(shape, generator=generator)
        value.add_(change, alpha=float(RELATIVE_CHANGE * value.norm() / change.norm()))
    return value.bfloat16()


def planted(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """A matrix of the planted spectrum."""
    components = min(COMPONENTS, *shape)
    left, right = (torch.linalg.qr(torch.randn(side, components, generator=generator)).Q for side in shape)
    return (left * torch.arange(1.0, components + 1) ** EXPONENT) @ right.T


def best(rank: int) -> float:
    """Part of the planted energy in the first `rank` directions."""
    energies = torch.arange(1.0, COMPONENTS + 1, dtype=torch.float64) ** (2 * EXPONENT)
    return float(energies[:rank].sum() / energies.sum())


def extract_one(folder: Path, rank: int, device: str) -> int:
    """Print [energy kept of the blocks' matrices, seconds, peak bytes, bytes of the LoRA] as JSON."""
    begun = time.perf_counter()
    files = (folder / f"{name}.safetensors" for name in ("student", "base", f"lora_{rank}"))
    report = extract_lora(*files, LoraOptions(rank, device=device))
    seconds = time.perf_counter() - begun
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    changes = [change for change in report.changes if "blocks." in change.name and change.rank]
    kept = 1 - sum(change.residual for change in changes) / sum(change.energy for change in changes)
    print(json.dumps([kept, seconds, peak, report.num_bytes]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
