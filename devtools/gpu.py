"""Measures this machine's GPU part by part, each in a separate process, and stores figures as JSON.

A part that has finished is skipped at the next start, so that a run that is cut off costs one part. The parts
themselves are in benchmarks/gpu; `tests` is tests/gpu.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from devtools.documents import read_json
from devtools.errors import DevError
from devtools.groups import run_group
from devtools.paths import ROOT, writing_to

NO_DRIVER = "no NVIDIA GPU to measure: this machine has no NVIDIA driver (there is no nvidia-smi)"
NO_GPU = 3  # exit status where there is nothing to measure
TOTAL_SECONDS = 540
DAMAGED = "move it away to measure every part again"
SHORTEST = 10  # seconds with which a part is still begun
FINISHED = ("done", "skipped")
# Name -> the longest that a part may take, in seconds.
PARTS = {
    "machine": 30,
    "tests": 120,
    "transport": 60,
    "sample_1_3b": 60,
    "train_1_3b": 150,
    "sample_14b": 100,
    "train_14b": 150,
    "lora_1_3b": 100,
    "lora_14b": 200,
}
PROBE = """
import json, torch
ready = torch.cuda.is_available()
name = torch.cuda.get_device_name() if ready else None
print(json.dumps({"name": name, "torch": torch.__version__, "cuda": torch.version.cuda}))
"""


@dataclass(frozen=True)
class Options:
    """The command line of `dev.py gpu`.

    Attributes:
        only: parts to run; all if empty.
        again: run finished parts again.
        device: 'cuda', or 'cpu' to try the parts at a very small size.
        no_setup: measure with the running Python and its packages.
        out: folder of the figures.
    """

    only: tuple[str, ...]
    again: bool
    device: str
    no_setup: bool
    out: Path


def read_options(arguments: Sequence[str]) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="dev.py gpu",
        description="Measures an NVIDIA GPU in at most nine minutes; a second start runs what is missing. "
        f"Without a GPU the exit status is {NO_GPU}.",
    )
    parser.add_argument("--only", action="append", default=[], choices=PARTS, help="one part; repeatable")
    parser.add_argument("--again", action="store_true", help="run finished parts again")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu: tiny sizes, for a trial"
    )
    parser.add_argument(
        "--no-setup", action="store_true", help="use the running Python as it is (machines without a network)"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "gpu", help="folder of the figures")
    options = parser.parse_args(arguments)
    return Options(
        tuple(options.only), options.again, options.device, options.no_setup, options.out.resolve()
    )


def has_driver() -> bool:
    """True if an NVIDIA driver is installed; without one, a set-up of gigabytes would be useless."""
    devices = (Path("/dev/nvidiactl"), Path("/dev/nvhost-ctrl-gpu"), Path("/dev/dxg"))  # dxg: WSL 2
    return bool(shutil.which("nvidia-smi")) or any(path.exists() for path in devices)


def probe(python: Path) -> dict:
    """The GPU that a Python's torch sees: its name, None without one, and what torch was built for.

    Raises:
        DevError: that Python has no torch.
    """
    run = subprocess.run([str(python), "-c", PROBE], capture_output=True, text=True)
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["no output"])[-1]
        raise DevError(f"{python} cannot import torch ({last}): run dev.py gpu without --no-setup")
    return json.loads(run.stdout.splitlines()[-1])


def why_no_gpu(gpu_info: dict) -> str:
    """One sentence: torch sees no GPU, and what to do."""
    torch = f"no NVIDIA GPU to measure: torch {gpu_info['torch']}"
    if gpu_info["cuda"] is None:
        return f"{torch} is a build for CPUs; on Linux dev.py installs one with CUDA, on Windows use WSL 2"
    return f"{torch} sees none; it needs a driver for CUDA {gpu_info['cuda']} (nvidia-smi shows yours)"


def source_state() -> dict:
    """The commit that is measured, None outside a clone, and whether files differ from it."""

    def git(*words: str) -> str | None:
        try:
            run = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        except OSError:
            return None
        return run.stdout.strip() if run.returncode == 0 else None

    return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}


class Figures:
    """The figures of one commit on one machine, written after every part.

    Args:
        folder: where the file is, with the logs of the parts.
        gpu_info: the GPU.
        device: 'cuda' or 'cpu'.
    """

    def __init__(self, folder: Path, gpu_info: dict, device: str):
        source = source_state()
        name = gpu_info["name"] if device == "cuda" else "cpu"
        words = f"{name}-{(source['commit'] or 'no-commit')[:12]}"
        self.folder = folder / "".join(c if c.isalnum() or c in "-." else "-" for c in words)
        self.path = self.folder / "figures.json"
        with writing_to(self.folder, "--out"):
            self.folder.mkdir(parents=True, exist_ok=True)
        self.parts: dict[str, dict] = {}
        if self.path.exists():
            parts = read_json(self.path, DAMAGED).get("parts")
            if not isinstance(parts, dict) or not all(isinstance(part, dict) for part in parts.values()):
                raise DevError(f"{self.path} is damaged (it holds no parts); {DAMAGED}")
            self.parts = parts
        self.head = {**source, "gpu": name, "host": platform.node(), "system": platform.platform()}
        self.head |= {"torch": gpu_info["torch"], "cuda": gpu_info["cuda"]}

    def finished(self, part: str) -> bool:
        """True if a part has finished, or was skipped for a permanent reason."""
        return self.parts.get(part, {}).get("state") in FINISHED

    def store(self, part: str, record: dict) -> None:
        """Write the file with one more part, atomically."""
        self.parts[part] = record
        scratch = self.path.with_suffix(".tmp")
        with writing_to(self.folder, "--out"):
            text = json.dumps({**self.head, "parts": self.parts}, indent=2)
            scratch.write_text(text + "\n", encoding="utf-8")
            os.replace(scratch, self.path)


def measure(
    python: Path, options: Options, gpu_info: dict, say: Callable[[str], None], started: float
) -> int:
    """Run the parts that are missing.

    Args:
        python: interpreter with torch and the project's packages.
        options: the command line.
        gpu_info: from probe().
        say: called with one-line progress messages.
        started: time.monotonic() when the command began.

    Returns:
        0 when every part that was asked for is finished, 1 otherwise.
    """
    figures = Figures(options.out, gpu_info, options.device)
    parts = [part for part in PARTS if not options.only or part in options.only]
    for part in parts:
        if figures.finished(part) and not options.again:
            say(f"{part}: {figures.parts[part]['state']} before")
            continue
        limit = min(PARTS[part], TOTAL_SECONDS - (time.monotonic() - started))
        if limit < SHORTEST:
            say(f"{part}: no time is left; run the same command again")
            figures.store(part, {"state": "not started"})
            continue
        say(f"{part}: at most {limit:.0f} s")
        record = run_part(python, part, options.device, figures.folder, limit)
        figures.store(part, record)
        say(f"{part}: {record['state']} after {record['seconds']} s" + _reason(record))
    say(f"figures: {figures.path}")
    return 0 if all(figures.finished(part) for part in parts) else 1


def run_part(python: Path, part: str, device: str, folder: Path, limit: float) -> dict:
    """Run one part in a separate process group, which is ended at the limit.

    Returns:
        Its state ('done', 'skipped', 'failed' or 'timeout'), seconds, figures, and what went wrong.
    """
    result, log = folder / f"{part}.json", folder / f"{part}.log"
    result.unlink(missing_ok=True)
    command = [str(python), "-m", "benchmarks.gpu", part, "--device", device, "--out", str(result)]
    begin = time.monotonic()
    status = run_group(command, log, limit, cwd=ROOT)
    record: dict = {"state": "timeout", "seconds": round(time.monotonic() - begin, 1), "log": str(log)}
    if status is None:
        return {**record, "reason": f"not finished after {limit:.0f} s"}
    try:
        values = read_json(result, "run the part again")
    except DevError:
        values = None
    if status or values is None:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = lines[-1] if lines else "no output"
        return {**record, "state": "failed", "reason": f"exit status {status}: {last[:300]}"}
    if reason := values.get("not_measured"):
        return {**record, "state": "skipped", "reason": reason, "figures": values}
    return {**record, "state": "done", "figures": values}


def _reason(record: dict) -> str:
    return f" ({record['reason']})" if "reason" in record else ""
