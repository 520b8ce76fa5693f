"""Every published layout is recognized and loads to the same bits under Wan's names."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file

from tests.core.checkpoints.helpers import (
    TINY,
    TINY_TEXT,
    assert_same,
    is_vace,
    prefixed,
    wan_json,
    weights_of,
    write_shards,
)
from tests.core.networks.helpers import inputs, randomize, relative
from tests.support.watch import check_refusal
from vdot_core.checkpoints import inspect, load_network, read_weights

EXTRA = {"critic": {"w": torch.ones(3)}, "step": 7, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}


def scatter_wrappers(weights):
    """Names as FSDP leaves them: its mark at any depth."""
    named = {}
    for number, (name, value) in enumerate(weights.items()):
        parts = name.split(".")
        at = number % len(parts)
        parts.insert(at, "_fsdp_wrapped_module")
        if number % 3 == 0:
            parts.insert(0, "_fsdp_wrapped_module")
        named[".".join(parts)] = value
    return named


SINGLE_FILES = {
    "wan.safetensors": ("wan", lambda w, p: save_file(w, p)),
    "wan.pth": ("wan", lambda w, p: torch.save(w, p)),
    "legacy.pth": ("wan", lambda w, p: torch.save(w, p, _use_new_zipfile_serialization=False)),
    "comfy_full.safetensors": ("comfyui", lambda w, p: save_file(prefixed(w, "model.diffusion_model."), p)),
    "comfy.safetensors": ("comfyui", lambda w, p: save_file(prefixed(w, "diffusion_model."), p)),
    "vdot_14b.pt": ("vdot-pt", lambda w, p: torch.save({"generator": prefixed(w, "model.")}, p)),
    "fsdp.pt": (
        "vdot-pt",
        lambda w, p: torch.save({"generator": prefixed(scatter_wrappers(w), "model.")}, p),
    ),
    "fsdp_outer.pt": (
        "vdot-pt",
        lambda w, p: torch.save({"generator": scatter_wrappers(prefixed(w, "model."))} | EXTRA, p),
    ),
    "trainer.pt": ("vdot-pt", lambda w, p: torch.save(EXTRA | {"generator": prefixed(w, "model.")}, p)),
    "parameters.pt": (
        "vdot-pt",
        lambda w, p: torch.save({"generator": {k: torch.nn.Parameter(v) for k, v in w.items()}}, p),
    ),
}


@pytest.mark.parametrize("name", SINGLE_FILES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn], ids=["bf16", "fp8"])
def test_single_files(tmp_path, name, dtype):
    layout, write = SINGLE_FILES[name]
    weights = weights_of(dtype=dtype)
    write(weights, tmp_path / name)
    if name == "legacy.pth" and dtype.itemsize == 1:
        with pytest.raises(ValueError, match="not a readable weight file"):  # torch itself cannot read it
            inspect(tmp_path / name)
        return
    info = inspect(tmp_path / name, config=TINY)
    assert (info.layout, info.config, info.problem) == (layout, TINY, "")
    assert info.num_parameters == sum(value.numel() for value in weights.values())
    assert info.dtypes == {str(dtype).removeprefix("torch."): info.num_parameters}
    assert info.files == (tmp_path / name,)
    read = read_weights(tmp_path / name, config=TINY)
    assert_same(read.state_dict, weights)
    network = load_network(tmp_path / name, config=TINY)
    assert_same(dict(network.state_dict()), weights)
    assert not network.training and network.config == TINY


def test_all_in_one_checkpoint_takes_the_transformer(tmp_path):
    weights = weights_of()
    others = {"vae.encoder.conv1.weight": torch.ones(2), "text_encoders.umt5.shared.weight": torch.ones(2)}
    save_file({**prefixed(weights, "model.diffusion_model."), **others}, tmp_path / "all.safetensors")
    assert_same(read_weights(tmp_path / "all.safetensors", config=TINY).state_dict, weights)


@pytest.mark.parametrize("give", ["folder", "index", "shard", "parent"])
def test_original_shards(tmp_path, give):
    """As Wan ships its own: original names, an index, Wan's config.json, other weights in the folder."""
    weights = weights_of()
    folder = write_shards(tmp_path / "repo" / "transformer", weights)
    (folder / "config.json").write_text(json.dumps(wan_json(TINY)))
    torch.save({"x": torch.ones(2)}, folder / "models_t5_umt5-xxl-enc-bf16.pth")
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    shard = folder / "diffusion_pytorch_model-00002-of-00003.safetensors"
    path = {"folder": folder, "index": index, "shard": shard, "parent": folder.parent}[give]
    info = inspect(path)
    assert (info.layout, info.config, len(info.files), info.problem) == ("wan", TINY, 3, "")
    assert_same(read_weights(path).state_dict, weights)


