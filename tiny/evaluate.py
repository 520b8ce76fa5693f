"""Score models: `python tiny/evaluate.py --config tiny/configs/tiny_evaluation.yaml`.

Every row of every planned run is generated, scored by the evaluation network and written to
`out_dir/run/sampler/row.json` with a contact sheet; then docs/RESULTS.md is written. The same command
resumes: finished rows of the same weights, settings and version of the clips are skipped, and of several
processes each row is evaluated by one.
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
from training.data.encoders import pick_device
from training.distributed.precision import uses_bf16
from training.engine.files import write_json, write_problem
from training.engine.results import has_result, made_once
from training.engine.stopping import interrupt_in_words
from training.paths import ROOT
from vdot_core.out_of_memory import is_out_of_memory, memory_in_words
from vdot_core.text import counted, shown

logger = logging.getLogger("vdot")
CURE = "delete it to evaluate the row again"


def fingerprint(paths: Sequence[str | Path], settings: dict) -> str:
    """A key for weights, settings and the drawn clips: results with the same key are reused."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(f"clips {CLIPS_VERSION}".encode())
    for path in paths:
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()[:16]


class Evaluation:
    """One model under evaluation; each drawn clip is observed and reconstructed once for all rows."""

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
        """[B, F, H, W, 3] reconstructions of the cases' clips, and observations of the drawn clips."""
        keys = [hashlib.sha256(case.scene.frames.numpy().tobytes()).digest() for case in cases]
        new = {
            key: case.scene.frames for key, case in zip(keys, cases, strict=True) if key not in self._known
        }
        if new:
            truth = torch.stack(list(new.values()))
            decoded = reconstruct(self.model, truth, bf16=self.config.bf16)
            # Half precision, so that the clips of all rows stay in memory.
            pairs = zip(decoded.half(), observe(self.evaluator, truth), strict=True)
            self._known |= dict(zip(new, pairs, strict=True))
        videos, observations = zip(*(self._known[key] for key in keys), strict=True)
        return torch.stack(videos).float(), list(observations)

    def _videos(
        self, row: TaskConfig, cases: list[Case], sampler: str, truth: Tensor, bound: Tensor
    ) -> Tensor:
        if sampler == "truth":
            return truth
        if sampler == "vae":
            return bound
        contexts, num_references = self.encoder([case.unit for case in cases])
        prompts, seeds = [case.prompt for case in cases], [case.seed for case in cases]
        settings = self.config.samplers[sampler].of(row.task)
        return generate(self.model, contexts, num_references, prompts, settings, seeds, bf16=self.config.bf16)

    def row(self, row: TaskConfig, sampler: str, folder: Path) -> dict:
        """Generate and score one row, and write its contact sheet into the folder."""
        scores, pictures, size = RowScores(row), [], self.config.batch
        # Processor time: a clock would measure the load of a busy machine.
        cpu_seconds = 0.0
        cases = list(row_cases(self.config, row))
        for first in range(0, len(cases), size):
            batch = cases[first : first + size]
            truth = torch.stack([case.scene.frames for case in batch])
            bound, true_seen = self._drawn(batch)
            begun = time.process_time()
            videos = self._videos(row, batch, sampler, truth, bound)
            cpu_seconds += time.process_time() - begun
            observations = observe(self.evaluator, videos)
            for i, case in enumerate(batch):
                scores.add(case, videos[i], bound[i], observations[i], true_seen[i])
            pictures += list(zip(batch, videos, strict=True))[: max(0, self.config.pictures - len(pictures))]
        save_sheet(pictures, folder / f"{row.title}.jpg")
        save_animation(pictures, folder / f"{row.title}.webp")
        summary = scores.summary(self.config.score)
        return {**summary, "family": row.family, "cpu_seconds": cpu_seconds / max(len(cases), 1)}


def run(config: EvaluationConfig) -> int:
    """Evaluate every row with every sampler; finished rows are kept.

    Args:
        config: The evaluation.

    Returns:
        The number of rows that another process is evaluating.
    """
    torch.set_num_threads(config.threads)
    evaluation = Evaluation(config)
    common = {"split": config.split, "first": config.first, "seed": config.seed, "score": config.score}
    files = [*evaluation.model.files, config.evaluator]
    # The settings that all rows of a report must share, for any transformer.
    measured_with = fingerprint(files[1:], {name: common[name] for name in ("split", "first", "score")})
    others = 0
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
            with made_once(path, "fingerprint", mark, CURE) as mine:
                if not mine:
                    done = has_result(path, "fingerprint", mark, CURE)
                    others += not done
                    state = "done" if done else "left to another process"
                    logger.info("%s / %s / %s is %s", config.run, sampler, row.title, state)
                    continue
                result = evaluation.row(row, sampler, folder)
                about = {"fingerprint": mark, "measured_with": measured_with, "run": config.run}
                about |= {"sampler": sampler, "row": asdict(row)}
                about |= {"settings": settings, "evaluations": evaluations}
                write_json({**about, **result, **count}, path)
            score = f"{result['score']:.3f}" if result["score"] is not None else "none"
            seconds = result["cpu_seconds"]
            logger.info(
                "%s / %s / %-22s score %s, %.2f CPU s a video", config.run, sampler, row.title, score, seconds
            )
    return others


def planned_runs(config: EvaluationConfig) -> list[EvaluationConfig]:
    """The evaluation of each planned model, or of the one that is named."""
    if config.run is not None:
        return [config]
    return [replace(config, **asdict(planned)) for planned in config.plan]


@interrupt_in_words
@memory_in_words("lower batch; the same command resumes")
def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the process's exit status, 2 after a user's mistake."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    try:
        config, report_only = parse_config(argv)
        runs = [] if report_only else planned_runs(config)
        if report_only:
            read_results(Path(config.out_dir))
        pick_device(config.device)
        if runs and not config.tasks:
            raise ValueError("tasks is empty; give rows, as tiny/configs/tiny_evaluation.yaml does")
        missing = missing_inputs(runs)
    except ValueError as error:
        # The message says all. What goes wrong later needs its traceback.
        logger.error("%s", error)
        return 2
    for line in missing:
        logger.error("%s", line)
    if missing:
        return 2
    try:
        others = sum(map(run, runs))
        if others:
            logger.info("%s left to other processes; the last one writes the page", counted(others, "row"))
        if others or (config.run is not None and not report_only):
            return 0
        page = write_report(Path(config.out_dir), ROOT / "docs", trainings=config.trainings)
    except ValueError as error:  # a damaged result, or results that cannot be compared
        logger.error("%s", shown(error, 400))
        logger.debug("while evaluating", exc_info=error)
        return 2
    except OSError as error:
        if is_out_of_memory(error):
            raise
        logger.error("%s", write_problem(error, config.out_dir))
        return 1
    logger.info("wrote %s", page)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
