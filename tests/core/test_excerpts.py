"""Spans of videos: the right frames at the right time, with their sound, in bounded memory."""

import io
import math
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from vdot_core import excerpts
from vdot_core.excerpts import Span, cut_excerpt, read_excerpt
from vdot_core.sounds import Sound
from vdot_core.vcu import SIZES

TONE_RATE = 48000


def write_clip(
    path, times, *, sound=0.0, codec="libx264", size=(64, 48), options=None, rotation=0, begin=0.0, aspect=1
):
    """Frames whose gray tells their number; `sound` seconds of a tone that is silent in its first half."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=1000, options=options or {"bf": "3", "g": "12", "qp": "0"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.sample_aspect_ratio = Fraction(aspect)  # width of a pixel over its height
        audio = container.add_stream("aac", rate=TONE_RATE, layout="mono") if sound else None
        for number, time in enumerate(times):
            pixels = np.full((size[1], size[0], 3), level(number), np.uint8)
            pixels[: size[1] // 4] = 255  # a bright band at the top shows which way is up
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round((begin + time) * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio is not None:
            seconds = np.arange(round(sound * TONE_RATE)) / TONE_RATE
            tone = np.where(seconds < sound / 2, 0, 0.5 * np.sin(2 * np.pi * 440 * seconds))
            frame = av.AudioFrame.from_ndarray(tone[None].astype(np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = TONE_RATE, 0
            container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return path


def level(number):
    return 20 + 5 * (number % 40)


def numbers(frames):
    """The number that each frame tells."""
    gray = frames[:, frames.shape[1] // 2 :].mean((1, 2, 3)) * 255
    return [round((float(value) - 20) / 5) for value in gray]


def own_size(width, height):
    return width, height


def span(start=0.0, rate=16.0, most=81, fit=own_size):
    return Span(start, rate, most, fit)


def assert_nearest(excerpt, times, start=0.0):
    """An independent statement of which frame is shown at each moment."""
    for k, number in enumerate(numbers(excerpt.frames)):
        distances = np.abs(np.array(times) - (start + k / excerpt.rate))
        assert distances[number] <= distances.min() + 2e-3, f"frame {number} at moment {k}"


@pytest.mark.parametrize("start", [0.0, 0.3, 0.77])
@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_frames_are_the_nearest_in_time(tmp_path, start, kind):
    """30 fps to 16, with B-frames and far key frames."""
    times = [k / 30 for k in range(40)]
    excerpt = read_excerpt(write_clip(tmp_path / f"a.{kind}", times), span(start, most=9))
    assert len(excerpt.frames) == 9 and excerpt.rate == 16
    assert_nearest(excerpt, times, start)
    assert any("30 -> 16 fps" in note and "dropped" in note for note in excerpt.notes)


def test_variable_rate_and_a_start_that_is_not_zero(tmp_path):
    times = [0, 0.04, 0.08, 0.5, 0.54, 0.58, 0.62, 1.0, 1.04, 1.08, 1.12]
    path = write_clip(tmp_path / "a.mkv", times, begin=2.0)
    excerpt = read_excerpt(path, span(most=17))
    assert len(excerpt.frames) == 17
    assert_nearest(excerpt, times)
    assert any("repeated" in note for note in excerpt.notes)
    later = read_excerpt(io.BytesIO(path.read_bytes()), span(0.5, most=9))
    assert len(later.frames) == 9
    assert_nearest(later, times, 0.5)


def test_as_it_is_keeps_every_frame(tmp_path):
    path = write_clip(tmp_path / "a.mp4", [k / 30 for k in range(31)])
    excerpt = read_excerpt(path, span(rate=None))
    assert numbers(excerpt.frames) == list(range(29)) and excerpt.rate == pytest.approx(30, rel=1e-3)
    assert "31 -> 29 frames (4n+1): 2 frames dropped at the end" in excerpt.notes


def test_sound_is_of_the_same_span(tmp_path):
    """Silent up to 1 s, a tone after it."""
    path = write_clip(tmp_path / "a.mp4", [k / 30 for k in range(60)], sound=2.0)
    for start, loud in ((0.0, (1.0, 1.5625)), (0.75, (0.25, 1.0625))):
        excerpt = read_excerpt(path, span(start, most=25))
        wave, rate = excerpt.sound.waveform, excerpt.sound.rate
        assert wave.shape == (1, round(excerpt.seconds * rate))
        begin, end = loud
        edges = wave[0].abs() > 0.1
        first = int(edges.nonzero()[0]) / rate
        assert first == pytest.approx(begin, abs=0.03)
        last = min(end, 2.0 - start, excerpt.seconds)
        assert float(wave[0, int((begin + 0.1) * rate) : int((last - 0.05) * rate)].abs().max()) > 0.4
    silent = write_clip(tmp_path / "b.mp4", [0, 0.1])
    assert read_excerpt(silent, span()).sound is None


def test_scaled_while_reading(tmp_path):
    path = write_clip(tmp_path / "a.mp4", [k / 16 for k in range(9)], size=(192, 108))
    excerpt = read_excerpt(path, span(fit=SIZES["480p"].fit))
    assert excerpt.frames.shape == (9, 480, 832, 3) and excerpt.source_size == (192, 108)
    assert "192x108 -> 832x480" in excerpt.notes


def test_a_phones_clip_is_upright(tmp_path):
    path = write_clip(tmp_path / "a.mp4", [k / 16 for k in range(5)], size=(64, 48))
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(with_rotation(path.read_bytes()))
    frames = read_excerpt(turned, span()).frames
    assert frames.shape[1:3] == (64, 48)
    with av.open(str(turned)) as container:
        rotation = next(container.decode(video=0)).rotation
    assert rotation in (90, -90)
    # The band at the top of the stored picture is at a side now.
    left, right = float(frames[0, :, :6].mean()), float(frames[0, :, -6:].mean())
    assert abs(left - right) > 0.5


@pytest.mark.parametrize(
    "name, aspect, shown",
    [
        *(("a.mp4", Fraction(2), (128, 48)), ("a.mkv", Fraction(2), (128, 48))),
        *(("a.mov", Fraction(1, 2), (64, 96)), ("a.mp4", Fraction(16, 15), (68, 48))),
        ("a.mp4", Fraction(1216, 1215), (64, 48)),
    ],
)
def test_an_anamorphic_video_has_the_aspect_that_it_is_shown_with(tmp_path, name, aspect, shown):
    path = write_clip(tmp_path / name, [k / 16 for k in range(5)], aspect=aspect)
    excerpt = read_excerpt(path, span())
    assert excerpt.frames.shape[1:3] == shown[::-1] and excerpt.source_size == shown
    squeezed = read_excerpt(
        write_clip(tmp_path / f"square_{name}", [k / 16 for k in range(5)]), span()
    ).frames
    expected = torch.nn.functional.interpolate(squeezed.movedim(-1, 1), shown[::-1], mode="bicubic")
    assert (excerpt.frames - expected.movedim(1, -1).clamp(0, 1)).abs().mean() < 0.01


def test_an_anamorphic_clip_is_stretched_before_it_is_turned(tmp_path):
    path = write_clip(tmp_path / "a.mp4", [k / 16 for k in range(5)], aspect=2)
    path.write_bytes(with_rotation(path.read_bytes()))
    assert read_excerpt(path, span()).frames.shape[1:3] == (128, 48)


def test_pixels_of_an_aspect_that_no_video_has_are_refused(tmp_path):
    path = write_clip(tmp_path / "a.mp4", [k / 16 for k in range(5)], aspect=20)
    with pytest.raises(ValueError, match=r"pixels are 20 times as wide as high, expected 1/8 to 8; save it"):
        read_excerpt(path, span())


def test_a_matrix_of_zeros_turns_nothing(tmp_path):
    path = write_clip(tmp_path / "a.mp4", [k / 16 for k in range(5)], size=(64, 48))
    expected = read_excerpt(path, span()).frames
    path.write_bytes(with_rotation(path.read_bytes(), [0] * 9))
    assert torch.equal(read_excerpt(path, span()).frames, expected)


def with_rotation(data, matrix=(0, 0x00010000, 0, 0xFFFF0000, 0, 0, 0, 0, 0x40000000)):
    """The header's matrix of the track replaced, by that of a quarter turn."""
    place = data.index(b"tkhd") + 4 + 4 + 36
    matrix = b"".join(value.to_bytes(4, "big") for value in matrix)
    return data[:place] + matrix + data[place + 36 :]