def test_shards_that_are_links_as_in_a_download_cache(tmp_path):
    weights = weights_of()
    blobs = write_shards(tmp_path / "blobs", weights)
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(file)
    assert_same(read_weights(snapshot, config=TINY).state_dict, weights)


@pytest.mark.parametrize("config", [TINY, TINY_TEXT], ids=["vace", "text"])
@pytest.mark.parametrize("shard_size", ["5GB", "60KB"], ids=["one", "sharded"])
def test_diffusers_models(tmp_path, config, shard_size):
    """A real diffusers model, saved by diffusers: our network gives its output, and reads its config."""
    from diffusers import WanTransformer3DModel, WanVACETransformer3DModel

    sizes = {
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.head_dim,
        "text_dim": config.text_dim,
        "freq_dim": config.freq_dim,
        "ffn_dim": config.ffn_dim,
        "num_layers": config.num_layers,
    }
    if config.vace_layers:
        peer = WanVACETransformer3DModel(**sizes, vace_layers=list(config.vace_layers))
    else:
        peer = WanTransformer3DModel(**sizes)
    randomize(peer)
    peer.save_pretrained(tmp_path / "transformer", max_shard_size=shard_size)
    info = inspect(tmp_path)
    assert info.layout == "diffusers" and info.problem == ""
    assert (len(info.files) > 1) == (shard_size != "5GB")
    assert info.config.to_dict() == {**config.to_dict(), "text_len": 512}

    network = load_network(tmp_path)
    x, timestep, text, contexts = inputs(config)
    arguments = {
        "hidden_states": x,
        "timestep": timestep,
        "encoder_hidden_states": text,
        "return_dict": False,
    }
    if config.vace_layers:
        arguments["control_hidden_states"] = contexts[:, 0]
        arguments["control_hidden_states_scale"] = torch.ones(len(config.vace_layers))
    with torch.no_grad():
        got = network(x, timestep, text, contexts if config.vace_layers else None)
        assert relative(got, peer(**arguments)[0]) < 1e-5
        peer.blocks[2].attn2.to_k.weight.mul_(1.5)
        assert relative(got, peer(**arguments)[0]) > 1e-4  # the comparison notices one wrong tensor


