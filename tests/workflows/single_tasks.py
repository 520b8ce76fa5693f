"""Workflows of one task each: a function builds the graph and its note."""

from collections.abc import Callable

from tests.workflows import variants
from tests.workflows.graph import EXAMPLES, Output, Workflow

Task = Callable[[Workflow, int], dict]
# Where the subject's upper half lies in subject.png: x, y, width, height.
FACE_BOX = {"x": 18, "y": 1, "width": 40, "height": 19}
SUBJECT_HINT = "the picture sets who or what it is; the text names it too"


def subject_of(w: Workflow, picture: str = "subject") -> dict[str, list[Output]]:
    """A picture and its mask, as inputs of VDOT Reference."""
    image = w.image(f"{picture}.png", "Subject")
    return {"images": [image], "masks": [w.mask(f"{picture}_mask.png", "Mask of the subject")]}


def optional_subject(w: Workflow, unit: Output) -> Output:
    """The unit, with a cut-out picture as reference where its group is on."""
    with w.optional(variants.SUBJECT, SUBJECT_HINT):
        return w.add("VDOTReference", **subject_of(w), unit=unit)[0]


def optional_face(w: Workflow, unit: Output, **size: Output) -> Output:
    """The unit, with the face of a picture as reference where its group is on."""
    hint = "the box of a face with its content, on white, as in training; the box is typed here"
    with w.optional(variants.FACE, hint):
        picture = w.image("subject.png", "Picture of the face")
        (box,) = w.add("PrimitiveBoundingBox", title="Where the face is", **FACE_BOX)
        (mask,) = w.add("VDOTBoxMask", image=picture, bboxes=box, which="largest")
        return w.add("VDOTReference", images=[picture], masks=[mask], unit=unit, **size)[0]


def text(w: Workflow, seed: int) -> dict:
    w.prompt("a large red circle moving to the right over a plain blue background")
    (unit,) = w.add("VDOTText")
    note = """# Text to video

Text in, four steps, video out. Press **Run**: the demo takes seconds on any computer.

- **VDOT Text** sets shape and length; with the 14B model, 480 and 832 give a tall video.
- The strip on a task node shows what the model is given; **VDOT Encode** turns it into conditioning.
- **VDOT Sampler** takes the steps that the model was trained with."""
    return w.finish(unit, note, seed)


def depth(w: Workflow, seed: int) -> dict:
    w.prompt("a large red heart moving down over a plain blue background")
    (unit,) = w.add("VDOTDepth", depth=w.clip("depth.mp4"))
    note = f"""# Depth to video

The depth clip sets where objects are and how near; the text sets what they are. {EXAMPLES}

- **VDOT Depth** takes any depth estimator's output. Near must be bright; otherwise turn on *invert*.
- Size and length come from the clip and are rounded to valid values.
- With *start_frame* and *end_frame* it guides only a part of the video."""
    return w.finish(optional_subject(w, unit), note, seed)


def pose(w: Workflow, seed: int) -> dict:
    w.prompt("a red stick figure walking to the right over a plain white background")
    frames = w.clip("pose.mp4")
    hint = "for a clip that shows people instead of skeletons; the node says what it needs"
    with w.optional(variants.FIND_POSES, hint):
        frames, _ = w.add("VDOTPose", frames=frames)
    (unit,) = w.add("VDOTControl", frames=frames)
    with w.optional(variants.SECOND_SUBJECT, "together with the first; up to eight, a background too"):
        second = w.image("second.png", "Second subject")
        second_mask = w.mask("second_mask.png", "Mask of the second subject")
    with w.optional(variants.SUBJECT, SUBJECT_HINT):
        subject = subject_of(w)
        pictures = {"images": [*subject["images"], second], "masks": [*subject["masks"], second_mask]}
        (unit,) = w.add("VDOTReference", **pictures, unit=unit)
    note = f"""# Pose to video

The character moves like the skeleton. {EXAMPLES}

- For skeletons of your own clip, switch on **{variants.FIND_POSES}**, or put another pose
  node (SDPose, DWPose) and **VDOT Draw Pose** before **VDOT Control**.
- The model was trained on body and face, not on hands."""
    return w.finish(optional_face(w, unit), note, seed)


def flow(w: Workflow, seed: int) -> dict:
    w.prompt("a red heart moving to the upper right over a plain yellow background")
    (unit,) = w.add("VDOTControl", frames=w.clip("flow.mp4"))
    note = f"""# Optical flow to video

The picture moves as the optical flow: hue is direction, saturation is speed, white is still.
{EXAMPLES}

- To get the flow of your own clip, put **VDOT Flow** between the clip and **VDOT Control**."""
    return w.finish(optional_subject(w, unit), note, seed)


def gray(w: Workflow, seed: int) -> dict:
    w.prompt("a red heart moving to the upper right over a plain yellow background")
    (frames,) = w.add("VDOTGray", frames=w.clip("clip.mp4"))
    (unit,) = w.add("VDOTControl", frames=frames)
    note = f"""# Color a gray clip

Light and shapes stay, the text sets the colors: for old films, or to recolor. {EXAMPLES}

- **VDOT Gray** removes the color; use it for black-and-white clips too."""
    return w.finish(optional_subject(w, unit), note, seed)


def scribble(w: Workflow, seed: int) -> dict:
    w.prompt("a red heart moving to the upper right over a plain white background")
    (frames,) = w.add("VDOTLines", frames=w.clip("clip.mp4"))
    (unit,) = w.add("VDOTControl", frames=frames)
    note = f"""# Line drawing to video

The contours stay, the text sets everything else. {EXAMPLES}

- **VDOT Lines**: a higher *threshold* draws fewer lines, and leaves the model more freedom.
- Connect your own drawings directly to **VDOT Control**: dark lines on white."""
    return w.finish(optional_subject(w, unit), note, seed)


