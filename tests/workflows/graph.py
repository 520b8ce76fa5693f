"""Builds a workflow file: nodes by type, links by passing outputs, a tidy layout, groups, a note."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.workflows.catalog import KINDS, UPLOAD, NodeKind, Socket
from tests.workflows.layout import LEFT_PX, SCALE, TOP_PX, WIDTH, lay_out, note_node

FILE_IDS = uuid.UUID("9a1d3b52-6f0e-4c51-8a25-0d0c7b1f6a00")  # the namespace of the files' ids
REAL_VIDEOS = """

## Real videos

The demo model only knows colored shapes. For the 14B model choose its files in the three menus of
**VDOT Load**: *vdot_14b.pt* (or any VACE-Wan 2.1 file), *umt5_xxl_fp8_e4m3fn_scaled.safetensors* and
*wan_2.1_vae.safetensors*; of a file that is not there yet, the node says where to get it. Size, length and
steps follow: a 1920 x 1080 clip becomes 832 x 480 with up to 81 frames. Then load files of your own: the
examples are tiny drawings."""
OPTIONAL = """

## Optional

Right-click the title of a group, then *Set Group Nodes to Always* or *Bypass Group Nodes*:

"""
EXAMPLES = "It runs as it is, on drawn examples."
BYPASSED = 4


@dataclass(frozen=True)
class Output:
    """One output of a node, to be connected to another node."""

    node: int
    slot: int
    type: str


@dataclass(frozen=True)
class Variant:
    """A task whose workflow is another one with optional groups switched and other values.

    Attributes:
        of: name of the other workflow's task.
        switched: titles of the optional groups that are on instead of off, or off instead of on.
        text: the prompt; None keeps it.
        values: widgets by title or type of a node.
    """

    of: str
    switched: tuple[str, ...] = ()
    text: str | None = None
    values: dict[str, dict[str, Any]] = field(default_factory=dict)


class Workflow:
    """A workflow that grows node by node and ends with `finish`.

    Args:
        name: the task.
        variant: what is different from the task's own workflow.
    """

    def __init__(self, name: str, variant: Variant | None = None):
        self.name = name
        self.urls: tuple[str, ...] = ()  # of files that a widget may name
        self._variant = variant or Variant(name)
        self._parts: list[tuple[str, str, set[int]]] = []  # title, hint, nodes
        self._bypassed = self._in_optional = False
        self._nodes: list[dict] = []
        self._links: list[list] = []
        self._is_demo = True
        self._size: Output | None = None
        self._source: tuple[Output, Output] | None = None

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
        linked = {name: values.pop(name) for name in schema.widgets if isinstance(values.get(name), Output)}
        widgets = {name: values.pop(name, default) for name, default in schema.widgets.items()}
        widgets |= self._variant.values.get(title or kind, {})
        inputs: list[dict] = []
        for socket in schema.inputs:
            if socket.type == "VDOT_SIZE" and values.get("unit") is None:  # a unit has a size already
                values.setdefault(socket.name, self._size)
            for entry, source in _entries(socket, values.pop(socket.name, None)):
                if source is not None:
                    entry["link"] = self._link(source, number, len(inputs))
                inputs.append(entry)
        for name, source in linked.items():
            entry = {"name": name, "type": source.type, "widget": {"name": name}, "link": None}
            inputs.append({**entry, "link": self._link(source, number, len(inputs))})
        assert not values, f"{kind} has no input {', '.join(values)}"
        node = _node(kind, schema, number, inputs)
        if title:
            node["title"] = title
        if self._bypassed:
            node["mode"] = BYPASSED
        if widgets:
            node["widgets_values"] = [*widgets.values(), *[UPLOAD] * schema.uploads]
            models = [model for model in map(_model, self.urls) if model["name"] in widgets.values()]
            node["properties"] |= {"models": models} if models else {}
        self._nodes.append(node)
        return tuple(Output(number, slot, type_) for slot, (_, type_) in enumerate(schema.outputs))

    @contextmanager
    def optional(self, title: str, hint: str, on: bool = False) -> Iterator[None]:
        """Nodes in a group of their own, which is bypassed unless it is on.

        Args:
            title: of the group.
            hint: what it does, and what to change along with it.
            on: whether it takes part before a person switches it.
        """
        first = len(self._nodes)
        self._bypassed, self._in_optional = on == (title in self._variant.switched), True
        yield
        self._bypassed = self._in_optional = False
        self._parts.append((title, hint, {node["id"] for node in self._nodes[first:]}))

    def prompt(self, text: str, **files: str) -> None:
        """Start with the text prompt and a model.

        Args:
            text: what the video shows.
            files: choices of VDOT Load's menus; the bundled demo where there are none.
        """
        self._is_demo = not files
        self._model, clip, self._vae, self._size = self.add("VDOTLoad", **files)
        (self._text,) = self.add(
            "CLIPTextEncode", title="What the video shows", clip=clip, text=self._variant.text or text
        )

    @property
    def size(self) -> Output:
        """Size and length of the model, by VDOT Load."""
        assert self._size, "prompt() comes first"
        return self._size

    def clip(self, file: str, **values: Any) -> Output:
        """A video file's frames; the result gets sound and frame rate of the first one."""
        frames, audio, fps, _ = self.add("VDOTLoadClip", file=file, **values)
        if not self._in_optional:
            self._source = self._source or (audio, fps)
        return frames

    def image(self, file: str, title: str | None = None) -> Output:
        """A picture."""
        return self.add("LoadImage", image=file, title=title)[0]

    def mask(self, file: str, title: str | None = None) -> Output:
        """A mask, from a picture, or from a video one for each frame."""
        if file.endswith(".mp4"):
            return self.add("ImageToMask", image=self.clip(file, title=title))[0]
        return self.add("LoadImageMask", image=file, title=title)[0]

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
        positive, _, latent, _ = self.add("VDOTEncode", positive=self._text, vae=self._vae, unit=unit)
        (latent,) = self.add("VDOTSampler", model=self._model, positive=positive, latent=latent, seed=seed)
        (frames,) = self.add("VAEDecode", samples=latent, vae=self._vae)
        if keep:
            (frames,) = self.add("VDOTPasteBack", images=frames, unit=unit)
        if stitch:
            (frames,) = self.add("VDOTStitch", images=frames, unit=unit, **stitch)
        (video,) = self.add("CreateVideo", images=frames, **self._sound())
        self.add("SaveVideo", video=video, filename_prefix=f"video/vdot_{self.name}")
        return self._file(note)

    def finish_long(self, unit: Output, note: str, seed: int) -> dict:
        """As `finish`, in chunks of the model's length, by the node that saves them itself."""
        self.add(
            "VDOTLongVideo",
            **{"model": self._model, "positive": self._text, "vae": self._vae, "unit": unit, "seed": seed},
            **{"chunk": 0, "overlap": 0, "filename_prefix": f"video/vdot_{self.name}", "size": self._size},
            **self._sound(),
        )
        return self._file(note)

    def _sound(self) -> dict[str, Output]:
        """Sound and frame rate of the clip that the video is made from."""
        return dict(zip(("audio", "fps"), self._source, strict=True)) if self._source else {}

    def _file(self, note: str) -> dict:
        """The workflow, laid out."""
        hints = "\n".join(f"- **{title}**: {hint}" for title, hint, _ in self._parts)
        note = note.strip() + (OPTIONAL + hints if hints else "")
        groups = lay_out(self._nodes, [(title, numbers) for title, _, numbers in self._parts])
        readme = note_node(note + (REAL_VIDEOS if self._is_demo else ""))
        return {
            "id": str(uuid.uuid5(FILE_IDS, self.name)),
            "revision": 0,
            "last_node_id": len(self._nodes) + 1,
            "last_link_id": len(self._links),
            "nodes": [readme, *self._nodes],
            "links": self._links,
            "groups": groups,
            "config": {},
            "extra": {"ds": {"scale": SCALE, "offset": [LEFT_PX / SCALE, TOP_PX / SCALE - readme["pos"][1]]}},
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


def _model(url: str) -> dict:
    """A file as ComfyUI's dialog of missing models takes it."""
    *_, directory, name = url.split("/")
    return {"name": name, "url": url, "directory": directory}
