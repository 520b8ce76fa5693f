"""Reads picture files of any mode and depth as 8-bit pixels.

Pillow's own conversion to RGB cuts deeper pixels off at 255, so that a 16-bit gray picture turns white.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from .files import open_file
from .text import shown

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""Pillow's names of the formats that are read. Of its others, some start a program or a library with the
file's content (EPS runs Ghostscript on the file's own PostScript), and hardly any holds a picture today."""
TITLES = {"WEBP": "WebP", "JPEG2000": "JPEG 2000"}
# A small file can decode to any number of pixels; each takes 16 bytes once it is three floats.
MAX_PIXELS = 100_000_000
# Pillow's plugins raise these besides OSError and ValueError.
DECODER_ERRORS = (SyntaxError, RuntimeError, EOFError, LookupError, TypeError, ArithmeticError, struct.error)
UNKNOWN_RANGE = ("I", "F", "LAB")
ALPHA_MODES = ("LA", "PA", "RGBA", "RGBa")
BITS_PER_SAMPLE = 258  # TIFF's tag
# Pillow's raw modes of PNGs whose transparent color is not in the depth of the pixels that it makes of them.
SHALLOW_GRAY = {"L;2": 2, "L;4": 4}
DEEP_COLOR = "RGB;16B"
JPEG2000_START = b"\xff\x4f\xff\x51"  # its size follows: 36 bytes, the number of channels, 3 bytes for each
JPEG2000_HEAD = 1 << 20


@contextmanager
def open_picture(file: str | Path | IO[bytes]) -> Iterator[Image]:
    """Open a picture file with Pillow; its pixels are decoded when they are first used.

    Args:
        file: path, or a stream of the file's bytes.
    Yields:
        The picture, of at most `MAX_PIXELS`.

    Raises:
        OSError: not a picture of `FORMATS` that Pillow can decode.
        ValueError: no file, but a pipe or a device; or a picture of more pixels.
    """
    from PIL import Image, UnidentifiedImageError

    Image.init()  # an earlier Pillow has no AVIF
    formats = [name for name in FORMATS if name in Image.OPEN]

    opened = open_file(file) if isinstance(file, (str, Path)) else nullcontext(file)
    with opened as stream:
        try:
            with warnings.catch_warnings():
                # Of sizes that are refused here, too.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                image = Image.open(stream, formats=formats)
        except Image.DecompressionBombError as error:
            raise ValueError(_too_large("more")) from error
        except UnidentifiedImageError as error:
            known = [TITLES.get(name, name) for name in formats]
            raise OSError(
                f"it is no picture in {', '.join(known[:-1])} or {known[-1]}, or damaged; save it as PNG"
            ) from error
        try:
            with image:
                check_pixels(image.width, image.height)
                yield image
        except DECODER_ERRORS as error:  # damaged files, at any use of the pixels
            raise OSError(f"it cannot be decoded ({shown(error, 80)}); save it again") from error


def check_pixels(width: int, height: int) -> None:
    """ValueError where a picture or a frame has more than `MAX_PIXELS`."""
    if width * height > MAX_PIXELS:
        raise ValueError(_too_large(f"{width} x {height}"))


def _too_large(pixels: str) -> str:
    return f"it has {pixels} pixels, expected at most {MAX_PIXELS / 1e6:g} million; scale it down"


