"""Measures a clip, and rejects what no model should learn.

Letters: F frames, H W pixels.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.fft import dctn

from vdot_core.signals import luma

from . import aesthetic, niqe, text_overlays
from .clip_files import load
from .config import PrepareConfig, QualityConfig
from .stage import Row, out_path

SAMPLES = 16
HASH_SIDE, HASH_WAVES = 32, 8
BLACK = 0.06  # luma of a bar, with coding noise


def measure(row: Row, config: PrepareConfig) -> Row:
    """Brightness, contrast, sharpness, change, borders and hashes of a clip, and the reasons to reject it.

    Args:
        row: A clip's row after `trim`.
        config: Its `quality`.

    Returns:
        The measures, of which `niqe` needs its file, `text` its limit and `aesthetic` a model; `hashes` (four
        of 16 hexadecimal digits), and `rejected` where a limit is passed.
    """
    clip = row["trim"]
    frames = load(out_path(config, clip["file"]), config.clips.frame_rate, clip["num_frames"])
    gray = luma(frames).numpy()
    gray = gray.reshape(gray.shape[:3])
    sample = gray[np.unique(np.linspace(0, len(gray) - 1, SAMPLES).round().astype(int))]
    moving = np.abs(np.diff(gray, axis=0))
    values = {
        "brightness": float(sample.mean()),
        "contrast": float(sample.std(axis=(1, 2)).mean()),
        "sharpness": float(np.mean([ndimage.laplace(255 * picture).var() for picture in sample])),
        "change": float(moving.mean()),
        "border": border(sample),
    }
    if niqe.missing() is None and (naturalness := niqe.clip_niqe(gray)) is not None:
        values["niqe"] = naturalness
    if config.quality.max_text is not None:
        values["text"] = text_overlays.text_share(frames)
    if config.quality.aesthetic_model is not None:
        values["aesthetic"] = aesthetic.aesthetic_score(frames, config.quality)
    values = {name: round(value, 6) for name, value in values.items()}
    pictures = (gray[0], gray[len(gray) // 2], gray[-1], moving.mean(axis=0))
    values["hashes"] = [perceptual_hash(picture) for picture in pictures]
    if reasons := reject(values, config.quality):
        values["rejected"] = reasons
    return values


def missing(config: PrepareConfig) -> str | None:
    """Why a clip cannot be measured here: what a limit needs is missing."""
    limits = config.quality
    if limits.max_niqe is not None and (reason := niqe.missing()):
        return f"quality.max_niqe: {reason}; or set it to null"
    if limits.max_text is not None and (reason := text_overlays.missing()):
        return f"quality.max_text: {reason}; or set it to null"
    return aesthetic.missing(limits)


def reject(values: Row, limits: QualityConfig) -> list[str]:
    """Sentences on the limits that a clip's measures pass."""
    reasons = []
    if values["brightness"] < limits.min_brightness:
        reasons.append(
            f"dark: brightness {values['brightness']:.3f}, min_brightness {limits.min_brightness:g}"
        )
    elif values["border"] > limits.max_border:
        reasons.append(f"black borders: {values['border']:.1%} of a side, max_border {limits.max_border:g}")
    if values["contrast"] < limits.min_contrast:
        reasons.append(f"flat: contrast {values['contrast']:.3f}, min_contrast {limits.min_contrast:g}")
    elif values["sharpness"] < limits.min_sharpness:
        reasons.append(
            f"blurred: sharpness {values['sharpness']:.1f}, min_sharpness {limits.min_sharpness:g}"
        )
    if values["change"] < limits.min_change:
        reasons.append(f"static: change {values['change']:.4f} a frame, min_change {limits.min_change:g}")
    if limits.max_niqe is not None and values.get("niqe", 0) > limits.max_niqe:
        reasons.append(f"distorted: NIQE {values['niqe']:.1f}, max_niqe {limits.max_niqe:g}")
    if limits.max_text is not None and values["text"] > limits.max_text:
        reasons.append(f"text overlay: {values['text']:.1%} of the picture, max_text {limits.max_text:g}")
    if limits.min_aesthetic is not None and values["aesthetic"] < limits.min_aesthetic:
        score = f"{values['aesthetic']:.2f}"
        reasons.append(f"aesthetic score {score}, min_aesthetic {limits.min_aesthetic:g}")
    return reasons


def border(gray: np.ndarray) -> float:
    """The largest part of a side that is covered by black bars in all frames of [F, H, W] luma in [0, 1]."""
    brightest = gray.max(axis=0)
    parts = []
    for axis in (0, 1):
        dark = np.percentile(brightest, 95, axis=1 - axis) < BLACK
        if dark.all():
            return 1.0
        bright = np.flatnonzero(~dark)
        parts.append((bright[0] + len(dark) - 1 - bright[-1]) / len(dark))
    return float(max(parts))


def perceptual_hash(picture: np.ndarray) -> str:
    """64 bits that stay nearly the same when a picture is scaled or coded: signs of its longest waves.

    Args:
        picture: [H, W] float.

    Returns:
        16 hexadecimal digits: the low 8 x 8 cosines of the picture at 32 x 32, compared with their median.
    """
    zoom = HASH_SIDE / picture.shape[0], HASH_SIDE / picture.shape[1]
    sigma = [max(0.0, 0.5 / factor - 0.5) for factor in zoom]
    small = ndimage.zoom(
        ndimage.gaussian_filter(picture, sigma), zoom, order=1, grid_mode=True, mode="nearest"
    )
    waves = dctn(small, norm="ortho")[:HASH_WAVES, :HASH_WAVES].ravel()
    # The first one is the brightness.
    bits = waves > np.median(waves[1:])
    return np.packbits(bits).tobytes().hex()
