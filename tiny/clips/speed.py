"""Measures clips per second and core: `python -m tiny.clips.speed`."""

from __future__ import annotations

import logging
import time

import torch

from .shapes import Clip, clip, figure_clip

ANNOTATIONS = ("object_masks", "masks", "depth", "lines", "gray", "flow", "boxes", "tracks", "references")
UNTEXTURED = ("plain", "gradient")

_log = logging.getLogger("vdot")


def annotate(scene: Clip) -> None:
    """Compute every annotation of a clip."""
    for name in ANNOTATIONS:
        getattr(scene, name)


def clips_a_second(count: int = 300, *, start: int = 0) -> dict[str, float]:
    """Clips of 17 frames of 64 x 64 that one core draws in a second of its time.

    Args:
        count: Number of clips of shapes to draw.
        start: First seed.

    Returns:
        'untextured', 'textured': frames and captions alone, by background; 'annotated': with every
        annotation, all backgrounds; 'figures': stick figures, frames alone.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    clip(start), figure_clip(start)
    spent = {"untextured": [], "textured": [], "annotated": [], "figures": []}
    for seed in range(start, start + count):
        begun = time.process_time()
        scene = clip(seed)
        seconds = time.process_time() - begun
        plain = scene.background.split()[0] in UNTEXTURED
        spent["untextured" if plain else "textured"].append(seconds)
    # In a separate round, so that it does not evict the caches of drawing.
    for seed in range(start, start + count):
        begun = time.process_time()
        annotate(clip(seed))
        spent["annotated"].append(time.process_time() - begun)
    for seed in range(start, start + max(1, count // 6)):
        begun = time.process_time()
        figure_clip(seed)
        spent["figures"].append(time.process_time() - begun)
    torch.set_num_threads(threads)
    return {name: len(parts) / sum(parts) for name, parts in spent.items() if parts}


def main() -> None:
    """Measure and log."""
    for name, rate in clips_a_second().items():
        _log.info("%-11s %5.0f clips per second and core", name, rate)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
