"""Videos of complete graphs: partial steps, references, previews, negative prompts, other forms."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from tests.nodes.server.graphs import SAMPLER, graph, images, native_trim


def test_steps_in_two_samplers_and_a_video_to_start_from(server):
    """Two samplers, one of which resumes, give one sampler's pictures; a third starts from the video."""
    sampler = {"model": ["1", 0], "positive": ["6", 0], **SAMPLER, "seed": 31}
    parts = {
        "21": {"class_type": "VDOTSampler", "inputs": {**sampler, "latent": ["6", 2], "end_step": 2}},
        "22": {"class_type": "VDOTSampler", "inputs": {**sampler, "latent": ["21", 0]}},
        "23": {"class_type": "VAEDecode", "inputs": {"samples": ["22", 0], "vae": ["2", 0]}},
        "24": {"class_type": "SaveImage", "inputs": {"images": ["23", 0], "filename_prefix": "parts"}},
        "25": {"class_type": "VAEEncode", "inputs": {"pixels": ["23", 0], "vae": ["2", 0]}},
        "26": {"class_type": "VDOTSampler", "inputs": {**sampler, "latent": ["25", 0], "denoise": 0.3}},
        "27": {"class_type": "VAEDecode", "inputs": {"samples": ["26", 0], "vae": ["2", 0]}},
        "28": {"class_type": "SaveImage", "inputs": {"images": ["27", 0], "filename_prefix": "again"}},
    }
    run = server.run(graph(n7__seed=31) | parts)
    assert run.status == "success", run.error
    one, two, again = (
        [Image.open(server.base / "output" / image["filename"]).tobytes() for image in images(run, node)]
        for node in ("9", "24", "28")
    )
    assert one == two and len(again) == 17 and again != one
    assert any("resumes at step 3 of 4" in line for line in run.outputs["22"]["text"])
    assert any("2 references were cut off" in line for line in run.outputs["26"]["text"])


def test_a_negative_prompt_without_guidance(server):
    """NAG on both networks: the same pictures, other than without it."""
    zeros = {"31": {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["5", 0]}}}
    negative = {"n6__negative": ["31", 0], "n7__negative": ["6", 1], "n7__seed": 32}
    pictures = []
    for loader, scale in (("VDOTLoadModel", 8.0), ("UNETLoader", 8.0), ("VDOTLoadModel", 0.0)):
        run = server.run(graph(loader, **negative, n7__nag_scale=scale) | zeros)
        assert run.status == "success", run.error
        path = server.base / "output" / images(run)[8]["filename"]
        pictures.append(Image.open(path).convert("RGB").tobytes())
    ours, native, plain = pictures
    assert max(abs(a - b) for a, b in zip(ours, native, strict=True)) <= 1 and ours != plain


def test_video_with_references_progress_and_previews(server):
    run = server.run(graph() | native_trim())
    assert run.status == "success", run.error
    assert len(images(run)) == 17, "18 frames were asked for, 17 fit; the two references are cut off"
    assert len(images(run, "13")) == 17, "and not cut off again"
    assert any("70x64 -> 64x64" in line for line in run.outputs["4"]["text"])
    assert any("18 -> 17" in line for line in run.outputs["4"]["text"])
    assert "2 references" in run.outputs["6"]["text"][0]
    assert "999/979/941/841" in run.outputs["7"]["text"][0]
    again = server.run(graph() | native_trim())
    assert all(again.outputs[node]["text"] == run.outputs[node]["text"] for node in "1467"), (
        "a page that opens later shows the same notes"
    )
    steps = [data for data in run.of_type("progress") if data["node"] == "7"]
    assert [data["value"] for data in steps] == [1, 2, 3, 4] and steps[-1]["max"] == 4
    assert run.num_binary >= 4, "ComfyUI's own still previews"


def test_animated_preview_event(server):
    run = server.run(graph(n7__seed=99))
    previews = run.of_type("vdot.preview")
    assert [data["step"] for data in previews] == [1, 2, 3, 4]
    last = previews[-1]
    assert last["node_id"] == last["display_node_id"] == "7" and last["prompt_id"] == run.prompt_id
    assert (last["version"], last["num_steps"], last["fps"], last["mime"]) == (1, 4, 4.0, "image/jpeg")
    assert last["num_frames"] == len(last["frames"]) == 5, (
        "17 frames are 5 latent ones; references are not shown"
    )
    for frame in last["frames"]:
        assert (
            Image.open(io.BytesIO(base64.b64decode(frame))).size == (last["width"], last["height"]) == (8, 8)
        )


