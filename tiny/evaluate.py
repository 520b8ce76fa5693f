"""Score models: `python tiny/evaluate.py --config tiny/configs/tiny_evaluation.yaml`.

Every row of every planned run is made, looked at by the evaluation network and written to
`out_dir/run/sampler/row.json` beside a contact sheet; then docs/RESULTS.md is written. Kill it and run the
same command: rows that are done, by the same weights, settings and version of the clips, are not done again.
One model alone: `--run NAME [--transformer FILE] [--use '[guided50]'] [--only '[text]']`. The page alone:
`--report`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tiny.clips import CLIPS_VERSION
from tiny.evaluation.cases import Case, row_cases
from tiny.evaluation.config import EvaluationConfig, TaskConfig, parse_config
from tiny.evaluation.generate import TinyModel, UnitEncoder, generate, load_tiny, reconstruct
from tiny.evaluation.inputs import missing_inputs
from tiny.evaluation.network import Evaluator, load_evaluator
from tiny.evaluation.observe import Observation, observe
from tiny.evaluation.report import read_results, write_report
from tiny.evaluation.score import RowScores
from tiny.evaluation.sheets import save_animation, save_sheet
from training.distributed.precision import uses_bf16
from training.engine.files import write_json

logger = logging.getLogger("vdot")
ROOT = Path(__file__).resolve().parents[1]


def fingerprint(paths: Sequence[str | Path], settings: dict) -> str:
    """A name for weights, settings and the drawn clips: results of the same one need not be made again."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(f"clips {CLIPS_VERSION}".encode())
    for path in paths:
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()[:16]


class Evaluation:
    """One model under evaluation; each drawn clip is looked at and reconstructed once for all rows."""

    def __init__(self, config: EvaluationConfig) -> None:
        config = replace(config, bf16=uses_bf16(config.bf16, torch.device(config.device), "bf16"))
        self.config = config
        self.model: TinyModel = load_tiny(config.assets, config.transformer).to(config.device)
        self.evaluator: Evaluator = load_evaluator(config.evaluator)
        if config.compile:
            self.model = self.model.compiled()
        self.encoder = UnitEncoder(self.model, bf16=config.bf16)
        self._known: dict[bytes, tuple[Tensor, Observation]] = {}

    def _drawn(self, cases: list[Case]) -> tuple[Tensor, list[Observation]]:
        """[B, F, H, W, 3] reconstructions of the cases' clips, and what is seen in the drawn clips."""
        keys = [hashlib.sha256(case.drawn.frames.numpy().tobytes()).digest() for case in cases]
        new = {
            key: case.drawn.frames for key, case in zip(keys, cases, strict=True) if key not in self._known
        }
        if new:
            drawn = torch.stack(list(new.values()))
            made = reconstruct(self.model, drawn, bf16=self.config.bf16)
            # Half precision, so that the clips of all rows stay in memory.
            pairs = zip(made.half(), observe(self.evaluator, drawn), strict=True)
            self._known |= dict(zip(new, pairs, strict=True))
        videos, seen = zip(*(self._known[key] for key in keys), strict=True)
        return torch.stack(videos).float(), list(seen)

    def _videos(
        self, row: TaskConfig, cases: list[Case], sampler: str, drawn: Tensor, bound: Tensor
    ) -> Tensor:
        if sampler == "truth":
            return drawn
        if sampler == "vae":
            return bound
        contexts, num_references = self.encoder([case.unit for case in cases])
        prompts, seeds = [case.prompt for case in cases], [case.seed for case in cases]
        settings = self.config.samplers[sampler].of(row.task)
        return generate(self.model, contexts, num_references, prompts, settings, seeds, bf16=self.config.bf16)

    def row(self, row: TaskConfig, sampler: str, folder: Path) -> dict:
        """Make and score one row; its contact sheet is written into the folder."""
        scores, shown, size = RowScores(row), [], self.config.batch
        # Processor time: on a busy machine a clock would measure the others.
        cpu_seconds = 0.0
        cases = list(row_cases(self.config, row))
        for first in range(0, len(cases), size):
            batch = cases[first : first + size]
            drawn = torch.stack([case.drawn.frames for case in batch])
            bound, true_seen = self._drawn(batch)
            begun = time.process_time()
            videos = self._videos(row, batch, sampler, drawn, bound)
            cpu_seconds += time.process_time() - begun
            seen = observe(self.evaluator, videos)
            for i, case in enumerate(batch):
                scores.add(case, videos[i], bound[i], seen[i], true_seen[i])
            shown += list(zip(batch, videos, strict=True))[: max(0, self.config.pictures - len(shown))]
        save_sheet(shown, folder / f"{row.title}.jpg")
        save_animation(shown, folder / f"{row.title}.webp")
        summary = scores.summary(self.config.score)
        return {**summary, "family": row.family, "cpu_seconds": cpu_seconds / max(len(cases), 1)}


