"""Workflows for real clips that use ComfyUI's own detectors; they need model files, which the notes name."""

from collections.abc import Callable

from tests.workflows import variants
from tests.workflows.graph import Output, Workflow
from tests.workflows.single_tasks import optional_subject

Native = Callable[[Workflow, int], dict]
WAN_CHOICES = {
    "model": "vdot_14b.pt",
    "text_encoder": "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    "vae": "wan_2.1_vae.safetensors",
}
WAN_FOLDERS = {"model": "diffusion_models", "text_encoder": "text_encoders", "vae": "vae"}
WAN_FILES = tuple(("VDOT Load", file, WAN_FOLDERS[menu]) for menu, file in WAN_CHOICES.items())
_HUB = "https://huggingface.co/Comfy-Org"
_WAN = f"{_HUB}/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
# As ComfyUI's own templates give them.
URLS = (
    f"{_WAN}/text_encoders/{WAN_CHOICES['text_encoder']}",
    f"{_WAN}/vae/{WAN_CHOICES['vae']}",
    f"{_HUB}/Depth-Anything-3/resolve/main/geometry_estimation/depth_anything_3_mono_large.safetensors",
    f"{_HUB}/SDPose/resolve/main/checkpoints/sdpose_wholebody_fp16.safetensors",
    f"{_HUB}/SDPose/resolve/main/diffusion_models/rt_detr_v4-x-hgnet_fp16.safetensors",
    f"{_HUB}/sam3.1/resolve/main/checkpoints/sam3.1_multiplex_fp16.safetensors",
)
DEPTH_ANYTHING = ("Load Depth Anything 3", "depth_anything_3_mono_large.safetensors", "geometry_estimation")
SDPOSE = ("Load Checkpoint", "sdpose_wholebody_fp16.safetensors", "checkpoints")
RT_DETR = ("Load Diffusion Model", "rt_detr_v4-x-hgnet_fp16.safetensors", "diffusion_models")
SAM3 = ("Load Checkpoint", "sam3.1_multiplex_fp16.safetensors", "checkpoints")


def _real_prompt(w: Workflow, text: str) -> None:
    """Start with the large model."""
    w.urls = URLS
    w.prompt(text, **WAN_CHOICES)


def _note(text: str, *files: tuple[str, str, str]) -> str:
    rows = "\n".join(f"| {node} | {file} | models/{folder} |" for node, file, folder in (*WAN_FILES, *files))
    return f"""{text.strip()}

## Model files

This workflow needs these files; others of the same kind work too.

| node | file | folder |
|---|---|---|
{rows}"""


def _tracked(w: Workflow, frames: Output, what: str) -> Output:
    """A mask of what the words name, for every frame."""
    model, clip, _ = w.add("CheckpointLoaderSimple", title="SAM 3", ckpt_name=SAM3[1])
    (words,) = w.add("CLIPTextEncode", title="What to find", clip=clip, text=what)
    (track,) = w.add("SAM3_VideoTrack", images=frames, model=model, conditioning=words)
    return w.add("SAM3_TrackToMask", track_data=track)[0]


def _keypoints(w: Workflow, picture: Output, model: Output, vae: Output) -> Output:
    """Key points of everyone in a picture or clip."""
    (finder,) = w.add("UNETLoader", title="RT-DETR", unet_name=RT_DETR[1])
    (boxes,) = w.add("RTDETR_detect", model=finder, image=picture, class_name="person", max_detections=4)
    return w.add("SDPoseKeypointExtractor", model=model, vae=vae, image=picture, bboxes=boxes)[0]


def _drawn(w: Workflow, frames: Output, model: Output, vae: Output) -> Output:
    """A clip's poses, drawn."""
    return w.add("VDOTDrawPose", keypoints=_keypoints(w, frames, model, vae))[0]


