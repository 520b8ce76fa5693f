"""Builds a workflow file: nodes by type, links by passing outputs, a tidy layout, groups, a note."""

import json
import uuid
from dataclasses import dataclass
from typing import Any

from tests.workflows.catalog import KINDS, UPLOAD, NodeKind, Socket

FILE_IDS = uuid.UUID("9a1d3b52-6f0e-4c51-8a25-0d0c7b1f6a00")  # the namespace of the files' ids
TOP, GAP, MAX_COLUMN = 60, 80, 760
MARGIN, GROUP_GAP, GROUP_TOP = 20, 30, -10
WIDTH, TASK_WIDTH = 300, 340
NOTE_SIZE = (420, 660)
NATIVE_NODES = (
    *("CheckpointLoaderSimple", "UNETLoader", "LoadDA3Model", "DA3Inference", "DA3Render", "RTDETR_detect"),
    *("SDPoseKeypointExtractor", "SDPoseFaceBBoxes", "SAM3_VideoTrack", "SAM3_TrackToMask"),
)
STAGES = (
    (
        "Model and text",
        "#3f789e",
        ("VDOTLoadDemo", "VDOTLoadModel", "CLIPLoader", "VAELoader", "CLIPTextEncode"),
        WIDTH,
    ),
    (
        "Inputs",
        "#88A",
        (
            "LoadVideo",
            "GetVideoComponents",
            "LoadImage",
            "LoadImageMask",
            "ImageToMask",
            "PrimitiveBoundingBox",
        ),
        WIDTH,
    ),
    ("Look at the clip", "#A88", NATIVE_NODES, WIDTH),
    ("Task", "#8A8", (), TASK_WIDTH),  # all nodes of no other stage
    ("Encode and sample", "#b58b2a", ("VDOTEncode", "VDOTSampler", "VDOTLongVideo"), WIDTH),
    ("Video", "#a1309b", ("VAEDecode", "VDOTPasteBack", "VDOTStitch", "CreateVideo", "SaveVideo"), WIDTH),
)
REAL_VIDEOS = """

## Real videos

The demo model only knows colored shapes. For the 14B model replace **VDOT Load Demo** by three nodes:

| node | file | folder |
|---|---|---|
| VDOT Load Model | `vdot_14b.pt` (or any VACE-Wan 2.1 file) | `models/diffusion_models` |
| Load CLIP, type `wan` | `umt5_xxl_fp8_e4m3fn_scaled.safetensors` | `models/text_encoders` |
| Load VAE | `wan_2.1_vae.safetensors` | `models/vae` |

set a real size and length (832 x 480, 81 frames), and in **VDOT Sampler** the preset `released`."""
EXAMPLES = (
    "Copy the files of the pack's `assets/examples` into ComfyUI's `input` folder first, or load your own "
    "files."
)
GRAY_WEIGHTS = (
    "- The demo model was trained on true brightness, `weights` *bt601* in **VDOT Gray**. For the 14B model "
    "set *vace*."
)


@dataclass(frozen=True)
class Output:
    """One output of a node, to be connected to another node."""

    node: int
    slot: int
    type: str


