"""Pictures of every mode that Pillow opens: a ramp from black to white stays one, or the file is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from vdot_core.pictures import read_picture
from vdot_core.vcu.__main__ import main

STEPS = 16
RAMP = np.arange(STEPS) * 17  # 0 .. 255
CLEAR = 3  # the step that is transparent, where one is
GRAY, RGB, PALETTE, GRAY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6


def png(depth, kind, row, *, clear=None, palette=None) -> bytes:
    """One row of a PNG, written by its specification: Pillow itself writes few of these."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    size = len(row) * 8 // depth // {GRAY: 1, RGB: 3, PALETTE: 1, GRAY_ALPHA: 2, RGB_ALPHA: 4}[kind]
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", size, 1, depth, kind, 0, 0, 0))]
    parts += [chunk(b"PLTE", palette)] if palette else []
    parts += [chunk(b"tRNS", clear)] if clear else []
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", *parts, chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")]
    )


def saved(pixels, mode, kind) -> bytes:
    out = io.BytesIO()
    Image.frombytes(mode, (STEPS, len(pixels)), np.ascontiguousarray(pixels).tobytes()).save(out, kind)
    return out.getvalue()


def tiff12() -> bytes:
    """A gray TIFF of 12 bits a pixel, one strip, by its specification."""
    values = [step * 273 for step in range(STEPS)]
    packed = b"".join(
        bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255])
        for a, b in zip(values[::2], values[1::2], strict=True)
    )
    tags = [
        (256, STEPS),
        (257, 1),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 1),
        (279, len(packed)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"
    return b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + directory


DEEP = (RAMP * 257).astype(">u2")
NIBBLES = bytes(2 * i << 4 | 2 * i + 1 for i in range(STEPS // 2))
GRAY8 = RAMP.astype(np.uint8)[None]
RAMPS = {
    "gray 16": png(16, GRAY, DEEP.tobytes()),
    "rgb 16": png(16, RGB, DEEP.repeat(3).tobytes()),
    "gray 4": png(4, GRAY, NIBBLES),
    "palette 4": png(4, PALETTE, NIBBLES, palette=GRAY8.repeat(3).tobytes()),
    "gray 8": saved(GRAY8, "L", "PNG"),
    "tiff 12": tiff12(),
    "tiff 16": saved(DEEP.astype("<u2")[None], "I;16", "TIFF"),
    "tiff 16, big-endian": saved(DEEP[None], "I;16B", "TIFF"),
    "pgm 16": b"P5 16 1 65535\n" + DEEP.tobytes(),
    "pgm 10": b"P5 16 1 1023\n" + np.rint(RAMP * 1023 / 255).astype(">u2").tobytes(),
    "ppm 16": b"P6 16 1 65535\n" + DEEP.repeat(3).tobytes(),
    "cmyk": saved(np.stack([255 - GRAY8] * 3 + [0 * GRAY8], axis=-1), "CMYK", "TIFF"),
    "ycbcr": saved(np.stack([GRAY8, 0 * GRAY8 + 128, 0 * GRAY8 + 128], axis=-1), "YCbCr", "TIFF"),
    "gif": saved(GRAY8, "L", "GIF"),
    "webp": saved(GRAY8.repeat(3).reshape(1, STEPS, 3), "RGB", "WEBP"),
}
WITH_ALPHA = {
    "gray 16": png(16, GRAY, DEEP.tobytes(), clear=DEEP[CLEAR].tobytes()),
    "rgb 16": png(16, RGB, DEEP.repeat(3).tobytes(), clear=DEEP[CLEAR].tobytes() * 3),
    "gray 4": png(4, GRAY, NIBBLES, clear=struct.pack(">H", CLEAR)),
    "gray 8": png(8, GRAY, GRAY8.tobytes(), clear=struct.pack(">H", RAMP[CLEAR])),
    "rgb 8": png(8, RGB, GRAY8.repeat(3).tobytes(), clear=struct.pack(">HHH", *[RAMP[CLEAR]] * 3)),
    "palette": png(4, PALETTE, NIBBLES, palette=GRAY8.repeat(3).tobytes(), clear=b"\xff\xff\xff\0"),
}


@pytest.mark.parametrize("name", RAMPS)
def test_a_ramp_stays_a_ramp(name):
    pixels = read_picture(io.BytesIO(RAMPS[name]))
    assert pixels.shape == (1, STEPS, 3) and pixels.dtype == np.uint8
    lossy = 3 if name == "webp" else 0
    assert np.abs(pixels[0].astype(int) - RAMP[:, None]).max() <= lossy


@pytest.mark.parametrize("name", WITH_ALPHA)
def test_the_transparent_color_is_transparent(name):
    pixels = read_picture(io.BytesIO(WITH_ALPHA[name]))
    assert pixels.shape == (1, STEPS, 4)
    assert np.array_equal(pixels[0, :, :3], RAMP[:, None].repeat(3, axis=1))
    assert pixels[0, :, 3].tolist() == [255 if step != CLEAR else 0 for step in range(STEPS)]


@pytest.mark.parametrize("kind, color", [(GRAY_ALPHA, 1), (RGB_ALPHA, 3)])
@pytest.mark.parametrize("depth", [8, 16])
def test_alpha_channels(kind, color, depth):
    levels = DEEP if depth == 16 else GRAY8[0]
    row = np.stack([levels] * color + [levels[::-1]], axis=-1)
    pixels = read_picture(io.BytesIO(png(depth, kind, row.tobytes())))[0]
    assert np.array_equal(pixels, np.stack([RAMP, RAMP, RAMP, RAMP[::-1]], axis=-1))


def test_one_bit():
    row = png(1, GRAY, bytes([0b01010101]))
    assert read_picture(io.BytesIO(row))[0, :, 1].tolist() == [0, 255] * 4


def test_a_deep_picture_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    Image.frombytes("I;16", (STEPS, 1), DEEP.astype("<u2").tobytes()).save(out, "PNG", exif=exif)
    assert read_picture(out).shape == (STEPS, 1, 3)


@pytest.mark.parametrize(
    "data, mode",
    [
        (saved(np.linspace(0, 1, STEPS, dtype=np.float32)[None], "F", "TIFF"), "F"),
        (b"Pf\n16 1\n-1.0\n" + np.linspace(0, 1, STEPS, dtype="<f4").tobytes(), "F"),
        (saved(DEEP.astype("<i4")[None], "I", "TIFF"), "I"),
        (saved(np.stack([GRAY8, 0 * GRAY8 + 128, 0 * GRAY8 + 128], axis=-1), "LAB", "TIFF"), "LAB"),
    ],
)
def test_pixels_of_unknown_range_are_refused(data, mode):
    with pytest.raises(ValueError, match=rf"mode {mode}, whose black and white are not known; save it with"):
        read_picture(io.BytesIO(data))


@pytest.mark.parametrize("side", [10_001, 13_000, 20_000])
@pytest.mark.filterwarnings("error")
def test_a_small_file_of_too_many_pixels_is_refused_before_they_are_decoded(side):
    """Below Pillow's limits, above its warning and above its refusal: one sentence."""
    header = struct.pack(">IIBBBBB", side, side, 8, GRAY, 0, 0, 0)
    data = png(8, GRAY, bytes(4)).replace(struct.pack(">IIBBBBB", 4, 1, 8, GRAY, 0, 0, 0), header)
    check = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    data = data[:29] + check + data[33:]
    with pytest.raises(ValueError, match=r"it has .* pixels, expected at most 100 million; scale it down"):
        read_picture(io.BytesIO(data))


@pytest.mark.parametrize("dtype, channels", [(np.uint8, 3), (np.uint8, 1), (np.uint16, 1)])
def test_jpeg_2000_is_read_up_to_8_bits_of_color(tmp_path, dtype, channels):
    white = np.iinfo(dtype).max
    ramp = np.linspace(0, white, 64).round().astype(dtype)
    picture = np.tile(ramp[None, :, None], (64, 1, channels))
    cv2 = pytest.importorskip("cv2")
    assert cv2.imwrite(str(tmp_path / "ramp.jp2"), picture)
    read = read_picture(tmp_path / "ramp.jp2")
    assert np.abs(read[0, :, 0] - ramp * (255 / white)).max() <= 2


def test_jpeg_2000_of_deep_color_is_refused(tmp_path):
    """Pillow reads its white, 65535, as 0."""
    cv2 = pytest.importorskip("cv2")
    picture = np.tile(np.linspace(0, 65535, 64).round().astype(np.uint16)[None, :, None], (64, 1, 3))
    for name, values in (("rgb", picture), ("12", picture // 16)):
        assert cv2.imwrite(str(tmp_path / f"{name}.jp2"), values)
        with pytest.raises(ValueError, match="more than 8 bits a channel; save it as PNG"):
            read_picture(tmp_path / f"{name}.jp2")


@pytest.mark.parametrize("error", [SyntaxError, RuntimeError, EOFError, IndexError, struct.error])
def test_what_a_decoder_raises_is_an_error_of_the_file(monkeypatch, error):
    """Pillow's AVIF, WebP and ICO plugins raise these for damaged files."""

    def fail(image):
        raise error("damaged \x1b[2J" + "x" * 1000)

    monkeypatch.setattr("PIL.ImageOps.exif_transpose", fail)
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    with pytest.raises(OSError, match=r"cannot be decoded .*; save it again") as caught:
        read_picture(io.BytesIO(buffer.getvalue()))
    assert len(str(caught.value)) <= 200 and str(caught.value).isprintable()


def test_a_mask_with_its_shape_in_alpha_alone_is_refused_on_the_command_line(tmp_path, caplog):
    """Without its alpha it is black: all of the clip would be kept."""
    Image.new("RGB", (64, 48), "red").save(tmp_path / "clip.png")
    mask = np.zeros((48, 64, 4), np.uint8)
    mask[:24, :, 3] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    files = [str(tmp_path / "clip.png"), str(tmp_path / "mask.png")]
    assert main(["preview", "--inpaint", *files, "--out", str(tmp_path / "out.png")]) == 2
    assert "mask.png cannot be read: the mask has one color" in caplog.text
    assert not (tmp_path / "out.png").exists()
    mask[:24, :, :3] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert main(["preview", "--inpaint", *files, "--out", str(tmp_path / "out.png")]) == 0
