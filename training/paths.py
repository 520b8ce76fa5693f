"""Folders of this clone."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The repository, with `assets`, `docs`, `training` and `tiny`."""
