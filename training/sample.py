"""Look at the tiny model: `python training/sample.py --assets assets --out runs/samples`.

For held-out clips and each task it makes a video in a few steps, as the nodes do, writes a contact sheet and
prints how well the result keeps to the task. Letters: F frames, H W pixels.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training.data.shapes import COLOURS, SPLITS, Clip, clip
from training.ema import psnr
from training.tasks import Scene, build_unit
from training.text import FILE_NAME as TEXT_FILE
from training.text import Tokenizer, embed, load_text_encoder
from training.vae import decode_video, encode_video, load_vae
from vdot_core import sampling, vcu

logger = logging.getLogger("vdot")
SHEET_FRAMES = (0, 5, 10, 16)


@dataclass(frozen=True)
class TinyModel:
    """The three parts of the demo model, on the CPU in float32."""

    network: nn.Module
    vae: nn.Module
    encoder: nn.Module
    tokenizer: Tokenizer


def load_tiny(folder: str | Path) -> TinyModel:
    """Read transformer, VAE and text encoder from a folder of assets."""
    from vdot_core.checkpoints import load_network

    folder = Path(folder)
    network = load_network(folder / "vdot_tiny.safetensors", dtype=torch.float32).eval().requires_grad_(False)
    encoder, tokenizer, _ = load_text_encoder(folder / TEXT_FILE)
    return TinyModel(network, load_vae(folder / "vdot_tiny_vae.safetensors"), encoder, tokenizer)


@torch.no_grad()
def generate(model: TinyModel, unit: vcu.VCU, prompt: str, *, preset: str, steps: int, seed: int) -> Tensor:
    """Make the video of a unit.

    Args:
        model: From `load_tiny`.
        unit: The task.
        prompt: What to show.
        preset: Schedule and solver, of `vdot_core.sampling.PRESETS`.
        steps: Network calls.
        seed: Of the noise.

    Returns:
        [F, H, W, 3] float in [0, 1].
    """
    context = vcu.encode(unit, lambda video: encode_video(model.vae, video))
    text = embed(model.encoder, *model.tokenizer([prompt]))
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(context.latent_shape, generator=generator)
    chosen = sampling.PRESETS[preset]

    def velocity(x: Tensor, timestep: Tensor) -> Tensor:
        return model.network(x, timestep, text, context.contexts)

    latents = sampling.sample(velocity, noise, chosen.schedule(steps), chosen.solver, generator)
    return decode_video(model.vae, context.trim(latents))[0]


def object_agreement(video: Tensor, drawn: Clip) -> tuple[float, float]:
    """How well the drawn objects are seen in a video.

    Args:
        video: [F, H, W, 3] float in [0, 1].
        drawn: The clip it should follow.

    Returns:
        The share of objects whose mean colour is nearest to the one named, and the mean overlap (intersection
        over union) of the pixels near that colour with the object's mask.
    """
    palette = torch.tensor(list(COLOURS.values()))
    right, overlaps = [], []
    for track, mask in zip(drawn.objects, drawn.object_masks > 0, strict=True):
        if mask.sum() < 20:
            continue
        nearest = int((palette - video[mask].mean(0)).norm(dim=-1).argmin())
        right.append(list(COLOURS)[nearest] == track.colour)
        close = (video - torch.tensor(track.rgb)).norm(dim=-1) < 0.35
        overlaps.append(((close & mask).sum() / (close | mask).sum()).item())
    return sum(right) / max(len(right), 1), sum(overlaps) / max(len(overlaps), 1)


def evaluate(
    model: TinyModel, task: str, count: int, out: Path, *, preset: str, steps: int
) -> dict[str, float]:
    """Scores of a task over held-out clips, and its contact sheet at `out/<task>.png`."""
    from PIL import Image

    rows, totals = [], {"psnr": 0.0, "colour": 0.0, "overlap": 0.0}
    for index in range(count):
        drawn = clip(SPLITS["validation"].start + index)
        parts = (drawn.frames, drawn.masks, drawn.depth, drawn.lines, drawn.references, drawn.captions)
        unit = build_unit(task, Scene(*parts), np.random.default_rng(index))
        prompt = drawn.captions[-2]
        video = generate(model, unit, prompt, preset=preset, steps=steps, seed=index)
        colour, overlap = object_agreement(video, drawn)
        scores = (psnr((video - drawn.frames).square().mean()).item(), colour, overlap)
        for name, value in zip(totals, scores, strict=True):
            totals[name] += value / count
        strips = [torch.cat([x[f] for f in SHEET_FRAMES], dim=1) for x in (drawn.frames, unit.frames, video)]
        rows.append(torch.cat(strips, dim=1))
    out.mkdir(parents=True, exist_ok=True)
    sheet = (torch.cat(rows).clamp(0, 1) * 255).round().byte().numpy()
    Image.fromarray(sheet).save(out / f"{task}.png")
    return totals


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--out", type=Path, default=Path("runs/samples"))
    parser.add_argument("--tasks", nargs="+", default=["text", "depth", "inpaint", "extend", "reference"])
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--preset", choices=tuple(sampling.PRESETS), default="sharp")
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    model = load_tiny(arguments.assets)
    for task in arguments.tasks:
        options = {"preset": arguments.preset, "steps": arguments.steps}
        scores = evaluate(model, task, arguments.count, arguments.out, **options)
        numbers = "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
        logger.info("%-16s %s", task, numbers)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
