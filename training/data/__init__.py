"""Training data: samples encoded once to a cache, and batches drawn from it."""

from __future__ import annotations

from .build import build_source
from .config import DataConfig
from .loader import step_batches
from .sampler import check_tasks
from .source import CachedSource, Source

__all__ = ["CachedSource", "DataConfig", "Source", "build_source", "check_tasks", "step_batches"]