def run(config: EvaluationConfig) -> None:
    """Evaluate every row with every sampler; what is done already is kept.

    Args:
        config: The evaluation.
    """
    torch.set_num_threads(config.threads)
    evaluation = Evaluation(config)
    common = {"split": config.split, "first": config.first, "seed": config.seed, "score": config.score}
    files = [*evaluation.model.files, config.evaluator]
    # What a report's rows must have in common, whichever transformer they are of.
    measured_with = fingerprint(files[1:], {name: common[name] for name in ("split", "first", "score")})
    rows = [row for row in config.tasks if not config.only or row.title in config.only]
    for sampler in config.use or [*config.samplers, "truth", "vae"]:
        folder = Path(config.out_dir) / config.run / sampler
        folder.mkdir(parents=True, exist_ok=True)
        for row in rows:
            used = config.samplers[sampler].of(row.task) if sampler in config.samplers else None
            settings, evaluations = (asdict(used), used.evaluations) if used else ({}, 0)
            count = {"clips": row.clips or config.clips, "bf16": evaluation.config.bf16}
            mark = fingerprint(files, {**common, **count, "row": asdict(row), "sampler": settings})
            path = folder / f"{row.title}.json"
            if path.is_file() and json.loads(path.read_text()).get("fingerprint") == mark:
                logger.info("%s / %s / %s is done", config.run, sampler, row.title)
                continue
            result = evaluation.row(row, sampler, folder)
            about = {"fingerprint": mark, "measured_with": measured_with, "run": config.run}
            about |= {"sampler": sampler, "row": asdict(row)}
            write_json({**about, **result, "settings": settings, "evaluations": evaluations, **count}, path)
            score = f"{result['score']:.3f}" if result["score"] is not None else "none"
            seconds = result["cpu_seconds"]
            logger.info(
                "%s / %s / %-22s score %s, %.2f CPU s a video", config.run, sampler, row.title, score, seconds
            )


def planned_runs(config: EvaluationConfig) -> list[EvaluationConfig]:
    """The evaluation of each planned model, or of the one that is named."""
    if config.run is not None:
        return [config]
    return [replace(config, **asdict(planned)) for planned in config.plan]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the process's exit status, 2 after a user's mistake."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    try:
        config, report_only = parse_config(argv)
        runs = [] if report_only else planned_runs(config)
        if report_only:
            read_results(Path(config.out_dir))
        missing = missing_inputs(runs)
    except ValueError as error:
        # The message says all. What goes wrong later needs its traceback.
        logger.error("%s", error)
        return 2
    for line in missing:
        logger.error("%s", line)
    if missing:
        return 2
    for one in runs:
        run(one)
    if config.run is not None and not report_only:
        return 0
    page = write_report(Path(config.out_dir), ROOT / "docs", trainings=config.trainings)
    logger.info("wrote %s", page)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
