"""Scores one row of the results from its generated clips.

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

# Decibels below the VAE's PSNR at which kept pixels score 0.
KEPT_RANGE_DB = 10.0
OBJECT_METRICS = ("color", "shape", "pair", "size", "motion")


def counted_rows(rows: Mapping[str, Mapping]) -> int:
    """Number of a model's rows that count in a family's score."""
    return sum(bool(row["family"]) for row in rows.values())


@dataclass
class RowScores:
    """Gathers a row's scores, clip by clip.

    Attributes:
        row: The row.
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
        self,
        case: Case,
        video: Tensor,
        bound: Tensor,
        observation: Observation,
        true_observation: Observation,
    ) -> None:
        """Score one clip.

        Args:
            case: The test case.
            video: [F, H, W, 3] the answer; bound: the VAE's reconstruction of the drawn clip.
            observation: The evaluation network's reading of the video; true_observation: of the drawn clip.
        """
        task = task_named(self.row.task)
        signals, records = task.tells, metrics.object_scores(observation, case.scene)
        # A unit's references are the nearest objects, which come last.
        referenced = records[len(records) - task.num_references :]
        scores = metrics.control_scores(signals, observation, case.scene)
        if self.row.prompt == "full":
            scores |= metrics.scene_scores(observation, case.scene)
        elif referenced:
            # Without a prompt nothing asks for the other objects.
            records = referenced
        if "references" in signals:
            scores["reference_kept"] = sum(record["pair"] for record in referenced) / len(referenced)
        psnr = metrics.kept_psnr(video, case.unit)
        if psnr is not None:
            scores |= {"kept_psnr": psnr, "kept_psnr_vae": metrics.kept_psnr(bound, case.unit)}
        if "gray" in signals:
            scores["gray_psnr"] = metrics.gray_psnr(video, case.scene)
            scores["gray_psnr_vae"] = metrics.gray_psnr(bound, case.scene)
        scores["smoothness_db"] = metrics.smoothness_db(video)
        scores["smoothness_db_true"] = metrics.smoothness_db(case.scene.frames)
        self.clips.append(scores)
        self.objects += records
        self.features.append(observation.features)
        self.true_features.append(true_observation.features)
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
        # It falls with the number of clips: rows with another number would not be comparable in one column.
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
        references = truth[:: self.row.seeds]
        value = sets.diversity(by_clip)
        ratio = value / sets.spread(references) if len(references) > 1 else float("nan")
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
