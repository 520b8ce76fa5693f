"""LoRAs and quantized forms of the bundled student in ComfyUI's own loaders, by the latents of four steps."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.core.networks.helpers import relative
from tests.nodes.server.graphs import SAMPLER
from training.distributed import world as processes
from training.engine.run import train
from training.engine.trainer import Trainer
from training.methods.programs import distill_config
from training.methods.vdot import Vdot
from training.planning.dry_run import CPU_CLIP, RandomSource
from vdot_core.checkpoints import LoraOptions, convert, extract_lora, merge
from vdot_core.networks import PRESETS


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