def test_base_and_module(tmp_path):
    """Two files: a T2V network in one, only vace_* keys in the other; as a pair or by `vace`."""
    weights = weights_of()
    base, module = tmp_path / "t2v.safetensors", tmp_path / "Wan2_1-VACE_module_14B_bf16.safetensors"
    save_file({n: v for n, v in weights.items() if not is_vace(n)}, base)
    save_file({n: v for n, v in weights.items() if is_vace(n)}, module)
    info = inspect(base, vace=module, config=TINY)
    assert info.layout == "wan + vace-module" and info.files == (base, module) and info.problem == ""
    assert info.num_parameters == sum(value.numel() for value in weights.values())
    assert inspect((base, module), config=TINY) == info
    assert_same(read_weights((base, module), config=TINY).state_dict, weights)
    assert_same(dict(load_network(base, vace=module, config=TINY).state_dict()), weights)

    alone = inspect(module)
    assert (
        alone.layout == "vace-module" and "holds only the VACE module; give the T2V network" in alone.problem
    )
    with pytest.raises(ValueError, match="only the VACE module"):
        read_weights(module)
    with pytest.raises(ValueError, match="swapped"):
        read_weights(module, vace=base, config=TINY)
    i2v = {name: value for name, value in weights.items() if not is_vace(name)}
    save_file({**i2v, "img_emb.proj.0.bias": torch.ones(1)}, tmp_path / "i2v.safetensors")
    with pytest.raises(ValueError, match=r"image-to-video network \(I2V\).*give the T2V network of the same"):
        read_weights(tmp_path / "i2v.safetensors", vace=module, config=TINY)
    other = weights_of(dataclasses.replace(TINY, dim=48, num_layers=6, vace_layers=(0, 2, 4)))
    save_file({n: v for n, v in other.items() if is_vace(n)}, tmp_path / "wide.safetensors")
    with pytest.raises(
        ValueError, match=r"different size \(widths 24 and 48\); give the VACE module of the same"
    ):
        read_weights(base, vace=tmp_path / "wide.safetensors")
    save_file(weights, tmp_path / "whole.safetensors")
    with pytest.raises(ValueError, match="has a VACE branch already"):
        read_weights(tmp_path / "whole.safetensors", vace=module, config=TINY)
    with pytest.raises(ValueError, match=r"give \(base, vace\)"):
        read_weights((base, module, module))


def test_base_in_diffusers_names_and_prefixed_module(tmp_path):
    """The two halves may come from different publishers; the base's own config is completed."""
    from diffusers import WanTransformer3DModel

    peer = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, text_dim=12, freq_dim=8, ffn_dim=40, num_layers=4
    )
    peer.save_pretrained(tmp_path / "base")
    vace = {name: value for name, value in weights_of().items() if is_vace(name)}
    save_file(prefixed(vace, "model.diffusion_model."), tmp_path / "vace.safetensors")
    read = read_weights(tmp_path / "base", vace=tmp_path / "vace.safetensors")
    assert read.config.vace_layers == (0, 2) and read.info.layout == "diffusers + vace-module"
    assert_same({n: v for n, v in read.state_dict.items() if is_vace(n)}, vace)
    assert torch.equal(read.state_dict["blocks.3.ffn.2.weight"], peer.blocks[3].ffn.net[2].weight)


