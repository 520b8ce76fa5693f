"""From generated clips to the figures of one row of the results.

Letters: N clips, F frames, D features, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..tasks import task_named
from . import metrics, sets
from .cases import Case
from .config import TaskConfig
from .observe import Observation

# Decibels short of the VAE's own at which what should be kept counts as lost.
KEPT_RANGE_DB = 10.0
OBJECT_METRICS = ("color", "shape", "pair", "size", "motion")


def counted_rows(rows: Mapping[str, Mapping]) -> int:
    """How many rows of a model have a family, whose mean counts."""
    return sum(bool(row["family"]) for row in rows.values())


@dataclass
class RowScores:
    """Gathers a row's scores, clip by clip.

    Attributes:
        row: What was asked.
        clips: Scores of each clip; objects: records of each object.
        features, true_features: [2 D] of each made and each drawn clip; groups: index of each clip.
    """

    row: TaskConfig
    clips: list[dict[str, float]] = field(default_factory=list)
    objects: list[dict[str, float]] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)
    true_features: list[Tensor] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)

    def add(
        self, case: Case, video: Tensor, bound: Tensor, seen: Observation, true_seen: Observation
    ) -> None:
        """Score one clip.

        Args:
            case: What was asked.
            video: [F, H, W, 3] the answer; bound: the VAE's reconstruction of the drawn clip.
            seen: What the evaluation network sees in the answer; true_seen: in the drawn clip.
        """
        task = task_named(self.row.task)
        told, records = task.tells, metrics.object_scores(seen, case.drawn)
        # A unit's references are the nearest objects, which come last.
        referenced = records[len(records) - task.num_references :]
        scores = metrics.control_scores(told, seen, case.drawn)
        if self.row.prompt == "full":
            scores |= metrics.scene_scores(seen, case.drawn)
        elif referenced:
            # Without a prompt nothing asks for the other objects.
            records = referenced
        if "references" in told:
            scores["reference_kept"] = sum(record["pair"] for record in referenced) / len(referenced)
        kept = metrics.kept_psnr(video, case.unit)
        if kept is not None:
            scores |= {"kept_psnr": kept, "kept_psnr_vae": metrics.kept_psnr(bound, case.unit)}
        if "gray" in told:
            scores["gray_psnr"] = metrics.gray_psnr(video, case.drawn)
            scores["gray_psnr_vae"] = metrics.gray_psnr(bound, case.drawn)
        scores["smoothness_db"] = metrics.smoothness_db(video)
        scores["smoothness_db_true"] = metrics.smoothness_db(case.drawn.frames)
        self.clips.append(scores)
        self.objects += records
        self.features.append(seen.features)
        self.true_features.append(true_seen.features)
        self.groups.append(case.index)

    def summary(self, weights: Mapping[str, float]) -> dict:
        """The row's figures.

        Args:
            weights: Metric -> weight in the row's score.

        Returns:
            'metrics' (means), 'objects' (means over all named objects), 'held_out' (over those whose pair
            training never shows), 'score', and counts: what JSON can hold.
        """
        values = {
            name: _mean([c[name] for c in self.clips]) for name in (self.clips[0] if self.clips else {})
        }
        for name in ("kept", "gray"):
            if f"{name}_psnr" in values:
                short = values[f"{name}_psnr_vae"] - values[f"{name}_psnr"]
                values[f"{name}_score"] = min(max(1 - short / KEPT_RANGE_DB, 0.0), 1.0)
        features, truth = torch.stack(self.features), torch.stack(self.true_features)
        # It falls with the number of clips: rows of another number would stand in one column with the others.
        if len(features) > 1 and self.row.clips is None and self.row.seeds == 1:
            values["frechet_distance"] = sets.frechet_distance(features, truth)
        if self.row.seeds > 1:
            values |= self._diversity(features, truth)
        objects = object_means(self.objects)
        held_out = object_means([record for record in self.objects if record["held_out"]])
        everything = {**values, **objects}
        return {
            "metrics": values,
            "objects": objects,
            "held_out": held_out,
            "score": weighted_score(everything, weights),
            "videos": len(self.clips),
        }

    def _diversity(self, features: Tensor, truth: Tensor) -> dict[str, float]:
        """Distance between a prompt's seeds, and its ratio to the distance between different drawn clips."""
        by_clip = features.unflatten(0, (-1, self.row.seeds))
        drawn = truth[:: self.row.seeds]
        value = sets.diversity(by_clip)
        ratio = value / sets.spread(drawn) if len(drawn) > 1 else float("nan")
        return {"diversity": value, "diversity_ratio": ratio}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def object_means(records: Sequence[Mapping[str, float]]) -> dict[str, float | int | None]:
    """Means of the objects' scores over those that have them (None of none), and 'count'."""
    means = {name: _mean([r[name] for r in records if name in r]) for name in OBJECT_METRICS}
    return {**means, "count": len(records)}


def weighted_score(values: Mapping[str, float | None], weights: Mapping[str, float]) -> float | None:
    """Weighted mean of the metrics that a row has; None if it has none.

    Args:
        values: Metric -> value in [0, 1], others and Nones are left out.
        weights: Metric -> weight.
    """
    parts = [(weight, values[name]) for name, weight in weights.items() if values.get(name) is not None]
    total = sum(weight for weight, _ in parts)
    return sum(weight * value for weight, value in parts) / total if total else None


def family_scores(rows: Mapping[str, Mapping]) -> dict[str, float]:
    """Mean score of each family's rows, and 'overall', the mean over families.

    Args:
        rows: Row's title -> its summary with 'family' and 'score'.
    """
    families: dict[str, list[float]] = {}
    for row in rows.values():
        if row.get("family") and row.get("score") is not None:
            families.setdefault(row["family"], []).append(row["score"])
    means = {name: sum(values) / len(values) for name, values in families.items()}
    return {**means, "overall": sum(means.values()) / len(means)} if means else {}


def compare(results: Mapping[str, Mapping[str, Mapping]], one: str, other: str) -> float | None:
    """Overall score of one run as a share of another's, over the rows that both have; None without any.

    Args:
        results: 'run / sampler' -> row's title -> its summary.
        one, other: Names of runs.
    """
    shared = results[one].keys() & results[other].keys()
    first, second = (family_scores({r: results[name][r] for r in shared}) for name in (one, other))
    return first["overall"] / second["overall"] if second.get("overall") else None
