"""The pack inside a real ComfyUI server, driven through its HTTP and websocket API."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.core.checkpoints.helpers import write_gguf
from tests.core.networks.helpers import relative
from tests.nodes.small_models import LATIN_1, lora_of, quantized, server_with_models
from tests.support.server import PromptRefusedError
from training.distributed import world as processes
from training.engine.run import train
from training.engine.trainer import Trainer
from training.methods.programs import distill_config
from training.methods.vdot import Vdot
from training.planning.dry_run import CPU_CLIP, RandomSource
from vdot_core.checkpoints import LoraOptions, convert, extract_lora, merge
from vdot_core.networks import PRESETS

SAMPLER = {"seed": 3, "preset": "released", "steps": 4, "shift": 16.0, "solver": "unipc", "cfg": 1.0}


@pytest.fixture(scope="module")
def server(comfy, models_dir, native_state, tmp_path_factory):
    """One server for all tests of this file."""
    base = tmp_path_factory.mktemp("comfyui")
    prepared = server_with_models(base, models_dir)
    _quantized_models(base / "models", models_dir, native_state)
    with prepared as running:
        yield running


def _quantized_models(folder, models_dir, state):
    """The same weights as scaled fp8 and as GGUF, and a LoRA for them."""
    with safe_open(models_dir / "vdot_meta.safetensors", "pt") as file:
        metadata = file.metadata()
    save_file(quantized(state, "float8_e4m3fn"), folder / "diffusion_models/fp8_scaled.safetensors", metadata)
    fields = {f"vdot.{key}": value for key, value in metadata.items()}
    write_gguf(folder / "diffusion_models/vace.gguf", state, "Q8_0", **fields)
    (folder / "loras").mkdir(exist_ok=True)
    lora, _ = lora_of(state, ["vace_blocks.0.ffn.0", "head.head"])
    save_file(lora, folder / "loras/style.safetensors")


def graph(loader="VDOTLoadModel", sampler="VDOTSampler", **changes):
    """Load, reference, encode, sample, decode, preview; all steps of a video."""
    load = {
        "VDOTLoadModel": {"model_name": "vdot_meta.safetensors", "weight_dtype": "default"},
        "UNETLoader": {"unet_name": "plain_vace.safetensors", "weight_dtype": "default"},
    }[loader]
    nodes = {
        "1": {"class_type": loader, "inputs": load},
        "2": {"class_type": "VAELoader", "inputs": {"vae_name": "tiny_vae.safetensors"}},
        "3": {"class_type": "LoadImage", "inputs": {"image": "subject.png"}},
        "4": {
            "class_type": "VDOTReference",
            "inputs": {
                "images.image0": ["3", 0],
                "images.image1": ["3", 0],
                "width": 70,
                "height": 64,
                "length": 18,
            },
        },
        "5": {"class_type": "TestText", "inputs": {}},
        "6": {
            "class_type": "VDOTEncode",
            "inputs": {"positive": ["5", 0], "vae": ["2", 0], "unit": ["4", 0], "strength": 1.0},
        },
        "7": {
            "class_type": sampler,
            "inputs": {"model": ["1", 0], "positive": ["6", 0], "latent": ["6", 2], **SAMPLER},
        },
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["7", 0], "vae": ["2", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "out"}},
    }
    for path, value in changes.items():
        node, name = path.split("__")
        nodes[node.removeprefix("n")]["inputs"][name] = value
    return nodes


def native_trim():
    """Trim Video Latent as in a graph with KSampler, between sampler and VAE Decode."""
    return {
        "11": {"class_type": "TrimVideoLatent", "inputs": {"samples": ["7", 0], "trim_amount": ["6", 3]}},
        "12": {"class_type": "VAEDecode", "inputs": {"samples": ["11", 0], "vae": ["2", 0]}},
        "13": {"class_type": "SaveImage", "inputs": {"images": ["12", 0], "filename_prefix": "trimmed"}},
    }


def images(run_, node="9"):
    return run_.outputs[node]["images"]


def test_import_is_clean(server):
    """Its CPU time is measured in test_schema."""
    log = server.log()
    assert re.search(r"[\d.]+ seconds[^\n]*ComfyUI-VDOT", log), log[-3000:]
    assert "ComfyUI-VDOT (IMPORT FAILED)" not in log and "Traceback" not in log


def test_object_info_explains_every_input(server, node_classes):
    info = server.get("/object_info")
    for node_id in node_classes:
        entry = info[node_id]
        assert entry["description"] and entry["display_name"] and entry["category"].startswith("VDOT/")
        for name, (_, options) in {
            **entry["input"]["required"],
            **entry["input"].get("optional", {}),
        }.items():
            assert options.get("tooltip"), f"{node_id}.{name}"
        assert all(entry["output_tooltips"]), node_id
    assert "vdot_meta.safetensors" in info["VDOTLoadModel"]["input"]["required"]["model_name"][1]["options"]


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


def test_a_failing_node_says_why_and_the_queue_continues(server):
    bad = server.run(graph(n7__cfg=2.0))
    assert bad.status == "error" and bad.error["node_id"] == "7"
    assert "nothing is connected to negative" in bad.error["exception_message"]
    bad = server.run(graph(n6__unit=["10", 0]) | extend_nothing())
    assert bad.status == "error" and "nothing to extend" in bad.error["exception_message"]
    good = server.run(graph(n7__seed=4))
    assert good.status == "success" and len(images(good)) == 17


def test_a_file_named_in_another_encoding_does_not_stop_the_queue(server):
    """Its name, raw in an error or a log line, would end ComfyUI's thread that runs prompts."""
    bad = server.run(graph(n1__model_name=f"cut_{LATIN_1}"))
    assert (
        bad.status == "error"
        and "cut_mod\\udce8le.safetensors is truncated" in bad.error["exception_message"]
    )
    good = server.run(graph(n1__model_name=LATIN_1))
    assert good.status == "success", good.error
    assert good.outputs["1"]["text"][0].startswith("mod\\udce8le.safetensors: VACE model")
    assert server.run(graph(n7__seed=12)).status == "success"


