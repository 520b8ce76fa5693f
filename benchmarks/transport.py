"""Compares the optimal transport's speed with the release's method, POT, geomloss and ott-jax.

    python benchmarks/transport.py [--rounds N] [--only TABLE] [--device cuda]

Prints Markdown tables: 60 fixed iterations, iterations to a tolerance, and a large frame. On a CPU all
methods run in one process on one thread of one core, turn by turn, and a ratio is the median of the turns'
ratios; extra memory is measured in a process for each. Processor time is measured. Errors are against
a converged float64 solution.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from functools import cache, partial
from pathlib import Path

# Before torch and jax read them: one thread for all.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import torch  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from _transport_methods import (  # noqa: E402
    DEBIASED,
    MEASURED,
    available,
    clouds,
    marginal_error,
    oracle,
    ott,
)

from vdot_core.transport import entropic_ot  # noqa: E402

NUM_POINTS, LARGE, ITERATIONS, LARGE_ITERATIONS = 1560, 6240, 60, 30
SETTINGS = (("indep", 0.1), ("real", 0.32), ("small", 0.64))
# Required speed-up of ours over each, for the fixed iterations.
GOALS = {"the release, forward and backward": 60, "POT sinkhorn_log": 12, "ott-jax dense": 2.5}
LARGE_GOAL, MEMORY_GOAL_MB, ITERATION_GOAL = 3, 200, 0.25
TABLES = ("fixed", "tolerance", "large")


def interleaved(calls: dict, rounds: int) -> tuple[dict[str, list[float]], dict]:
    """Processor seconds of each call in each round (fast ones: median of five), and what each returned."""
    seconds, results = {name: [] for name in calls}, {}
    for _ in range(rounds):
        for name, call in calls.items():
            turns = []
            while not turns or (turns[0] < 0.3 and len(turns) < 5):
                started = time.process_time()
                results[name] = call()
                turns.append(time.process_time() - started)
            seconds[name].append(statistics.median(turns))
    return seconds, results


@cache
def expected(kind: str, eps: float) -> tuple[torch.Tensor, float]:
    """The converged gradient w.r.t. the first cloud and the marginal error at which it was taken."""
    return oracle(*clouds(kind, NUM_POINTS), eps)


def ratio(seconds: dict[str, list[float]], name: str) -> float:
    """Median over the rounds of a method's time by ours."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds["ours"], strict=True))


def extra_memory(name: str, num_points: int, iterations: int) -> float | None:
    """MB by which a process's peak rises while a method runs; None where Linux's /proc does not tell."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    command = [sys.executable, __file__, "--memory-of", name, "--points", str(num_points)]
    command += ["--iterations", str(iterations)]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(process.stdout.split()[-1])


def print_extra_memory(name: str, num_points: int, iterations: int) -> int:
    """The child process's part: warm up on a small problem, reset the peak, run, tell."""
    method = MEASURED[name]
    method(*clouds("indep", 256), 0.1, iterations)
    points = clouds("indep", num_points)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    method(*points, 0.1, iterations)
    print((_status("VmHWM") - before) / 1024)
    return 0


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def cell(megabytes: float | None) -> str:
    """A memory figure for a table."""
    return "?" if megabytes is None else f"{megabytes:.0f}"


def fixed_table(rounds: int) -> list[str]:
    """60 iterations of every method on all clouds; the goals that were missed."""
    methods, missing = available()
    failed = []
    memory = {name: extra_memory(name, NUM_POINTS, ITERATIONS) for name in methods}
    for method in methods.values():  # compile, allocate
        method(*clouds("indep", NUM_POINTS if method is ott else 64), 1.0, ITERATIONS)
    print(f"### {ITERATIONS} fixed iterations, N = {NUM_POINTS}\n")
    print("| clouds, eps | method | s | by ours | extra MB | marginal error | gradient error |")
    print("|---|---|---|---|---|---|---|")
    for kind, eps in SETTINGS:
        a, b = clouds(kind, NUM_POINTS)
        truth, converged = expected(kind, eps)
        calls = {name: partial(method, a, b, eps, ITERATIONS) for name, method in methods.items()}
        seconds, solutions = interleaved(calls, rounds)
        for name, solution in solutions.items():
            error = (solution.gradient - truth).norm() / truth.norm()
            print(f"| {kind}, {eps} | {name} | {statistics.median(seconds[name]):.3f} | "
                  f"{ratio(seconds, name):.1f} | {cell(memory[name])} | "
                  f"{marginal_error(a, b, solution, eps):.1e} | {error:.1e} |", flush=True)  # fmt: skip
            if name in GOALS and kind == "indep" and ratio(seconds, name) < GOALS[name]:
                failed.append(f"{ratio(seconds, name):.1f} times as fast as {name}, not {GOALS[name]}")
        for name, reason in missing.items():
            print(f"| {kind}, {eps} | {name} | {reason} | | | | |")
        print(f"| {kind}, {eps} | (float64 oracle) | | | | {converged:.0e} | |")
    return failed