def test_native_model_in_our_sampler_gives_our_video(server):
    ours, native = (server.run(graph(loader)) for loader in ("VDOTLoadModel", "UNETLoader"))
    pictures = []
    for run in (ours, native):
        assert run.status == "success", run.error
        path = server.base / "output" / images(run)[8]["filename"]
        pictures.append(Image.open(path).convert("RGB").tobytes())
    differences = [abs(a - b) for a, b in zip(*pictures, strict=True)]
    assert max(differences) <= 1


def test_quantized_files_and_loras_open_in_stock_nodes_and_ours(server):
    """Scaled fp8 with a LoRA through ComfyUI's own loaders and through ours; GGUF through ours."""
    lora = {"model": ["1", 0], "lora_name": "style.safetensors", "strength_model": 0.5}
    stock = graph("UNETLoader", n1__unet_name="fp8_scaled.safetensors", n7__model=["20", 0])
    stock["20"] = {"class_type": "LoraLoaderModelOnly", "inputs": lora}
    chosen = {"n1__lora_2": "style.safetensors", "n1__lora_2_strength": 0.5}
    runs = {
        "stock": server.run(stock),
        "fp8": server.run(graph(n1__model_name="fp8_scaled.safetensors", n1__network="comfyui", **chosen)),
        "gguf": server.run(graph(n1__model_name="vace.gguf", **chosen)),
        "plain": server.run(graph(n1__model_name="fp8_scaled.safetensors")),
    }
    pictures = {}
    for name, run in runs.items():
        assert run.status == "success", run.error
        path = server.base / "output" / images(run)[8]["filename"]
        pictures[name] = np.asarray(Image.open(path).convert("RGB")).astype(int)
    for name in ("fp8", "gguf"):
        assert "style.safetensors at 0.5: 2 weights" in runs[name].outputs["1"]["text"]
    difference = {name: np.abs(picture - pictures["stock"]) for name, picture in pictures.items()}
    assert difference["fp8"].max() <= 1 < difference["plain"].max()
    assert difference["gguf"].mean() < 3


@pytest.mark.full
def test_blocks_that_are_swapped_in_while_they_run(server):
    """Plain and quantized weights, before and after a run without swapping: the same pictures."""
    for name in ("vdot_meta.safetensors", "fp8_scaled.safetensors", "vace.gguf"):
        pictures = []
        for is_swapped in (True, False, True):
            nodes = graph(n1__model_name=name, n7__model=["20" if is_swapped else "1", 0])
            nodes["9"]["inputs"]["filename_prefix"] = f"swap{len(pictures)}"
            nodes["20"] = {"class_type": "TestBlockSwap", "inputs": {"model": ["1", 0]}}
            run = server.run(nodes)
            assert run.status == "success", run.error
            path = server.base / "output" / images(run)[8]["filename"]
            pictures.append(Image.open(path).convert("RGB").tobytes())
        assert pictures[0] == pictures[1] == pictures[2] and len(set(pictures[0])) > 10, name
    assert re.search(r"TestBlockSwap: [1-9]\d* blocks", server.log())


def test_the_vae_encodes_only_what_is_new(server):
    """With a decode between encodings, at which ComfyUI detaches the VAE; each run has a new prompt."""
    passes = server.base / "custom_nodes/passes.txt"
    prompts = iter(range(1, 100))

    def num_passes(class_type, strength=1.0, **inputs):
        before = passes.stat().st_size if passes.exists() else 0
        size = {"width": 32, "height": 32, "length": 5}
        place = {"destination": ["11", 0], "source": ["10", 0], "x": 16, "y": 8, "operation": "add"}
        nodes = graph(n5__prompt=next(prompts), n6__strength=strength, n8__samples=["6", 2])
        nodes |= {
            "4": {"class_type": class_type, "inputs": {**size, **inputs}},
            "10": {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 16, "height": 16}},
            "11": {"class_type": "SolidMask", "inputs": {"value": 0.0, "width": 48, "height": 40}},
            "12": {"class_type": "MaskComposite", "inputs": place},
        }
        run = server.run(nodes)
        assert run.status == "success" and images(run), run.error
        return passes.stat().st_size - before

    control = {"frames": ["3", 0]}
    inpaint = {"frames": ["3", 0], "mask": ["12", 0], "mask_shape": "original", "expand": 0.0}
    assert num_passes("VDOTText") == 1, "gray, for the first time"
    assert num_passes("VDOTText") == 0
    assert num_passes("VDOTControl", **control) == 1
    assert num_passes("VDOTControl", **control) == 0
    assert num_passes("VDOTControl", strength=0.5, **control) == 0
    assert num_passes("VDOTMask", **inpaint) == 1
    assert num_passes("VDOTMask", **inpaint) == 0
    assert num_passes("VDOTMask", **{**inpaint, "expand": 0.5}) == 1
    server.post("/free", {"unload_models": True})
    # ComfyUI unloads before or after the next prompt.
    assert num_passes("VDOTText") + num_passes("VDOTText") == 1
