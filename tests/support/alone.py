"""Runs the pack as if only some distributions were installed; the others are hidden before any import.

    python alone.py HIDDEN nodes COMFYUI        every module of nodes/, and each node once
    python alone.py HIDDEN module NAME ARGUMENT ..

HIDDEN is a JSON file {"modules": [..], "distributions": [..]} of what is not there.
"""

import importlib.machinery
import importlib.metadata
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACK = "pack_alone"


class PathsWithout:
    """Python's own path finder, for which the hidden packages do not exist."""

    def __init__(self, modules, distributions):
        self._modules, self._distributions = frozenset(modules), frozenset(distributions)

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self._modules:
            return None
        return importlib.machinery.PathFinder.find_spec(name, path, target)

    def find_distributions(self, context):
        for distribution in importlib.machinery.PathFinder.find_distributions(context):
            if normalized(distribution.name) not in self._distributions:
                yield distribution

    def invalidate_caches(self):
        importlib.machinery.PathFinder.invalidate_caches()


def normalized(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def hide(file: str) -> None:
    """Make the packages of a JSON file invisible."""
    hidden = json.loads(Path(file).read_text(encoding="utf-8"))
    finder = PathsWithout(hidden["modules"], hidden["distributions"])
    place = sys.meta_path.index(importlib.machinery.PathFinder)
    sys.meta_path[place] = finder


def load_nodes(comfyui: str) -> dict:
    """Every module of nodes/ is imported as ComfyUI does it; the node classes by id."""
    import asyncio
    import importlib.util

    sys.path.insert(0, comfyui)
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    place = [str(ROOT)]
    spec = importlib.util.spec_from_file_location(
        PACK, ROOT / "__init__.py", submodule_search_locations=place
    )
    sys.modules[PACK] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[PACK])
    for path in sorted((ROOT / "nodes").glob("*.py")):
        importlib.import_module(f"{PACK}.nodes.{path.stem}".removesuffix(".__init__"))
    extension = asyncio.run(sys.modules[PACK].comfy_entrypoint())
    asyncio.run(extension.on_load())
    return {node.GET_SCHEMA().node_id: node for node in asyncio.run(extension.get_node_list())}


