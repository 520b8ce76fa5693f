"""The user study: ratings that were saved from the blind page, as the paper's table."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vdot_core.files import read_file
from vdot_core.text import counted, described, listed, shown

from ..data.bad_rows import BadRowError, Skipped
from .statistics import Bootstrap, paired_difference

CRITERIA = {
    "prompt_following": "Prompt following",
    "temporal_consistency": "Temporal consistency",
    "video_quality": "Video quality",
}
COLUMNS = ("rater", "video", *CRITERIA)
RATINGS = ("1", "2", "3", "4", "5")
MAX_CSV_BYTES = 2**24
MAX_RATER = 100


@dataclass(frozen=True)
class Rating:
    """What one person says of one video.

    Attributes:
        rater: Who.
        model, sample: Whose video of which row.
        scores: Criterion -> 1 to 5.
    """

    rater: str
    model: str
    sample: str
    scores: Mapping[str, int]


def read_ratings(
    paths: Sequence[str | Path], key: Mapping[str, Sequence[str]]
) -> tuple[list[Rating], list[Skipped]]:
    """Read saved ratings.

    Args:
        paths: CSV files of the blind page.
        key: Video of the page -> model and row.

    Returns:
        The ratings, and the rows that are none. Of two by one person of one video the last one counts.

    Raises:
        ValueError: A file cannot be read, or lacks a column, or there is no rating in any.
    """
    ratings: dict[tuple[str, str], Rating] = {}
    skipped = []
    for path in paths:
        try:
            text = read_file(path, MAX_CSV_BYTES).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{shown(path)} is not UTF-8; give a CSV that the blind page saved") from error
        table = csv.DictReader(io.StringIO(text, newline=""))
        try:
            _check_columns(path, table.fieldnames or ())
            for row in table:
                place = f"{Path(path).name} line {table.line_num}"
                try:
                    rating = _rating(row, key)
                    ratings[rating.rater, row["video"]] = rating
                except BadRowError as error:
                    skipped.append(Skipped.from_error(row.get("video") or "?", place, error))
        except csv.Error as error:
            raise ValueError(
                f"{shown(path)} is no CSV ({shown(error, 80)}); give a CSV that the blind page saved"
            ) from error
    if not ratings:
        first = f"; the first row left out: {shown(skipped[0], 160)}" if skipped else ""
        raise ValueError(f"no rating in {listed(paths)}; give CSVs that the blind page saved{first}")
    return list(ratings.values()), skipped


def _check_columns(path: str | Path, names: Sequence[str]) -> None:
    """Refuse, by ValueError, a table that lacks a column or has one twice."""
    for column in COLUMNS:
        if (count := names.count(column)) != 1:
            fault = f"the column {column} {count} times" if count else f"no column {column}"
            raise ValueError(f"{shown(path)} has {fault}; give a CSV that the blind page saved")


def _rating(row: Mapping[str, str | None], key: Mapping[str, Sequence[str]]) -> Rating:
    if None in row:
        raise BadRowError("misshapen", f"it has {len(row[None])} more cells than the first line has names")
    # One name has several spellings in Unicode, which look the same.
    rater, video = unicodedata.normalize("NFC", row["rater"] or "").strip(), row["video"]
    if not rater or len(rater) > MAX_RATER:
        raise BadRowError("missing", f"rater is {described(row['rater'])}, expected a name")
    if video not in key:
        raise BadRowError("wrong", f"video {described(video)} is not of this evaluation's blind page")
    for name in CRITERIA:
        if row[name] not in RATINGS:
            raise BadRowError("wrong", f"{name} is {described(row[name])}, expected 1 to 5")
    model, sample = key[video]
    return Rating(rater, model, sample, {name: int(row[name]) for name in CRITERIA})


def study_table(ratings: Iterable[Rating], models: Sequence[str], settings: Bootstrap) -> str:
    """Markdown: mean rating of each model by criterion, with bootstrap intervals over rows.

    Args:
        ratings: Of all raters.
        models: In the order of the table.
        settings: Of the intervals.
    """
    ratings = list(ratings)
    raters = counted(len({rating.rater for rating in ratings}), "rater")
    lines = [
        f"{raters}, {counted(len(ratings), 'video')} rated, 1 to 5; "
        f"{100 * settings.confidence:g}% bootstrap intervals over the benchmark's rows.",
        "",
        f"| model | ratings | {' | '.join(CRITERIA.values())} |",
        f"|---|---:|{'---:|' * len(CRITERIA)}",
    ]
    for model in models:
        own = [rating for rating in ratings if rating.model == model]
        cells = []
        for name in CRITERIA:
            # Ratings of one row are not independent: rows are resampled, not ratings.
            by_row: dict[str, list[int]] = {}
            for rating in own:
                by_row.setdefault(rating.sample, []).append(rating.scores[name])
            means = np.array([np.mean(scores) for scores in by_row.values()])
            if not len(means):
                cells.append("-")
                continue
            mean = paired_difference(means, np.zeros(len(means)), settings)
            interval = "" if mean.low is None else f" [{mean.low:.2f}, {mean.high:.2f}]"
            cells.append(f"{mean.value:.2f}{interval}")
        lines.append(f"| {shown(model)} | {len(own)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
