"""Tables and bars of the results page, as lines of Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .score import compare, counted_rows, family_scores

Rows = Mapping[str, Mapping]

# Heading -> (group, metric, how it is written).
COLUMNS = {
    "score": (None, "score", ".3f"),
    "color": ("objects", "color", ".1%"),
    "shape": ("objects", "shape", ".1%"),
    "pair": ("objects", "pair", ".1%"),
    "size": ("objects", "size", ".1%"),
    "motion": ("objects", "motion", ".1%"),
    "bg color": ("metrics", "background_color", ".1%"),
    "bg kind": ("metrics", "background_kind", ".1%"),
    "extra": ("metrics", "extra_objects", ".2f"),
    "no extra": ("metrics", "extra_score", ".1%"),
    "IoU": ("metrics", "object_iou", ".2f"),
    "box IoU": ("metrics", "box_iou", ".2f"),
    "depth err": ("metrics", "depth_error", ".3f"),
    "flow err px": ("metrics", "flow_error_px", ".2f"),
    "reference": ("metrics", "reference_kept", ".1%"),
    "diversity": ("metrics", "diversity_ratio", ".2f"),
    "FD": ("metrics", "frechet_distance", ".2f"),
}


@dataclass(frozen=True)
class Bar:
    """A goal: a metric of a row, and the value it should reach."""

    row: str
    group: str
    metric: str
    least: float
    words: str


BARS = (
    Bar("text", "objects", "color", 0.90, "color from text"),
    Bar("text", "objects", "shape", 0.90, "shape from text"),
    Bar("depth", "metrics", "object_iou", 0.70, "object IoU with depth"),
    Bar("layout_track", "metrics", "object_iou", 0.70, "object IoU with contours"),
    Bar("inpainting", "metrics", "object_iou", 0.70, "object IoU with a mask (inpainting)"),
    Bar("layout", "metrics", "box_iou", 0.70, "box IoU with a layout"),
    Bar("inpainting", "metrics", "kept_short", -1.0, "kept region against the VAE's own, dB (inpainting)"),
    Bar("outpainting", "metrics", "kept_short", -1.0, "the same (outpainting)"),
    Bar("firstclip", "metrics", "kept_short", -1.0, "the same (extension)"),
    Bar("reference_only", "metrics", "reference_kept", 0.85, "reference's color and shape, without a prompt"),
)


def _table(head: list[str], body: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *body]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def _value(row: Mapping, group: str | None, metric: str) -> float | None:
    """A figure of a row's summary; 'kept_short' is its kept region's PSNR minus the VAE's."""
    values = row if group is None else row[group]
    if metric in ("kept_short", "gray_short"):
        name = metric.split("_")[0]
        psnr, bound = values.get(f"{name}_psnr"), values.get(f"{name}_psnr_vae")
        return None if psnr is None else psnr - bound
    return values.get(metric)


