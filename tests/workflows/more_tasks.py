"""More workflows that join tasks, and one that generates a small region at full resolution."""

from devtools.demo.titles import stem_of
from tests.workflows.composite_tasks import with_subject
from tests.workflows.graph import EXAMPLES, Output, Workflow
from tests.workflows.single_tasks import Task

# Where the subject's upper half lies in subject.png: x, y, width, height.
FACE = {"x": 18, "y": 1, "width": 40, "height": 19}


def _face(w: Workflow, unit: Output | None = None) -> Output:
    picture = w.image("subject.png")
    (box,) = w.add("PrimitiveBoundingBox", title="Where the face is", **FACE)
    (mask,) = w.add("VDOTBoxMask", image=picture, bboxes=box, which="largest")
    return w.add("VDOTReference", images=[picture], masks=[mask], unit=unit)[0]


def face(w: Workflow, seed: int) -> dict:
    w.prompt("a large yellow heart on a plain blue background")
    note = f"""# A face into a video

Shows the model a face: the detector's box with its content, on white, as in training. {EXAMPLES}

- The box is typed here. A detector finds it in the workflow
  *{stem_of("native_face_sdpose")}*.
- One reference per face; several pictures of one face do not help."""
    return w.finish(_face(w), note, seed)


def face_pose(w: Workflow, seed: int) -> dict:
    w.prompt("a yellow stick figure walking to the right over a plain black background")
    (control,) = w.add("VDOTControl", frames=w.clip("pose.mp4"))
    note = f"""# A face and a pose

The picture sets the face, the pose clip the motion. {EXAMPLES}

- Any other control works instead of the pose: depth, flow, gray, lines."""
    return w.finish(_face(w, control), note, seed)


def reference_flow(w: Workflow, seed: int) -> dict:
    w.prompt("a yellow heart moving to the upper right over a plain green background")
    (unit,) = w.add("VDOTControl", frames=w.clip("flow.mp4"))
    note = f"""# A subject that moves like a clip

The picture sets the subject, the optical flow its motion. {EXAMPLES}

- To get the flow of your own clip, put **VDOT Flow** before **VDOT Control**."""
    return w.finish(with_subject(w, unit), note, seed)


def reference_gray(w: Workflow, seed: int) -> dict:
    w.prompt("a yellow heart moving to the upper right over a plain cyan background")
    (frames,) = w.add("VDOTGray", frames=w.clip("clip.mp4"))
    (unit,) = w.add("VDOTControl", frames=frames)
    note = f"""# A gray clip in the colors of a picture

Light and shapes come from the clip, the look of the subject from the reference. {EXAMPLES}"""
    return w.finish(with_subject(w, unit), note, seed)


def reference_scribble(w: Workflow, seed: int) -> dict:
    w.prompt("a yellow heart moving to the upper right over a plain purple background")
    (frames,) = w.add("VDOTLines", frames=w.clip("clip.mp4"))
    (unit,) = w.add("VDOTControl", frames=frames)
    note = f"""# A line drawing of someone

The lines set the position, the reference the subject. {EXAMPLES}"""
    return w.finish(with_subject(w, unit), note, seed)


def reference_inpaint(w: Workflow, seed: int) -> dict:
    w.prompt("a yellow heart over a plain cyan background")
    frames, mask = w.clip("clip.mp4"), w.mask("mask.png")
    (unit,) = w.add("VDOTMask", frames=frames, mask=mask)
    note = f"""# A subject into a part of a clip

The masked region shows the reference, everything else stays. {EXAMPLES}

- To swap an object for the subject, see the workflow *{stem_of("vdot_swap")}*: its mask hides the
  old outline."""
    return w.finish(with_subject(w, unit), note, seed, keep=True)


def reference_outpaint(w: Workflow, seed: int) -> dict:
    w.prompt("a blue heart moving to the upper right over a plain cyan background")
    sides = {"left": 50, "right": 0, "top": 25, "bottom": 25}
    (unit,) = w.add("VDOTOutpaint", frames=w.clip("clip.mp4"), **sides, mode="percent")
    note = f"""# A subject and a wider clip

The clip gets wider, and the reference sets the look of its subject. {EXAMPLES}

- To put someone into the new area, use their picture as reference and name them in the text."""
    return w.finish(with_subject(w, unit, "clip_subject"), note, seed, keep=True)


