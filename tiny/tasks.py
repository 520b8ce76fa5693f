"""All tasks by name, for the teacher and the benchmarks, with the clips that each is built from.

`TASKS[name](clip, generator)` gives a unit, made by the builders that the nodes call; without a generator it
is the task's plain example. Names of UVCBench and VACE stand for the plain examples alone ('inpainting',
'firstframe'); `TRAINING` holds the tasks that leave something to the generator ('inpaint', 'extend'), which
is what a network should learn from. The target video is the clip itself, except for 'removal', whose
target is `clip.without(-1)`, and for 'pose' on a clip that shows no figure: these are only for trying out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vdot_core import vcu
from vdot_core.text import described, listed

from .clips import units
from .clips.shapes import SPLITS, Clip, FigureTrack, clip, figure_clip
from .clips.textures import texture_clip
from .clips.units import Build, Rng

TEXTURE_CAPTIONS = ("a texture", "an abstract texture", "a natural picture", "a photo", "")
SCENES = ("any", "shapes", "pair", "figure")
SIMPLE = ("plain", "gradient")  # backgrounds of simple scenes


@dataclass(frozen=True)
class Task:
    """A task: its builder and the scenes that it needs.

    Attributes:
        build: Makes the unit from a clip and a generator (None: the plain example).
        scene: The clip that it needs: 'any', 'shapes' (something drawn), 'pair' (two shapes) or 'figure'.
        num_references: References of a unit of such a clip.
        tells: The unit's signals, in addition to the caption: names of `tiny.clips.truth.TRUTHS`.
    """

    build: Build
    scene: str = "shapes"
    num_references: int = 0
    tells: tuple[str, ...] = ()

    def __call__(self, clip: Clip, rng: Rng = None) -> vcu.VCU:
        return self.build(clip, rng)


def _fixed(build: Build) -> Build:
    """The plain example, with any generator."""
    return lambda clip, rng=None: build(clip)


def _and(first: Task, second: Task) -> Task:
    """Both at once; the first is a reference or keeps something."""
    scene = max(first.scene, second.scene, key=SCENES.index)
    count = first.num_references + second.num_references
    return Task(units.both(first.build, second.build), scene, count, first.tells + second.tells)


TEXT = Task(units.text, "any")
REFERENCE = Task(units.reference, num_references=1, tells=("references",))
REFERENCES = Task(units.references, "pair", 2, ("references",))
INPAINT = Task(units.inpaint, "any", tells=("kept",))
OUTPAINT = Task(units.outpaint, "any", tells=("kept",))
EXTEND = Task(units.extend, "any", tells=("kept",))
MOVE = Task(units.move, tells=("kept", "boxes"))
CONTROLS = {
    "depth": Task(units.depth, tells=("depth", "masks")),
    "pose": Task(units.pose, "figure", tells=("pose", "masks")),
    "flow": Task(units.flow, tells=("flow",)),
    "gray": Task(units.gray, "any", tells=("gray",)),
    "lines": Task(units.lines, tells=("lines", "masks")),
    "layout": Task(units.layout, tells=("boxes",)),
}
KEEPING = {"inpaint": INPAINT, "outpaint": OUTPAINT, "extend": EXTEND}
FIGURE = Task(units.references, "figure", 1, ("references",))
FACE = Task(units.face, "figure", 1, ("references",))
PLACE = Task(units.place, "figure", tells=("kept", "masks"))
TRAINING: dict[str, Task] = {
    "text": TEXT,
    **CONTROLS,
    **KEEPING,
    "keyframes": Task(units.keyframes, "any", tells=("kept",)),
    "move": MOVE,
    "inpaint_depth": _and(INPAINT, CONTROLS["depth"]),
    "extend_depth": _and(EXTEND, CONTROLS["depth"]),
    "extend_pose": _and(EXTEND, CONTROLS["pose"]),
    "reference": REFERENCE,
    **{f"reference_{name}": _and(REFERENCE, task) for name, task in (CONTROLS | KEEPING).items()},
    "animate": _and(FIGURE, CONTROLS["pose"]),
    "face": FACE,
    "face_pose": _and(FACE, CONTROLS["pose"]),
    "replacement": _and(_and(FIGURE, CONTROLS["pose"]), PLACE),
    "swap": _and(REFERENCE, Task(units.swap_region, tells=("kept", "boxes"))),
    "try_on": _and(REFERENCE, Task(units.garment, tells=("kept", "masks"))),
    "references": REFERENCES,
    **{f"references_{name}": _and(REFERENCES, CONTROLS[name]) for name in ("depth", "layout")},
    "expand": Task(units.expand, "pair", 2, ("kept", "references")),
}
_CASES = {
    **{name: task for name, task in CONTROLS.items() if name not in ("lines", "layout")},
    "scribble": CONTROLS["lines"],
    "layout": Task(units.layout_boxes, tells=("boxes",)),
    "layout_track": Task(units.layout_contours, tells=("masks",)),
}
_ENDS = {
    "firstframe": (1, 0),
    "lastframe": (0, 1),
    "firstlast": (1, 1),
    "firstclip": (5, 0),
    "lastclip": (0, 5),
    "firstlastclip": (5, 5),
}
SINGLE: dict[str, Task] = {
    "text": TEXT,
    **_CASES,
    "inpainting": Task(units.inpaint, tells=("kept", "masks")),
    "outpainting": OUTPAINT,
    **{name: Task(units.ends(*lengths), "any", tells=("kept",)) for name, lengths in _ENDS.items()},
    "keyframes": TRAINING["keyframes"],
    "reference": REFERENCE,
    "references": REFERENCES,
    "face": FACE,
}
_READY_MADE = ("face_pose", "animate", "replacement", "swap", "try_on", "expand", "move")
COMPOSITE: dict[str, Task] = {
    **{f"reference_{name}": _and(REFERENCE, task) for name, task in _CASES.items()},
    "reference_inpainting": _and(REFERENCE, INPAINT),
    "reference_outpainting": _and(REFERENCE, OUTPAINT),
    "reference_firstframe": _and(REFERENCE, SINGLE["firstframe"]),
    "firstframe_pose": _and(SINGLE["firstframe"], CONTROLS["pose"]),
    "inpainting_depth": TRAINING["inpaint_depth"],
    **{name: TRAINING[name] for name in _READY_MADE},
    "removal": Task(units.removal, tells=("kept",)),
}
# A name that both have is the training task: its plain example is the benchmark's.
_EXAMPLES = {
    name: Task(_fixed(t.build), t.scene, t.num_references, t.tells)
    for name, t in (SINGLE | COMPOSITE).items()
}
TASKS: dict[str, Task] = _EXAMPLES | TRAINING


def draw_scene(
    index: int,
    split: str,
    texture_share: float,
    size: tuple[int, int, int],
    *,
    kind: str = "any",
    simple: bool = False,
) -> Clip:
    """The index-th scene of a split.

    Args:
        index: From 0.
        split: 'train', 'validation' or 'evaluation'.
        texture_share: Chance of a natural-looking texture instead of drawn shapes, for the kind 'any'.
        size: (frames, height, width).
        kind: Kind of scene, one of `SCENES`.
        simple: No more shapes than needed, on a background without a pattern.

    Returns:
        The clip; a texture has no objects. Equal arguments give equal clips.

    Raises:
        ValueError: The kind or the split is unknown.
    """
    if kind not in SCENES or split not in SPLITS:
        raise ValueError(f"scene {kind!r} of {split!r}; expected one of {SCENES} and of {tuple(SPLITS)}")
    num_frames, height, width = size
    seed = SPLITS[split][index]
    shape = {"height": height, "width": width, "num_frames": num_frames}
    if kind == "figure":
        return figure_clip(seed, **shape)
    if kind == "any" and np.random.default_rng([seed, 11]).random() < texture_share:
        frames = texture_clip(seed, **shape)
        return Clip(seed, split, frames, TEXTURE_CAPTIONS[0], TEXTURE_CAPTIONS, (), "texture", frames)
    count = 2 if kind == "pair" else 1 if simple else None
    return clip(seed, **shape, num_objects=count, backgrounds=SIMPLE if simple else ())


def draw_scenes(
    names: Sequence[str],
    index: int,
    split: str,
    texture_share: float,
    size: tuple[int, int, int],
    *,
    simple: bool = False,
) -> dict[str, Clip]:
    """Scenes of one index for several tasks, as few as serve them all.

    Args:
        names: Of the tasks.
        index, split, texture_share, size, simple: As in `draw_scene`.

    Returns:
        For each task the clip that it is to be made from; tasks that can share one are given the same object.
    """
    scenes: dict[str, Clip] = {}
    for kind in sorted({task_named(name).scene for name in names}, key=SCENES.index):
        shared = [scene for scene in scenes.values() if kind != "figure" and _shows(scene, kind)]
        scenes[kind] = (
            shared[0] if shared else draw_scene(index, split, texture_share, size, kind=kind, simple=simple)
        )
    return {name: scenes[TASKS[name].scene] for name in names}


def _shows(scene: Clip, kind: str) -> bool:
    """True if a clip is of a kind."""
    if kind == "figure":
        return any(isinstance(track, FigureTrack) for track in scene.objects)
    return len(scene.objects) >= {"any": 0, "shapes": 1, "pair": 2}[kind]


def task_named(name: str) -> Task:
    """The task of a name; ValueError for an unknown one."""
    if name not in TASKS:
        raise ValueError(f"unknown task {described(name)}; the tasks are {listed(TASKS, len(TASKS), 240)}")
    return TASKS[name]


def build_unit(task: str, scene: Clip, rng: Rng = None) -> vcu.VCU:
    """Build the unit of a task for training; the scene is the target video.

    Args:
        task: One of `TASKS`.
        scene: The clip that it is made from.
        rng: Draws regions, margins and lengths; None makes the plain example.

    Returns:
        The unit, of the scene's size and length.

    Raises:
        ValueError: The task is unknown, or the scene does not show what it needs.
    """
    definition = task_named(task)
    if not _shows(scene, definition.scene):
        objects = [f"{track.color} {track.shape}" for track in scene.objects] or "nothing drawn"
        raise ValueError(
            f"the task {task!r} needs a scene of the kind {definition.scene!r}; this one shows {objects}"
        )
    unit = definition(scene, rng)
    if unit.frames.shape != scene.frames.shape or len(unit.references) != definition.num_references:
        raise ValueError(
            f"{task} gave frames {list(unit.frames.shape)} and {len(unit.references)} references for a scene "
            f"{list(scene.frames.shape)}; expected the scene's size, {definition.num_references} references"
        )
    return unit
