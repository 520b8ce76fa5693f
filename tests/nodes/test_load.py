"""VDOTLoadModel: every published layout as a native MODEL on which ComfyUI's own model nodes work."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.nodes.conftest import NATIVE_CONFIG
from tests.support.pack import submodule


@pytest.fixture(scope="module")
def load(run, model_folder):
    """load('name', ...) runs the node and returns the MODEL."""

    def call(name, weight_dtype="default", **optional):
        return run("VDOTLoadModel", model_name=name, weight_dtype=weight_dtype, **optional).args[0]

    return call


@pytest.fixture(scope="module")
def inputs(comfy):
    """Arguments of a Wan network."""
    generator = torch.Generator().manual_seed(1)
    context = torch.randn(1, 1, 96, 3, 4, 6, generator=generator)
    return {
        "x": torch.randn(1, 16, 3, 4, 6, generator=generator),
        "timestep": torch.tensor([941.0]),
        "context": torch.randn(1, 12, 4096, generator=generator),
        "vace_context": context,
        "vace_strength": [1.0],
    }


def velocity(model, inputs):
    """One call of a model's network, patched as for sampling."""
    import comfy.model_management

    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model], force_patch_weights=True)
        network = model.model.diffusion_model
        dtype = model.model.get_dtype_inference()
        cast = {
            key: value.to(dtype) if key in ("x", "context", "vace_context") else value
            for key, value in inputs.items()
        }
        return network(**cast).float()


@pytest.fixture(scope="module")
def expected(comfy, models_dir, inputs):
    """ComfyUI's own loader and network on the same weights."""
    import comfy.sd

    return velocity(comfy.sd.load_diffusion_model(str(models_dir / "plain_vace.safetensors")), inputs)


