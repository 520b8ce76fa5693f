"""Workflows that join tasks: a function builds the graph and its note."""

from tests.workflows.graph import EXAMPLES, Output, Workflow
from tests.workflows.single_tasks import Task


def with_subject(w: Workflow, unit: Output, subject: str = "subject") -> Output:
    """The unit with one cut-out picture as reference."""
    subject_inputs = {"images": [w.image(f"{subject}.png")], "masks": [w.mask(f"{subject}_mask.png")]}
    return w.add("VDOTReference", **subject_inputs, unit=unit)[0]


def reference_depth(w: Workflow, seed: int) -> dict:
    w.prompt("a large yellow heart moving down over a plain blue background")
    (unit,) = w.add("VDOTDepth", depth=w.clip("depth.mp4"))
    note = f"""# A subject in the space of a depth clip

The picture sets the subject, the depth clip its position and motion. {EXAMPLES}

- **VDOT Reference** gets the task at *unit*, and takes size and length from it.
- For separate strengths, connect both tasks to **VDOT Encode** (*unit*, *unit_2*) instead."""
    return w.finish(with_subject(w, unit), note, seed)


def reference_pose(w: Workflow, seed: int) -> dict:
    w.prompt("a yellow stick figure walking to the right over a plain black background")
    (unit,) = w.add("VDOTControl", frames=w.clip("pose.mp4"))
    note = f"""# A subject that moves like a skeleton

The picture sets the subject, the pose clip its motion. {EXAMPLES}

- For skeletons of your own clip, put a pose node (SDPose, DWPose) and **VDOT Draw Pose** before
  **VDOT Control**."""
    return w.finish(with_subject(w, unit), note, seed)


def reference_firstframe(w: Workflow, seed: int) -> dict:
    w.prompt("a large yellow heart moving down over a plain red background")
    (unit,) = w.add("VDOTExtend", first=w.image("subject.png"))
    note = f"""# A subject and a first frame

The video starts with the picture; the reference shows who is in it, or who enters later. {EXAMPLES}

- Describe the action in the text: who enters, from where."""
    return w.finish(with_subject(w, unit), note, seed)


def swap(w: Workflow, seed: int) -> dict:
    w.prompt("a yellow heart moving to the upper right over a plain cyan background")
    frames, mask = w.clip("clip.mp4"), w.mask("mask.mp4")
    (unit,) = w.add("VDOTMask", frames=frames, mask=mask, mask_shape="box", expand=0.3)
    note = f"""# Swap something in a clip

The masked object becomes the referenced one; the rest of the clip stays as it is, pixel by pixel
(**VDOT Paste Back**). {EXAMPLES}

- *mask_shape* `box` and *expand* 0.3 hide the old shape, which would show through otherwise.
- Describe the new scene in the text."""
    return w.finish(with_subject(w, unit), note, seed, keep=True)


def tryon(w: Workflow, seed: int) -> dict:
    w.prompt("a purple heart moving to the upper right over a plain cyan background")
    frames, mask = w.clip("clip.mp4"), w.mask("mask.mp4")
    (unit,) = w.add("VDOTMask", frames=frames, mask=mask, grow_px=2, blur_px=1.0)
    subject_inputs = {"images": [w.image("second.png")], "masks": [w.mask("second_mask.png")]}
    (unit,) = w.add("VDOTReference", **subject_inputs, unit=unit)
    note = f"""# Try something on

The masked part, such as a shirt, becomes the one of the reference. {EXAMPLES}

- The mask keeps its outline, because the wearer stays: only a few pixels wider (*grow_px*) and rounder
  (*blur_px*).
- Take the new garment from a picture where it lies flat, cut out by a mask."""
    return w.finish(unit, note, seed, keep=True)


def removal(w: Workflow, seed: int) -> dict:
    w.prompt("a blue heart moving to the lower left over a plain white background")
    frames, mask = w.clip("pair.mp4"), w.mask("pair_mask.mp4")
    (unit,) = w.add("VDOTMask", frames=frames, mask=mask, mask_shape="hull", expand=0.3)
    note = f"""# Remove something

The text describes the scene without it. {EXAMPLES}

- *still* masks all positions of the object in every frame, so that its motion is hidden too.
- Include shadow and reflection in the mask, or the object comes back."""
    return w.finish(unit, note, seed, keep=True)


def animate(w: Workflow, seed: int) -> dict:
    w.prompt("a yellow stick figure walking to the right over a plain white background")
    (control,) = w.add("VDOTControl", frames=w.clip("pose.mp4"))
    pictures = [w.image(file) for file in ("subject.png", "second.png")]
    masks = [w.mask(file) for file in ("subject_mask.png", "second_mask.png")]
    (unit,) = w.add("VDOTReference", images=pictures, masks=masks, unit=control)
    note = f"""# Animate anything

Characters and objects come from pictures, their motion from a pose clip. {EXAMPLES}

- Up to eight pictures; each takes one latent frame of memory and time.
- A background is a reference too: give its picture without a mask."""
    return w.finish(unit, note, seed)


def expand(w: Workflow, seed: int) -> dict:
    w.prompt("a yellow heart on a plain red background")
    sides = dict.fromkeys(("left", "right", "top", "bottom"), 25)
    (unit,) = w.add("VDOTOutpaint", frames=w.image("subject.png"), **sides, mode="percent", length=81)
    note = f"""# Expand anything

One picture becomes a wider video; the reference sets the look of its subject. {EXAMPLES}

- **VDOT Outpaint** with one picture and a *length* keeps it as the center of the first frame.
- *mode* `aspect` widens it to an aspect ratio instead of by margins."""
    return w.finish(with_subject(w, unit), note, seed)


def move(w: Workflow, seed: int) -> dict:
    w.prompt("a large purple circle moving down over a plain white background")
    boxes = "0: 22, 11, 58, 47\n-1: 22, 26, 58, 62"
    (unit,) = w.add("VDOTMove", image=w.image("first.png"), boxes=boxes)
    note = f"""# Move anything

The picture is the first frame; the boxes set the path of its subject. {EXAMPLES}

- Put the first box around the subject in the picture, in pixels of the video.
- Write one line per turn of the path, or two numbers per line for the path of the box's center."""
    return w.finish(unit, note, seed)


def reference_layout(w: Workflow, seed: int) -> dict:
    w.prompt("a yellow heart moving up over a plain blue background")
    (unit,) = w.add("VDOTLayout", boxes="0: 16, 28, 48, 60\n-1: 16, 4, 48, 36")
    note = f"""# A subject on a path

The picture sets the subject, the boxes its position over time. {EXAMPLES}

- Several subjects: a box for each (an empty line between them), and pictures in the same order."""
    return w.finish(with_subject(w, unit), note, seed)


COMPOSITE: tuple[Task, ...] = (
    *(reference_depth, reference_pose, reference_firstframe, reference_layout),
    *(swap, tryon, removal, animate, expand, move),
)