def test_what_cannot_be_read_is_said(tmp_path):
    path = write_clip(tmp_path / "a.mp4", [k / 16 for k in range(9)])
    with pytest.raises(ValueError, match=r"start is 7; give a smaller start"):
        read_excerpt(path, span(7.0))
    with pytest.raises(ValueError, match=r"needs .* GB of memory.*smaller length or size"):
        read_excerpt(path, span(fit=lambda *_: (2**15, 2**15)))
    damaged = tmp_path / "cut.mp4"
    damaged.write_bytes(path.read_bytes()[:400])
    with pytest.raises(ValueError, match="cannot be decoded"):
        read_excerpt(damaged, span())
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError):
        read_excerpt(tmp_path / "text.mp4", span())


def test_of_a_long_video_only_the_span_is_decoded(tmp_path, monkeypatch):
    """Of 60 seconds, one second at the end and what leads to it from the key frame before."""
    options = {"g": "30", "preset": "ultrafast"}
    path = write_clip(tmp_path / "a.mp4", [k / 30 for k in range(1800)], options=options)
    decoded = []
    upright_times = excerpts.timed_frames

    def counted(container, start):
        for time, frame in upright_times(container, start):
            decoded.append(time)
            yield time, frame

    monkeypatch.setattr(excerpts, "timed_frames", counted)
    assert len(read_excerpt(path, span(50.0, most=17)).frames) == 17
    assert len(decoded) < 80 and 48.9 < decoded[0] <= 50