def run_nodes(comfyui: str) -> None:
    """Run each node once on tiny inputs, in pipeline order, and print its id."""
    nodes = load_nodes(comfyui)
    import folder_paths
    import torch

    folder_paths.add_model_folder_path("diffusion_models", str(ROOT / "assets"))

    def run(node_id, **inputs):
        with torch.inference_mode():
            output = nodes[node_id].PREPARE_CLASS_CLONE({"hidden_inputs": {}}).execute(**inputs)
        print(node_id, flush=True)
        return output.args

    torch.manual_seed(0)
    size = {"width": 64, "height": 64, "length": 5}
    clip, picture = torch.rand(5, 64, 64, 3), torch.rand(1, 64, 64, 3)
    depth = clip[..., :1].expand(clip.shape)
    mask = torch.zeros(5, 64, 64)
    mask[:, 16:48, 16:48] = 1
    run("VDOTLoadModel", model_name="vdot_tiny_student.safetensors", weight_dtype="default")
    run("VDOTLoadDemo")
    demo = dict.fromkeys(("model", "text_encoder", "vae"), "bundled demo")
    model, text_encoder, vae, best_size = run("VDOTLoad", **demo)
    run("VDOTLoadClip", file="clip.mp4", start=0.0, length=5, size=best_size)
    run("VDOTGray", frames=clip, weights="vace")
    run("VDOTLines", frames=clip, threshold=0.25, thickness=1.5, softness=0.5, blur=1.4, dark_on_white=True)
    run_flow(run, clip)
    run("VDOTNormalizeDepth", depth=depth, mode="stable", values="disparity", clip_percent=1.0, window=6.0)
    for name in ("VDOTPose", "VDOTMatte", "VDOTFace"):
        run_annotator(run, name, clip)
    person = {"pose_keypoints_2d": [32.0, 32.0, 1.0] * 18}
    keypoints = [{"people": [person], "canvas_width": 64, "canvas_height": 64}]
    drawing = {"face": True, "hands": False, "threshold": 0.3, "colors": "vace", "pen": 1.0}
    run("VDOTDrawPose", keypoints=keypoints, width=0, height=0, **drawing)
    run("VDOTBoxMask", image=picture, bboxes={"x": 8, "y": 8, "width": 32, "height": 32}, which="all")
    cropped = run("VDOTCrop", frames=clip, mask=mask, margin=0.5, width=0, height=0)
    crop = next(value for value in cropped if not torch.is_tensor(value))
    (unit,) = run("VDOTText", **size)[:1]
    keep = {"width": 0, "height": 0, "length": 0}
    run("VDOTControl", frames=clip, **keep)
    run("VDOTDepth", depth=depth, normalization="stable", invert=False, **keep)
    run("VDOTLayout", boxes="0: 4, 4, 20, 20\n-1: 36, 20, 52, 36", **size, masks={})
    run("VDOTMask", frames=clip, mask=mask, mask_shape="hull", expand=0.1, **keep)
    run("VDOTOutpaint", frames=clip, left=16, right=0, top=0, bottom=16, **keep)
    run("VDOTExtend", first=picture, **size)
    run("VDOTKeyframes", images={"image0": picture, "image1": picture}, positions="0, -1", **size)
    run("VDOTMove", image=picture, boxes="0: 4, 4, 20, 20\n-1: 36, 20, 52, 36", **size)
    run("VDOTReference", images={"image0": picture}, masks={"mask0": mask[:1]}, **size)
    run("VDOTCompose", units={"unit0": unit})
    run("VDOTStrength", unit=unit, curve="0: 1.0, -1: 0.5")
    run("VDOTStepRange", unit=unit, start_percent=0.0, end_percent=0.5)
    run("VDOTPreviewUnit", unit=unit, columns=6)
    tokens = text_encoder.tokenize("a red circle")
    text = text_encoder.encode_from_tokens_scheduled(tokens)
    encoded = run("VDOTEncode", positive=text, vae=vae, unit=unit, strength=1.0)
    positive, latent = encoded[0], next(value for value in encoded if isinstance(value, dict))
    choice = {"preset": "custom", "steps": 1, "shift": 1.0, "solver": "euler"}
    run("VDOTSampler", model=model, positive=positive, latent=latent, seed=0, **choice)
    (changes,) = run("VDOTFromFrame", frame=5, positive=text)
    parts = {"chunk": 5, "overlap": 1, "schedule": changes}
    (longer,) = run("VDOTText", width=64, height=64, length=9)[:1]
    run("VDOTLongVideo", model=model, positive=text, vae=vae, unit=longer, seed=0, **parts, **choice)
    repainted = run("VDOTMask", frames=clip, mask=mask, mask_shape="box", expand=0.0, **keep)[0]
    run("VDOTPasteBack", images=clip, unit=repainted, feather_px=2)
    run("VDOTStitch", original=clip, images=cropped[0], unit=repainted, crop=crop, feather_px=2)


def run_flow(run, clip) -> None:
    """VDOT Flow needs OpenCV or RAFT weights, which neither ComfyUI nor the pack brings: it must say so."""
    try:
        run("VDOTFlow", frames=clip, estimator="auto", scale="frame", still_px=0.0)
    except ImportError as error:
        assert "opencv" in str(error).lower(), error
        print("VDOTFlow", flush=True)


def run_annotator(run, name, clip) -> None:
    """Annotators need LiteRT, which neither ComfyUI nor the pack brings: they must say so."""
    try:
        run(name, frames=clip)
    except ValueError as error:
        assert "pip install ai-edge-litert" in str(error), error
        print(name, flush=True)


if __name__ == "__main__":
    del sys.path[0]  # this folder: its comfy.py is not ComfyUI's
    hide(sys.argv[1])
    if sys.argv[2] == "nodes":
        run_nodes(sys.argv[3])
    else:
        import runpy

        sys.argv[:4] = [sys.argv[3]]
        sys.path.insert(0, str(ROOT))
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
