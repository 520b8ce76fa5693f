"""Stands in for `vbench` 0.1.5: its options, its way through a shell, its files, its status 0 on failure."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

PERCENT = {"imaging_quality": 100}


def launch():
    """The inner program, whose output is what VBench's launch/evaluate.py writes."""
    parser = argparse.ArgumentParser()
    for name in ("videos_path", "output_path", "mode", "prompt_file", "full_json_dir"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--dimension", nargs="+")
    options = parser.parse_args(sys.argv[2:])
    assert options.mode == "custom_input"
    videos = sorted(os.listdir(options.videos_path))
    prompts = json.loads(Path(options.prompt_file).read_text(encoding="utf-8"))
    assert sorted(prompts) == videos
    results = {}
    for dimension in options.dimension:
        if dimension == os.environ.get("STAND_IN_FAILS"):
            raise SystemExit("no weights")
        entries = []
        for number, name in enumerate(videos):
            value = (0.5 + number / 100) * PERCENT.get(dimension, 1)
            path = os.path.join(options.videos_path, name)
            entries.append(
                {"video_path": path, "video_results": True if dimension == "dynamic_degree" else value}
            )
        entries = entries[int(os.environ.get("STAND_IN_LOSES", 0)) :]
        results[dimension] = [0.5, entries]
    os.makedirs(options.output_path, exist_ok=True)
    name = "results_2026-11-30-12:00:00_eval_results.json"
    Path(options.output_path, name).write_text(json.dumps(results), encoding="utf-8")
    print("done")


def evaluate():
    """The outer program: it passes its options on through a shell, without quotes, and forgets the status."""
    parser = argparse.ArgumentParser()
    for name in ("videos_path", "output_path", "dimension", "mode", "prompt_file"):
        parser.add_argument(f"--{name}")
    options = vars(parser.parse_args(sys.argv[2:]))
    words = [sys.executable, __file__, "launch", f'--videos_path="{options.pop("videos_path")}"']
    for name, value in options.items():
        words += [f"--{name}", str(value)]
    subprocess.run(" ".join(words), shell=True)


if __name__ == "__main__":
    {"evaluate": evaluate, "launch": launch}[sys.argv[1]]()
