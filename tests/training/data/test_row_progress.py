"""Progress of encoding by rows: from the first row on, but not with every row."""

import logging

import training.data.row_progress as module
from training.data.row_progress import RowProgress


def test_the_first_row_is_logged_and_then_one_every_ten_seconds(monkeypatch, caplog):
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    with caplog.at_level(logging.INFO, "vdot"):
        progress = RowProgress(50)
        for _ in range(10):
            now += 4.0
            progress.row()
    assert [record.getMessage() for record in caplog.records] == [
        f"encoded {done} of 50 rows, 4 s each, about 0:{left // 60:02d}:{left % 60:02d} left"
        for done, left in ((1, 196), (4, 184), (7, 172), (10, 160))
    ]


def test_of_tars_the_number_of_rows_is_not_known(caplog):
    with caplog.at_level(logging.INFO, "vdot"):
        RowProgress(None).row()
    assert "encoded 1 rows" in caplog.text and "left" not in caplog.text
