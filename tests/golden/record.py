"""Record today's numbers, or compare with the recording: `python -m tests.golden.record [--check] [NAME ..]`.

Without --check it rewrites tests/golden/NAME.json (all of them where no NAME is given); with --old it first
rewrites the files in tests/golden/old, which stand for what users have on their disks: do that only where
their format is given up on purpose. --check says of each item `bit-equal`, `equal to 1e-06 (bits differ)` or
what differs, and exits with 1 where anything differs, with 3 where only bits do.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from . import prompts, subjects
from .compare import Comparison, compare
from .items import ITEMS, write_old
from .measure import fingerprint

FOLDER = Path(__file__).parent
CHECK_RTOL, CHECK_ATOL = 1e-6, 1e-9
DIFFERENT, BITS_DIFFER = 1, 3


def run(name: str, folder: Path) -> dict[str, Any]:
    """The items of one recording from today's code, on one thread, as JSON values."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return json.loads(json.dumps(ITEMS[name](folder)))
    finally:
        torch.set_num_threads(threads)


def read(name: str) -> tuple[dict[str, str], dict[str, Any]]:
    """The fingerprint and the items of a recording, in today's names."""
    recording = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    made_with, items = recording.pop("made with"), recording
    if name == "prompts":
        return made_with, {key: prompts.renamed(item) for key, item in items.items()}
    return made_with, _rename_metrics(items)


def _rename_metrics(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {subjects.RENAMED_METRICS.get(key, key): _rename_metrics(item) for key, item in value.items()}


def comparisons(name: str, items: dict[str, Any], rtol: float, atol: float) -> dict[str, Comparison]:
    """Every recorded item compared with today's."""
    _, recorded = read(name)
    missing = Comparison(differences=["it is missing"])
    return {
        item: compare(value, items[item], rtol, atol) if item in items else missing
        for item, value in recorded.items()
    }


def _check(name: str, items: dict[str, Any]) -> int:
    made_with, _ = read(name)
    if made_with != fingerprint():
        print(f"{name} was recorded with {made_with}, this is {fingerprint()}: bits may differ")
    results = comparisons(name, items, CHECK_RTOL, CHECK_ATOL)
    for item, result in results.items():
        print(f"{name:14}{item:40}{result.describe(CHECK_RTOL)}")
    for item in items.keys() - results.keys():
        print(f"{name:14}{item:40}new, not recorded")
    if any(result.differences for result in results.values()):
        return DIFFERENT
    return 0 if all(result.exact for result in results.values()) else BITS_DIFFER


def main() -> int:
    """Command line entry; returns the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden.record", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ITEMS)}; none: all")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--old", action="store_true", help="rewrite the files in old/ too")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(ITEMS)):
        parser.error(f"unknown {', '.join(unknown)}; expected {', '.join(ITEMS)}")
    logging.disable(logging.WARNING)
    statuses = []
    with tempfile.TemporaryDirectory() as temporary:
        if options.old and not options.check:
            write_old(Path(temporary) / "old")
        for name in options.names or ITEMS:
            items = run(name, Path(temporary) / name)
            if options.check:
                statuses.append(_check(name, items))
            else:
                prompts.write_lines({"made with": fingerprint(), **items}, FOLDER / f"{name}.json")
                print(f"recorded {len(items)} items of {name}")
    return DIFFERENT if DIFFERENT in statuses else max(statuses, default=0)


if __name__ == "__main__":
    sys.exit(main())
