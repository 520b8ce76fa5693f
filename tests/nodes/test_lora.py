"""LoRA files in ComfyUI's own hands: ours are read in full, and our merge gives the weights that it gives."""

import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.core.checkpoints.lora_files import FORMS, factors, save_lora
from vdot_core.checkpoints import LoraOptions, convert, extract_lora, infer, merge, split
from vdot_core.networks import WanVaceConfig

CONFIG = WanVaceConfig(128, 256, 1, 4, vace_layers=(0, 2))
# ComfyUI loads neither bare names nor diffusers' for Wan.
COMFYUI_FORMS = ("kohya", "wan_fun", "dotted", "peft")


@pytest.fixture(params=["native", "ours"])
def model(request):
    """ComfyUI's network and ours, with the same weights: what another test patched into them is taken out."""
    model = request.getfixturevalue(request.param)
    import comfy.model_management

    comfy.model_management.unload_all_models()
    return model


def patched_weights(model, lora: dict, strength: float) -> dict[str, torch.Tensor]:
    """Each parameter that Load LoRA changes, with the values that ComfyUI computes for it."""
    import comfy.lora
    import comfy.sd

    patched = comfy.sd.load_lora_for_models(model, None, lora, strength, 0)[0]
    state = model.model.state_dict()
    return {
        key.removeprefix("diffusion_model."): comfy.lora.calculate_weight(patches, state[key].clone(), key)
        for key, patches in patched.patches.items()
    }


def test_our_lora_changes_every_parameter_in_comfyui(model, native_state, models_dir, tmp_path, caplog):
    """At strength 1 the base becomes the student, on both networks, and no key is left over."""
    student = {name: value + 0.02 * torch.randn_like(value) for name, value in native_state.items()}
    save_file(student, tmp_path / "student.safetensors")
    options = LoraOptions(256, dtype=torch.float32)
    base = models_dir / "plain_vace.safetensors"
    lora = tmp_path / "lora.safetensors"
    extract_lora(tmp_path / "student.safetensors", base, lora, options, config=CONFIG)
    with caplog.at_level(logging.WARNING):
        weights = patched_weights(model, load_file(lora), 1.0)
    assert "lora key not loaded" not in caplog.text and "NOT LOADED" not in caplog.text
    assert weights.keys() == student.keys()
    for name, value in student.items():
        assert torch.allclose(weights[name], value, atol=1e-5), name


@pytest.mark.parametrize("form", COMFYUI_FORMS)
def test_merge_gives_the_weights_that_comfyui_computes(model, native_state, models_dir, tmp_path, form):
    tensors = {}
    # ComfyUI recognizes Wan Fun's form by the first of these layers.
    layers = ("blocks.0.cross_attn.k", "blocks.1.ffn.2", "vace_blocks.0.cross_attn.v", "patch_embedding")
    for number, name in enumerate(f"{layer}.weight" for layer in layers):
        tensors |= FORMS[form](name, *factors(native_state[name].shape, rank=5, seed=number), 8.0)
    tensors["diffusion_model.blocks.0.norm3.diff"] = torch.randn(128)
    tensors["diffusion_model.blocks.3.self_attn.o.diff_b"] = torch.randn(128)
    tensors["diffusion_model.head.modulation.diff"] = torch.randn(1, 2, 128)
    lora = save_lora(tmp_path / "lora.safetensors", tensors)
    base = models_dir / "plain_vace.safetensors"
    merge(base, [lora], tmp_path / "merged.safetensors", strengths=[0.6], config=CONFIG)
    merged, weights = load_file(tmp_path / "merged.safetensors"), patched_weights(model, tensors, 0.6)
    assert len(weights) == 7
    for name, value in native_state.items():
        expected = weights.get(name, value)
        assert torch.allclose(merged[name], expected, rtol=1e-5, atol=1e-6), name
        assert name in weights or torch.equal(merged[name], value)


def test_a_plain_file_opens_without_the_pack(comfy, models_dir, tmp_path, monkeypatch):
    """ComfyUI alone fails on a file with our config, and gives its own network to one without."""
    import comfy.sd
    import comfy.supported_models

    monkeypatch.setattr(infer, "PRESETS", {**infer.PRESETS, "small": lambda: CONFIG})
    monkeypatch.setattr(infer, "_RELEASED", (*infer._RELEASED, "small"))
    own = [model for model in comfy.supported_models.models if not model.__module__.startswith("vdot_pack")]
    monkeypatch.setattr(comfy.supported_models, "models", own)
    source, lora = models_dir / "plain_vace.safetensors", tmp_path / "lora.safetensors"
    save_lora(lora, {"diffusion_model.head.head.diff_b": torch.ones(64)})
    files = [tmp_path / f"{name}.safetensors" for name in ("ours", "converted", "merged", "base", "module")]
    convert(source, files[0])
    with pytest.raises(TypeError, match="unexpected keyword"):
        comfy.sd.load_diffusion_model(str(files[0]))
    convert(source, files[1], plain=True)
    merge(source, [lora], files[2], plain=True)
    split(source, *files[3:])
    for file, kind in zip(files[1:4], ("VaceWanModel", "VaceWanModel", "WanModel"), strict=True):
        patcher = comfy.sd.load_diffusion_model(str(file))
        assert type(patcher.model.diffusion_model).__name__ == kind


def test_comfyui_leaves_the_modulation_out(model):
    """ComfyUI 0.30 keeps patches of tables outside of layers and never applies them: the docs say so."""
    import comfy.model_management
    import comfy.sd

    names = [f"diffusion_model.{name}" for name in ("head.modulation", "blocks.0.modulation")]
    tensors = {f"{name}.diff": torch.ones_like(model.model.state_dict()[name]) for name in names}
    tensors["diffusion_model.head.head.diff_b"] = torch.ones_like(model.model.diffusion_model.head.head.bias)
    patched = comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0)[0]
    assert {*names, "diffusion_model.head.head.bias"} == patched.patches.keys()
    before = {key: value.clone() for key, value in model.model.state_dict().items()}
    comfy.model_management.load_models_gpu([patched])
    try:
        changed = {
            key for key, value in patched.model.state_dict().items() if not torch.equal(value, before[key])
        }
    finally:
        patched.unpatch_model()
    assert changed == {"diffusion_model.head.head.bias"}
