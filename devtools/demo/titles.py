"""Titles of the bundled workflows: what ComfyUI's template browser shows, in an order that teaches.

A workflow's name stays when its title changes: `dev.py demo --task NAME` takes it, and its videos are saved
under it.
"""

TITLES = {
    "vdot_text": "Text to video",
    "vdot_depth": "Depth to video",
    "vdot_pose": "Pose to video",
    "vdot_scribble": "Line drawing to video",
    "vdot_gray": "Color a gray clip",
    "vdot_flow": "Optical flow to video",
    "vdot_firstframe": "Image to video, first frame",
    "vdot_lastframe": "Image to video, last frame",
    "vdot_firstlast": "First and last frame",
    "vdot_keyframes": "Keyframes",
    "vdot_extend": "Continue a clip",
    "vdot_long": "Long video",
    "vdot_inpaint": "Inpaint",
    "vdot_removal": "Remove something",
    "vdot_outpaint": "Outpaint",
    "vdot_crop": "Small region at full resolution",
    "vdot_layout": "Boxes to video",
    "vdot_layout_track": "Tracked masks to video",
    "vdot_move": "Move anything",
    "vdot_reference": "Subject to video",
    "vdot_face": "Face to video",
    "vdot_swap": "Swap something in a clip",
    "vdot_tryon": "Try something on",
    "vdot_reference_inpaint": "Subject into a part of a clip",
    "vdot_reference_outpaint": "Subject and a wider clip",
    "vdot_reference_firstframe": "Subject and first frame",
    "vdot_reference_depth": "Subject and depth",
    "vdot_reference_pose": "Subject and pose",
    "vdot_face_pose": "Face and pose",
    "vdot_reference_flow": "Subject and optical flow",
    "vdot_reference_gray": "Subject and gray clip",
    "vdot_reference_scribble": "Subject and line drawing",
    "vdot_reference_layout": "Subject and boxes",
    "vdot_animate": "Animate anything",
    "vdot_expand": "Expand anything",
    "vdot_replace": "Replace a character",
    "native_depth_anything": "Depth of a clip (Depth Anything 3)",
    "native_sdpose": "Poses of a clip (SDPose)",
    "native_sam3_inpaint": "Remove what a word names (SAM 3)",
    "native_face_sdpose": "Face from a picture, motion from a clip (SDPose)",
    "native_replace_character": "Replace a character (SAM 3, SDPose)",
    "vdot_long_extend": "Extend a clip by 20 seconds",
    "vdot_long_replace": "Replace a person through a long clip",
}


def stem_of(name: str) -> str:
    """'vdot_depth' -> '02 Depth to video', the file's name without its ending.

    Raises:
        KeyError: there is no such workflow.
    """
    return f"{list(TITLES).index(name) + 1:02d} {TITLES[name]}"


def name_of(stem: str) -> str:
    """The inverse of `stem_of`.

    Raises:
        KeyError: no workflow has that title.
    """
    return {stem_of(name): name for name in TITLES}[stem]
