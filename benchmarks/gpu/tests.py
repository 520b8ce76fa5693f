"""tests/gpu, counted; a failed test fails the part."""

import re
import subprocess
import sys
from collections import Counter

OUTCOMES = ("passed", "failed", "skipped", "error", "errors")


def measure(device: str) -> dict:
    """Numbers of tests by outcome, and why tests were skipped.

    Raises:
        SystemExit: a test failed, or none was found.
    """
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/gpu",
        "-q",
        "-rsf",
        "-p",
        "no:cacheprovider",
        "--tb=short",
    ]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(run.stdout)
    if run.returncode:
        sys.exit(
            f"tests/gpu: pytest ended with status {run.returncode}: {run.stdout.strip().splitlines()[-1]}"
        )
    counts: Counter[str] = Counter()
    for number, outcome in re.findall(r"(\d+) (\w+)", run.stdout.strip().splitlines()[-1]):
        if outcome in OUTCOMES:
            counts[outcome] += int(number)
    if device == "cuda" and not counts["passed"]:
        sys.exit("tests/gpu: no test ran on the GPU")
    reasons = re.findall(r"^SKIPPED \[\d+\] \S+: (.*)$", run.stdout, re.MULTILINE)
    return {**counts, "skip_reasons": sorted(set(reasons))}