@pytest.fixture(scope="module")
def layouts(models_dir, native_state):
    """The same weights as a folder of shards, in diffusers' names, as a split VACE module, and scaled fp8."""
    names = sorted(native_state)
    folder = models_dir / "sharded"
    folder.mkdir(exist_ok=True)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    index = {"metadata": {}, "weight_map": {}}
    for number, part in enumerate(halves, 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: native_state[name] for name in part}, folder / file)
        index["weight_map"].update(dict.fromkeys(part, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    is_vace = [name.startswith("vace_") for name in names]
    save_file(
        {n: native_state[n] for n, v in zip(names, is_vace, strict=True) if v},
        models_dir / "module.safetensors",
    )
    save_file(
        {n: native_state[n] for n, v in zip(names, is_vace, strict=True) if not v},
        models_dir / "t2v.safetensors",
    )
    scaled = {"scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn)}
    for name, value in native_state.items():
        scaled[name] = value
        if name.endswith("weight") and value.ndim == 2 and "blocks." in name:
            factor = value.abs().amax() / 448
            scaled[name] = (value / factor).to(torch.float8_e4m3fn)
            scaled[name.replace(".weight", ".scale_weight")] = factor.reshape(1)
    save_file(scaled, models_dir / "scaled_fp8.safetensors")
    import folder_paths

    folder_paths.filename_list_cache.clear()


def test_list_offers_files_and_folders(layouts, model_folder):
    names = submodule("nodes.comfy_files").list_checkpoints()
    assert {"sharded/", "plain_vace.safetensors", "vdot_release.pt"} <= set(names)
    assert not [name for name in names if "-of-" in name], "a single shard cannot be loaded"


@pytest.mark.parametrize(
    ("name", "optional"),
    [
        ("plain_vace.safetensors", {}),
        ("vdot_meta.safetensors", {}),
        ("vdot_release.pt", {}),
        ("sharded/", {}),
        ("t2v.safetensors", {"vace_name": "module.safetensors"}),
        ("plain_vace.safetensors", {"network": "comfyui"}),
        ("vdot_meta.safetensors", {"network": "comfyui"}),
    ],
)
def test_every_layout_gives_the_same_velocity(layouts, load, inputs, expected, name, optional):
    model = load(name, **optional)
    kind = "VaceWanModel" if optional.get("network") == "comfyui" else "ComfyWanVace"
    assert type(model.model.diffusion_model).__name__ == kind
    torch.testing.assert_close(velocity(model, inputs), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("weight_dtype", "dtype", "tolerance"),
    [
        ("bf16", torch.bfloat16, 0.03),
        ("fp16", torch.float16, 0.01),
        ("fp8_e4m3fn", torch.float8_e4m3fn, 0.2),
        ("fp8_e5m2", torch.float8_e5m2, 0.3),
    ],
)
def test_weight_dtypes(load, inputs, expected, weight_dtype, dtype, tolerance):
    model = load("plain_vace.safetensors", weight_dtype)
    assert model.model.diffusion_model.blocks[0].ffn[0].weight.dtype == dtype
    error = (velocity(model, inputs) - expected).norm() / expected.norm()
    assert error < tolerance


@pytest.mark.parametrize(("weight_dtype", "more_bytes"), [("bf16", 2), ("fp32", 0)])
def test_memory_of_float32_tokens_is_counted(load, weight_dtype, more_bytes):
    ours, native = (
        load("plain_vace.safetensors", weight_dtype, network=name).model for name in ("vdot", "comfyui")
    )
    for model in (ours, native):
        model.manual_cast_dtype = None  # compute in the dtype of the weights, as GPUs do
    shape = (2, 16, 3, 8, 10)
    tokens = 2 * 3 * 4 * 5
    more = ours.memory_required(shape) - native.memory_required(shape)
    # The video's tokens and those of a context.
    assert more == pytest.approx(2 * tokens * NATIVE_CONFIG["dim"] * more_bytes, abs=1)


@pytest.mark.parametrize("network", ["vdot", "comfyui"])
def test_scaled_fp8_stays_fp8_and_is_read_right(layouts, load, inputs, expected, network):
    model = load("scaled_fp8.safetensors", network=network)
    weight = model.model.diffusion_model.blocks[0].ffn[0].weight
    assert weight.numel() * 1 == NATIVE_CONFIG["dim"] * NATIVE_CONFIG["ffn_dim"]
    assert "float8" in str(getattr(weight, "_qdata", weight).dtype)
    error = (velocity(model, inputs) - expected).norm() / expected.norm()
    assert error < 0.2


def test_text_only_model(layouts, load, run, text):
    model = load("t2v.safetensors")
    assert type(model.model).__name__ == "VDOTTextModel"
    settings = {"preset": "released", "steps": 4, "shift": 16.0, "solver": "unipc"}
    latent = {"samples": torch.zeros(1, 16, 2, 4, 4)}
    out = run("VDOTSampler", model=model, positive=text, latent=latent, seed=0, **settings).args[0]
    assert bool(out["samples"].isfinite().all())


def test_comfyui_s_network_refuses_uneven_vace_layers(pack):
    config = submodule("vdot_core.networks").WanVaceConfig(128, 256, 2, 4, vace_layers=(0, 1))
    with pytest.raises(ValueError, match=r"expects \(0, 2\)"):
        submodule("nodes.comfy_loading").check_comfyui_network(config)


def test_lora_loader_works(load, inputs, expected, native_state):
    import comfy.sd

    model = load("vdot_release.pt")
    names = ["blocks.1.self_attn.q", "vace_blocks.0.ffn.0", "blocks.0.ffn.2"]
    lora, merged = {}, dict(native_state)
    for name in names:
        out, into = native_state[f"{name}.weight"].shape
        up, down = torch.randn(out, 2) * 0.1, torch.randn(2, into) * 0.1
        lora[f"diffusion_model.{name}.lora_up.weight"], lora[f"diffusion_model.{name}.lora_down.weight"] = (
            up,
            down,
        )
        merged[f"{name}.weight"] = native_state[f"{name}.weight"] + 0.7 * up @ down
    patched, _ = comfy.sd.load_lora_for_models(model, None, lora, 0.7, 0)
    assert len(patched.patches) == 3
    changed = velocity(patched, inputs)
    reference = comfy.sd.load_diffusion_model_state_dict(merged)
    torch.testing.assert_close(changed, velocity(reference, inputs), atol=1e-3, rtol=1e-3)
    assert not torch.allclose(changed, expected, atol=1e-2)
    torch.testing.assert_close(
        velocity(model, inputs), expected, atol=1e-4, rtol=1e-4, msg="the LoRA stayed on"
    )


def test_model_sampling_node_works(load):
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    model = load("vdot_meta.safetensors")
    shifted = ModelSamplingSD3().patch(model, 5.0)[0]
    assert shifted.get_model_object("model_sampling").shift == 5.0
    assert model.get_model_object("model_sampling").shift == 8.0
    submodule("nodes.comfy_checks").check_model(shifted)


def test_torch_compile_node_s_wrapper_works(load, inputs, run, text):
    from comfy.ldm.modules.attention import attention_pytorch
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    model = load("vdot_meta.safetensors").clone()
    # ComfyUI's attention for CPUs reads /proc/meminfo, which cannot be traced; on a GPU it is torch's own.
    override = {"optimized_attention_override": lambda _, *args, **kwargs: attention_pytorch(*args, **kwargs)}
    model.model_options["transformer_options"].update(override)
    compiled = model.clone()
    set_torch_compile_wrapper(model=compiled, backend="eager")
    settings = {"preset": "released", "steps": 4, "shift": 16.0, "solver": "unipc", "seed": 0}
    latent = {"samples": torch.zeros(1, 16, 1, 4, 4)}
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    plain, fast = (
        run("VDOTSampler", model=each, positive=text, latent=latent, **settings).args[0]["samples"]
        for each in (model, compiled)
    )
    torch.testing.assert_close(fast, plain, atol=1e-3, rtol=1e-3)
    stats = torch._dynamo.utils.counters["stats"]
    assert stats["unique_graphs"] == 1, "the network is one graph, and four steps compile it once"


def test_offloaded_weights_give_the_same(load, inputs, expected):
    model = load("vdot_meta.safetensors")
    with torch.inference_mode():
        model.load(torch.device("cpu"), lowvram_model_memory=1)
        cast = [m for m in model.model.diffusion_model.modules() if getattr(m, "comfy_cast_weights", False)]
        assert len(cast) > 20, "hardly any layer is offloaded"
        torch.testing.assert_close(model.model.diffusion_model(**inputs), expected, atol=1e-4, rtol=1e-4)
        model.detach()


def test_patcher_can_be_made_again(load, inputs, expected):
    """A loader supports ComfyUI's multi-GPU and hook code."""
    model = load("vdot_release.pt")
    function, arguments = model.cached_patcher_init[:2]
    again = function(*arguments, disable_dynamic=True)
    assert again.model is not model.model
    torch.testing.assert_close(velocity(again, inputs), expected, atol=1e-4, rtol=1e-4)


def test_ordinary_wan_files_are_left_alone(node_classes, models_dir):
    import comfy.model_detection

    state = load_file(models_dir / "plain_vace.safetensors")
    plain = comfy.model_detection.model_config_from_unet(state, "")
    assert type(plain).__name__ == "WAN21_Vace"
    other = {"config": json.dumps({"transformer": {"eps": 1e-6}})}
    assert (
        type(comfy.model_detection.model_config_from_unet(state, "", metadata=other)).__name__ == "WAN21_Vace"
    )


def test_registering_twice_changes_nothing(node_classes):
    import comfy.supported_models

    before = len(comfy.supported_models.models)
    submodule("nodes.comfy_bridge").register_network()
    assert len(comfy.supported_models.models) == before


def test_bad_files_say_what_to_do(load, layouts, models_dir, model_folder):
    with pytest.raises(ValueError, match=r"model_name is 'missing\.safetensors'.*refresh"):
        load("missing.safetensors")
    save_file({"lora.up.weight": torch.zeros(4, 4)}, models_dir / "other.safetensors")
    with pytest.raises(ValueError, match="Wan"):
        load("other.safetensors")
    with pytest.raises(ValueError, match="VACE"):
        load("module.safetensors")
    (models_dir / "broken.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(ValueError, match="broken"):
        load("broken.safetensors")


def test_loading_says_what_was_loaded(run, model_folder):
    out = run("VDOTLoadModel", model_name="vdot_release.pt", weight_dtype="default")
    assert "VACE model" in out.ui["text"][0] and "float32" in out.ui["text"][0]


def test_a_model_of_newer_controls_is_refused(load, models_dir):
    """Its controls would be drawn otherwise than it learned them, in silence."""
    source = models_dir / "plain_vace.safetensors"
    save_file(load_file(source), models_dir / "newer.safetensors", {"control_conventions": "99"})
    with pytest.raises(ValueError, match="controls of version '99'"):
        load("newer.safetensors")
