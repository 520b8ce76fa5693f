"""ComfyUI decodes the same frames from a cut clip as from the full one; a mask keeps its two values."""

import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from devtools.demo.media import Clip, cut_video, probe, probe_video, read_frames, still_video
from devtools.errors import DevError
from vdot_core import pictures

NTSC = Fraction(30000, 1001)
QUARTER_TURN = (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)  # a, b, u, c, d, v, x, y, w


def write(path, codec, pixel_format, size, *, num_frames=24, rate=24, aspect=1, **options):
    """A clip in which every frame is its own: noise on a moving ramp."""
    rng = random.Random(5)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        stream.codec_context.sample_aspect_ratio = aspect
        for i in range(num_frames):
            y, x = np.mgrid[: size[1], : size[0]]
            pixels = np.stack([(x * 3 + i * 11) % 256, (y * 5 + i * 7) % 256, (x + y + i * 29) % 256], -1)
            pixels[: size[1] // 3, : size[0] // 3] = rng.randrange(256)
            frame = av.VideoFrame.from_ndarray(pixels.astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame.reformat(format=pixel_format)))
        container.mux(stream.encode())
    return path


def turn(path):
    """Let an .mp4 say that it is to be shown turned by 90 degrees, as a phone's does."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    data[place : place + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in QUARTER_TURN)
    path.write_bytes(data)
    return path


def seen_by_comfyui(path):
    from comfy_api.latest import InputImpl

    return InputImpl.VideoFromFile(str(path)).get_components()


SOURCES = {
    "h264 with B-frames": (
        "a.mp4",
        "libx264",
        "yuv420p",
        (64, 48),
        {"bf": "3", "rate": NTSC},
    ),
    "ten bits": ("a.mp4", "libx264", "yuv420p10le", (64, 48), {}),
    "full range": ("a.mkv", "mjpeg", "yuvj420p", (66, 50), {}),
    "full color, odd": ("a.mp4", "libx264", "yuv444p", (63, 47), {}),
    "twelve bits": ("a.mkv", "ffv1", "yuv422p12le", (64, 48), {}),
    "odd": ("a.webm", "libvpx-vp9", "yuv420p", (63, 47), {"rate": 25}),
    "transparent": ("a.mov", "png", "rgba", (64, 48), {}),
    "palette": ("a.gif", "gif", "rgb8", (64, 48), {"rate": 10}),
}
INEXACT = {"transparent"}  # written without its alpha, in eight bits


@pytest.mark.parametrize(("start", "count"), [(0, 9), (19, 5)])
@pytest.mark.parametrize("kind", SOURCES)
def test_comfyui_sees_the_same_frames_in_a_part(comfy, tmp_path, kind, start, count):
    name, codec, pixel_format, size, options = SOURCES[kind]
    source = write(tmp_path / name, codec, pixel_format, size, **options)
    cut_video(source, tmp_path / "part.mp4", count, start=start)
    whole, part = seen_by_comfyui(source), seen_by_comfyui(tmp_path / "part.mp4")
    assert part.frame_rate == whole.frame_rate
    expected = whole.images[start : start + count, ..., :3]
    assert part.images.shape == expected.shape
    assert len(whole.images) == 24 and (expected[1:] - expected[:-1]).abs().mean() > 0.01
    tolerance = 1.5 / 255 if kind in INEXACT else 0
    torch.testing.assert_close(part.images, expected, rtol=0, atol=tolerance)


def test_a_part_of_a_phones_clip_stays_upright(comfy, tmp_path):
    source = turn(write(tmp_path / "phone.mp4", "libx264", "yuv420p", (64, 48), crf="1"))
    assert probe_video(source, "") == Clip(48, 64, 24)
    cut_video(source, tmp_path / "part.mp4", 5)
    whole, part = seen_by_comfyui(source).images, seen_by_comfyui(tmp_path / "part.mp4").images
    assert whole.shape[1:] == (64, 48, 3)
    torch.testing.assert_close(part, whole[:5], rtol=0, atol=1.5 / 255)


@pytest.mark.parametrize("kind", ["yuv420p", "yuv444p10le"])
def test_a_part_of_an_anamorphic_clip_keeps_its_aspect(tmp_path, kind):
    """VDOT Load Clip shows both with square pixels."""
    codec = "libx264" if kind == "yuv420p" else "ffv1"
    source = write(tmp_path / "dv.mp4", codec, kind, (64, 48), aspect=2)
    assert probe_video(source, "") == Clip(128, 48, 24)
    cut_video(source, tmp_path / "part.mp4", 5)
    assert probe_video(tmp_path / "part.mp4", "") == Clip(128, 48, 5)
    cut_video(source, tmp_path / "mask.mp4", 5, size=(128, 48))
    assert probe_video(tmp_path / "mask.mp4", "") == Clip(128, 48, 5)


def test_a_part_of_a_turned_anamorphic_clip_keeps_its_aspect(tmp_path):
    source = turn(write(tmp_path / "phone.mp4", "libx264", "yuv420p", (64, 48), aspect=2, crf="1"))
    assert probe_video(source, "") == Clip(48, 128, 24)
    cut_video(source, tmp_path / "part.mp4", 5)
    part = probe_video(tmp_path / "part.mp4", "")
    assert part.width / part.height == pytest.approx(48 / 128)


def test_a_stretched_mask_stays_black_and_white_and_in_its_place(tmp_path):
    with av.open(str(tmp_path / "mask.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=16)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "gray"
        for i in range(8):
            pixels = np.zeros((16, 32), np.uint8)
            pixels[4:8, 2 * i : 2 * i + 6] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="gray")))
        container.mux(stream.encode())
    cut_video(tmp_path / "mask.mkv", tmp_path / "part.mp4", 5, size=(96, 64))
    frames = [np.asarray(frame) for frame in read_frames(tmp_path / "part.mp4")]
    assert len(frames) == 5
    for i, frame in enumerate(frames):
        expected = np.zeros((64, 96, 3), np.uint8)
        expected[16:32, 6 * i : 6 * i + 18] = 255
        assert (frame == expected).all()


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "P", "RGBA", "I;16"])
def test_a_picture_stands_still_as_a_video(tmp_path, mode):
    mask = Image.new("L", (20, 10))
    mask.paste(255, (5, 0, 10, 10))
    if mode == "I;16":  # 16-bit gray levels: 128 of 65535 is black
        mask = Image.fromarray(np.where(np.asarray(mask) > 0, 65535, 128).astype(np.uint16))
    mask.convert(mode).save(tmp_path / "mask.png")
    still_video(tmp_path / "mask.png", tmp_path / "still.mp4", 5, (40, 30))
    frames = [np.asarray(frame) for frame in read_frames(tmp_path / "still.mp4")]
    expected = np.zeros((30, 40, 3), np.uint8)
    expected[:, 10:20] = 255
    assert len(frames) == 5 and all((frame == expected).all() for frame in frames)


def test_pictures_and_videos_are_recognized_by_content(tmp_path):
    colors = [Image.new("RGB", (24, 16), (i * 40, 0, 0)) for i in range(4)]
    colors[0].save(tmp_path / "still.png")
    colors[0].save(tmp_path / "still.gif")
    colors[0].save(tmp_path / "moving.gif", save_all=True, append_images=colors[1:])
    (tmp_path / "clip.png").write_bytes(write(tmp_path / "c.mp4", "mpeg4", "yuv420p", (24, 16)).read_bytes())
    (tmp_path / "words.png").write_text("no picture")
    picture = Clip(24, 16, 1, is_picture=True)
    assert probe(tmp_path / "still.png", "") == probe(tmp_path / "still.gif", "") == picture
    assert probe(tmp_path / "moving.gif", "") == Clip(24, 16, 4)
    assert probe(tmp_path / "clip.png", "") == Clip(24, 16, 24)
    with pytest.raises(DevError, match=r"--mask .*words\.png"):
        probe(tmp_path / "words.png", "--mask")


@pytest.mark.parametrize("name", ["x.mp4", "x.png"])
def test_a_playlist_opens_no_other_file(tmp_path, monkeypatch, name):
    write(tmp_path / "secret.mp4", "mpeg4", "yuv420p", (24, 16))
    (tmp_path / name).write_text("ffconcat version 1.0\nfile 'secret.mp4'\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DevError, match=r"--video x\.\w+: not a readable video \(not a video of a known format"
    ):
        probe(Path(name), "--video")


def test_a_picture_of_too_many_pixels_is_refused_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 100)
    Image.new("L", (24, 16)).save(tmp_path / "large.png")
    with pytest.raises(DevError, match=r"--mask .*large\.png: it has 24 x 16 pixels, expected at most"):
        probe(tmp_path / "large.png", "--mask")
