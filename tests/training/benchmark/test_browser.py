"""The pages in a real browser, from files: videos in step, ratings saved, no request, no error."""

from pathlib import Path

import pytest

from tests.browser.page import open_chromium
from training.benchmark.evaluate import user_study

pytestmark = pytest.mark.full
TIMES = "videos => videos.map(v => [v.currentTime, v.duration, v.error])"


@pytest.fixture
def page():
    """An empty page that collects its requests and errors."""
    with open_chromium() as browser:
        page = browser.new_context(accept_downloads=True).new_page()
        page.seen, page.errors = [], []
        page.on("request", lambda request: page.seen.append(request.url))
        page.on("console", lambda message: page.errors.append(message.text))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        yield page


def test_the_gallery_plays_the_videos_of_a_row_in_step(made, page):
    page.goto((Path(made.out_dir) / "gallery.html").as_uri())
    rows = page.query_selector_all("section.row")
    assert len(rows) == 8
    row = rows[-1]
    row.scroll_into_view_if_needed()
    page.wait_for_function("row => [...row.querySelectorAll('video')].every(v => v.readyState > 1)", arg=row)
    row.query_selector("input").evaluate("r => { r.value = 0.5; r.dispatchEvent(new Event('input')); }")
    page.wait_for_function("row => [...row.querySelectorAll('video')].every(v => !v.seeking)", arg=row)
    times = row.eval_on_selector_all("video", TIMES)
    assert len(times) == 4 and all(error is None for *_, error in times)
    assert max(time for time, *_ in times) - min(time for time, *_ in times) < 0.02 < times[0][0]
    row.query_selector("button").click()
    page.wait_for_function("(row) => row.querySelector('video').currentTime > 0", arg=row)
    assert row.query_selector("button").inner_text() == "Pause"
    page.select_option("#task", "gray")
    assert [r.is_visible() for r in rows].count(True) == 2
    assert all(url.startswith(("file:", "data:")) for url in page.seen) and not page.errors


def test_ratings_of_the_blind_page_are_saved_and_read(made, page, tmp_path):
    page.goto((Path(made.out_dir) / "blind" / "index.html").as_uri())
    for number in range(8):
        for field in page.query_selector_all("fieldset"):
            field.query_selector_all("input")[number % 5].click()
        if number == 3:  # ratings outlive the page
            page.reload()
            assert page.inner_text("#state") == "8 of 16 videos rated"
            for _ in range(3):
                page.click("#next")
        if number < 7:
            page.click("#next")
    page.click("#save")
    assert "name" in page.inner_text("#state")
    page.fill("#rater", 'Zoë "Q", 1')
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(tmp_path / "ratings.csv")
    table, left_out = user_study(made, [str(tmp_path / "ratings.csv")])
    assert not left_out and table.startswith("1 rater, 16 videos rated")
    mean = sum(1 + number % 5 for number in range(8)) / 8
    assert f"| real | 8 | {mean:.2f}" in table and f"| other | 8 | {mean:.2f}" in table
    assert all(url.startswith(("file:", "data:", "blob:")) for url in page.seen) and not page.errors
    names = [url.rsplit("/blind/")[-1] for url in page.seen if url.startswith("file:")]
    assert not any(model in name for name in names for model in ("real", "other"))
