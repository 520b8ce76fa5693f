"""One evaluation from its configuration to its tables and pages."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from vdot_core.files import atomic_write, remove_abandoned
from vdot_core.text import counted, listed, shown

from ..data.bad_rows import Skipped
from ..engine.files import write_json
from ..engine.lock import LOCK, is_held, locked
from ..preparation import niqe
from . import judge, scores, vbench
from .config import EvaluateConfig
from .generate import make_videos
from .index import Benchmark, read_benchmark
from .makers import weights_digest
from .motion import missing as missing_motion
from .pages import KEY, read_key, write_blind_page, write_gallery
from .statistics import summarize
from .study import read_ratings, study_table
from .tables import Results, as_json, as_markdown

logger = logging.getLogger("vdot")
JSON, MARKDOWN, STUDY = "results.json", "results.md", "user_study.md"
REPORT_LOCK = ".report.lock"
GRACE_S = 60.0


def evaluate(config: EvaluateConfig) -> list[str]:
    """Make what is missing of videos and scores, then tables and pages.

    Several processes, under torchrun or started by hand, share the work; the one that finishes it writes
    tables and pages.

    Args:
        config: All settings.

    Returns:
        Sentences on rows, videos and dimensions that could not be used.

    Raises:
        ValueError: The benchmark, a model or a setting is wrong.
        StopError: The judge's server refuses the requests.
    """
    benchmark = read_benchmark(config.benchmark)
    left_out = [str(row) for row in benchmark.skipped]
    for line in left_out:
        logger.error("skipped %s", line)
    for model in config.models:
        if unknown := [task for task in model.sampler.task_guidance if task not in benchmark.tasks]:
            logger.warning(
                "models: %s: sampler.task_guidance has %s, which the benchmark has not; there are %s",
                model.name, listed(unknown), listed(benchmark.tasks, 40),
            )  # fmt: skip
    benchmark = benchmark.chosen(config.tasks, config.samples_per_task)
    weights = {model.name: weights_digest(model) for model in config.models}
    failed: dict[str, set[str]] = {}
    for model in config.models:
        faults = make_videos(config, benchmark, model, weights[model.name])
        faults += scores.score_videos(config, benchmark, model)
        failed[model.name] = {fault.id for fault in faults}
        left_out += _named(faults)
        if config.judge.url:
            later = judge.judge_videos(config, benchmark, model)
            for line in later:
                logger.error("%s", line)
            left_out += later
    if others := _unfinished(config, benchmark, failed):
        logger.info("%s left to other processes; the last one writes the pages", counted(others, "video"))
        return left_out
    with locked(config.out_dir, "out_dir", name=REPORT_LOCK, grace_s=GRACE_S):
        if config.vbench.command:
            for model in config.models:
                failures = vbench.run_vbench(config, benchmark, model)
                for line in failures:
                    logger.error("%s", line)
                left_out += failures
        _write(_results(config, benchmark, left_out, failed))
        _tidy(Path(config.out_dir))
    return left_out


def _named(faults: Sequence[Skipped]) -> list[str]:
    for fault in faults:
        logger.error("skipped %s", fault)
    return list(map(str, faults))


def _tidy(folder: Path) -> None:
    """Remove the claims of processes that were killed after their file was finished."""
    for claim in folder.rglob(f".*{LOCK}"):
        is_held(claim)


def _unfinished(config: EvaluateConfig, benchmark: Benchmark, failed: dict[str, set[str]]) -> int:
    """Number of videos that are neither scored nor known to fail."""
    return sum(
        sample.name not in failed[model.name] and scores.read_scores(config, model, sample) is None
        for model in config.models
        for sample in benchmark.samples
    )


def _results(
    config: EvaluateConfig, benchmark: Benchmark, left_out: Sequence[str], failed: dict[str, set[str]]
) -> Results:
    values: dict[str, dict[str, dict[str, float]]] = {}
    for model in config.models:
        computed = vbench.read_vbench(config, benchmark, model)
        values[model.name] = {}
        for sample in benchmark.samples:
            own = scores.read_scores(config, model, sample)
            # A row that fails now may have a video and scores of an earlier run.
            if own is not None and sample.name not in failed[model.name]:
                rated = judge.read_ratings_of(config, model, sample)
                values[model.name][sample.name] = own | computed.get(sample.name, {}) | rated
    every = scores.MEASURES | vbench.MEASURES | judge.MEASURES
    present = {name for of in values.values() for row in of.values() for name in row}
    measures = {name: measure for name, measure in every.items() if name in present}
    groups = summarize(
        values,
        benchmark,
        list(measures),
        config.bootstrap,
    )
    return Results(
        config, benchmark, measures, values, groups, _not_run(config, benchmark, present), left_out
    )


def _not_run(config: EvaluateConfig, benchmark: Benchmark, present: set[str]) -> dict[str, str]:
    """Sentences about measures that were left out, each with its cure."""
    reasons = {f"control fidelity of {task}": why for task, why in scores.notes(config, benchmark).items()}
    if why := missing_motion():
        reasons["motion and flicker"] = why
    if why := niqe.missing():
        reasons["NIQE"] = why
    elif "niqe" not in present:
        reasons["NIQE"] = f"no video has {niqe.SMALLEST} pixels a side and texture"
    if not config.vbench.command and not present & set(vbench.MEASURES):
        reasons["VBench"] = "vbench.command is empty; docs/EVALUATION.md says how to install it"
    if not config.judge.url and not present & set(judge.MEASURES):
        reasons["judge"] = "judge.url is null"
    return reasons


def _write(results: Results) -> None:
    folder = Path(results.config.out_dir)
    write_json(as_json(results), folder / JSON)
    remove_abandoned(folder / MARKDOWN)
    with atomic_write(folder / MARKDOWN) as partial:
        partial.write_text(as_markdown(results), encoding="utf-8")
    for path in (folder / MARKDOWN, write_gallery(results), write_blind_page(results)):
        logger.info("%s", shown(path))


def user_study(config: EvaluateConfig, paths: Sequence[str]) -> tuple[str, list[str]]:
    """The table of ratings that were saved from the blind page; it is written to `out_dir`, too.

    Args:
        config: Of the evaluation.
        paths: CSV files.

    Returns:
        The table, and sentences on rows that could not be used.

    Raises:
        ValueError: There is no blind page yet, or a file cannot be read.
    """
    folder = Path(config.out_dir)
    key = read_key(folder / KEY)
    ratings, skipped = read_ratings(paths, key)
    rated = {model for model, _ in key.values()}
    models = [model.name for model in config.models if model.name in rated]
    models += sorted(rated - {*models})
    table = study_table(ratings, models, config.bootstrap)
    with atomic_write(folder / STUDY) as partial:
        partial.write_text(table, encoding="utf-8")
    return table, _named(skipped)
