"""Share of the picture under text that stays over a clip, such as subtitles, logos and time codes.

Lines are detected, not read, by RapidOCR, whose packages carry their networks.
Letters: F frames, H W pixels.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import math
from functools import lru_cache

import numpy as np
from torch import Tensor

from vdot_core.out_of_memory import is_out_of_memory
from vdot_core.text import shown

from .clip_files import to_bytes
from .stage import StopError

NUM_FRAMES = 4
STAYING = 0.75  # of the frames
MAX_THICKNESS = 0.2  # of a line, in parts of the picture's shorter side
PACKAGES = ("rapidocr", "rapidocr_onnxruntime")


def missing() -> str | None:
    """Why text cannot be found here; None where it can."""
    if not _package():
        return "text overlays need RapidOCR: `pip install rapidocr onnxruntime`"
    if not importlib.util.find_spec("onnxruntime"):
        return "RapidOCR needs ONNX Runtime: `pip install onnxruntime`"
    return None


def text_share(frames: Tensor) -> float:
    """The part of the picture that lines of text cover in three of four frames or more.

    Args:
        frames: [F, H, W, 3] float in [0, 1].

    Returns:
        In [0, 1].

    Raises:
        StopError: RapidOCR cannot be started.
    """
    numbers = np.unique(np.linspace(0, len(frames) - 1, NUM_FRAMES).round().astype(int))
    covered = np.mean([_lines(to_bytes(frames[number])) for number in numbers], axis=0)
    return float((covered >= STAYING).mean())


def _package() -> str | None:
    return next((name for name in PACKAGES if importlib.util.find_spec(name)), None)


def _lines(picture: np.ndarray) -> np.ndarray:
    """[H, W] of 0 and 1: where lines of text are in a picture [H, W, 3] uint8."""
    from PIL import Image, ImageDraw

    mask = Image.new("L", picture.shape[1::-1])
    result = _reader()(np.ascontiguousarray(picture[..., ::-1]), use_det=True, use_cls=False, use_rec=False)
    # The older package answers (corners, seconds), the newer one an object.
    corners = result[0] if isinstance(result, tuple) else result.boxes
    for line in [] if corners is None else corners:
        points = [tuple(map(float, point)) for point in line]
        thickness = min(math.dist(points[0], points[1]), math.dist(points[1], points[2]))
        # On pictures without text, the networks sometimes mark a large blurred region.
        if thickness <= MAX_THICKNESS * min(picture.shape[:2]):
            ImageDraw.Draw(mask).polygon(points, fill=1)
    return np.asarray(mask)


@lru_cache(maxsize=1)
def _reader():
    """RapidOCR, read at its first use."""
    try:
        reader = importlib.import_module(_package()).RapidOCR()
    except Exception as error:  # of any type, where a package or a network of it is damaged
        if is_out_of_memory(error):
            raise
        raise StopError(
            f"quality.max_text: RapidOCR cannot be started ({shown(error, 120)}); install it again, or set "
            "max_text to null"
        ) from error
    # It warns of every picture without text.
    logging.getLogger("RapidOCR").setLevel(logging.ERROR)
    return reader
