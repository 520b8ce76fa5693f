"""Memory of every builder and signal stays the same for a longer clip, where results lie in files."""

import ctypes
import json
import os
import sys

import pytest

from benchmarks._builders import CASES, DrawnClip
from tests.core.sampling.test_long_memory import M_MMAP_THRESHOLD
from tests.support.memory import AnonymousPeak
from vdot_core import scratch

WHOLE = {
    "luma": "gives a new clip to a caller, which takes a frame at a time",
    "dis_flow": "gives vectors for use outside of nodes",
    "flicker": "a measure, of which nodes make no clip",
    "depth, stable": "16384 pixels of each frame",
    "normalize_depth, stable": "16384 pixels of each frame",
    "normalize_depth, gray video": "16384 pixels of each frame",
}
"""Cases that hold something of every frame; those of VDOT Encode take the chunk of VDOT Long Video."""
SHORT, LONG, SIZE = 41, 201, (96, 160)
BYTES_PER_PIXEL = 0.5  # a mask of bools has one
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(sys.platform != "linux", reason="measures by Linux's /proc"),
]


@pytest.fixture(scope="module")
def clips() -> dict[int, DrawnClip]:
    """Length -> clip, whose masks are a channel of a picture, as Convert Image to Mask gives them."""
    drawn = {length: DrawnClip(length, *SIZE) for length in (9, SHORT, LONG)}
    for clip in drawn.values():
        clip.masks = clip.masks[..., None].expand(-1, -1, -1, 3).contiguous()[..., 0]
    return drawn


def peak(case, clips, length, folder) -> int:
    """Most bytes that a call holds beyond its inputs, in a process of its own."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            # Else glibc raises the size from which freed memory goes back to the system.
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 16)
            scratch.IN_MEMORY = 0
            with scratch.spilling(lambda: folder):
                case.run(clips[9], case.inputs(clips[9]))
                inputs = case.inputs(clips[length])
                before = AnonymousPeak().peak
                with AnonymousPeak() as memory:
                    result = case.run(clips[length], inputs)
            del result
            os.write(write, json.dumps(memory.peak - before).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        answer = file.read()
    os.waitpid(child, 0)
    return json.loads(answer)


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.node != "VDOTEncode"])
def test_a_longer_clip_takes_no_more_memory(clips, tmp_path, name):
    short, long = (peak(CASES[name], clips, length, tmp_path) for length in (SHORT, LONG))
    added = (long - short) / (SIZE[0] * SIZE[1] * (LONG - SHORT))
    assert (added > BYTES_PER_PIXEL) is (name in WHOLE), f"{short / 1e6:.1f} -> {long / 1e6:.1f} MB"