def test_a_video_in_memory_is_cut_in_the_same_way(tmp_path):
    times = [k / 30 for k in range(40)]
    frames = torch.stack([torch.full((4, 4, 3), level(k) / 255) for k in range(40)])
    tone = Sound(torch.linspace(0, 1, TONE_RATE * 2)[None], TONE_RATE)
    excerpt = cut_excerpt(frames, 30.0, tone, span(0.3, most=13))
    assert len(excerpt.frames) == 13
    assert_nearest(excerpt, times, 0.3)
    assert excerpt.sound.waveform.shape == (1, round(13 / 16 * TONE_RATE))
    assert float(excerpt.sound.waveform[0, 0]) == pytest.approx(0.15, abs=1e-3)


@pytest.mark.parametrize("start", [1e18, 1e300, math.inf, math.nan, -1.0])
@pytest.mark.parametrize("rate", [None, 16.0])
def test_starts_that_no_video_has_are_refused(start, rate):
    with pytest.raises(ValueError, match=r"start is .*, expected a number from 0 to"):
        span(start, rate)


@pytest.mark.parametrize("rate", [1e-9, 0, -1, 1e9, math.nan])
def test_rates_that_no_video_has_are_refused(rate):
    with pytest.raises(ValueError, match=r"fps is .*, expected a number from 0\.01 to 1000"):
        span(rate=rate)
    with pytest.raises(ValueError, match="most_frames is 0"):
        span(most=0)


def test_a_start_behind_the_end_is_named(tmp_path):
    path = write_clip(tmp_path / "a.mp4", [0.1 * number for number in range(5)])
    with pytest.raises(ValueError, match="seconds long, and start is 1e"):
        read_excerpt(path, span(1e7))