def layout(w: Workflow, seed: int) -> dict:
    w.prompt("a red square moving up over a plain yellow background")
    with w.optional(variants.MASKS, "one mask clip per object; empty *boxes*, or keep them for other things"):
        mask = w.mask("mask.mp4")
    (unit,) = w.add("VDOTLayout", boxes="0: 20, 30, 42, 52\n-1: 28, 4, 50, 26", masks=[mask])
    note = f"""# Boxes to video

Boxes set where objects are; the text sets what they look like. {EXAMPLES}

- Draw and drag boxes on the picture in **VDOT Layout**, or type them: *frame: left, top, right, bottom*.
  Between two lines the box moves evenly; -1 is the last frame. An empty line starts the next object.
- For a path, write two numbers per line: the center of a box of *box_width* x *box_height*.
- Tracked masks: *mask_shape* **box** draws only their boxes, which leaves the shape to the model."""
    return w.finish(optional_subject(w, unit), note, seed)


def inpaint(w: Workflow, seed: int) -> dict:
    w.prompt("a red square on a plain cyan background")
    frames, mask = w.clip("clip.mp4"), w.mask("mask.png")
    (unit,) = w.add("VDOTMask", frames=frames, mask=mask)
    note = f"""# Inpainting

Keeps the clip and regenerates the masked region. {EXAMPLES}

- White in the mask is regenerated, black is kept, in every frame. A mask clip works too.
- **VDOT Paste Back** restores the kept pixels exactly, but for a soft edge of *feather_px* around the mask.
- *mask_shape* **hull** or **box** hides the outline of what was there: use it to remove or swap things."""
    return w.finish(optional_subject(w, unit), note, seed, keep=True)


def outpaint(w: Workflow, seed: int) -> dict:
    w.prompt("a blue heart moving to the upper right over a plain cyan background")
    sides = dict.fromkeys(("left", "right", "top", "bottom"), 25)
    (unit,) = w.add("VDOTOutpaint", frames=w.clip("clip.mp4"), **sides, mode="percent", feather_px=2)
    note = f"""# Outpainting

Keeps the clip and generates the area beyond its borders. {EXAMPLES}

- Drag the borders in **VDOT Outpaint**, or set the sides: in *mode* **pixels** or **percent** as margins;
  **aspect** takes a ratio instead.
- The new, larger picture has the model's size; without *size* the clip keeps its scale.
- *feather_px* regenerates a strip of the clip along the margin, which hides the seam;
  **VDOT Paste Back** restores the rest of the clip exactly."""
    return w.finish(optional_subject(w, unit), note, seed, keep=True)


def firstframe(w: Workflow, seed: int) -> dict:
    w.prompt("a large purple circle moving to the left over a plain white background")
    with w.optional(variants.FIRST, "bypass it where only the last frame is known", on=True):
        first = w.image("first.png", "First frame")
    with w.optional(variants.LAST, "the model generates the way there; the same picture twice makes a loop"):
        last = w.image("last.png", "Last frame")
    (unit,) = w.add("VDOTExtend", first=first, last=last)
    note = f"""# Picture to video

The picture is the first frame of the video, the last, or both. {EXAMPLES}

- Describe the action, not only the scene.
- The video has the shape of the picture.
- Clips instead of pictures fill the gap between two shots."""
    return w.finish(optional_subject(w, unit), note, seed)


def extend(w: Workflow, seed: int) -> dict:
    w.prompt("a large purple circle moving to the left over a plain white background")
    (unit,) = w.add("VDOTExtend", first=w.clip("start.mp4", length=5))
    note = f"""# Continue a clip

The clip is the start of the video; *length* includes it. {EXAMPLES}

- *start* and *length* of **VDOT Load Clip** choose what is continued: five frames, two
  latent ones, are enough.
- Connect the clip to *last* to generate the frames before it."""
    return w.finish(unit, note, seed)


def keyframes(w: Workflow, seed: int) -> dict:
    w.prompt("a large purple circle moving to the left over a plain white background")
    pictures = [w.image(file) for file in ("first.png", "middle.png", "last.png")]
    (unit,) = w.add("VDOTKeyframes", images=pictures, positions="0, 40, -1")
    note = f"""# Keyframes

Pictures at chosen moments; the model generates everything between them: a storyboard. {EXAMPLES}

- Drag the pictures along the bar of **VDOT Keyframes**, or type *positions*: the frame of each of 81
  (*length*), in order; -1 is the last.
- With *clips* on, a clip stays together and starts at its position."""
    return w.finish(unit, note, seed)


def reference(w: Workflow, seed: int) -> dict:
    w.prompt("a large yellow heart moving to the left over a plain blue background")
    with w.optional(variants.CUT_OUT, "bypass it where the face is enough", on=True):
        (unit,) = w.add("VDOTReference", **subject_of(w))
    note = f"""# A subject into a video

Shows the model people or objects to put into the video; up to eight pictures, one for each. {EXAMPLES}

- A mask (white on the subject) cuts it out; without one the full picture with its background is used.
- Name the subject in the text as well.
- One reference per face; several pictures of one face do not help.
- **Load Image**'s own mask marks the transparent part: add **Invert Mask**."""
    return w.finish(optional_face(w, unit, size=w.size), note, seed)


SINGLE: tuple[Task, ...] = (
    *(text, depth, inpaint, pose, flow, gray, scribble, layout, outpaint),
    *(firstframe, extend, keyframes, reference),
)
