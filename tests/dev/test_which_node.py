"""docs/WHICH_NODE.md names nodes and workflows that exist."""

import json
import re
from pathlib import Path

from devtools.demo.titles import TITLES, stem_of

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/WHICH_NODE.md").read_text("utf-8")


def test_nodes_are_called_that():
    nodes = json.loads((ROOT / "locales/en/nodeDefs.json").read_text("utf-8"))
    names = {node["display_name"].partition(" (")[0] for node in nodes.values()}
    mentioned = set(re.findall(r"\bVDOT (?:[A-Z][a-z]+ ?)+", TEXT))
    assert len(mentioned) > 15
    for name in mentioned:
        assert any(name.strip().startswith(known) for known in names), name


def test_workflows_have_these_numbers():
    stems = {stem_of(name) for name in TITLES}
    mentioned = re.findall(r"\b(\d\d [A-Z][^,|]+?) *[,|]", TEXT)
    assert len(mentioned) > 12 and set(mentioned) <= stems
    assert len(re.findall(r"(\d\d) to (\d\d) \|", TEXT)) == 1
