"""The pages send no request and show text as text; the blind one tells no model; the table of its ratings."""

import dataclasses
import html
import json
import re
import shutil
import urllib.parse
from pathlib import Path

import pytest

from training.benchmark.evaluate import evaluate, user_study
from training.benchmark.statistics import Bootstrap
from training.benchmark.study import CRITERIA, Rating, study_table
from training.benchmark.views import plays
from training.evaluate import main

from .test_evaluate import write_config


def addresses(page):
    """Files that a page names."""
    text = page.read_text(encoding="utf-8")
    return [urllib.parse.unquote(a) for a in re.findall(r'(?:src|href)="([^"]+)"', text) if a != "data:,"]


def blind_data(page):
    """Data of the blind page."""
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def test_the_gallery_names_files_below_it_that_browsers_play(made):
    page = Path(made.out_dir) / "gallery.html"
    files = addresses(page)
    assert len(files) > 20 and all((page.parent / file).is_file() for file in files)
    assert all(plays(page.parent / file) for file in files if file.endswith(".mp4"))
    assert "://" not in page.read_text(encoding="utf-8").replace("http-equiv", "")
    assert any(file.startswith("views/real/") for file in files)  # 4:4:4 is coded again


def test_text_of_files_stays_text(made):
    for page in (Path(made.out_dir) / "gallery.html", Path(made.out_dir) / "blind" / "index.html"):
        text = page.read_text(encoding="utf-8")
        assert "<b>0</b>" not in text and ("&lt;b&gt;0&lt;/b&gt;" in text or "\\u003cb\\u003e0" in text)
        assert text.count("<script>") == 1 and "default-src 'none'; script-src 'sha256-" in html.unescape(
            text
        )


def test_the_blind_page_and_its_files_tell_no_model(made):
    folder = Path(made.out_dir) / "blind"
    text = (folder / "index.html").read_text(encoding="utf-8")
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    for model in ("real", "other"):
        assert not re.search(rf"\b{model}\b", text) and not any(model in name for name in names)
    key = json.loads((folder.parent / "blind_key.json").read_text())["videos"]
    rows = blind_data(folder / "index.html")["rows"]
    assert len(rows) == 8 and {len(row["videos"]) for row in rows} == {2}
    firsts = {key[row["videos"][0]][0] for row in rows}
    assert firsts == {"real", "other"}  # the order is drawn for each row
    for row in rows:
        samples = {key[name][1] for name in row["videos"]}
        assert len(samples) == 1 and all((folder / f"{name}.mp4").is_file() for name in row["videos"])
        assert all((folder / address).is_file() for _, address, _ in row["inputs"])


def test_names_stay_when_the_pages_are_written_again(made):
    page = Path(made.out_dir) / "blind" / "index.html"
    before = blind_data(page)
    evaluate(made)
    assert blind_data(page) == before


def rate(made, name, scores, rater="ann"):
    """A CSV of the blind page in which a model gets these scores everywhere."""
    key = json.loads((Path(made.out_dir) / "blind_key.json").read_text())["videos"]
    lines = ["rater,video," + ",".join(CRITERIA)]
    lines += [f"{rater},{video},{','.join(map(str, scores[model]))}" for video, (model, _) in key.items()]
    path = Path(made.out_dir).parent / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_saved_ratings_become_the_table(made, tmp_path, capsys):
    first = rate(made, "a.csv", {"real": (5, 4, 5), "other": (1, 2, 2)})
    second = rate(made, "b.csv", {"real": (4, 4, 5), "other": (2, 2, 2)}, '"Zoë, ""Q"""')
    table, left_out = user_study(made, [str(first), str(second)])
    assert not left_out and table.startswith("2 raters, 32 videos rated")
    assert "| real | 16 | 4.50 [4.50, 4.50] | 4.00 [4.00, 4.00] | 5.00 [5.00, 5.00] |" in table
    assert "| other | 16 | 1.50 " in table
    assert (Path(made.out_dir) / "user_study.md").read_text(encoding="utf-8") == table
    path = write_config(tmp_path / "config.yaml", made)
    capsys.readouterr()
    assert main(["--config", str(path), "--ratings", str(first), str(second)]) == 0
    assert capsys.readouterr().out == table