def tolerance_table(rounds: int) -> list[str]:
    """Iterations and time to a marginal error of 1e-3, with acceleration and without."""
    failed = []
    print(f"\n### To a marginal error of 1e-3, N = {NUM_POINTS}\n")
    print("| clouds, eps | plain iterations | ours | share | plain s | ours s | gradient error |")
    print("|---|---|---|---|---|---|---|")
    for kind, eps in SETTINGS:
        a, b = clouds(kind, NUM_POINTS)
        truth, _ = expected(kind, eps)
        options = {"eps": eps, "tol": 1e-3, "max_iter": 5000, "backend": "torch"}
        calls = {
            "plain": partial(entropic_ot, a[None], b[None], anderson=0, init="zeros", **options),
            "ours": partial(entropic_ot, a[None], b[None], **options),
        }
        seconds, results = interleaved(calls, rounds)
        plain, fast = (results[name].num_iter.item() for name in ("plain", "ours"))
        seconds = {name: statistics.median(times) for name, times in seconds.items()}
        error = (results["ours"].grad_a[0] - truth).norm() / truth.norm()
        share = fast / plain
        print(f"| {kind}, {eps} | {plain} | {fast} | {share:.2f} | {seconds['plain']:.3f} | "
              f"{seconds['ours']:.3f} | {error:.1e} |", flush=True)  # fmt: skip
        if share > ITERATION_GOAL or not all(result.converged.all() for result in results.values()):
            failed.append(f"{kind} {eps}: {fast} of {plain} iterations, not a quarter")
    return failed


def large_table(rounds: int) -> list[str]:
    """A frame of 480p without pooling, against the fastest of the dense peers."""
    methods, missing = available()
    failed = []
    a, b = clouds("indep", LARGE)
    names = [name for name in ("ours", "ott-jax dense") if name in methods]
    calls = {name: partial(methods[name], a, b, 0.1, LARGE_ITERATIONS) for name in names}
    memory = {name: extra_memory(name, LARGE, LARGE_ITERATIONS) for name in [*names, DEBIASED]}
    for call in calls.values():
        call()
    seconds, _ = interleaved(calls, rounds)
    print(f"\n### N = {LARGE}, indep, eps 0.1, {LARGE_ITERATIONS} iterations\n")
    print("| method | ms per iteration | by ours | extra MB |\n|---|---|---|---|")
    for name in names:
        milliseconds = statistics.median(seconds[name]) / LARGE_ITERATIONS * 1e3
        print(f"| {name} | {milliseconds:.0f} | {ratio(seconds, name):.1f} | {cell(memory[name])} |")
    print(f"| {DEBIASED}, eps 0.05 of the mean cost, to 1e-3 | | | {cell(memory[DEBIASED])} |")
    if "ott-jax dense" in missing:
        print(f"| ott-jax dense | {missing['ott-jax dense']} | | |")
    elif ratio(seconds, "ott-jax dense") < LARGE_GOAL:
        failed.append(
            f"N = {LARGE}: {ratio(seconds, 'ott-jax dense'):.1f} times as fast as ott-jax, not {LARGE_GOAL}"
        )
    for name in ("ours", DEBIASED):
        if (memory[name] or 0) > MEMORY_GOAL_MB:
            failed.append(f"N = {LARGE}, {name}: {memory[name]:.0f} MB of extra memory, not {MEMORY_GOAL_MB}")
    return failed


def gpu_table(rounds: int) -> list[str]:
    """21 frames on a GPU by each backend: time of 60 iterations and to 1e-3, errors in the first frame."""
    from vdot_core.transport.flash import why_not_flash

    a, b = (torch.stack(x) for x in zip(*(clouds("real", LARGE, seed) for seed in range(21)), strict=True))
    truth, _ = oracle(a[0], b[0], 0.32, max_iter=500)
    fixed = {"tol": 1e-30, "max_iter": ITERATIONS, "anderson": 0, "init": "zeros"}
    print(f"### {torch.cuda.get_device_name()}, 21 frames of N = {LARGE}, real, eps 0.32\n")
    print("| backend | run | ms | gradient error | extra MB |\n|---|---|---|---|---|")
    for backend in ("torch", "flash"):
        reason = why_not_flash(torch.device("cuda"), "sqeuclidean") if backend == "flash" else None
        if reason:
            print(f"| flash | {reason} | | | |")
            continue
        for label, options in ((f"{ITERATIONS} iterations", fixed), ("to 1e-3", {"max_iter": 1000})):
            x, y = a.cuda(), b.cuda()
            result = entropic_ot(x, y, eps=0.32, backend=backend, **options)
            error = (result.grad_a[0].cpu() - truth).norm() / truth.norm()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before, times = torch.cuda.memory_allocated(), []
            for _ in range(max(rounds, 3)):
                started = time.perf_counter()
                entropic_ot(x, y, eps=0.32, backend=backend, **options)
                torch.cuda.synchronize()
                times.append((time.perf_counter() - started) * 1e3)
            extra = (torch.cuda.max_memory_allocated() - before) / 1e6
            print(f"| {backend} | {label} | {statistics.median(times):.1f} | {error:.1e} | {extra:.0f} |")
    return []


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns of every method (default: %(default)s)")
    parser.add_argument("--only", choices=TABLES, help="print this table alone")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--memory-of", choices=MEASURED, help=argparse.SUPPRESS)
    parser.add_argument("--points", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--iterations", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Print the tables; 1 where a goal is missed."""
    args = parse(argv)
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if args.memory_of:
        return print_extra_memory(args.memory_of, args.points, args.iterations)
    if args.device == "cuda":
        gpu_table(args.rounds)
        return 0
    print(f"torch {torch.__version__}, float32, one thread, median of {args.rounds} interleaved rounds\n")
    tables = {"fixed": fixed_table, "tolerance": tolerance_table, "large": large_table}
    failed = [line for name in tables if args.only in (None, name) for line in tables[name](args.rounds)]
    if failed:
        print("\nMissed: " + "; ".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
