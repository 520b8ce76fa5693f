"""Figures of a LoRA's extraction: energy kept by parameter, by kind and in all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...text import shown
from .kinds import KINDS, kind_of


@dataclass(frozen=True)
class Change:
    """The change of one parameter from the base to the student, and what the LoRA keeps of it.

    Args:
        name: Wan's name of the parameter.
        rank: of the factors; 0 where the change is stored in full, or not at all.
        energy: squared Frobenius norm of the change.
        residual: squared norm of the change minus the LoRA's, with the LoRA's rounding.
        weight: squared norm of the base's values.
    """

    name: str
    rank: int
    energy: float
    residual: float
    weight: float

    @property
    def kind(self) -> str:
        return kind_of(self.name)


@dataclass(frozen=True)
class LoraReport:
    """The result of an extraction.

    Args:
        path: the LoRA.
        num_bytes: its size.
        changes: one for each parameter that differs.
        left_out: parameters that differ and that the naming scheme cannot hold.
    """

    path: Path
    num_bytes: int
    changes: tuple[Change, ...]
    left_out: tuple[str, ...] = ()

    def kept(self, kind: str | None = None) -> float:
        """Part of the squared change that the LoRA keeps, in all or of one kind: 1 - residual / energy."""
        return _kept(change for change in self.changes if kind in (None, change.kind))

    def table(self) -> str:
        """One line for each kind of parameter: tensors, ranks, size of the change, energy kept."""
        rows = [("kind", "tensors", "rank", "change", "energy kept")]
        for kind in KINDS:
            changes = [change for change in self.changes if change.kind == kind]
            if changes:
                rows.append((kind, *_cells(changes)))
        rows.append(("all", *_cells(self.changes)))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join(
            "  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )

    def summary(self) -> str:
        """Size and table, for a terminal."""
        lines = [f"{shown(self.path)}, {self.num_bytes / 1e6:,.1f} MB", self.table()]
        if self.left_out:
            lines.append(
                f"  {len(self.left_out)} changed tensors (norms, modulation, patch embeddings) have no place "
                "in diffusers' naming and are left out"
            )
        return "\n".join(lines)


def _kept(changes: Iterable[Change]) -> float:
    changes = list(changes)
    return 1 - sum(change.residual for change in changes) / sum(change.energy for change in changes)


def _cells(changes: Iterable[Change]) -> tuple[str, str, str, str]:
    changes = list(changes)
    ranks = sorted({change.rank for change in changes if change.rank})
    rank = "in full" if not ranks else f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]}..{ranks[-1]}"
    weight, energy = sum(change.weight for change in changes), sum(change.energy for change in changes)
    size = f"{100 * (energy / weight) ** 0.5:.2f} %" if weight else "-"
    return str(len(changes)), rank, size, f"{100 * _kept(changes):.2f} %"
