"""A release: its archive, publisher, required tests, and citation."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from devtools.comfyui import VERSION
from devtools.hosts import HOSTS
from devtools.paths import ROOT
from devtools.setup import project_table
from tests.support.shipped import shipped_files

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_the_registry_ships_what_nodes_need_and_nothing_else():
    files = {path.as_posix() for path in shipped_files()}
    tops = {name.split("/")[0] for name in files if "/" in name}
    assert tops == {"assets", "js", "locales", "nodes", "subgraphs", "vdot_core", "workflows"}
    needed = {"__init__.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE", "js/vdot.js"}
    needed |= {
        "assets/vdot_tiny_student.safetensors",
        "locales/zh/nodeDefs.json",
        "workflows/02 Depth to video.json",
    }
    assert needed <= files
    assert sum((ROOT / name).stat().st_size for name in files) < 30e6


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_of_others_are_pinned_by_commit(path):
    used = re.findall(r"uses: (\S+)(.*)", path.read_text(encoding="utf-8"))
    assert used
    for action, rest in used:
        if not action.startswith("./"):
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action) and re.search(r"# v\d", rest), action


def test_nothing_is_published_before_all_tests_passed_and_one_step_has_the_token():
    workflow = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text(encoding="utf-8"))
    jobs = workflow["jobs"]
    assert jobs["publish"]["needs"] == "ci" and jobs["ci"]["uses"] == "./.github/workflows/ci.yml"
    ci = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert "workflow_call" in ci[True] and {"lint", "test", "floor"} <= set(
        ci["jobs"]
    )  # YAML reads `on` as true
    assert all(flow["permissions"] == {"contents": "read"} for flow in (workflow, ci))
    with_token = [step for step in jobs["publish"]["steps"] if "secrets." in str(step)]
    assert len(with_token) == 1 and "uses" not in with_token[0]


def test_the_oldest_comfyui_that_is_promised_is_tested():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    floor = re.search(r'requires-comfyui = ">=([\d.]+)"', text)[1]
    ci = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert ci["jobs"]["host"]["strategy"]["matrix"]["host"] == [floor, VERSION] and floor == min(HOSTS)
    assert f"Needs ComfyUI {floor} or newer" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_pictures_of_the_page_are_kept():
    """In both renderers; the command itself takes two sizes and both themes."""
    ci = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    steps = ci["jobs"]["pictures"]["steps"]
    commands = [step["run"] for step in steps if "screenshot" in step.get("run", "")]
    (upload,) = (step for step in steps if "upload-artifact" in step.get("uses", ""))
    assert [("litegraph" in command, command.split()[-1]) for command in commands] == [
        (False, "outputs/page"),
        (True, "outputs/page_classic"),
    ]
    assert upload["with"]["path"] == "outputs/"


def test_a_tag_that_is_not_the_version_stops_the_publication(tmp_path):
    workflow = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text(encoding="utf-8"))
    (step,) = (s for s in workflow["jobs"]["publish"]["steps"] if "pyproject.toml" in s.get("run", ""))
    if sys.platform == "win32":
        pytest.skip("needs a POSIX shell")
    version = project_table(Path(sys.executable))["version"]
    for tag, status in ((f"v{version}", 0), ("v9.9.9", 1), (f"v{version}1", 1)):
        run = subprocess.run(
            ["sh", "-c", step["run"]], cwd=ROOT, env={"GITHUB_REF_NAME": tag, "PATH": "/usr/bin:/bin"}
        )
        assert run.returncode == status, tag


def test_the_citation_names_this_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = project_table(Path(sys.executable))
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["authors"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    paper = citation["preferred-citation"]
    names = [f"{author['given-names']} {author['family-names']}" for author in paper["authors"]]
    assert names[0] == "Yutong Wang" and names[-1] == "Xinyuan Chen" and len(names) == 7
    assert paper["url"] == project["urls"]["Paper"]
    bibtex = re.search(r"title\s*= \{(.*)\}", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert bibtex.group(1) == paper["title"]


def test_the_security_page_names_tests_that_exist():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for name in re.findall(r"`(tests/[\w/.]+)`", text):
        assert (ROOT / name).exists(), name
