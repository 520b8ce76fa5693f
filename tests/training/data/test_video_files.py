"""Clips read from real files: which frames, what size, and what is refused."""

import gc
import io
import os
import socket
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from training.data import video_files
from training.data.bad_rows import BadRowError
from training.data.records import read_table
from training.data.shards import TarRows
from training.data.video_files import Media, fit, own_size, read_clip
from training.preparation.clip_files import decoded

from .conftest import HEIGHT, NUM_FRAMES, WIDTH, moving_square, png, write_video


def counted(num_frames):
    """A clip whose frames are told apart by their brightness."""
    return np.stack([np.full((16, 16, 3), 6 * number, np.uint8) for number in range(num_frames)])


def test_a_clip_at_its_own_rate_is_what_was_written(clips):
    clip = read_clip(Media(str(clips / "real.mp4")), 16, 81)
    assert clip.shape == (NUM_FRAMES, HEIGHT, WIDTH, 3) and clip.dtype == torch.uint8
    assert (clip.int() - torch.from_numpy(moving_square()).int()).abs().max() <= 4


def test_an_anamorphic_clip_is_trained_on_as_it_is_shown(tmp_path):
    """Stored as 64x64 with pixels twice as wide as high: a circle stays a circle only at 128x64."""
    stored = moving_square(width=64)
    write_video(tmp_path / "a.mp4", stored, aspect=2)
    clip = read_clip(Media(str(tmp_path / "a.mp4")), 16, 81)
    assert clip.shape == (NUM_FRAMES, HEIGHT, 128, 3)
    pairs = clip.float().unflatten(2, (64, 2)).mean(3)
    assert (pairs - torch.from_numpy(stored).float()).abs().mean() < 3
    (frame,) = decoded(tmp_path / "a.mp4", 16, 0.0, 1)
    assert frame.shape == (HEIGHT, 128, 3)


