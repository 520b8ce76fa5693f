"""Progress of encoding, by rows: a shard may take an hour."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from vdot_core.text import counted, shown

from .bad_rows import NUM_LOGGED

if TYPE_CHECKING:
    from .manifest import Row

logger = logging.getLogger("vdot")
EVERY_S = 10.0


class CutTexts:
    """Counts captions that are longer than the network reads, for one line at the end."""

    def __init__(self) -> None:
        self.num_texts, self.num_rows, self.first = 0, 0, ""

    def add(self, row: Row, num_texts: int) -> None:
        """Count the cut captions of a row."""
        if num_texts:
            self.first = self.first or f"{row.id} ({row.place})"
            self.num_texts, self.num_rows = self.num_texts + num_texts, self.num_rows + 1

    def log(self, text_len: int) -> None:
        """Log them, if there are any."""
        if self.num_texts:
            logger.warning(
                "%s of %s longer than %d tokens and cut, that of row %s first; write shorter ones, or set "
                "data.text_len where the network reads more",
                counted(self.num_texts, "caption"), counted(self.num_rows, "row"), text_len,
                shown(self.first, 120),
            )  # fmt: skip


class EmptyMasks:
    """Names rows whose mask is black everywhere, `NUM_LOGGED` of them."""

    def __init__(self) -> None:
        self.num_rows = 0

    def add(self, row: Row) -> None:
        """Log a row whose mask is empty."""
        self.num_rows += 1
        if self.num_rows <= NUM_LOGGED:
            logger.warning(
                "%s (%s): its mask %s is black everywhere: all of the clip is kept and nothing is generated; "
                "paint white what is to be generated",
                shown(row.place), shown(row.id, 80), shown(row.mask.name),
            )  # fmt: skip

    def log(self) -> None:
        """Log how many more there are."""
        if self.num_rows > NUM_LOGGED:
            rest = counted(self.num_rows - NUM_LOGGED, "more row")
            logger.warning("%s with a mask that is black everywhere", rest)


class RowProgress:
    """Logs after the first row, and then at most every `EVERY_S` seconds.

    Args:
        total: Rows to encode; None: not known.
    """

    def __init__(self, total: int | None) -> None:
        self.total, self.done = total, 0
        self._begin = time.monotonic()
        self._logged = 0.0

    def row(self) -> None:
        """Count a row that was encoded or left out."""
        self.done += 1
        now = time.monotonic()
        if self.done > 1 and now - self._logged < EVERY_S:
            return
        self._logged = now
        each = (now - self._begin) / self.done
        if self.total is None:
            logger.info("encoded %d rows, %.2g s each", self.done, each)
            return
        left = each * (self.total - self.done)
        logger.info(
            "encoded %d of %d rows, %.2g s each, about %d:%02d:%02d left",
            self.done, self.total, each, left // 3600, left // 60 % 60, left % 60,
        )  # fmt: skip
