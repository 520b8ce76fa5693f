"""Blueprints in subgraphs/: a task as one node of ComfyUI's node menu, with the few inputs that matter.

python -m tests.workflows.make_workflows       # writes them too
"""

import uuid
from collections.abc import Callable
from typing import Any

from tests.workflows.graph import FILE_IDS, Output, Workflow
from tests.workflows.layout import MARGIN, lay_out

INPUT_NODE, OUTPUT_NODE = -10, -20  # as ComfyUI numbers the ends of a subgraph
ROW, WIDTH, EDGE_WIDTH = 24, 340, 130
TEXT_INPUT, SEED_INPUT = ("text", "STRING"), ("seed", "INT")


class Blueprint(Workflow):
    """A subgraph that grows node by node, from inputs of its own.

    Args:
        name: what the node is called, without the pack's name.
        description: what it does, in a sentence.
    """

    def __init__(self, name: str, description: str):
        super().__init__(name)
        self.description = description
        self._inputs: list[dict] = []
        self._values: dict[str, Any] = {}
        self._model, clip, self._vae = (
            self.input(name, kind) for name, kind in (("model", "MODEL"), ("clip", "CLIP"), ("vae", "VAE"))
        )
        self._clip = clip

    def input(self, name: str, kind: str, value: Any = None) -> Output:
        """An input of the node; with a value it is a widget."""
        self._inputs.append({"id": self._uuid(name), "name": name, "type": kind, "linkIds": []})
        if value is not None:
            self._values[name] = value
        return Output(INPUT_NODE, len(self._inputs) - 1, kind)

    def size(self) -> None:
        """An input for the size of VDOT Load, which task nodes take."""
        self._size = self.input("size", "VDOT_SIZE")

    def finished(self, unit: Output, text: str, seed: int, keep: bool = False) -> dict:
        """The blueprint's file.

        Args:
            unit: the task.
            text: an example of what the video shows.
            seed: of the noise.
            keep: put the pixels that the unit keeps back over the video.
        """
        words, noise = self.input(*TEXT_INPUT, text), self.input(*SEED_INPUT, seed)
        (prompt,) = self.add("CLIPTextEncode", title="What the video shows", clip=self._clip, text=words)
        positive, _, latent, _ = self.add("VDOTEncode", positive=prompt, vae=self._vae, unit=unit)
        (latent,) = self.add("VDOTSampler", model=self._model, positive=positive, latent=latent, seed=noise)
        (frames,) = self.add("VAEDecode", samples=latent, vae=self._vae)
        if keep:
            (frames,) = self.add("VDOTPasteBack", images=frames, unit=unit)
        return self._blueprint(frames)

    def _blueprint(self, frames: Output) -> dict:
        number = self._link(frames, OUTPUT_NODE, 0)
        groups = lay_out(self._nodes)
        right = (
            max(left + width for left, _, width, _ in (group["bounding"] for group in groups)) + EDGE_WIDTH
        )
        edges = {"inputNode": (INPUT_NODE, -2 * EDGE_WIDTH), "outputNode": (OUTPUT_NODE, right)}
        output = {"id": self._uuid("images"), "name": "images", "type": "IMAGE", "linkIds": [number]}
        for index, entry in enumerate((*self._inputs, output)):
            x = right if entry is output else -2 * EDGE_WIDTH
            entry["pos"] = [x, MARGIN + ROW * (0 if entry is output else index)]
        subgraph = {
            **{"id": self._uuid("subgraph"), "version": 1, "revision": 0, "config": {}},
            "name": f"VDOT {self.name}",
            "description": self.description,
            "category": "VDOT",
            "state": {
                **{"lastGroupId": len(groups), "lastNodeId": len(self._nodes) + 1},
                **{"lastLinkId": len(self._links), "lastRerouteId": 0},
            },
            **{
                name: {"id": node, "bounding": [x, 0, EDGE_WIDTH, ROW * (len(self._inputs) + 1)]}
                for name, (node, x) in edges.items()
            },
            **{"inputs": self._inputs, "outputs": [output], "widgets": []},
            **{"nodes": self._nodes, "groups": groups, "links": [_named(link) for link in self._links]},
            "extra": {},
        }
        return {
            **{"revision": 0, "last_node_id": len(self._nodes) + 2, "last_link_id": 0},
            **{"nodes": [self._outside(subgraph)], "links": [], "version": 0.4},
            **{"definitions": {"subgraphs": [subgraph]}, "extra": {}},
        }

    def _outside(self, subgraph: dict) -> dict:
        """The node that stands for the subgraph."""
        inputs = [
            {"name": entry["name"], "type": entry["type"], "link": None}
            | ({"widget": {"name": entry["name"]}} if entry["name"] in self._values else {})
            for entry in self._inputs
        ]
        return {
            **{"id": len(self._nodes) + 2, "type": subgraph["id"], "title": subgraph["name"], "pos": [0, 0]},
            **{"size": [WIDTH, ROW * (len(inputs) + 4)], "flags": {}, "order": 0, "mode": 0},
            "inputs": inputs,
            "outputs": [{"name": "images", "type": "IMAGE", "links": None}],
            "properties": {"proxyWidgets": [["-1", name] for name in self._values]},
            "widgets_values": list(self._values.values()),
        }

    def _link(self, source: Output, target: int, place: int) -> int:
        if source.node != INPUT_NODE:
            return super()._link(source, target, place)
        number = len(self._links) + 1
        self._links.append([number, source.node, source.slot, target, place, source.type])
        self._inputs[source.slot]["linkIds"].append(number)
        return number

    def _uuid(self, what: str) -> str:
        return str(uuid.uuid5(FILE_IDS, f"{self.name}/{what}"))


def _named(link: list) -> dict:
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    return dict(zip(names, link, strict=True))


def depth() -> dict:
    b = Blueprint("Depth to video", "A video with the depth of a clip: where things are and how near.")
    (unit,) = b.add("VDOTDepth", depth=b.input("depth", "IMAGE"))
    return b.finished(unit, "a large red heart moving down over a plain blue background", 6)


def inpaint() -> dict:
    b = Blueprint("Inpaint", "Regenerates the masked region of a clip; all else stays, bit for bit.")
    frames, mask = b.input("frames", "IMAGE"), b.input("mask", "MASK")
    (unit,) = b.add("VDOTMask", frames=frames, mask=mask)
    return b.finished(unit, "a red square on a plain cyan background", 2, keep=True)


def reference() -> dict:
    b = Blueprint("Reference to video", "A video of the person or thing in a picture, cut out by a mask.")
    b.size()
    picture, mask = b.input("image", "IMAGE"), b.input("mask", "MASK")
    (unit,) = b.add("VDOTReference", images=[picture], masks=[mask])
    return b.finished(unit, "a large yellow heart moving to the left over a plain blue background", 1192)


def extend() -> dict:
    b = Blueprint("Extend a clip", "Continues a clip, or a picture.")
    b.size()
    (unit,) = b.add("VDOTExtend", first=b.input("first", "IMAGE"), length=b.input("length", "INT", 81))
    return b.finished(unit, "a large purple circle moving to the left over a plain white background", 1040)


BLUEPRINTS: dict[str, Callable[[], dict]] = {
    "VDOT Depth to video": depth,
    "VDOT Inpaint": inpaint,
    "VDOT Reference to video": reference,
    "VDOT Extend a clip": extend,
}
"""By the name of the file, which is what ComfyUI's node menu shows."""