def replace(w: Workflow, seed: int) -> dict:
    w.prompt("a yellow stick figure walking to the right over a plain cyan background")
    frames, mask = w.clip("clip.mp4"), w.mask("mask.mp4")
    (place,) = w.add("VDOTMask", frames=frames, mask=mask, mask_shape="box", expand=0.3, still=True)
    (pose,) = w.add("VDOTControl", frames=w.clip("pose.mp4"))
    (unit,) = w.add("VDOTCompose", units=[place, pose])
    note = f"""# Replace a character

Within the mask, the referenced person follows the poses; the rest of the clip stays. {EXAMPLES}

- The poses are the clip's own: SDPose and **VDOT Draw Pose**, as in the workflow
  *{stem_of("native_replace_character")}*.
- Try-on is the same with a mask of the clothes and a picture of the new ones.
- **VDOT Paste Back** restores the kept pixels exactly."""
    return w.finish(with_subject(w, unit), note, seed, keep=True)


def crop(w: Workflow, seed: int) -> dict:
    w.prompt("a red square on a plain cyan background")
    frames, mask = w.clip("clip.mp4", resolution="as it is"), w.mask("mask.png")
    part, cut, place = w.add("VDOTCrop", frames=frames, mask=mask, width=64, height=64)
    (unit,) = w.add("VDOTMask", frames=part, mask=cut)
    note = f"""# A small region at full resolution

**VDOT Crop** cuts out the surroundings of the mask and enlarges them, so that a face or hand is generated at
full resolution; **VDOT Stitch** puts the result back into the clip, which keeps its size. {EXAMPLES}

- *width* and *height* of **VDOT Crop** give the region's shape; **VDOT Load Clip** keeps the clip's own size.
- *margin*: how much the model sees around the mask. With too little, the region does not fit the clip."""
    return w.finish(unit, note, seed, stitch={"original": frames, "crop": place})


def long(w: Workflow, seed: int) -> dict:
    w.prompt("a large purple circle moving to the left over a plain white background")
    (unit,) = w.add("VDOTExtend", first=w.clip("start.mp4", length=5), length=65, size=None)
    note = f"""# A long video

Any task, any length: the unit has the length of the full video, and **VDOT Long Video** makes it in chunks
that continue each other. Here a clip is continued to four seconds, in chunks of one. {EXAMPLES}

- *chunk* and *overlap* 0: as the model was trained, 81 and 17 frames with 14B, 17 and 5 with the demo.
- *drift* keeps colors from running away, *fade* hides the seams.
- The file grows chunk by chunk. After an interruption turn *resume* on and run again.
- **VDOT From Frame** changes the text or the references later in the video."""
    return w.finish_long(unit, note, seed)


def long_extend(w: Workflow, seed: int) -> dict:
    w.prompt("a large purple circle moving to the left over a plain white background")
    (unit,) = w.add("VDOTExtend", first=w.clip("start.mp4", length=5), length=325, size=None)
    note = f"""# Extend a clip by 20 seconds

The last frames of a clip are continued for 320 frames: 20 seconds at 16 a second. {EXAMPLES}

- *length* of **VDOT Extend** counts the clip's own frames too.
- The beginning of the clip is only encoded: chunks that are known in full are not sampled.
- **VDOT From Frame** gives a new text for what happens later.
- *resume* continues after an interruption; the file can be played all the time."""
    return w.finish_long(unit, note, seed)


def long_replace(w: Workflow, seed: int) -> dict:
    w.prompt("a purple stick figure walking to the right over a plain orange background")
    frames, mask = w.clip("long_clip.mp4", length=65), w.clip("long_clip_mask.mp4", length=65)
    (mask,) = w.add("ImageToMask", image=mask)
    (place,) = w.add("VDOTMask", frames=frames, mask=mask, mask_shape="box", expand=0.3)
    (pose,) = w.add("VDOTControl", frames=w.clip("long_pose.mp4", length=65))
    (unit,) = w.add("VDOTCompose", units=[place, pose])
    note = f"""# Replace a person through a long clip

The masked person becomes the referenced one, with the same poses, from the clip's beginning to its end.
{EXAMPLES}

- Every chunk gets the same reference, and the end of the chunk before as known frames.
- *length* of **VDOT Load Clip** is the most that is read; a clip too large for memory is kept in a file.
- **VDOT Paste Back** restores the kept pixels exactly: connect it to *images* of **VDOT Long Video**."""
    return w.finish_long(with_subject(w, unit, "person"), note, seed)


MORE: tuple[Task, ...] = (
    *(face, face_pose, reference_flow, reference_gray, reference_scribble),
    *(reference_inpaint, reference_outpaint, replace, crop, long),
    *(long_extend, long_replace),
)