def _written(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def bar_lines(results: Mapping[str, Rows]) -> list[str]:
    """The goals, with what each run reaches; a run without a goal's row has no figure."""
    names = list(results)
    body = []
    for bar in BARS:
        cells = []
        for name in names:
            row = results[name].get(bar.row)
            value = _value(row, bar.group, bar.metric) if row else None
            sign = "" if value is None else (" ✓" if value >= bar.least else " ✗")
            cells.append(_written(value, ".2f" if bar.metric == "kept_short" else ".3f") + sign)
        body.append([bar.words, f"{bar.least:g}", *cells])
    return ["## Bars", "", *_table(["", "at least", *names], body), ""]


def score_table(results: Mapping[str, Rows]) -> list[str]:
    """Family scores of every run; one that has not all counted rows has no overall score."""
    scores = {name: family_scores(rows) for name, rows in results.items()}
    families = list(dict.fromkeys(family for means in scores.values() for family in means))
    families = [family for family in families if family != "overall"] + ["overall"]
    most = max(map(counted_rows, results.values()))
    body = []
    for name, means in scores.items():
        if counted_rows(results[name]) < most:
            means = {}
        first = next(iter(results[name].values()))
        seconds = [row["cpu_seconds"] for row in results[name].values()]
        evaluations = str(first["evaluations"] or "")
        mean_seconds = f"{sum(seconds) / len(seconds):.2f}" if first["evaluations"] else ""
        body.append([name, evaluations, mean_seconds, *(_written(means.get(f), ".3f") for f in families)])
    return _table(["model / sampler", "evaluations", "CPU s a video", *families], body)


def against_teacher(results: Mapping[str, Rows]) -> list[str]:
    """A sentence comparing each model with the one with the most evaluations: score and diversity."""
    models = {name: rows for name, rows in results.items() if next(iter(rows.values()))["evaluations"]}
    if len(models) < 2:
        return []
    teacher = max(models, key=lambda name: next(iter(models[name].values()))["evaluations"])
    lines = []
    for name in (name for name in models if name != teacher):
        counted = [row for row in models[name] if row in models[teacher] and models[name][row]["family"]]
        share = compare(models, name, teacher)
        if share is None:
            continue
        words = f"- {name}: {share:.1%} of {teacher}'s score ({len(counted)} rows that count)"
        spread = [_diversity(models[n]) for n in (name, teacher)]
        if all(spread):
            words += f", {spread[0] / spread[1]:.0%} of its diversity"
        lines.append(f"{words}.")
    return [*lines, ""]


def _diversity(rows: Rows) -> float | None:
    """Mean diversity of the rows that have one."""
    values = [row["metrics"]["diversity"] for row in rows.values() if "diversity" in row["metrics"]]
    return sum(values) / len(values) if values else None


def held_out_table(results: Mapping[str, Rows]) -> list[str]:
    """Color, shape and pair scores of held-out pairs and of all pairs, over all rows."""
    body = []
    for name, rows in results.items():
        groups = []
        for group in ("objects", "held_out"):
            for metric in ("color", "shape", "pair"):
                parts = [(r[group]["count"], r[group][metric]) for r in rows.values() if r[group]["count"]]
                total = sum(count for count, _ in parts)
                groups.append(f"{sum(c * v for c, v in parts) / total:.1%}" if total else "")
            groups.append(str(sum(r[group]["count"] for r in rows.values())))
        body.append([name, *groups])
    head = [
        f"{metric}, {which}"
        for which in ("all", "held out")
        for metric in ("color", "shape", "pair", "objects")
    ]
    return ["Over the objects of all rows.", "", *_table(["model / sampler", *head], body)]


def row_tables(results: Mapping[str, Rows]) -> list[str]:
    """One table a run, a line for each row; columns without any figure are left out.

    Rows of fewer clips than others have are marked as short.
    """
    most = max(row["clips"] for rows in results.values() for row in rows.values())
    lines = []
    for name, rows in results.items():
        cells: dict[str, list[str]] = {}
        for heading, (group, metric, form) in COLUMNS.items():
            cells[heading] = [_written(_value(row, group, metric), form) for row in rows.values()]
        cells["kept dB (to VAE)"] = [_decibels(row, "kept") for row in rows.values()]
        cells["gray dB (to VAE)"] = [_decibels(row, "gray") for row in rows.values()]
        cells["smooth dB"] = [_smooth(row) for row in rows.values()]
        used = {heading: column for heading, column in cells.items() if any(column)}
        body = [
            [
                title if row["clips"] == most else f"{title} (short)",
                str(row["videos"]),
                *(column[i] for column in used.values()),
            ]
            for i, (title, row) in enumerate(rows.items())
        ]
        lines += [f"## {name}", "", *_table(["task", "videos", *used], body), ""]
    return lines


def _decibels(row: Mapping, name: str) -> str:
    psnr = row["metrics"].get(f"{name}_psnr")
    return "" if psnr is None else f"{psnr:.1f} ({_value(row, 'metrics', f'{name}_short'):+.1f})"


def _smooth(row: Mapping) -> str:
    metrics = row["metrics"]
    return f"{metrics['smoothness_db'] - metrics['smoothness_db_true']:+.1f}"
