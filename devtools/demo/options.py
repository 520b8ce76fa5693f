"""Options of a demo run: its task, files, size and length."""

import json
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from devtools.documents import read_json
from devtools.errors import DevError
from devtools.paths import ROOT

WORKFLOWS = ROOT / "workflows"
TABLE = ROOT / "assets" / "templates.json"  # name -> file, and the groups and values that differ from it
PREFIX = "vdot_"
NATIVE_PREFIX = "native_"  # workflows that need more than the bundled model files
DEFAULT_TASK = "depth"
PEOPLE = "people"
POSE_FINDER = "VDOTPose"
BYPASSED = 4


@dataclass(frozen=True)
class DemoOptions:
    """Options of a demo run. None and () keep the workflow's own value.

    Attributes:
        task: a name of the table, without vdot_.
        video: clip to use instead of the workflow's.
        images: pictures to use instead of the workflow's, in order.
        mask: picture or video; white is regenerated. Or `PEOPLE`: those in the clip.
        prompt: text to use.
        num_frames: length of the video.
        size: (width, height) in pixels.
        seed: of the noise.
        out: folder for the results.
        find_poses: whether the video shows people, not skeletons; None: as in the workflow.
    """

    task: str = DEFAULT_TASK
    video: str | None = None
    images: tuple[str, ...] = field(default=())
    mask: str | None = None
    prompt: str | None = None
    num_frames: int | None = None
    size: tuple[int, int] | None = None
    seed: int | None = None
    out: str = str(ROOT / "outputs")
    find_poses: bool | None = None

    def to_json(self) -> str:
        """One command-line argument that from_json() understands."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "DemoOptions":
        """The inverse of to_json()."""
        values = json.loads(text)
        values["images"] = tuple(values["images"])
        values["size"] = tuple(values["size"]) if values["size"] else None
        return cls(**values)

    @property
    def workflow(self) -> Path:
        """The workflow file of the task."""
        return workflow_file(f"{PREFIX}{self.task}")

    def uses_node(self, kind: str) -> bool:
        """True if the task's workflow has a node of this class that takes part."""
        return any(
            node["type"] == kind and node.get("mode") != BYPASSED for node in self.read_workflow()["nodes"]
        )

    def read_workflow(self) -> dict[str, Any]:
        """The workflow, as the front end saved it.

        Raises:
            DevError: its file is damaged.
        """
        workflow = read_workflow(f"{PREFIX}{self.task}")
        if self.find_poses is not None:
            mode = {"mode": 0 if self.find_poses else BYPASSED}
            nodes = [node | mode if node["type"] == POSE_FINDER else node for node in workflow["nodes"]]
            workflow = {**workflow, "nodes": nodes}
        return workflow


def read_workflow(name: str) -> dict[str, Any]:
    """The workflow of a name of the table: its file with the task's groups switched.

    Raises:
        DevError: the file is damaged.
    """
    path = workflow_file(name)
    cure = f'restore it: git checkout "{path.relative_to(ROOT)}"'
    values = read_json(path, cure)
    nodes, links = values.get("nodes"), values.get("links")
    if not (isinstance(nodes, list) and isinstance(links, list) and all(map(_is_node, nodes))):
        raise DevError(f"{path} is damaged (it does not list nodes and links); {cure}")
    changes = _table()[name]["changes"]
    return {**values, "nodes": [node | changes.get(str(node["id"]), {}) for node in nodes]}


def _is_node(node: Any) -> bool:
    return isinstance(node, dict) and {"id", "type"} <= node.keys()


def names() -> list[str]:
    """Every name that a workflow is found by."""
    return list(_table())


def tasks() -> list[str]:
    """The tasks that have a workflow."""
    return sorted(name.removeprefix(PREFIX) for name in names() if name.startswith(PREFIX))


def workflow_file(name: str) -> Path:
    """The file that holds the workflow of a name."""
    return WORKFLOWS / f"{_table()[name]['file']}.json"


@cache
def _table() -> dict[str, Any]:
    return read_json(TABLE, f'restore it: git checkout "assets/{TABLE.name}"')
