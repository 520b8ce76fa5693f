"""Work of each stage as measured, and an estimate of a larger preparation from it."""

from __future__ import annotations

from dataclasses import dataclass

from vdot_core.text import counted

from .store import Store


@dataclass(frozen=True)
class StageTime:
    """Work of a stage.

    Attributes:
        name: The stage.
        rows: Results that it has made.
        seconds: Of one worker, for all of them.
    """

    name: str
    rows: int
    seconds: float


def stage_times(store: Store) -> list[StageTime]:
    """The stages that have results, the slowest first."""
    times = [StageTime(name, rows, seconds) for name, (rows, seconds) in store.times().items()]
    return sorted(times, key=lambda time: -time.seconds)


def budget(times: list[StageTime], num_clips: int, target_clips: int, workers: int) -> str:
    """A table of hours for many clips, from the measured work of a few.

    Args:
        times: Measured.
        num_clips: Clips of which that work was.
        target_clips: Clips to estimate for.
        workers: Workers in all.
    """
    lines = [f"{'stage':20} {'rows':>8} {'s a row':>9} {'worker hours':>13}"]
    total = 0.0
    for time in times:
        # Rows that were rejected on the way are in the same proportion later.
        hours = time.seconds / max(1, num_clips) * target_clips / 3600
        total += hours
        lines.append(f"{time.name:20} {time.rows:8} {time.seconds / max(1, time.rows):9.3f} {hours:13.1f}")
    lines.append(f"{'all':20} {'':8} {'':9} {total:13.1f}")
    lines.append(f"{target_clips} clips on {counted(workers, 'worker')}: {total / workers:.1f} h")
    return "\n".join(lines)