def read_picture(file: str | Path | IO[bytes]) -> np.ndarray:
    """Read a picture file, upright as its EXIF orientation says.

    Args:
        file: path, or a stream of the file's bytes.

    Returns:
        [H, W, 3] uint8, or [H, W, 4] where the file has transparency. 16-bit pixels are scaled; gray and
        palettes become red, green and blue.

    Raises:
        OSError: not a picture of `FORMATS` that Pillow can decode.
        ValueError: as for `open_picture`; or pixels without a known black and white: floats, 32-bit integers,
            CIELAB; or a JPEG 2000 in color of more than 8 bits.
    """
    from PIL import ImageOps

    with open_picture(file) as image:
        maximum = _deep_maximum(image)
        if image.format == "JPEG2000" and maximum is None:
            _check_jpeg2000(image)
        if maximum is None and image.mode in UNKNOWN_RANGE:
            raise ValueError(
                f"its pixels are of Pillow's mode {image.mode}, whose black and white are not known; "
                "save it with 8 or 16 bits a channel, as gray, RGB or RGBA"
            )
        transparent = _transparent_color(image)
        image = ImageOps.exif_transpose(image)
        if maximum is not None:
            return _scaled(np.asarray(image), maximum, transparent)
        if transparent is not None:
            image.info["transparency"] = transparent
        has_alpha = image.mode in ALPHA_MODES or transparent is not None
        return np.array(image.convert("RGBA" if has_alpha else "RGB"))


def without_alpha(mask: np.ndarray) -> np.ndarray:
    """The colors of a mask.

    Args:
        mask: [.., H, W, 3 or 4] uint8, from `read_picture`.

    Returns:
        [.., H, W, 3] uint8.

    Raises:
        ValueError: only its alpha shows a shape. Editors make transparent what is generated, or else what
            is kept, so that neither is taken for granted.
    """
    colors, alpha = mask[..., :3], mask[..., 3:]
    if alpha.size and alpha.min() != alpha.max() and (colors == colors.reshape(-1, 3)[0]).all():
        raise ValueError(
            "the mask has one color, and its shape only in the alpha channel; save it without transparency, "
            "white = generate, black = keep"
        )
    return colors


def _deep_maximum(image: Image) -> int | None:
    """The value of white in a gray picture of more than 8 bits; None for others, or where it is unknown."""
    if image.mode.startswith("I;16"):
        bits = image.tag_v2.get(BITS_PER_SAMPLE, (16,))[0] if image.format == "TIFF" else 16
        return 2**bits - 1
    # Mode I: 16-bit PNGs in earlier Pillow, and netpbm files, which it scales to 16 bits.
    return 2**16 - 1 if image.mode == "I" and image.format in ("PNG", "PPM") else None


def _check_jpeg2000(image: Image) -> None:
    """ValueError for color of more than 8 bits, of which Pillow rounds white up to 256: black."""
    image.fp.seek(0)
    _, marker, size = image.fp.read(JPEG2000_HEAD).partition(JPEG2000_START)
    num_channels = int.from_bytes(size[36:38], "big")
    depths = [
        1 + (size[38 + 3 * channel : 39 + 3 * channel] or b"\x7f")[0] % 128 for channel in range(num_channels)
    ]
    if not marker or not depths or max(depths) > 8:
        raise ValueError("it is a JPEG 2000 of more than 8 bits a channel; save it as PNG, which may have 16")


def _transparent_color(image: Image) -> int | bytes | tuple[int, ...] | None:
    """The file's transparent color, or its palette's alpha, in the values that Pillow's pixels will have."""
    transparent = image.info.get("transparency")
    raw_mode = image.tile[0][3] if transparent is not None and image.format == "PNG" else None
    if raw_mode in SHALLOW_GRAY:
        return transparent * (255 // (2 ** SHALLOW_GRAY[raw_mode] - 1))
    return tuple(value >> 8 for value in transparent) if raw_mode == DEEP_COLOR else transparent


def _scaled(values: np.ndarray, maximum: int, transparent: int | None) -> np.ndarray:
    """[H, W, 3 or 4] uint8 of gray values from 0 to `maximum`."""
    gray = np.rint(values.astype(np.float64) * (255 / maximum)).clip(0, 255).astype(np.uint8)
    alpha = [] if transparent is None else [np.where(values == transparent, 0, 255).astype(np.uint8)]
    return np.stack([gray, gray, gray, *alpha], axis=-1)
