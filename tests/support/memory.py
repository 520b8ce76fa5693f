"""Memory of tensors on the CPU, and of the process."""

import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")


def peak_bytes(call: Callable[[], object]) -> int:
    """Most bytes of tensors that a call holds at one time on the CPU, beyond what was there."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profile:
        call()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda e: e.start_ns()))
    return max(live)


class Resident:
    """The most memory that this process held since `start`, beyond what it held then; only Linux counts."""

    def __init__(self):
        self.available = Path("/proc/self/clear_refs").exists()
        self._before = 0

    def start(self) -> None:
        if self.available:
            Path("/proc/self/clear_refs").write_text("5")
            self._before = self._peak()

    def grown_bytes(self) -> int:
        return self._peak() - self._before if self.available else 0

    def _peak(self) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


class AnonymousPeak:
    """The most memory without files behind it that this process had within a block, in bytes.

    Pages of a mapped file are left out: the system takes them back whenever memory is short.
    """

    def __init__(self):
        self.peak = self._now()

    def __enter__(self):
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self):
        while not self.ended.wait(0.001):
            self.peak = max(self.peak, self._now())

    def _now(self):
        rows = (line.split() for line in STATUS.read_text().splitlines())
        return next(int(row[1]) * 1024 for row in rows if row[0] == "RssAnon:")

    def __exit__(self, *error):
        self.ended.set()
        self.thread.join()