def depth_anything(w: Workflow, seed: int) -> dict:
    _real_prompt(w, "a paper boat drifts through a flooded library, soft light from tall windows")
    frames = w.clip("clip.mp4")
    (model,) = w.add("LoadDA3Model", model_name=DEPTH_ANYTHING[1])
    (geometry,) = w.add("DA3Inference", da3_model=model, image=frames)
    (raw,) = w.add("DA3Render", da3_geometry=geometry)
    control, _ = w.add("VDOTNormalizeDepth", depth=raw)
    (unit,) = w.add("VDOTDepth", depth=control, normalization="none")
    note = """# Depth of a clip, by Depth Anything 3

The clip's depth stays, the text sets the new content.

- **Render Depth Anything 3** gives distances (*raw*, with the sky at the far end), **VDOT Normalize Depth**
  converts them for the model: near bright, no flicker between frames.
- Small and Base models do not detect sky: turn *apply_sky_clip* off with them.
- Shorter: *min_max* or *v2_style* are near-bright already; connect them to **VDOT Depth** with *frame*."""
    return w.finish(unit, _note(note, DEPTH_ANYTHING), seed)


def sdpose(w: Workflow, seed: int) -> dict:
    _real_prompt(w, "an astronaut in a white suit dances on a beach at dusk")
    frames = w.clip("clip.mp4")
    model, _, vae = w.add("CheckpointLoaderSimple", title="SDPose", ckpt_name=SDPOSE[1])
    (unit,) = w.add("VDOTControl", frames=_drawn(w, frames, model, vae))
    hint = "SDPose finds it, and the poses set its motion; *scale*: how much hair is included"
    with w.optional(variants.FACE, hint):
        picture = w.image("subject.png", "Picture of the face")
        (keypoints,) = w.add("SDPoseKeypointExtractor", model=model, vae=vae, image=picture)
        (boxes,) = w.add("SDPoseFaceBBoxes", keypoints=keypoints)
        (face,) = w.add("VDOTBoxMask", image=picture, bboxes=boxes, which="largest")
        (unit,) = w.add("VDOTReference", images=[picture], masks=[face], unit=unit)
    note = """# Poses of a clip, by SDPose

RT-DETR finds the people in the clip, SDPose their key points; they are drawn as skeletons as in training.

- **VDOT Draw Pose** instead of *SDPose Draw Keypoints*: its colors and widths match the training data.
- A single person who fills the picture needs no RT-DETR: leave *bboxes* unconnected."""
    return w.finish(unit, _note(note, SDPOSE, RT_DETR), seed)


def sam3_inpaint(w: Workflow, seed: int) -> dict:
    _real_prompt(w, "an empty street in the rain, reflections on the asphalt")
    frames = w.clip("clip.mp4")
    mask = _tracked(w, frames, "car")
    (unit,) = w.add("VDOTMask", frames=frames, mask=mask, mask_shape="hull", expand=0.3)
    hint = "the new person moves like the old one; *mask_shape* **box**, *expand* 0.1"
    with w.optional(variants.POSES, hint):
        model, _, vae = w.add("CheckpointLoaderSimple", title="SDPose", ckpt_name=SDPOSE[1])
        (pose,) = w.add("VDOTControl", frames=_drawn(w, frames, model, vae))
        (unit,) = w.add("VDOTCompose", units=[unit, pose])
    note = """# Remove or replace what a word names, by SAM 3

SAM 3 finds and tracks it, **VDOT Mask** regenerates its region, **VDOT Paste Back** restores the rest.

- *What to find* names the object in a word or two; the prompt describes the scene without it.
- To replace it, turn on the subject; *mask_shape* **box** hides the old outline.
- Try-on is the same with a mask of the clothes and a picture of the new ones."""
    return w.finish(optional_subject(w, unit), _note(note, SAM3, SDPOSE, RT_DETR), seed, keep=True)


NATIVE: tuple[Native, ...] = (depth_anything, sdpose, sam3_inpaint)
