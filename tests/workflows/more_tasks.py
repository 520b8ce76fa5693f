"""More workflows that join tasks, and one that generates a small region at full resolution."""

from tests.workflows.composite_tasks import with_subject
from tests.workflows.graph import EXAMPLES, Workflow
from tests.workflows.single_tasks import Task


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

- *length* of **VDOT Extend** counts the clip's own frames too: 325 adds 20 seconds.
- The beginning of the clip is only encoded: chunks that are known in full are not sampled.
- *chunk* and *overlap* 0: as the model was trained, 81 and 17 frames with 14B, 17 and 5 with the demo.
- *drift* keeps colors from running away, *fade* hides the seams.
- The file grows chunk by chunk. After an interruption turn *resume* on and run again.
- **VDOT From Frame** changes the text or the references later in the video."""
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
- *paste_back* of **VDOT Long Video** gives the kept pixels back as they are in the clip, bit for bit."""
    return w.finish_long(with_subject(w, unit, "person"), note, seed)


MORE: tuple[Task, ...] = (crop, long, long_replace)