@pytest.mark.parametrize("rate", [8, 12, 24, 30, 60])
def test_other_frame_rates_show_the_nearest_moment(tmp_path, rate):
    write_video(tmp_path / "clip.mp4", counted(2 * rate // 3 + 1), rate)
    frames = read_clip(Media(str(tmp_path / "clip.mp4")), 16, 81)[:, 0, 0, 0].float() / 6
    times = frames / rate
    expected = torch.arange(len(frames)) / 16
    assert (times - expected).abs().max() <= 0.5 / rate + 0.02, (
        "a frame is off by more than half a source frame"
    )
    assert abs(len(frames) - (2 * rate // 3 + 1) * 16 / rate) <= 1, "the clip is not as long as it was"
    assert torch.equal(read_clip(Media(str(tmp_path / "clip.mp4")), 16, 5), read_clip(
        Media(str(tmp_path / "clip.mp4")), 16, 81)[:5])  # fmt: skip


@pytest.mark.parametrize("name, kind", [("broken.mp4", "unreadable"), ("none.mp4", "missing"),
                                        ("words.png", "unreadable"), ("none.png", "missing")])  # fmt: skip
def test_bad_files_are_named(clips, name, kind):
    with pytest.raises(BadRowError, match=name) as caught:
        read_clip(Media(str(clips / name)), 16, 81)
    assert caught.value.kind == kind


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX's kinds of files")
@pytest.mark.parametrize("ending", ["mp4", "png", "csv", "tar"])
def test_pipes_and_devices_are_not_read(tmp_path, ending):
    """They never end; at a relative path, an absolute one and one with a protocol."""
    os.mkfifo(tmp_path / f"pipe.{ending}")
    (tmp_path / f"device.{ending}").symlink_to("/dev/zero")
    for path in (f"{tmp_path}/pipe.{ending}", f"file://{tmp_path}/device.{ending}"):
        if ending == "csv":
            with pytest.raises(ValueError, match=r"cannot be read.*not a file but a"):
                read_table(path, ("prompt",))
        elif ending == "tar":
            (skipped,) = TarRows(path).rows(0)
            assert skipped.kind == "unreadable" and "is not a file but a" in skipped.reason
        else:
            with pytest.raises(BadRowError, match="is not a file but a") as error:
                read_clip(Media(path), 16, 81)
            assert error.value.kind == "unreadable"


def test_a_file_beyond_the_limit_is_left_out_before_it_is_read(tmp_path):
    """One of holes takes no space on the disk."""
    with (tmp_path / "x.mp4").open("wb") as file:
        file.truncate(60 * 2**30)
    with pytest.raises(
        BadRowError, match=r"x\.mp4 cannot be read: it has 64424509440 bytes, expected"
    ) as error:
        read_clip(Media(str(tmp_path / "x.mp4")), 16, 1)
    assert error.value.kind == "unreadable"


def test_a_stream_of_unknown_size_ends_at_the_limit(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.mp4", bytes(100_000))
    monkeypatch.setattr(video_files, "MAX_FILE_BYTES", 50_000)
    with pytest.raises(OSError, match=r"it has (more|100000) bytes, expected at most 50000"):
        video_files.read_bytes(f"zip://x.mp4::file://{tmp_path}/x.zip")


def test_a_picture_within_an_archive_is_read(clips, tmp_path):
    with zipfile.ZipFile(tmp_path / "ok.zip", "w") as archive:
        archive.write(clips / "one.png", "s.png")
    gc.collect()
    clip = read_clip(Media(f"zip://s.png::file://{tmp_path}/ok.zip"), 16, 1)
    assert torch.equal(clip, read_clip(Media(str(clips / "one.png")), 16, 1))


def test_a_server_that_does_not_answer_is_not_a_missing_file():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/a.mp4"
        with pytest.raises(
            BadRowError, match=r"cannot be read: ClientConnectorError: Cannot connect"
        ) as error:
            read_clip(Media(address), 16, 1)
    assert error.value.kind == "unreadable"


def test_a_playlist_named_as_a_clip_opens_no_other_file(clips, monkeypatch):
    monkeypatch.chdir(clips)
    text = b"ffconcat version 1.0\nfile 'real.mp4'\n"
    with pytest.raises(BadRowError, match=r"x\.mp4 cannot be decoded: not a video of a known format"):
        read_clip(Media("x.mp4", text), 16, 1)


def test_a_tars_row_of_too_large_files_costs_it_alone(clips, tmp_path, monkeypatch):
    data, text = (clips / "real.mp4").read_bytes(), b'{"task_name": "text", "prompt": "a"}'
    monkeypatch.setattr(video_files, "MAX_FILE_BYTES", 2 * len(data))
    with tarfile.open(tmp_path / "rows.tar", "w") as archive:
        for name, content in [("0.json", text), ("0.target_video.mp4", data), ("1.json", text),
                              ("1.src_video.mp4", data), ("1.target_video.mp4", data), ("2.json", text),
                              ("2.target_video.mp4", data)]:  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    first, bad, last = TarRows(str(tmp_path / "rows.tar")).rows(0)
    assert (first.id, last.id) == ("0", "2") and first.target.data == last.target.data == data
    assert bad.kind == "unreadable" and "1.target_video.mp4 cannot be read: with the row" in bad.reason


def test_a_clip_that_fills_the_memory_is_left_out(clips, monkeypatch):
    monkeypatch.setattr(video_files, "MAX_CLIP_BYTES", 3 * HEIGHT * WIDTH * 3)
    with pytest.raises(BadRowError, match=rf"real\.mp4 decodes to more.*{WIDTH} x {HEIGHT} pixels a frame"):
        read_clip(Media(str(clips / "real.mp4")), 16, NUM_FRAMES)
    assert len(read_clip(Media(str(clips / "real.mp4")), 16, 3)) == 3


def test_pictures_keep_their_alpha_and_their_turn():
    picture = np.random.default_rng(0).integers(0, 255, (6, 10, 4), dtype=np.uint8)
    assert torch.equal(read_clip(Media("a.png", png(picture)), 16, 1)[0], torch.from_numpy(picture))
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture[..., :3]).save(turned, "PNG", exif=exif)
    assert read_clip(Media("a.png", turned.getvalue()), 16, 1).shape == (1, 10, 6, 3)


def test_deep_pictures_are_scaled_or_refused():
    ramp = np.arange(16, dtype=np.uint16) * 4369
    out = io.BytesIO()
    Image.fromarray(ramp[None]).save(out, "PNG")
    clip = read_clip(Media("a.png", out.getvalue()), 16, 1)
    assert torch.equal(clip[0, 0], torch.arange(16, dtype=torch.uint8)[:, None].mul(17).expand(16, 3))
    floats = io.BytesIO()
    Image.fromarray(np.linspace(0, 1, 16, dtype=np.float32)[None]).save(floats, "TIFF")
    with pytest.raises(
        BadRowError, match=r"a\.png cannot be decoded: its pixels are of Pillow's mode F"
    ) as caught:
        read_clip(Media("a.png", floats.getvalue()), 16, 1)
    assert caught.value.kind == "unreadable"


@pytest.mark.parametrize(
    "pixel_format, black, white",
    [
        ("gray10le", 0, 1023), ("gray16le", 0, 65535), ("yuv420p10le", 64, 940), ("yuv444p12le", 256, 3760),
        ("gbrp10le", 0, 1023), ("gbrp16le", 0, 65535),
    ],
)  # fmt: skip
def test_deep_videos_are_scaled(tmp_path, pixel_format, black, white):
    import av

    path, size = tmp_path / "deep.mkv", 32
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=16)
        stream.width, stream.height, stream.pix_fmt = size, 16, pixel_format
        frame = av.VideoFrame(size, 16, pixel_format)
        for plane, content in enumerate(frame.planes):
            values = np.zeros((content.height, content.line_size // 2), dtype="<u2")
            chroma = pixel_format.startswith("yuv") and plane > 0
            # Chroma is without color at half of the depth, 8 times video's black.
            values[:, : content.width] = 8 * black if chroma else np.linspace(black, white, content.width)
            content.update(values.tobytes())
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames = read_clip(Media(str(path)), 16, 1)[0, 8].double()
    assert (frames - torch.linspace(0, 255, size)[:, None]).abs().max() <= 5


@settings(max_examples=200, deadline=None)
@given(st.integers(32, 4000), st.integers(32, 4000), st.integers(32 * 32, 1280 * 720))
def test_own_size_keeps_the_aspect_within_the_budget(width, height, budget):
    if not 1 / 3 <= width / height <= 3:
        return
    new_width, new_height = own_size(width, height, budget)
    assert new_width % 16 == new_height % 16 == 0
    assert new_width * new_height <= max(budget, 256) or min(new_width, new_height) == 16
    assert new_width <= max(16, width) and new_height <= max(16, height), "clips are not made larger"
    # Half a multiple of 16 is as near as a side can come.
    tolerance = 16 / min(new_width, new_height)
    assert abs(np.log(new_width / new_height * height / width)) <= tolerance


def test_own_size_of_common_clips():
    assert own_size(1920, 1080, 480 * 832) == (832, 464) or own_size(1920, 1080, 480 * 832) == (832, 480)
    assert own_size(832, 480, 480 * 832) == (832, 480)
    assert own_size(64, 64, 480 * 832) == (64, 64)


def test_cover_keeps_circles_round_and_stretch_does_not():
    clip = torch.zeros(2, 40, 80, 3, dtype=torch.uint8)
    clip[:, 10:30, 30:50] = 255
    covered, stretched = (fit(clip, 32, 32, mode)[0, ..., 0] > 0.5 for mode in ("cover", "stretch"))
    assert covered.any(0).sum() == covered.any(1).sum()
    assert stretched.any(0).sum() < stretched.any(1).sum()