class Workflow:
    """A workflow that grows node by node and ends with `finish`.

    Args:
        name: the task; the file is vdot_<name>.json.
    """

    def __init__(self, name: str):
        self.name = name
        self._nodes: list[dict] = []
        self._links: list[list] = []
        self._bundled = True

    def add(self, kind: str, *, title: str | None = None, **values: Any) -> tuple[Output, ...]:
        """Add a node.

        Args:
            kind: a name of `KINDS`.
            title: what it is called in the graph; its own name where None.
            values: outputs of other nodes by input (a list for a growing input), and values by widget.

        Returns:
            Its outputs.
        """
        schema, number = KINDS[kind], len(self._nodes) + 2  # the note is 1
        widgets = {name: values.pop(name, default) for name, default in schema.widgets.items()}
        inputs: list[dict] = []
        for socket in schema.inputs:
            for entry, source in _entries(socket, values.pop(socket.name, None)):
                if source is not None:
                    entry["link"] = self._link(source, number, len(inputs))
                inputs.append(entry)
        assert not values, f"{kind} has no input {', '.join(values)}"
        node = _node(kind, schema, number, inputs)
        if title:
            node["title"] = title
        if widgets:
            node["widgets_values"] = [*widgets.values(), *[UPLOAD] * schema.uploads]
        self._nodes.append(node)
        return tuple(Output(number, slot, type_) for slot, (_, type_) in enumerate(schema.outputs))

    def prompt(self, text: str) -> None:
        """Start with the model and the text prompt."""
        self._model, clip, self._vae = self.add("VDOTLoadDemo")
        (self._text,) = self.add("CLIPTextEncode", title="What the video shows", clip=clip, text=text)

    def real_prompt(self, text: str) -> None:
        """Start with the large model, whose files are loaded from the models folder."""
        (self._model,) = self.add("VDOTLoadModel")
        (clip,), (self._vae,) = self.add("CLIPLoader"), self.add("VAELoader")
        (self._text,) = self.add("CLIPTextEncode", title="What the video shows", clip=clip, text=text)
        self._bundled = False

    def clip(self, file: str) -> Output:
        """A video file's frames."""
        (video,) = self.add("LoadVideo", file=file)
        return self.add("GetVideoComponents", video=video)[0]

    def image(self, file: str) -> Output:
        """A picture."""
        return self.add("LoadImage", image=file)[0]

    def mask(self, file: str) -> Output:
        """A mask, from a picture, or from a video one for each frame."""
        if file.endswith(".mp4"):
            return self.add("ImageToMask", image=self.clip(file))[0]
        return self.add("LoadImageMask", image=file)[0]

    def finish(
        self, unit: Output, note: str, seed: int, keep: bool = False, stitch: dict | None = None
    ) -> dict:
        """Encode, sample and save; lay everything out.

        Args:
            unit: the task.
            note: Markdown, what the workflow does and what to change.
            seed: of the noise.
            keep: put the pixels that the unit keeps back over the video.
            stitch: 'original' and 'crop' of VDOT Stitch, where the unit is a part of a clip.

        Returns:
            The workflow.
        """
        self.add("VDOTPreviewUnit", unit=unit)
        positive, _, latent, _ = self.add("VDOTEncode", positive=self._text, vae=self._vae, unit=unit)
        # The demo's model is sampled as it was trained, the large one as its authors do it.
        preset = "trained" if self._bundled else "released"
        (latent,) = self.add(
            "VDOTSampler", model=self._model, positive=positive, latent=latent, seed=seed, preset=preset
        )
        (frames,) = self.add("VAEDecode", samples=latent, vae=self._vae)
        if keep:
            (frames,) = self.add("VDOTPasteBack", images=frames, unit=unit)
        if stitch:
            (frames,) = self.add("VDOTStitch", images=frames, unit=unit, **stitch)
        (video,) = self.add("CreateVideo", images=frames)
        self.add("SaveVideo", video=video, filename_prefix=f"video/vdot_{self.name}")
        return self._file(note)

    def finish_long(self, unit: Output, note: str, seed: int) -> dict:
        """As `finish`, in chunks of the demo model's length, by the node that saves them itself."""
        self.add("VDOTPreviewUnit", unit=unit)
        self.add(
            "VDOTLongVideo",
            **{"model": self._model, "positive": self._text, "vae": self._vae, "unit": unit, "seed": seed},
            **{"chunk": 17, "overlap": 5, "preset": "trained", "filename_prefix": f"video/vdot_{self.name}"},
        )
        return self._file(note)

    def _file(self, note: str) -> dict:
        """The workflow, laid out."""
        groups = _lay_out(self._nodes)
        return {
            "id": str(uuid.uuid5(FILE_IDS, self.name)),
            "revision": 0,
            "last_node_id": len(self._nodes) + 1,
            "last_link_id": len(self._links),
            "nodes": [_note(note.strip() + (REAL_VIDEOS if self._bundled else "")), *self._nodes],
            "links": self._links,
            "groups": groups,
            "config": {},
            "extra": {"ds": {"scale": 0.7, "offset": [500, 80]}},
            "version": 0.4,
        }

    def _link(self, source: Output, target: int, place: int) -> int:
        number = len(self._links) + 1
        self._links.append([number, source.node, source.slot, target, place, source.type])
        self._nodes[source.node - 2]["outputs"][source.slot]["links"].append(number)
        return number


def to_json(workflow: dict) -> str:
    """The text of a workflow file."""
    return json.dumps(workflow, indent=2, ensure_ascii=False) + "\n"


def _entries(socket: Socket, value: Any) -> list[tuple[dict, Output | None]]:
    """The sockets that a node shows for one input, with what is connected to each."""
    if not socket.grows:
        entry = {"name": socket.name, "type": socket.type, "link": None}
        return [({**entry, "shape": 7} if socket.optional else entry, value)]
    sources = [*(value or []), None]
    entries = []
    for index, source in enumerate(sources):
        label = f"{socket.grows}{index}"
        entry = {"label": label, "name": f"{socket.name}.{label}", "type": socket.type, "link": None}
        entries.append(({**entry, "shape": 7} if index >= socket.least else entry, source))
    return entries


def _node(kind: str, schema: NodeKind, number: int, inputs: list[dict]) -> dict:
    return {
        "id": number,
        "type": kind,
        "pos": [0, 0],
        "size": [WIDTH, schema.height_of(len(inputs))],
        "flags": {},
        "order": number - 1,
        "mode": 0,
        "inputs": inputs,
        "outputs": [{"name": name, "type": type_, "links": []} for name, type_ in schema.outputs],
        "properties": {"Node name for S&R": kind},
    }


def _note(text: str) -> dict:
    return {
        "id": 1,
        "type": "MarkdownNote",
        "pos": [-NOTE_SIZE[0] - 2 * MARGIN, 0],
        "size": list(NOTE_SIZE),
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "properties": {},
        "color": "#432",
        "bgcolor": "#653",
        "title": "Read me",
        "widgets_values": [text],
    }


def _lay_out(nodes: list[dict]) -> list[dict]:
    """Put nodes into columns, stage by stage from left to right; returns the stages' groups."""
    placed = {kind for _, _, kinds, _ in STAGES for kind in kinds}
    groups, x, lowest = [], MARGIN, 0
    for title, color, kinds, width in STAGES:
        members = [
            node for node in nodes if node["type"] in kinds or (not kinds and node["type"] not in placed)
        ]
        if not members:
            continue
        left, y = x, TOP
        for node in members:
            if y > TOP and y + node["size"][1] > MAX_COLUMN:
                x, y = x + width + 2 * MARGIN, TOP
            node["pos"], node["size"][0] = [x, y], width
            y += node["size"][1] + GAP
            lowest = max(lowest, y - GAP)
        groups.append(
            {
                "id": len(groups) + 1,
                "title": f"{len(groups) + 1} {title}",
                "bounding": [left - MARGIN, GROUP_TOP, x + width - left + 2 * MARGIN, 0],
                "color": color,
                "font_size": 24,
                "flags": {},
            }
        )
        x += width + 2 * MARGIN + GROUP_GAP
    for group in groups:
        group["bounding"][3] = lowest + MARGIN - GROUP_TOP
    return groups
