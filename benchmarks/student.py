"""Compares the time of the tiny student's four steps with its teacher's fifty with guidance.

    python benchmarks/student.py [--videos N] [--rounds N]

Both in one process, turn by turn, on one thread, processor time; a ratio is the median of the rounds'.
Sampling alone, from noise to latents, and then with the VAE's decoding. Prints a Markdown table.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tiny.clips.shapes import SPLITS, clip  # noqa: E402
from tiny.evaluation.config import SamplerConfig  # noqa: E402
from tiny.evaluation.generate import UnitEncoder, decode, load_tiny, sample_latents  # noqa: E402
from tiny.tasks import build_unit  # noqa: E402

SAMPLERS = {
    "teacher": SamplerConfig(steps=50, shift=5.0, solver="unipc", guidance=5.0),
    "student": SamplerConfig(steps=4, shift=8.0, solver="renoise", labels="exact", guidance=1.0),
}
FILES = {"teacher": "vdot_tiny.safetensors", "student": "vdot_tiny_student.safetensors"}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=10, help="videos made together (default: 10)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of both (default: 5)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    clips = [clip(SPLITS["evaluation"].start + index) for index in range(args.videos)]
    models = {name: load_tiny(ROOT / "assets", ROOT / "assets" / file) for name, file in FILES.items()}
    encode = UnitEncoder(models["teacher"], bf16=True)
    contexts, _ = encode([build_unit("depth", one) for one in clips])
    prompts, seeds = [one.captions[-1] for one in clips], range(args.videos)
    total, sampling = {name: [] for name in models}, {name: [] for name in models}
    for _ in range(args.rounds + 1):  # the first one warms up
        for name, model in models.items():
            begun = time.process_time()
            latents = sample_latents(model, contexts, prompts, SAMPLERS[name], seeds, bf16=True)
            sampling[name].append((time.process_time() - begun) / args.videos)
            decode(model, latents, bf16=True)
            total[name].append((time.process_time() - begun) / args.videos)
    videos = f"{args.videos} videos at a time, {args.rounds} rounds"
    print(f"torch {torch.__version__}, bfloat16, one thread, {videos}\n")
    print("| | evaluations | sampling, s a video | with decoding |\n|---|---|---|---|")
    for name, sampler in SAMPLERS.items():
        cells = (f"{statistics.median(x[name][1:]):.3f}" for x in (sampling, total))
        print(f"| {name} | {sampler.evaluations} | {' | '.join(cells)} |")
    ratios = [
        statistics.median(t / s for t, s in zip(x["teacher"][1:], x["student"][1:], strict=True))
        for x in (sampling, total)
    ]
    print(f"| teacher / student | | {ratios[0]:.1f} | {ratios[1]:.1f} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