def test_rows_that_are_no_ratings_are_named(made):
    path = rate(made, "a.csv", {"real": (5, 4, 5), "other": (1, 2, 2)})
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace(",5,4,5", ",5,4,6").replace(",1,2,2", ",1,2,0")
    lines[2] = "ann,unknown,1,1,1"
    lines[3] = f" {lines[3].removeprefix('ann')}"
    lines[4] = lines[4].rsplit(",", 2)[0]
    lines[6] += ",5"
    lines.append(lines[5])  # twice by one person: the last one counts
    path.write_text("\n".join(lines), encoding="utf-8")
    table, left_out = user_study(made, [str(path)])
    assert [row.split(" (")[0] for row in left_out] == [f"a.csv line {n}" for n in (2, 3, 4, 5, 7)]
    assert table.startswith("1 rater, 11 videos rated")


def test_files_without_a_rating_leave_the_table_as_it_was(made):
    path = rate(made, "a.csv", {"real": (5, 4, 5), "other": (1, 2, 2)})
    before, _ = user_study(made, [str(path)])
    head, *lines = path.read_text(encoding="utf-8").splitlines()
    for content in ([head], [head, *(line.replace(",", ",x", 1) for line in lines)]):
        path.write_text("\n".join(content), encoding="utf-8")
        with pytest.raises(ValueError, match=r"no rating in .*a\.csv; give CSVs"):
            user_study(made, [str(path)])
        assert (Path(made.out_dir) / "user_study.md").read_text(encoding="utf-8") == before


def test_a_name_is_one_rater_in_both_spellings_of_unicode(made):
    scores = {"real": (5, 4, 5), "other": (1, 2, 2)}
    paths = [rate(made, f"{number}.csv", scores, name) for number, name in enumerate(("\u00e9", "e\u0301"))]
    assert user_study(made, list(map(str, paths)))[0].startswith("1 rater, 16 videos rated")


def test_the_table_has_the_models_in_their_order_and_the_intervals_as_they_were_asked_for(made):
    path = rate(made, "a.csv", {"real": (5, 4, 5), "other": (1, 2, 2)})
    table, _ = user_study(dataclasses.replace(made, confidence=0.995), [str(path)])
    assert "99.5% bootstrap" in table and table.index("| real |") < table.index("| other |")


@pytest.mark.parametrize("text", ["{}", '{"videos": null}', '{"videos": {"a": ["real"]}}', "[]"])
def test_a_damaged_key_is_named(made, tmp_path, text):
    """Before ratings are read, and before new names are drawn for the videos that were rated."""
    settings = dataclasses.replace(made, out_dir=str(tmp_path / "out"))
    shutil.copytree(made.out_dir, settings.out_dir)
    (tmp_path / "out" / "blind_key.json").write_text(text)
    path = rate(made, "a.csv", {"real": (5, 4, 5), "other": (1, 2, 2)})
    for start in (lambda: user_study(settings, [str(path)]), lambda: evaluate(settings)):
        with pytest.raises(ValueError, match=r"blind_key\.json is damaged .*remove it and the folder blind"):
            start()


TWICE = ",".join(("rater", "video", *CRITERIA, "video")).encode()


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n1,2\n", b"\xff\xfe", b"rater,video\n", TWICE, b"x" * 200_000]
)
def test_other_files_are_refused(made, tmp_path, content):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(ValueError, match="give a CSV that the blind page saved"):
        user_study(made, [str(tmp_path / "x.csv")])


def test_a_study_needs_an_evaluation(config):
    with pytest.raises(ValueError, match="run the evaluation again"):
        user_study(config(), ["a.csv"])


def test_intervals_of_a_study_are_over_rows():
    """Many raters of five rows tell no more of other rows."""
    scores = {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}
    few = [Rating("1", "m", row, dict.fromkeys(CRITERIA, score)) for row, score in scores.items()]
    many = [Rating(str(n), r.model, r.sample, r.scores) for n in range(50) for r in few]
    cells = [study_table(ratings, ["m"], Bootstrap(500, 0.95, 0)).splitlines()[-1] for ratings in (few, many)]
    assert cells[0].split("|")[3:] == cells[1].split("|")[3:]
