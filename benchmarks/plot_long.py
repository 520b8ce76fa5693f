"""Draws the drift of color over the chunks of long videos, from the figures of benchmarks/long.py.

python benchmarks/plot_long.py figures.json drift.png
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tiny.panels import plot_panels  # noqa: E402


def curves(runs: list[dict]) -> dict[str, list[tuple[int, float]]]:
    """Way -> (chunk, drift in 8-bit levels), the mean of the runs."""
    ways = [way for way, values in runs[0].items() if "by chunk" in values]
    rows = {way: zip(*(run[way]["by chunk"] for run in runs), strict=True) for way in ways}
    return {
        way: [(number, mean(values)) for number, values in enumerate(row, 1)] for way, row in rows.items()
    }


def main() -> int:
    """Read, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figures", type=Path)
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    figures = json.loads(args.figures.read_text("utf-8"))
    plot_panels({name: curves(runs) for name, runs in figures.items()}, args.picture)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
