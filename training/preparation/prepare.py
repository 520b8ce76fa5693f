"""One preparation from its configuration to its files."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from vdot_core.text import counted, shown

from ..engine.lock import locked
from .budget import budget, stage_times
from .captions import cost as caption_cost
from .config import PrepareConfig
from .executors import make_executor
from .make_rows import one_sided
from .output import SPLITS, clip_rows, sample_rows, write_parquet, write_shards
from .pipeline import Clips, Pipeline
from .sheet import write_sheet
from .sources import check_inputs
from .store import STORE, Store

logger = logging.getLogger("vdot")
SHEET, CLIPS = "contact_sheet.html", "clips.parquet"


def prepare(config: PrepareConfig) -> Clips:
    """Run all stages and write all files.

    Args:
        config: All settings.

    Returns:
        The clips; those in `later` have to be tried again.

    Raises:
        ValueError: A setting, an input or a package is wrong or missing.
        StopError: A mistake that every row would meet.
    """
    folder = Path(config.out_dir)
    check_inputs(config.input, config.out_dir)
    with locked(folder, "out_dir"):
        store = Store(folder / STORE)
        try:
            executor = make_executor(config)
            try:
                clips = Pipeline(config, store, executor).run()
            finally:
                executor.close()
            _write(config, clips, store)
        finally:
            store.close()
    return clips


def _write(config: PrepareConfig, clips: Clips, store: Store) -> None:
    folder = Path(config.out_dir)
    write_parquet(folder / CLIPS, lambda: clip_rows(clips, store))
    total = 0
    for split, table in SPLITS.items():
        held_out = split == "held_out"
        own_rows = partial(sample_rows, clips, store, held_out=held_out)
        rows = write_parquet(folder / table, own_rows)
        tars = write_shards(config, split, own_rows())
        total += rows
        logger.info("%s: %s, %s", shown(folder / table), counted(rows, "row"), counted(tars, "tar"))
    every = (row for held_out in (False, True) for row in sample_rows(clips, store, held_out=held_out))
    captions = (store.get("captions", clip) for clip, keys in clips.keys.items() if "captions" in keys)
    if cost := caption_cost(captions, config.captions):
        logger.info("%s", cost)
    write_sheet(folder / SHEET, config, clips, store, every, stage_times(store))
    logger.info("%s", shown(folder / SHEET))
    if split := one_sided(clips.used_sources(), config.tasks):
        logger.warning("%s", split)
    if clips.provisional:
        logger.warning(
            "%s the template's caption, as the server gave none; the same command asks for them again",
            "1 clip has" if len(clips.provisional) == 1 else f"{len(clips.provisional)} clips have",
        )
    if clips.later:
        logger.error(
            "%s not in the tables and tars, as the server gave no caption; the same command adds them. %s "
            "says which; captions.unanswered template uses the template until then",
            "1 clip is" if len(clips.later) == 1 else f"{len(clips.later)} clips are", CLIPS,
        )  # fmt: skip
    elif not total:
        raise ValueError(
            f"no clip was left to make rows of; {shown(folder / SHEET)} says why each was rejected"
        )


def estimate(config: PrepareConfig, num_clips: int) -> str:
    """A table of the hours for many clips, from the results in `out_dir`."""
    if num_clips < 1:
        raise ValueError(f"--budget is {num_clips}; expected the number of clips, at least 1")
    path = Path(config.out_dir) / STORE
    if not path.is_file():
        raise ValueError(f"{shown(path)} does not exist; prepare some clips first")
    store = Store(path)
    try:
        done = sum(1 for _ in store.ids("trim"))
        return budget(stage_times(store), done, num_clips, config.executor.workers or 1)
    finally:
        store.close()
