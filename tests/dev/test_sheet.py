"""The contact sheet shows the right picture in the right place, and media are judged before they are sent."""

import time

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw

from devtools.demo.media import Clip, fitting_size, probe_image, probe_video, read_frames, spread
from devtools.demo.sheet import BACKGROUND, CELL_HEIGHT, MAX_CELL_WIDTH, Row, _font, _text_line, contact_sheet
from devtools.errors import DevError

COLORS = [(220, 20, 60), (46, 139, 87), (65, 105, 225), (255, 140, 0)]


def picture(color, size=(64, 64)) -> Image.Image:
    return Image.new("RGB", size, color)


def boxes(sheet: Image.Image, color) -> list[tuple[int, int, int, int]]:
    """Bounding box (left, top, right, bottom) of a color, none where it does not occur."""
    rows, columns = np.nonzero((np.asarray(sheet) == color).all(-1))
    return [] if not len(rows) else [(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


def write_video(path, num_frames, size=(64, 48)):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=16)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for i in range(num_frames):
            frame = av.VideoFrame.from_image(picture((i * 8, 0, 0), size))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("size", [(64, 64), (80, 48), (48, 80), (832, 480), (512, 16)])
def test_every_picture_fills_its_cell(size):
    rows = [
        Row("Input", "what goes in", [picture(COLORS[0], size), picture(COLORS[1], size)]),
        Row("Result", "four steps", [picture(COLORS[2], size), picture(COLORS[3], size)]),
    ]
    sheet = contact_sheet(rows, ["frame 0", "frame 16"], "A title", "a line", "a footer")
    cells = [boxes(sheet, color)[0] for color in COLORS]
    widths = {right - left for left, _, right, _ in cells}
    heights = {bottom - top for _, top, _, bottom in cells}
    assert len(widths) == len(heights) == 1
    width, height = widths.pop(), heights.pop()
    assert height <= CELL_HEIGHT and width <= MAX_CELL_WIDTH and CELL_HEIGHT in (height, CELL_HEIGHT)
    assert width / height == pytest.approx(size[0] / size[1], rel=0.03)
    a, b, c, d = cells
    assert a[1] == b[1] < c[1] == d[1] and a[0] == c[0] < b[0] == d[0]
    left, right = sheet.getpixel((3, 3)), sheet.getpixel((sheet.width - 3, sheet.height - 3))
    assert left == right == BACKGROUND
    assert b[2] < sheet.width and d[3] < sheet.height


def test_pictures_of_another_shape_cover_the_cell_and_are_cut_in_the_middle():
    wide = picture(COLORS[0], (192, 64))
    wide.paste(picture(COLORS[1]), (64, 0))
    sheet = contact_sheet([Row("a", "", [wide]), Row("b", "", [picture(COLORS[2])])], ["x"], "t")
    middle = boxes(sheet, COLORS[1])[0]
    below = boxes(sheet, COLORS[2])[0]
    assert boxes(sheet, COLORS[0]) == []
    # The resampling blends the very edge.
    assert abs(middle[0] - below[0]) <= 6 and abs(middle[2] - below[2]) <= 6


def test_labels_are_written_and_long_titles_fit():
    def ink(title, label="Mask"):
        sheet = contact_sheet([Row(label, "note", [picture(COLORS[0])] * 6)], ["c"] * 6, title)
        return np.asarray(sheet.convert("L")) < 128

    assert ink("Depth").sum() > ink("").sum()
    assert ink("", "Mask").sum() > ink("", "").sum()
    long = ink("a very long prompt that goes on and on " * 20)
    assert not long[:, -20:].any()


def test_a_title_of_thousands_of_characters_is_cut_in_a_moment():
    font, room, shown = _font(26, bold=True), 1000, []
    draw = ImageDraw.Draw(picture(COLORS[0]))
    draw.text = lambda place, text, *_: shown.append(text)
    began = time.process_time()
    for text in ("wide words " * 1000, "W" * 10_000, "short"):
        _text_line(draw, (0, 0), text, 26, COLORS[0], room, bold=True)
    assert time.process_time() - began < 2
    assert shown[2] == "short"
    for line, word in zip(shown, ("wide words ", "W"), strict=False):
        beginning = line.removesuffix("…")
        assert line != beginning and (word * 10_000).startswith(beginning)
        assert room - 60 < draw.textlength(line, font) <= room


def test_missing_pictures_leave_an_empty_frame_and_wrong_counts_are_refused():
    contact_sheet([Row("a", "", [None]), Row("b", "", [picture(COLORS[0])])], ["x"], "t")
    with pytest.raises(ValueError, match="'a' has 1 pictures, there are 2 columns"):
        contact_sheet([Row("a", "", [picture(COLORS[0])])], ["x", "y"], "t")
    with pytest.raises(ValueError, match="'b' has no picture"):
        contact_sheet([Row("b", "", [None])], ["x"], "t")


@pytest.mark.parametrize(("num_frames", "columns"), [(1, 6), (5, 6), (6, 6), (17, 6), (81, 6), (2, 1)])
def test_columns_spread_over_the_video(num_frames, columns):
    indices = spread(num_frames, columns)
    assert len(indices) == len(set(indices)) == min(num_frames, columns)
    assert indices == sorted(indices) and indices[0] == 0
    if len(indices) > 1:
        assert indices[-1] == num_frames - 1
        steps = np.diff(indices)
        assert steps.max() - steps.min() <= 1


@pytest.mark.parametrize("shape", [(832, 480), (480, 832), (64, 64), (1920, 1080), (1000, 1), (17, 1000)])
def test_sizes_keep_the_shape_and_the_amount(shape):
    width, height = fitting_size(Clip(*shape, 81), 4096)
    assert width % 16 == height % 16 == 0 and 4096 / 1.5 <= width * height <= 4096 * 1.5
    if 0.25 < shape[0] / shape[1] < 4:
        assert width / height == pytest.approx(shape[0] / shape[1], rel=0.15)


def test_clips_are_measured_by_decoding(tmp_path):
    path = write_video(tmp_path / "clip.mp4", 9)
    assert probe_video(path, "--video") == Clip(64, 48, 9)
    assert len(read_frames(path)) == 9


def test_what_cannot_be_read_is_named(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a video")
    sound = tmp_path / "sound.mkv"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        samples.sample_rate = 8000
        container.mux(stream.encode(samples))
        container.mux(stream.encode())
    with pytest.raises(DevError, match=r"--video .*notes\.txt: not a readable video"):
        probe_video(text, "--video")
    with pytest.raises(DevError, match="has no video in it"):
        probe_video(sound, "--video")
    with pytest.raises(DevError, match=r"--mask .*notes\.txt: not a readable picture"):
        probe_image(text, "--mask")
    Image.new("F", (8, 8)).save(tmp_path / "float.tif")
    with pytest.raises(DevError, match=r"--mask .*float\.tif: its pixels are of Pillow's mode F"):
        probe_image(tmp_path / "float.tif", "--mask")
    cut = tmp_path / "cut.png"
    Image.effect_noise((64, 64), 50).save(cut)
    assert probe_image(cut, "--image") == (64, 64)
    cut.write_bytes(cut.read_bytes()[:1000])
    with pytest.raises(DevError, match="not a readable picture"):
        probe_image(cut, "--image")
