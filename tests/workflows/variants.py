"""Tasks that are another task's workflow with optional groups switched and other values."""

from tests.workflows.graph import Variant

SUBJECT = "a subject from a picture"
SECOND_SUBJECT = "a second subject"
FACE = "a face from a picture"
FIRST, LAST = "the first picture", "the last picture"
MASKS = "the outline of an object"
CUT_OUT = "the full figure"
POSES = "its motion, from poses"
FIND_POSES = "poses of people in a clip"

_SECOND = {"Subject": {"image": "second.png"}, "Mask of the subject": {"image": "second_mask.png"}}

VARIANTS = {
    "vdot_lastframe": Variant("firstframe", (FIRST, LAST)),
    "vdot_firstlast": Variant("firstframe", (LAST,)),
    "vdot_reference_firstframe": Variant(
        "firstframe",
        (SUBJECT,),
        "a large yellow heart moving down over a plain red background",
        {"First frame": {"image": "subject.png"}},
    ),
    "vdot_reference_depth": Variant(
        "depth", (SUBJECT,), "a large yellow heart moving down over a plain blue background"
    ),
    "vdot_pose_clip": Variant(
        "pose",
        (FIND_POSES,),
        "a large green stick figure waving a hand over a plain white background",
        {"VDOTLoadClip": {"file": "person.mp4"}},
    ),
    "vdot_reference_pose": Variant(
        "pose", (SUBJECT,), "a yellow stick figure walking to the right over a plain black background"
    ),
    "vdot_face_pose": Variant(
        "pose", (FACE,), "a yellow stick figure walking to the right over a plain black background"
    ),
    "vdot_animate": Variant(
        "pose",
        (SUBJECT, SECOND_SUBJECT),
        "a yellow stick figure walking to the right over a plain white background",
    ),
    "vdot_reference_flow": Variant(
        "flow", (SUBJECT,), "a yellow heart moving to the upper right over a plain green background"
    ),
    "vdot_reference_gray": Variant(
        "gray", (SUBJECT,), "a yellow heart moving to the upper right over a plain cyan background"
    ),
    "vdot_reference_scribble": Variant(
        "scribble", (SUBJECT,), "a yellow heart moving to the upper right over a plain purple background"
    ),
    "vdot_reference_inpaint": Variant("inpaint", (SUBJECT,), "a yellow heart over a plain cyan background"),
    "vdot_reference_outpaint": Variant(
        "outpaint",
        (SUBJECT,),
        "a blue heart moving to the upper right over a plain cyan background",
        {
            "VDOTOutpaint": {"left": 50, "right": 0, "top": 25, "bottom": 25, "feather_px": 0},
            "Subject": {"image": "clip_subject.png"},
            "Mask of the subject": {"image": "clip_subject_mask.png"},
        },
    ),
    "vdot_reference_layout": Variant(
        "layout",
        (SUBJECT,),
        "a yellow heart moving up over a plain blue background",
        {"VDOTLayout": {"boxes": "0: 16, 28, 48, 60\n-1: 16, 4, 48, 36"}},
    ),
    "vdot_layout_track": Variant(
        "layout",
        (MASKS,),
        "an orange heart moving to the upper right over a plain green background",
        {"VDOTLayout": {"boxes": "", "width": 0, "height": 0, "length": 0}},
    ),
    "vdot_face": Variant("reference", (CUT_OUT, FACE), "a large yellow heart on a plain blue background"),
    "vdot_tryon": Variant(
        "swap",
        (),
        "a purple heart moving to the upper right over a plain cyan background",
        {
            "VDOTMask": {"mask_shape": "original", "expand": 0.0, "grow_px": 2, "blur_px": 1.0},
            **_SECOND,
        },
    ),
    "vdot_replace": Variant(
        "swap",
        (POSES,),
        "a yellow stick figure walking to the right over a plain cyan background",
        {"VDOTMask": {"still": True}},
    ),
    "vdot_long_extend": Variant("long", (), None, {"VDOTExtend": {"length": 325}}),
    "native_face_sdpose": Variant(
        "sdpose", (FACE,), "a woman in a green coat walks through a market, cinematic"
    ),
    "native_replace_character": Variant(
        "sam3_inpaint",
        (SUBJECT, POSES),
        "a robot with copper arms plays the violin in a park",
        {"VDOTMask": {"mask_shape": "box", "expand": 0.1}, "What to find": {"text": "person"}},
    ),
}
