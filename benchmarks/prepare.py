"""Measures the stages of training/prepare.py with one worker of Ray Data and with several.

    python dev.py bench prepare --input FOLDER [--clips 12] [--workers 1 2] [--annotators pose matte]

Real videos are scaled to one size and played forth and back, as many sources of one clip each, which are
prepared once for each number of workers, from nothing. The start of a stage's workers is not in its
throughput, and stands apart. Prints a Markdown table. Needs an otherwise idle machine.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from training.data.video_files import fit  # noqa: E402
from training.preparation.clip_files import decoded, to_bytes, write_clip  # noqa: E402
from training.preparation.config import (  # noqa: E402
    ClipConfig,
    ExecutorConfig,
    PrepareConfig,
    QualityConfig,
    TaskConfig,
)
from training.preparation.executors import RayExecutor  # noqa: E402
from training.preparation.pipeline import Pipeline  # noqa: E402
from training.preparation.sources import find_sources  # noqa: E402
from training.preparation.stage import Outcome, Row, Stage  # noqa: E402
from training.preparation.store import STORE, Store  # noqa: E402

RATE = 16.0
SPARE_FRAMES = 4  # of a source, which loses some at its end


@dataclass
class Work:
    """One stage with one number of workers.

    Attributes:
        begin: When the stage was called, in seconds of a monotonic clock.
        spans: Of each row, when its work began and when its result was here.
    """

    begin: float
    spans: list[tuple[float, float]] = field(default_factory=list)

    @property
    def start_up_s(self) -> float:
        """Seconds until the first row's work began."""
        return min(begin for begin, _ in self.spans) - self.begin

    @property
    def seconds(self) -> float:
        """From the first row's beginning to the last one's end."""
        return max(end for _, end in self.spans) - self.begin - self.start_up_s

    @property
    def seconds_a_row(self) -> float:
        """Mean time of one worker for one row."""
        return sum(end - begin for begin, end in self.spans) / len(self.spans)


class TimedExecutor(RayExecutor):
    """Ray's, with the times of all rows."""

    def __init__(self, config: PrepareConfig) -> None:
        super().__init__(config)
        self.work: dict[str, Work] = {}

    def run(self, stage: Stage, rows: Iterable[Row]) -> Iterator[Outcome]:
        """As `RayExecutor.run`."""
        work = self.work[stage.name] = Work(time.monotonic())
        for outcome in super().run(stage, rows):
            now = time.monotonic()
            work.spans.append((now - outcome.seconds, now))
            yield outcome


def main() -> int:
    """Make the sources, prepare them with each number of workers, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", nargs="+", required=True, help="folders or files of real videos")
    parser.add_argument("--clips", type=int, default=12, help="default: 12")
    parser.add_argument("--frames", type=int, default=81, help="of a clip, 4n + 1 (default: 81)")
    parser.add_argument("--size", type=int, nargs=2, default=(832, 480), help="default: 832 480")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="default: 1 2")
    parser.add_argument("--annotators", nargs="*", default=["pose"], help="default: pose")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    size = f"{args.size[0]} x {args.size[1]}"
    print(f"{os.cpu_count()} cores, load {load:.1f} before the start; "
          f"{args.clips} clips of {args.frames} frames at {size}\n", flush=True)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        sources = Path(folder, "sources")
        sources.mkdir()
        write_sources(sources, args.input, args.clips, args.frames, tuple(args.size))
        works = {}
        for workers in args.workers:
            config = configuration(sources, Path(folder, f"out_{workers}"), workers, args)
            works[workers] = measure(config)
    print_table(works)
    return 0


def write_sources(
    folder: Path, inputs: list[str], count: int, num_frames: int, size: tuple[int, int]
) -> None:
    """Write `count` videos of real frames; those of one input begin at different frames."""
    paths = [row["path"] for row in find_sources(inputs)]
    for number in range(count):
        path = paths[number % len(paths)]
        frames = decoded(path, RATE, 0.0, num_frames)
        scaled = [to_bytes(fit(torch.from_numpy(frame)[None], *size, "cover")[0]) for frame in frames]
        first = 5 * (number // len(paths))
        length = num_frames + SPARE_FRAMES
        write_clip(
            folder / f"{number:03d}.mp4", islice(forth_and_back(scaled), first, first + length), RATE, 12
        )


def forth_and_back(frames: list) -> Iterator:
    """The frames to the last one and back to the first, without end."""
    while True:
        yield from frames[:-1]
        yield from frames[:0:-1]


def configuration(sources: Path, out_dir: Path, workers: int, args: argparse.Namespace) -> PrepareConfig:
    """Settings by which every source gives one clip, and no clip is rejected."""
    return PrepareConfig(
        input=[str(sources)],
        out_dir=str(out_dir),
        annotators=args.annotators,
        # A threshold that no cut reaches costs what any other does.
        clips=ClipConfig(
            threshold=255.0, num_frames=args.frames, min_frames=args.frames, clips_per_shot=1, reserve=0,
            buckets=[list(args.size)],
        ),
        quality=QualityConfig(0, 0, 0, 1, 0, max_hash_distance=-1),
        tasks=TaskConfig(held_out=0.0),
        executor=ExecutorConfig("ray", workers=workers),
    )  # fmt: skip


def measure(config: PrepareConfig) -> dict[str, Work]:
    """Stage -> its times."""
    folder = Path(config.out_dir)
    folder.mkdir()
    store = Store(folder / STORE)
    executor = TimedExecutor(config)
    try:
        clips = Pipeline(config, store, executor).run()
    finally:
        executor.close()
        store.close()
    missing = {name: reason for name, reason in clips.absent.items() if name in config.annotators}
    assert not clips.rejected and not clips.later and not missing, (clips.rejected, clips.later, missing)
    return executor.work


def print_table(works: dict[int, dict[str, Work]]) -> None:
    """Throughput of each stage by number of workers, and in ratio to the first number's."""
    counts = list(works)
    head = ["stage", *(f"{n}: rows a minute" for n in counts), *(f"{n} / {counts[0]}" for n in counts[1:])]
    head += [f"{n}: s a row" for n in counts] + [f"{n}: start, s" for n in counts]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for stage in works[counts[0]]:
        print_row(stage, [works[n][stage] for n in counts])
    seconds = [sum(work.seconds for work in works[n].values()) for n in counts]
    starts = [sum(work.start_up_s for work in works[n].values()) for n in counts]
    ratios = ", ".join(f"{seconds[0] / one:.2f}" for one in seconds[1:])
    print(f"\nall stages without start: {', '.join(f'{s:.0f} s' for s in seconds)}; throughput x {ratios}")
    with_start = [one + start for one, start in zip(seconds, starts, strict=True)]
    ratios = ", ".join(f"{with_start[0] / one:.2f}" for one in with_start[1:])
    print(f"with start: {', '.join(f'{s:.0f} s' for s in with_start)}; throughput x {ratios}")


def print_row(stage: str, works: list[Work]) -> None:
    """One line of the table."""
    rates = [60 * len(work.spans) / work.seconds for work in works]
    cells = [f"{rate:.1f}" for rate in rates] + [f"{rate / rates[0]:.2f}" for rate in rates[1:]]
    cells += [f"{work.seconds_a_row:.2f}" for work in works] + [f"{work.start_up_s:.1f}" for work in works]
    print(f"| {stage} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
