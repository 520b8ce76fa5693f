"""docs/TASKS.md against what there is: nodes, workflows, pictures and measurements of every row."""

import json
import re
from pathlib import Path

import pytest

from devtools.demo.options import workflow_file
from tiny.tasks import COMPOSITE, SINGLE

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/TASKS.md").read_text("utf-8")
PICTURES = ROOT / "docs/images/tasks"
NO_ROW_OF_THEIR_OWN = {"reference_layout_track", "firstclip", "lastclip", "references", "text", "lastframe"}


def tables():
    """Each table as a list of rows, a row by the names of its columns."""
    result = []
    for block in re.findall(r"(?:^\|.*\n)+", TEXT, re.MULTILINE):
        header, _, *rows = [
            [cell.strip() for cell in line.strip("|\n").split("|")] for line in block.splitlines()
        ]
        result.append([dict(zip(header, row, strict=True)) for row in rows])
    return result


ROWS = [row for table in tables() for row in table if "name" in row]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["task"].strip("*"))
def test_every_row_has_nodes_that_exist_and_a_demo(row):
    nodes = json.loads((ROOT / "locales/en/nodeDefs.json").read_text("utf-8"))
    assert set(re.findall(r"VDOT[A-Z]\w+", row.get("nodes", ""))) <= set(nodes)
    names = [name for name in row["name"].split(", ") if name]
    assert names or row["task"].startswith("First frame + any control")
    for name in names:
        assert workflow_file(f"vdot_{name}").is_file(), f"dev.py demo --task {name}"


def test_the_counts_are_those_of_the_benchmark():
    counted = [table for table in tables() if "name" in table[0]]
    assert len(counted[0]) == 8 and len(counted[1]) >= 10
    for row in counted[0]:
        assert all(row[column] for column in ("nodes", "inputs", "frames", "mask (1 = generate)", "limits"))


def test_every_task_has_its_picture_and_every_picture_is_a_task():
    rows = set(re.findall(r'src="images/tasks/(\w+)\.png"', TEXT))
    pictures = {path.stem for path in PICTURES.glob("*.png")}
    assert pictures == set(SINGLE | COMPOSITE), "bring them up to date: python docs/images/tasks/make.py"
    assert rows <= pictures
    rest = pictures - rows - NO_ROW_OF_THEIR_OWN
    assert not rest, f"the table shows no picture of {rest}"
