"""Compares the network's speed with ComfyUI's and diffusers' on the same weights, compiled and eager.

    python benchmarks/network.py [--device cuda] [--dtype bfloat16] [--only NAME] [--repeats N] [--no-compile]

All contenders run in one process, turn by turn, and a ratio is the median of the turns' ratios, so that
other load affects all equally; on a CPU, processor time is measured. Prints a Markdown table.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.core.networks.helpers import (  # noqa: E402
    diffusers_network,
    inputs,
    native_network,
    random_network,
    relative,
)
from vdot_core.networks import WanVaceConfig, vdot_tiny  # noqa: E402

# name: (config, latent frames, rows, columns)
SIZES = {
    "vdot_tiny, 17 frames of 64 x 64": (vdot_tiny(), 5, 8, 8),
    "width 384 (3 + 1 blocks), 17 frames of 128 x 128": (
        WanVaceConfig(dim=384, ffn_dim=1536, num_heads=6, num_layers=3, vace_layers=(0,), text_dim=256),
        5, 16, 16,
    ),
    "1.3B's blocks (1 + 1), 17 frames of 128 x 128": (
        WanVaceConfig(dim=1536, ffn_dim=8960, num_heads=12, num_layers=1, vace_layers=(0,)), 5, 16, 16,
    ),
}  # fmt: skip
LIMIT = 1.05


def comfyui_network(network):
    """ComfyUI's network with its PyTorch attention, its fastest on a CPU; None without ComfyUI."""
    import dev

    if dev.find_comfyui() is None:
        return None
    from tests.support.comfy import import_comfy

    import_comfy()
    import comfy.ldm.modules.attention
    import comfy.ldm.wan.model

    comfy.ldm.wan.model.optimized_attention = comfy.ldm.modules.attention.attention_pytorch
    return native_network(network.float())


def contenders(config: WanVaceConfig, size: tuple, args: argparse.Namespace) -> dict[str, Callable]:
    """Name -> a call without arguments; all compute the same."""
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    frames, height, width = size
    network = random_network(config).requires_grad_(False)
    peers = {
        "ComfyUI": comfyui_network(network),
        "diffusers": diffusers_network(network).requires_grad_(False),
    }
    arguments = inputs(config, frames=frames, height=height, width=width, tokens=config.text_len)
    x, timestep, text, contexts = (v.to(device, dtype if v.ndim > 1 else v.dtype) for v in arguments)
    network = network.to(device, dtype)
    calls = {"ours": lambda: network(x, timestep, text, contexts)}
    if peers["ComfyUI"] is not None:
        native = peers["ComfyUI"].to(device, dtype)
        native.patch_embedding.float(), native.vace_patch_embedding.float()
        calls["ComfyUI"] = lambda: native(x, timestep, text, vace_context=contexts, vace_strength=[1.0])
    peer = peers["diffusers"].to(device)
    peer = peer if dtype == torch.float32 else peer.to(dtype)
    calls["diffusers"] = lambda: peer(x, timestep, text, None, contexts[:, 0], return_dict=False)[0]
    if not args.no_compile:
        compiled = torch.compile(network, fullgraph=True, dynamic=False)
        calls["ours compiled"] = lambda: compiled(x, timestep, text, contexts)
    return calls


def measure(calls: dict[str, Callable], repeats: int, device: str) -> dict[str, list[float]]:
    """Milliseconds of each call in each round; every round runs all of them, each time in another order."""
    cuda = device.startswith("cuda")
    synchronize, clock = (
        (torch.cuda.synchronize, time.perf_counter) if cuda else (lambda: None, time.process_time)
    )
    times = {name: [] for name in calls}
    names = list(calls)
    for round_index in range(repeats):
        first = round_index % len(names)
        for name in names[first:] + names[:first]:
            synchronize()
            start = clock()
            calls[name]()
            synchronize()
            times[name].append((clock() - start) * 1e3)
    return times


def ratio(times: dict[str, list[float]], name: str, other: str) -> float:
    """Median over the rounds of one contender's time by another's."""
    return statistics.median(a / b for a, b in zip(times[name], times[other], strict=True))


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--only", default="", help="measure the sizes whose name contains this")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--no-compile", action="store_true")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure every size and print the table; 1 where a ratio is above the limit."""
    args = parse(argv)
    tolerance = 1e-4 if args.dtype == "float32" else 5e-2
    print(f"torch {torch.__version__}, {args.device}, {args.dtype}, {torch.get_num_threads()} threads, "
          f"median of {args.repeats} interleaved runs\n")  # fmt: skip
    print("| size | ours, ms | ours / ComfyUI | ours / diffusers | compiled / eager |")
    print("|---|---|---|---|---|")
    slow = []
    for name, (config, *size) in ((n, size) for n, size in SIZES.items() if args.only in n):
        with torch.inference_mode():
            calls = contenders(config, tuple(size), args)
            expected = calls["ours"]()
            for other, call in calls.items():
                assert relative(call(), expected) < tolerance, f"{other} computes something else"
            times = measure(calls, args.repeats, args.device)
        ratios = {peer: ratio(times, "ours", peer) for peer in ("ComfyUI", "diffusers") if peer in times}
        slow += [f"{name}: {value:.2f} of {peer}" for peer, value in ratios.items() if value > LIMIT]
        cells = [
            f"{ratios[peer]:.2f}" if peer in ratios else "not installed" for peer in ("ComfyUI", "diffusers")
        ]
        if "ours compiled" in times:
            compiled = ratio(times, "ours compiled", "ours")
            cells.append(f"{compiled:.3f}")
            slow += [f"{name}: compiled takes {compiled:.3f} of eager"] if compiled >= 1 else []
        else:
            cells.append("not run")
        print(f"| {name} | {statistics.median(times['ours']):.1f} | {' | '.join(cells)} |", flush=True)
    if slow:
        print("\nSlower than allowed: " + "; ".join(slow))
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
