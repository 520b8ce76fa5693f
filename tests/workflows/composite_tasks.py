"""Workflows that join tasks: a function builds the graph and its note."""

from tests.workflows import variants
from tests.workflows.graph import EXAMPLES, Output, Workflow
from tests.workflows.single_tasks import Task, subject_of


def with_subject(w: Workflow, unit: Output, picture: str = "subject") -> Output:
    """The unit with one cut-out picture as reference."""
    return w.add("VDOTReference", **subject_of(w, picture), unit=unit)[0]


def swap(w: Workflow, seed: int) -> dict:
    w.prompt("a yellow heart moving to the upper right over a plain cyan background")
    frames, mask = w.clip("clip.mp4", title="Clip"), w.mask("mask.mp4")
    (unit,) = w.add("VDOTMask", frames=frames, mask=mask, mask_shape="box", expand=0.3)
    hint = "replaces a person who moves like the old one; *still* of **VDOT Mask** hides the old motion"
    with w.optional(variants.POSES, hint):
        (pose,) = w.add("VDOTControl", frames=w.clip("pose.mp4", title="Poses"))
        (unit,) = w.add("VDOTCompose", units=[unit, pose])
    note = f"""# Swap something in a clip

The masked object becomes the referenced one; the rest of the clip stays as it is, pixel by pixel
(**VDOT Paste Back**). {EXAMPLES}

- *mask_shape* **box** and *expand* 0.3 hide the old shape, which would show through otherwise.
- To try on clothes, mask only them: *mask_shape* **original**, *expand* 0, *grow_px* 2; the reference is a
  picture of the new ones, cut out.
- Describe the new scene in the text."""
    return w.finish(with_subject(w, unit), note, seed, keep=True)


def removal(w: Workflow, seed: int) -> dict:
    w.prompt("a blue heart moving to the lower left over a plain white background")
    frames, mask = w.clip("pair.mp4"), w.mask("pair_mask.mp4")
    (unit,) = w.add("VDOTMask", frames=frames, mask=mask, mask_shape="hull", expand=0.3)
    note = f"""# Remove something

The text describes the scene without it. {EXAMPLES}

- *still* masks all positions of the object in every frame, so that its motion is hidden too.
- Include shadow and reflection in the mask, or the object comes back."""
    return w.finish(unit, note, seed, keep=True)


def expand(w: Workflow, seed: int) -> dict:
    w.prompt("a yellow heart on a plain red background")
    sides = dict.fromkeys(("left", "right", "top", "bottom"), 25)
    (unit,) = w.add("VDOTOutpaint", frames=w.image("subject.png"), **sides, mode="percent", length=81)
    note = f"""# Expand anything

One picture becomes a wider video; the reference sets the look of its subject. {EXAMPLES}

- **VDOT Outpaint** with one picture and a *length* keeps it as the center of the first frame.
- Drag its borders; *mode* **aspect** widens it to a ratio instead of by margins."""
    return w.finish(with_subject(w, unit), note, seed)


def move(w: Workflow, seed: int) -> dict:
    w.prompt("a large purple circle moving down over a plain white background")
    boxes = "0: 22, 11, 58, 47\n-1: 22, 26, 58, 62"
    (unit,) = w.add("VDOTMove", image=w.image("first.png"), boxes=boxes)
    note = f"""# Move anything

The picture is the first frame; the boxes set the path of its subject. {EXAMPLES}

- Draw the first box around the subject in **VDOT Move**, go to a later frame by the slider and
  drag the box to its place there.
- Or type one line per turn of the path: *frame: left, top, right, bottom*, or two numbers for the center."""
    return w.finish(unit, note, seed)


COMPOSITE: tuple[Task, ...] = (swap, removal, expand, move)
