"""Producers of a cache's samples: from rows, or by a class of this repository that a configuration names."""

from __future__ import annotations

import copy
import importlib
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from vdot_core.text import described

from ..paths import ROOT
from .bad_rows import Skipped
from .config import DataConfig
from .encoded import EncodedSample
from .sampler import check_tasks

EXAMPLE = "tiny.producer.ShapesProducer"


class Producer(Protocol):
    """Fills a cache: numbered shards of samples, the same in every process."""

    num_shards: int

    def header(self) -> dict[str, Any]:
        """All that the samples depend on, as JSON."""

    def empty_text(self) -> Tensor:
        """[L, D] embedding of the empty prompt, cut after its last token."""

    def encode(self, shard: int) -> tuple[list[EncodedSample], list[Skipped]]:
        """The samples of one shard, and the rows left out."""


@runtime_checkable
class ReportsRows(Protocol):
    """A producer that logs its progress by rows."""

    def begin(self, shards: Sequence[int]) -> None:
        """Take note of the shards that will be encoded, before the first of them is."""


@runtime_checkable
class ReadsFiles(Protocol):
    """A producer whose samples are made from files, which may change under their names."""

    def files(self, shard: int) -> dict[str, str]:
        """Name -> path or address of the files that a shard is made from."""


class NamedProducer(Producer, Protocol):
    """A producer that `data.producer` names, made from the configuration before any model is read."""

    def __init__(self, config: DataConfig) -> None: ...

    def largest_clip(self) -> tuple[int, int, int]:
        """(width, height, num_frames) of its largest sample, for planning."""

    # Optional: `tasks(self) -> Collection[str]`, all tasks of its samples, so that a configuration that names
    # another one is refused before anything is encoded.


def make_producer(config: DataConfig) -> NamedProducer:
    """Import the class that `data.producer` names, and make it from the configuration.

    Args:
        config: Its `producer` is a dotted path; the class reads its own settings from `producer_args`.

    Raises:
        ValueError: There is no such class in this repository, or its settings are wrong.
    """
    name = config.producer
    top, module_name, class_name = name.partition(".")[0], *name.rpartition(".")[::2]
    try:
        spec = importlib.util.find_spec(top) if module_name else None
    except (ImportError, ValueError):
        spec = None
    # Only code of this repository is run for a name in a configuration file.
    if spec is None or not spec.origin or Path(spec.origin).resolve() != ROOT / top / "__init__.py":
        raise ValueError(
            f"data.producer is {described(name)}; expected a class in a package of this repository, "
            f"such as {EXAMPLE}"
        )
    try:
        producer = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"data.producer {described(name)} cannot be imported ({error}); try {EXAMPLE}"
        ) from error
    # A parser of its settings may write to them; the run's are saved and compared as they were given.
    return producer(copy.deepcopy(config))


def check_producer_tasks(producer: Producer, named_tasks: Mapping[str, Iterable[str]]) -> None:
    """Refuse, by ValueError, tasks that no sample of a producer will have, where it knows its tasks.

    Args:
        producer: Before it encodes.
        named_tasks: Configuration key -> the tasks that it names.
    """
    if hasattr(producer, "tasks"):
        for key, tasks in named_tasks.items():
            check_tasks(tasks, producer.tasks(), key)
