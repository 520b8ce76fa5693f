"""Measures seconds and peak memory of every builder and signal on a drawn clip.

    python benchmarks/memory.py [--size 81x480x832] [--only NAME] [--first] [--json]

Each call runs on one thread in a separate process, so that one's peak is not another's; the peak counts what
the process holds beyond the inputs, in units of the clip (float32 frames). Prints a Markdown table.
"""

import argparse
import gc
import json
import os
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks._builders import CASES, Case, DrawnClip  # noqa: E402

FULL = (81, 480, 832)
WARM_UP = (5, 64, 96)
LIMIT_CLIPS, LIMIT_SECONDS = 2.0, 2.0


def status_bytes(name: str) -> int:
    """A value of /proc/self/status, such as VmHWM."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def measure(case: Case, clip: DrawnClip, small: DrawnClip) -> tuple[float, int]:
    """(CPU seconds, peak bytes beyond the inputs) of one call, in a forked process.

    A call for the small clip comes first: it maps the pages of the libraries, which would count.
    """
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            case.run(small, case.inputs(small))
            made = case.inputs(clip)
            gc.collect()
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
            before, start = status_bytes("VmHWM"), time.process_time()
            result = case.run(clip, made)
            seconds, peak = time.process_time() - start, status_bytes("VmHWM") - before
            del result
            os.write(write, json.dumps([seconds, peak]).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        answer = file.read()
    os.waitpid(child, 0)
    if not answer:
        raise RuntimeError("the measured call failed; its error is above")
    return tuple(json.loads(answer))


def chosen(only: str, first: bool) -> dict[str, Case]:
    """Entries whose name contains `only`; `first`: one of each function."""
    cases, functions = {}, set()
    for name, case in CASES.items():
        if only in name and not (first and case.function in functions):
            cases[name] = case
            functions.add(case.function)
    return cases


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--size", default="x".join(map(str, FULL)), help="frames x height x width")
    parser.add_argument("--only", default="", help="measure the entries whose name contains this")
    parser.add_argument("--first", action="store_true", help="measure one entry of each function")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each entry")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure every entry; 1 where one is above a limit (of time only at the full size)."""
    args = parse(argv)
    if sys.platform != "linux":
        print("the peak is read from /proc, which only Linux has", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    size = tuple(int(side) for side in args.size.split("x"))
    small, clip = DrawnClip(*WARM_UP), DrawnClip(*size)
    clip_bytes = clip.frames.nbytes
    cases = chosen(args.only, args.first)
    for case in cases.values():
        case.run(small, case.inputs(small))  # imports, which later calls do not pay for
    if not args.json:
        print(f"torch {torch.__version__}, one thread; a clip of {args.size} has {clip_bytes / 1e6:.0f} MB\n")
        print("| function | node | CPU seconds | peak, clips |\n|---|---|---|---|")
    above = []
    for name, case in cases.items():
        seconds, peak = measure(case, clip, small)
        clips = peak / clip_bytes
        if args.json:
            print(json.dumps({"name": name, "seconds": seconds, "clips": clips}), flush=True)
        else:
            print(f"| {name} | {case.node} | {seconds:.2f} | {clips:.2f} |", flush=True)
        if clips > LIMIT_CLIPS or (size == FULL and seconds > LIMIT_SECONDS):
            above.append(f"{name} ({seconds:.2f} s, {clips:.2f} clips)")
    if above:
        print("\nAbove the limits: " + "; ".join(above), file=sys.stderr)
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main())
