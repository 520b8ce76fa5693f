"""A long video from file to file in bounded memory: the clip is read, controlled, chunked and written."""

import ctypes

import av
import numpy as np
import pytest

from benchmarks import _long_models as tiny
from tests.core.sampling.test_long import vae_decode, vae_encode
from tests.support.memory import STATUS, AnonymousPeak
from vdot_core import scratch, vcu
from vdot_core.excerpts import Span, read_excerpt
from vdot_core.sampling.long import generate, plan_chunks
from vdot_core.video_writing import open_writer

M_MMAP_THRESHOLD = -3
SHORT, LONG = 81, 801
CHUNK, OVERLAP = 33, 9  # both lengths are full chunks
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not STATUS.exists(), reason="only Linux tells the memory of a process by kind"),
]


def noisy_clip(path, num_frames, width, height):
    """Blocks of random colors."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for _ in range(num_frames):
            blocks = rng.integers(0, 255, (height // 16, width // 16, 3), np.uint8)
            pixels = blocks.repeat(16, 0).repeat(16, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def sample(context, span, prompt):
    """A model that shows its control."""
    return context.contexts[:, 0, 16:32]


def from_clip(source, folder, num_frames):
    """A control of a clip that is read once, and lies in a file where it is large."""
    clip = read_excerpt(source, Span(0.0, None, num_frames, lambda width, height: (width, height)), folder)
    unit = vcu.control(clip.frames)
    assert unit.num_frames == num_frames
    return unit, clip.rate


def span_by_span(source, folder, num_frames):
    """The same, of which each chunk reads its own frames."""
    rate = 16

    def unit_of(span):
        part = Span(span.start / rate, None, span.num_frames, lambda width, height: (width, height))
        return vcu.control(read_excerpt(source, part).frames)

    return unit_of, rate


def written(source, target, folder, num_frames, read, vae):
    units, rate = read(source, folder, num_frames)
    spans = plan_chunks(num_frames, CHUNK, OVERLAP)
    with av.open(str(source)) as container:
        width, height = container.streams.video[0].width, container.streams.video[0].height
    encode, decode = vae
    with open_writer(target, rate, width, height) as writer:
        for chunk in generate(units, spans, vae_encode=encode, vae_decode=decode, sample=sample):
            writer.write(chunk.frames)


STAND_IN, TINY = (vae_encode, vae_decode), (tiny.encode, tiny.decode)


@pytest.mark.parametrize(
    "size, read, vae, times",
    [
        pytest.param((160, 96), from_clip, TINY, 1, id="160x96, tiny VAE"),
        pytest.param((160, 96), span_by_span, STAND_IN, 3, id="160x96, span by span"),
        pytest.param((832, 480), from_clip, STAND_IN, 1, id="832x480"),
    ],
)
def test_801_frames_take_the_memory_of_81(tmp_path, monkeypatch, size, read, vae, times):
    """Clips of any length lie in files; their pages are left out: the system takes them back at need.

    A short video that is made in a moment is made several times: the watching thread could miss its peak.
    """
    monkeypatch.setattr(scratch, "IN_MEMORY", 0)
    # Else glibc raises the size from which freed memory goes back to the system: its holes would be measured.
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 16)
    source = noisy_clip(tmp_path / "in.mp4", LONG, *size)
    written(source, tmp_path / "warm.mp4", tmp_path, 41, read, vae)
    before, grown = AnonymousPeak().peak, {}
    for length, repeats in ((SHORT, times), (LONG, 1)):
        with AnonymousPeak() as memory:
            for _ in range(repeats):
                written(source, tmp_path / f"{length}.mp4", tmp_path, length, read, vae)
        grown[length] = memory.peak - before
        with av.open(str(tmp_path / f"{length}.mp4")) as container:
            assert sum(1 for _ in container.decode(video=0)) == length
    print({length: f"{grown[length] / 1e6:.0f} MB" for length in grown})
    frame = size[0] * size[1] * 12
    assert grown[LONG] == pytest.approx(grown[SHORT], rel=0.1), grown
    assert grown[LONG] > CHUNK * frame, "not even a chunk was seen"