def extend_nothing():
    return {"10": {"class_type": "VDOTExtend", "inputs": {"length": 17, "width": 0, "height": 0}}}


def test_impossible_values_are_refused_before_running(server):
    with pytest.raises(PromptRefusedError) as refused:
        server.run(graph(n7__preset="fastest"))
    assert refused.value.answer["node_errors"]["7"]["errors"][0]["type"] == "value_not_in_list"
    assert server.run(graph(n7__seed=5)).status == "success"


def test_cancel_in_the_middle_and_continue(server):
    def press_stop(kind, data):
        if kind == "vdot.preview" and data["step"] == 2:
            server.interrupt()

    custom = {"n7__preset": "custom", "n7__steps": 100, "n7__solver": "euler", "n4__length": 81}
    run = server.run(graph(**custom), on_event=press_stop)
    assert run.status == "interrupted"
    assert run.of_type("vdot.preview")[-1]["step"] < 100
    assert server.run(graph(n7__seed=6)).status == "success"


def test_freed_memory_is_loaded_again(server):
    server.post("/free", {"unload_models": True, "free_memory": True})
    assert server.run(graph(n7__seed=8)).status == "success"


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


def latents_of(server, model: str, lora: str | None = None):
    """Latents of the demo's prompt by stock nodes around VDOT Sampler: Load Diffusion Model, Load LoRA."""
    nodes = {
        "1": {"class_type": "UNETLoader", "inputs": {"unet_name": model, "weight_dtype": "default"}},
        "2": {"class_type": "LoraLoaderModelOnly", "inputs": {"model": ["1", 0], "strength_model": 1.0}},
        "3": {"class_type": "VDOTLoadDemo", "inputs": {}},
        "4": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["3", 1], "text": "a red circle"}},
        "5": {"class_type": "VDOTText", "inputs": {"width": 64, "height": 64, "length": 5}},
        "6": {
            "class_type": "VDOTEncode",
            "inputs": {"positive": ["4", 0], "vae": ["3", 2], "unit": ["5", 0], "strength": 1.0},
        },
        "7": {
            "class_type": "VDOTSampler",
            "inputs": {"model": ["2", 0], "positive": ["6", 0], "latent": ["6", 2], **SAMPLER},
        },
        "8": {"class_type": "SaveLatent", "inputs": {"samples": ["7", 0], "filename_prefix": "lora"}},
    }
    if lora is None:
        del nodes["2"]
        nodes["7"]["inputs"]["model"] = ["1", 0]
    else:
        nodes["2"]["inputs"]["lora_name"] = lora
    run = server.run(nodes)
    assert run.status == "success", run.error
    (saved,) = run.outputs["8"]["latents"]
    return load_file(server.base / "output" / saved["subfolder"] / saved["filename"])["latent_tensor"]