@pytest.mark.parametrize("keys", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_scaled_fp8(tmp_path, keys, per_channel):
    """Both publishers' key names; expanded where a dtype is given, refused with what to do where none is."""
    weights = weights_of(dtype=torch.float32)
    stored, expected = {}, {}
    for name, value in weights.items():
        if value.ndim == 2 and ".self_attn." in name:
            scale = value.abs().amax(1) / 448 if per_channel else value.abs().max() / 448
            column = scale[:, None] if per_channel else scale
            stored[name] = (value / column).to(torch.float8_e4m3fn)
            stored[name.replace(".weight", f".{keys}")] = column.clone() if keys == "weight_scale" else scale
            expected[name] = (stored[name].float() * column).to(torch.bfloat16)
        else:
            stored[name] = expected[name] = value.to(torch.bfloat16)
    if keys == "scale_weight":
        stored["scaled_fp8"] = torch.empty(0, dtype=torch.float8_e4m3fn)
        stored["blocks.0.self_attn.q.scale_input"] = torch.ones(())
    else:
        stored["blocks.0.self_attn.q.comfy_quant"] = torch.tensor(list(b"{}"), dtype=torch.uint8)
    path = tmp_path / "scaled.safetensors"
    save_file(prefixed(stored, "model.diffusion_model."), path)
    info = inspect(path, config=TINY)
    assert (
        info.encoded_as == "scaled fp8"
        and info.problem == ""
        and info.num_parameters == sum(v.numel() for v in weights.values())
    )
    assert_same(read_weights(path, config=TINY, dtype=torch.bfloat16).state_dict, expected)
    with pytest.raises(ValueError, match=r"quantized weights \(scaled fp8\).*give dtype=torch.bfloat16"):
        load_network(path, config=TINY)
    error = (
        (expected["blocks.1.self_attn.v.weight"].float() - weights["blocks.1.self_attn.v.weight"]).abs().max()
    )
    assert error < 0.1 * weights["blocks.1.self_attn.v.weight"].abs().max()


@pytest.mark.parametrize(
    ("kind", "by_metadata"),
    [("nvfp4", False), ("mxfp8", False), ("convrot_w4a4", True)],
)
def test_formats_of_comfyui_are_recognized_and_left_to_it(tmp_path, kind, by_metadata):
    """Shapes are those of the values, and settings tell what dtypes cannot."""
    stored, layers = weights_of(), {}
    for name in [name for name in stored if ".ffn." in name and name.endswith("weight")]:
        rows, columns = stored[name].shape
        layer = name.removesuffix(".weight")
        if kind in ("nvfp4", "convrot_w4a4"):
            dtype = torch.uint8 if kind == "nvfp4" else torch.int8
            stored[name] = torch.ones(rows, columns // 2, dtype=dtype)
        else:
            stored[name] = torch.ones(rows, columns).to(torch.float8_e4m3fn)
        blocks = (rows, -(-columns // 32)) if kind == "mxfp8" else (rows, 1)
        stored[f"{layer}.weight_scale"] = torch.ones(blocks, dtype=torch.uint8 if kind == "mxfp8" else None)
        if kind == "nvfp4":
            stored[f"{layer}.weight_scale_2"] = torch.ones(())
        layers[layer] = {"format": kind}
        if kind == "mxfp8":
            text = json.dumps(layers[layer]).encode()
            stored[f"{layer}.comfy_quant"] = torch.tensor(list(text), dtype=torch.uint8)
    table = {"_quantization_metadata": json.dumps({"layers": layers})} if by_metadata else None
    path = tmp_path / "packed.safetensors"
    save_file(stored, path, metadata=table)
    info = inspect(path, config=TINY)
    assert info.problem == "" and info.formats == (kind,) and not info.encodings
    assert info.num_parameters == sum(value.numel() for value in weights_of().values())
    with pytest.raises(ValueError, match=f"quantized as {kind}, which only ComfyUI reads: open it with VDOT"):
        read_weights(path, config=TINY, dtype=torch.bfloat16)


def test_damaged_quantization_settings_are_refused(tmp_path):
    layer = "blocks.0.ffn.0"
    for settings in (b"[]", b"{", b" " * 20_000):
        stored = weights_of()
        stored[f"{layer}.comfy_quant"] = torch.tensor(list(settings), dtype=torch.uint8)
        save_file(stored, tmp_path / "w.safetensors")
        check_refusal(inspect(tmp_path / "w.safetensors", config=TINY).problem)


FP8, NVFP4 = torch.zeros(40, 24, dtype=torch.float8_e4m3fn), torch.zeros(40, 12, dtype=torch.uint8)
INT8, ONE = torch.zeros(40, 24, dtype=torch.int8), torch.ones(())
FALSE_FORMS = {
    "format is a list": (FP8, {"format": []}, {"weight_scale": ONE}),
    "format is a table": (FP8, {"format": {"a": 1}}, {"weight_scale": ONE}),
    "fp8 without its scale": (FP8, {}, {"weight_scale_2": ONE}),
    "nvfp4 without its first scale": (NVFP4, {"format": "nvfp4"}, {"weight_scale_2": ONE}),
    "nvfp4 without its second scale": (NVFP4, {"format": "nvfp4"}, {"weight_scale": torch.ones(40, 1)}),
    "nvfp4 with too few scales": (
        NVFP4,
        {"format": "nvfp4"},
        {"weight_scale": torch.ones(3), "weight_scale_2": ONE},
    ),
    "mxfp8 with too few scales": (FP8, {"format": "mxfp8"}, {"weight_scale": torch.ones(3).byte()}),
    "int8 with too few scales": (INT8, {"format": "int8_tensorwise"}, {"weight_scale": torch.ones(3)}),
    "int8 of float numbers": (torch.zeros(40, 24), {"format": "int8_tensorwise"}, {"weight_scale": ONE}),
    "a single fp8 number": (FP8[0, 0].clone(), {}, {"weight_scale": ONE}),
    "a single nvfp4 number": (NVFP4[0, 0].clone(), {"format": "nvfp4"}, {"weight_scale": ONE}),
    "several input scales": (FP8, {}, {"weight_scale": ONE, "input_scale": torch.ones(5)}),
    "groups that are text": (
        INT8,
        {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": "x"},
        {"weight_scale": ONE},
    ),
    "groups that do not fit": (
        INT8,
        {"format": "int8_tensorwise", "params": {"convrot": True, "convrot_groupsize": 7}},
        {"weight_scale": ONE},
    ),
}


@pytest.mark.parametrize("kind", FALSE_FORMS)
def test_quantized_layers_that_do_not_fit_their_format_are_refused(tmp_path, kind):
    weight, settings, parts = FALSE_FORMS[kind]
    layer, stored = "blocks.0.ffn.0", weights_of()
    stored[f"{layer}.weight"] = weight
    stored |= {f"{layer}.{part}": value for part, value in parts.items()}
    text = json.dumps(settings).encode()
    stored[f"{layer}.comfy_quant"] = torch.tensor(list(text), dtype=torch.uint8)
    save_file(stored, tmp_path / "w.safetensors")
    problem = inspect(tmp_path / "w.safetensors", config=TINY).problem
    check_refusal(problem)
    assert layer in problem, problem


def test_dtype_is_the_networks_own(tmp_path):
    """As WanVace(config, dtype=...) builds it: bf16, with the patch embeddings in float32."""
    from vdot_core.networks import WanVace

    weights = weights_of(dtype=torch.float32)
    save_file(weights, tmp_path / "w.safetensors")
    network = load_network(tmp_path / "w.safetensors", config=TINY, dtype=torch.bfloat16)
    fresh = WanVace(TINY, dtype=torch.bfloat16)
    assert {n: p.dtype for n, p in network.named_parameters()} == {
        n: p.dtype for n, p in fresh.named_parameters()
    }
    assert torch.equal(network.patch_embedding.weight, weights["patch_embedding.weight"])
    assert torch.equal(
        network.blocks[1].self_attn.q.weight, weights["blocks.1.self_attn.q.weight"].bfloat16()
    )
    x, timestep, text, contexts = inputs(TINY)
    assert torch.isfinite(network(x, timestep, text, contexts)).all()


def test_changing_a_loaded_network_never_changes_the_file(tmp_path):
    for name in ("w.safetensors", "w.pt", "old.pt"):
        path, weights = tmp_path / name, weights_of()
        if name == "w.safetensors":
            save_file(weights, path)
        else:
            torch.save(weights, path, _use_new_zipfile_serialization=name == "w.pt")
        before = path.read_bytes()
        network = load_network(path, config=TINY)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
        assert path.read_bytes() == before
        assert_same(read_weights(path, config=TINY).state_dict, weights)


def test_comfyui_operations(tmp_path, comfy):
    """ComfyUI's layers take the weights, and cast them at use."""
    import comfy.ops

    save_file(weights_of(dtype=torch.float16), tmp_path / "w.safetensors")
    network = load_network(tmp_path / "w.safetensors", config=TINY, operations=comfy.ops.manual_cast)
    assert isinstance(network.blocks[0].self_attn.q, comfy.ops.manual_cast.Linear)
    assert network.blocks[0].self_attn.q.weight.dtype == torch.float16
