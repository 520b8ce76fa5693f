"""A long video from file to file in bounded memory: the clip is read, controlled, chunked and written."""

import ctypes
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from tests.core.sampling.test_long import vae_decode, vae_encode
from vdot_core import scratch, vcu
from vdot_core.excerpts import Span, read_excerpt
from vdot_core.sampling.long import generate, plan_chunks
from vdot_core.video_writing import open_writer

WIDTH, HEIGHT = 160, 96
M_MMAP_THRESHOLD = -3
STATUS = Path("/proc/self/status")


class AnonymousPeak:
    """The most memory without files behind it that this process had within the blocks so far.

    Pages of a mapped file are left out: the system takes them back whenever memory is short.
    """

    def __init__(self):
        self.before = self.peak = self._now()

    def __enter__(self):
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self):
        while not self.ended.wait(0.005):
            self.peak = max(self.peak, self._now())

    def _now(self):
        rows = (line.split() for line in STATUS.read_text().splitlines())
        return next(int(row[1]) * 1024 for row in rows if row[0] == "RssAnon:")

    def __exit__(self, *error):
        self.ended.set()
        self.thread.join()

    @property
    def grown(self):
        return self.peak - self.before


def noisy_clip(path, num_frames):
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for _ in range(num_frames):
            pixels = (
                rng.integers(0, 255, (HEIGHT // 16, WIDTH // 16, 3), np.uint8).repeat(16, 0).repeat(16, 1)
            )
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def from_file_to_file(source, target, folder, num_frames):
    def sample(context, span, prompt):
        return context.contexts[:, 0, 16:32]

    clip = read_excerpt(source, Span(0.0, None, num_frames, lambda width, height: (width, height)), folder)
    unit = vcu.control(clip.frames)
    assert unit.num_frames == num_frames
    spans = plan_chunks(num_frames, 33, 9)  # both lengths are full chunks
    chunks = generate(unit, spans, vae_encode=vae_encode, vae_decode=vae_decode, sample=sample)
    with open_writer(target, clip.rate, WIDTH, HEIGHT) as writer:
        for chunk in chunks:
            writer.write(chunk.frames)


@pytest.mark.full
@pytest.mark.skipif(not STATUS.exists(), reason="only Linux tells the memory of a process by kind")
def test_801_frames_take_the_memory_of_81(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "SHARE", 0.0)
    # Else glibc raises the size from which freed memory goes back to the system: its holes would be measured.
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 16)
    source = noisy_clip(tmp_path / "in.mp4", 801)
    from_file_to_file(source, tmp_path / "warm.mp4", tmp_path, 9)
    memory, grown = AnonymousPeak(), {}
    for length in (81, 801):
        with memory:
            from_file_to_file(source, tmp_path / f"{length}.mp4", tmp_path, length)
        grown[length] = memory.grown
        with av.open(str(tmp_path / f"{length}.mp4")) as container:
            assert sum(1 for _ in container.decode(video=0)) == length
    assert grown[801] <= 1.1 * grown[81], grown
    assert 33 * HEIGHT * WIDTH * 12 < grown[801] < 401 * HEIGHT * WIDTH * 12, "a chunk, and no video"