def test_lora_of_the_tiny_student_in_stock_nodes(server, demo_assets):
    """The base with the LoRA gives the merged file's latents.

    ComfyUI's loaders leave the modulation's change out (see test_lora.py), so this merge does too.
    """
    student, teacher = (demo_assets / f"vdot_tiny{end}.safetensors" for end in ("_student", ""))
    models, loras = server.base / "models/diffusion_models", server.base / "models/loras"
    for name, source in (("tiny_base", teacher), ("tiny_student", student)):
        convert(source, models / f"{name}.safetensors", dtype=torch.float32)
    extract_lora(student, teacher, loras / "tiny.safetensors", LoraOptions(32, dtype=torch.float32))
    tensors = load_file(loras / "tiny.safetensors")
    save_file({k: v for k, v in tensors.items() if "modulation" not in k}, loras / "tiny_applied.safetensors")
    base = models / "tiny_base.safetensors"
    merge(base, [loras / "tiny_applied.safetensors"], models / "tiny_merged.safetensors")
    alone, with_lora, merged, goal = (
        latents_of(server, f"tiny_{model}.safetensors", lora)
        for model, lora in (("base", None), ("base", "tiny.safetensors"), ("merged", None), ("student", None))
    )
    assert relative(with_lora, merged) < 1e-4
    assert relative(with_lora, goal) < 0.7 * relative(alone, goal)
    convert(teacher, models / "tiny_base_fp8.safetensors", form="fp8_scaled")
    on_fp8 = latents_of(server, "tiny_base_fp8.safetensors", "tiny.safetensors")
    assert relative(on_fp8, with_lora) < 0.3 and relative(on_fp8, goal) < 0.7 * relative(alone, goal)
    assert "lora key not loaded" not in server.log()


@pytest.mark.full
def test_a_lora_distilled_on_the_teacher_makes_its_four_step_video_on_the_scaled_fp8_file(
    server, demo_assets, tmp_path
):
    """A short run with adapters; its export in ComfyUI's own loaders, against the merged network."""
    teacher, models = demo_assets / "vdot_tiny.safetensors", server.base / "models/diffusion_models"
    lora = _distill_lora(tmp_path, teacher)
    (server.base / "models/loras/distilled.safetensors").write_bytes(lora.read_bytes())
    convert(teacher, models / "teacher_fp32.safetensors", dtype=torch.float32)
    convert(teacher, models / "teacher_fp8.safetensors", form="fp8_scaled")
    merge(models / "teacher_fp32.safetensors", [lora], models / "distilled.safetensors")
    files = {
        "teacher": ("teacher_fp32.safetensors", None),
        "merged": ("distilled.safetensors", None),
        "lora": ("teacher_fp32.safetensors", "distilled.safetensors"),
        "fp8": ("teacher_fp8.safetensors", "distilled.safetensors"),
        "fp8 alone": ("teacher_fp8.safetensors", None),
    }
    latents = {name: latents_of(server, *choice) for name, choice in files.items()}
    change = relative(latents["teacher"], latents["merged"])
    assert change > 0.2 and relative(latents["lora"], latents["merged"]) < 1e-4
    # The same rounding that the teacher's own video takes.
    rounding = relative(latents["fp8 alone"], latents["teacher"])
    assert relative(latents["fp8"], latents["merged"]) < min(2 * rounding, 0.5 * change)
    assert "lora key not loaded" not in server.log() and "NOT LOADED" not in server.log()


def _distill_lora(folder, teacher):
    """The export of four steps with adapters on the tiny teacher, from random samples."""
    values = {
        "out_dir": str(folder), "steps": 4, "export_dtype": "fp32", "model.preset": "vdot_tiny",
        "model.real_score": str(teacher), "model.adapters.rank": 8, "data.batch_size": 1,
        "data.accumulation": 1, "data.workers": 0, "optim.generator_lr": 0.02, "optim.generator_every": 1,
        "optim.ema": 0.0, "parallel.precision": "fp32", "parallel.threads": 1,
    }  # fmt: skip
    config = distill_config(values)
    world = processes.start(config.parallel)
    source = RandomSource(PRESETS["vdot_tiny"](), CPU_CLIP, 1)
    trainer = Trainer(config, Vdot(config, world, source.empty_text), source, world)
    train(trainer)
    return folder / "export" / "generator.safetensors"


def test_quantized_forms_of_the_tiny_student_in_comfyuis_own_loader(server, demo_assets):
    """Latents after four steps, against those of the file that they were made from."""
    models, student = server.base / "models/diffusion_models", demo_assets / "vdot_tiny_student.safetensors"
    convert(student, models / "tiny_fp32.safetensors", dtype=torch.float32)
    exact = latents_of(server, "tiny_fp32.safetensors", None)
    for form, limit in (("fp8_scaled", 0.3), ("int8", 0.25)):  # int8 within AVX2: 0.19
        convert(student, models / f"tiny_{form}.safetensors", form=form)
        assert 0 < relative(latents_of(server, f"tiny_{form}.safetensors", None), exact) < limit, form
