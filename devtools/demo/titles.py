"""Titles of the bundled workflows: what ComfyUI's template browser shows, in an order that teaches.

A workflow's name stays when its title changes: `dev.py demo --task NAME` takes it, and its videos are saved
under it. Names without a title are one of these workflows with optional groups switched and other values:
assets/templates.json says which.
"""

TITLES = {
    "vdot_text": "Text to video",
    "vdot_depth": "Depth to video",
    "vdot_pose": "Pose to video",
    "vdot_scribble": "Line drawing to video",
    "vdot_gray": "Color a gray clip",
    "vdot_flow": "Optical flow to video",
    "vdot_firstframe": "Picture to video",
    "vdot_keyframes": "Keyframes",
    "vdot_extend": "Continue a clip",
    "vdot_long": "Long video",
    "vdot_inpaint": "Inpaint",
    "vdot_removal": "Remove something",
    "vdot_swap": "Swap something in a clip",
    "vdot_crop": "Small region at full resolution",
    "vdot_outpaint": "Outpaint",
    "vdot_expand": "Expand a picture",
    "vdot_layout": "Boxes to video",
    "vdot_move": "Move anything",
    "vdot_reference": "Subject to video",
    "vdot_long_replace": "Replace a person through a long clip",
    "native_depth_anything": "Depth of a clip (Depth Anything 3)",
    "native_sdpose": "Poses of a clip (SDPose)",
    "native_sam3_inpaint": "Remove or replace what a word names (SAM 3)",
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
