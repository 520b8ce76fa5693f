"""Progress of encoding, by rows: a shard may take an hour."""

from __future__ import annotations

import logging
import time

logger = logging.getLogger("vdot")
EVERY_S = 10.0


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
