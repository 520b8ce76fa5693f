"""Files that name other files or addresses are not opened as videos, whatever their own name is."""

import io
import os
import socket
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from vdot_core import pictures, videos
from vdot_core.vcu.__main__ import main
from vdot_core.videos import FORMATS, open_video

EXAMPLES = Path(__file__).resolve().parents[2] / "assets" / "examples"
NUM_FRAMES = 8
PLAYLISTS = {
    "ffconcat": "ffconcat version 1.0\nfile 'secret.ts'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet><Representation id="1" '
    'bandwidth="9"><BaseURL>secret.ts</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "sdp": "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=video {port} RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n",
}


def write(path, **options):
    with av.open(str(path), "w", **options) as container:
        stream = container.add_stream("mpeg4", rate=16)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        noise = np.random.default_rng(0)
        for _ in range(NUM_FRAMES):
            pixels = noise.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_playlists_are_refused_before_they_open_anything(tmp_path, monkeypatch, kind, caplog):
    write(tmp_path / "secret.ts")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        text = PLAYLISTS[kind].replace("{port}", str(taken.getsockname()[1]))
        path = tmp_path / "x.mp4"
        path.write_text(text)
        for file in (path, io.BytesIO(text.encode())):
            with pytest.raises((ValueError, av.FFmpegError)) as error, open_video(file):
                pass
            if kind in ("ffconcat", "sdp"):  # FFmpeg itself takes the others by their ending alone
                assert "not a video of a known format; save it" in str(error.value)
        assert main(["preview", "--gray", str(path), "--out", str(tmp_path / "out.png")]) == 2
    assert "x.mp4 cannot be read: " in caplog.text


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts", "a.mpg", "a.mov", "a.nut", "a.m4v"])
def test_videos_open_by_path_and_by_their_bytes(tmp_path, name):
    path = write(tmp_path / name)
    for file in (path, io.BytesIO(path.read_bytes())):
        with open_video(file) as container:
            assert len(list(container.decode(video=0))) == NUM_FRAMES


def test_the_formats_are_ffmpegs_names_and_none_opens_others():
    available = {part for name in av.formats_available for part in name.split(",")}
    assert set(FORMATS) - available <= {"webp"}, "webp is read since FFmpeg 8.1"
    assert not {"concat", "hls", "dash", "sdp", "rtsp", "rtp", "image2", "vobsub", "lavfi"} & set(FORMATS)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX's kinds of files")
def test_a_pipe_is_no_video(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="not a file but a pipe"), open_video(tmp_path / "a.mp4"):
        pass


@pytest.mark.parametrize("name", ["a.mp4", "a.png"])
def test_frames_of_too_many_pixels_are_refused(tmp_path, monkeypatch, name):
    path = tmp_path / name
    if name == "a.png":  # by its content a picture, whatever its name
        Image.new("L", (32, 32)).save(path)
    else:
        write(path)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1000)
    with pytest.raises(ValueError, match="it has 32 x 32 pixels, expected at most"), open_video(path):
        pass


def test_a_frame_that_grows_on_the_way_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(videos, "MAX_PIXELS", 32 * 32 - 1)
    with open_video(write(tmp_path / "a.mp4")) as container, pytest.raises(av.FFmpegError):
        list(container.decode(video=0))


def test_a_file_of_sound_alone_is_refused_in_a_sentence(tmp_path, caplog):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert main(["preview", "--gray", str(tmp_path / "a.mp4"), "--out", str(tmp_path / "out.png")]) == 2
    assert "a.mp4 holds no frame; give another video" in caplog.text
    (tmp_path / "words.png").write_text("no picture")
    assert main(["preview", "--gray", str(tmp_path / "words.png"), "--out", str(tmp_path / "out.png")]) == 2
    assert "words.png cannot be read: it is no picture in PNG, JPEG" in caplog.text


def test_an_unknown_codec_is_a_sentence():
    clip = (Path(__file__).resolve().parents[2] / "assets/examples/clip.mp4").read_bytes()
    damaged = io.BytesIO(clip.replace(b"avc1", b"xxxx"))
    with pytest.raises(ValueError, match="unknown codec"), open_video(damaged):
        pass


def test_halved_colors_are_interpolated():
    """As FFmpeg does it in floating point, which ComfyUI's Load Video uses."""
    with open_video(EXAMPLES / "pair.mp4") as container:
        frame = next(container.decode(video=0))
        pixels = videos.upright(frame, container.streams.video[0])
    exact = frame.to_ndarray(format="gbrpf32le")
    assert pixels.dtype == np.uint16 and abs(pixels / 65535 - exact).max() < 2e-5
    assert abs(videos.eight_bits(pixels) / 255 - exact).max() <= 0.501 / 255
