"""Memory of tensors on the CPU."""

import itertools
from collections.abc import Callable

import torch


def peak_bytes(call: Callable[[], object]) -> int:
    """Most bytes of tensors that a call holds at one time on the CPU, beyond what was there."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profile:
        call()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda e: e.start_ns()))
    return max(live)
