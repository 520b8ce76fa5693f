"""VDOT Load Model opens every quantized form that ComfyUI's layers read: our network against ComfyUI's."""

import ctypes
import json
import math
import mmap
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.core.checkpoints.helpers import write_gguf
from tests.nodes.small_models import lora_of, quantized
from tests.nodes.test_load import expected, inputs, load, velocity
from tests.support.pack import submodule

__all__ = ["expected", "inputs", "load"]

FORMATS = ("float8_e4m3fn", "float8_e5m2", "int8_tensorwise", "nvfp4", "mxfp8", "convrot_w4a4")
# Matrix products of int8 round the tokens too, so that a difference in their last bit can become one step.
# Processors with AVX2 alone round products of int8 more coarsely (2.5e-3 seen).
TOLERANCES = {"int8_tensorwise": 4e-3, "convrot_w4a4": 4e-3}


@pytest.fixture(scope="module")
def forms(models_dir, native_state):
    """A file of each form in the model folder."""
    import folder_paths

    for kind in FORMATS:
        save_file(quantized(native_state, kind), models_dir / f"{kind}.safetensors")
    folder_paths.filename_list_cache.clear()
    return models_dir


def relative(result, expected):
    return float((result - expected).norm() / expected.norm())


@pytest.mark.parametrize("kind", FORMATS)
def test_our_network_equals_comfyui_s_on_the_same_file(forms, load, inputs, kind):
    import comfy.sd

    name = f"{kind}.safetensors"
    with torch.inference_mode():
        stock = velocity(comfy.sd.load_diffusion_model(str(forms / name)), inputs)
    for network in ("vdot", "comfyui"):
        model = load(name, network=network)
        weight = model.model.diffusion_model.blocks[0].ffn[0].weight
        assert weight.nbytes <= weight.numel() and type(weight).__name__ == "QuantizedTensor"
        assert relative(velocity(model, inputs), stock) <= TOLERANCES.get(kind, 5e-6)


GGUF_KINDS = ("Q8_0", "Q5_1", "Q4_0", "BF16", "F16")


@pytest.fixture(scope="module")
def gguf_forms(models_dir, native_state):
    """A GGUF file of each kind, and the same values as plain safetensors."""
    import folder_paths
    import gguf

    for kind in GGUF_KINDS:
        path = write_gguf(models_dir / f"vace_{kind}.gguf", native_state, kind)
        values = {
            tensor.name: torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
            for tensor in gguf.GGUFReader(path).tensors
        }
        values = {name: value.reshape(native_state[name].shape) for name, value in values.items()}
        save_file(values, models_dir / f"values_{kind}.safetensors")
    save_file(part(native_state, False), models_dir / "t2v_only.safetensors")
    write_gguf(models_dir / "t2v.gguf", part(native_state, False), "Q8_0")
    module = quantized(part(native_state, True), "float8_e4m3fn")
    save_file(module, models_dir / "module_fp8.safetensors")
    folder_paths.filename_list_cache.clear()
    return models_dir


def part(state, is_vace):
    return {name: value for name, value in state.items() if name.startswith("vace_") == is_vace}


@pytest.mark.parametrize("network", ["vdot", "comfyui"])
@pytest.mark.parametrize("kind", GGUF_KINDS)
def test_gguf_gives_the_values_of_the_gguf_package(gguf_forms, load, inputs, kind, network):
    expected = velocity(load(f"values_{kind}.safetensors", network=network), inputs)
    model = load(f"vace_{kind}.gguf", network=network)
    torch.testing.assert_close(velocity(model, inputs), expected, atol=1e-6, rtol=1e-5)
    weight = model.model.diffusion_model.blocks[0].ffn[0].weight
    if kind.startswith("Q"):
        assert weight.nbytes < weight.numel() * 1.1, "the blocks were decoded at loading"
        assert model.model_size() < 0.9 * load("plain_vace.safetensors").model_size()
    decoded = load(f"vace_{kind}.gguf", "fp16", network=network).model.diffusion_model.blocks[0].ffn[0].weight
    assert type(decoded) is torch.nn.Parameter and decoded.dtype == torch.float16


@pytest.mark.parametrize("weight_dtype", ["default", "bf16"])
def test_a_base_and_a_module_of_different_forms(gguf_forms, load, inputs, expected, weight_dtype):
    model = load("t2v.gguf", weight_dtype, vace_name="module_fp8.safetensors")
    assert relative(velocity(model, inputs), expected) < 0.1


@pytest.mark.parametrize("form", ["fp8_scaled", "int8", "Q8_0"])
def test_a_module_alone_in_a_form_opens_over_a_base(gguf_forms, load, inputs, expected, native_state, form):
    """In our loader, and, as KJNodes' loader adds it to the base's tensors, in ComfyUI's own."""
    import comfy.sd
    import folder_paths
    from safetensors.torch import load_file

    checkpoints = submodule("vdot_core.checkpoints")
    save_file(part(native_state, True), gguf_forms / "module.safetensors")
    path = gguf_forms / f"module_{form}.{'gguf' if form == 'Q8_0' else 'safetensors'}"
    if form == "Q8_0":
        checkpoints.convert_to_gguf(gguf_forms / "module.safetensors", path, form, overwrite=True)
    else:
        checkpoints.convert(gguf_forms / "module.safetensors", path, form=form, overwrite=True)
    folder_paths.filename_list_cache.clear()
    model = load("t2v_only.safetensors", vace_name=path.name)
    weight = model.model.diffusion_model.vace_blocks[0].ffn[0].weight
    assert weight.nbytes <= weight.numel() * 1.1, "the module was decoded at loading"
    result = velocity(model, inputs)
    assert relative(result, expected) < 0.1
    if form != "Q8_0":
        both = {**load_file(gguf_forms / "t2v_only.safetensors"), **load_file(path)}
        with torch.inference_mode():
            native = velocity(comfy.sd.load_diffusion_model_state_dict(both), inputs)
        assert relative(result, native) <= (5e-6 if form == "fp8_scaled" else TOLERANCES["int8_tensorwise"])


NAMES = ("blocks.1.self_attn.q", "vace_blocks.0.ffn.0", "blocks.0.ffn.2", "head.head")


@pytest.fixture(scope="module")
def merged_gguf(gguf_forms, load, inputs):
    """A LoRA, and the velocity of the GGUF file's values with it merged."""
    import comfy.sd
    from safetensors.torch import load_file

    lora, merged = lora_of(load_file(gguf_forms / "values_Q8_0.safetensors"), NAMES)
    save_file(merged, gguf_forms / "merged.safetensors")
    return lora, velocity(comfy.sd.load_diffusion_model(str(gguf_forms / "merged.safetensors")), inputs)


def test_lora_on_packed_weights_through_loads_offloads_and_clones(load, inputs, merged_gguf):
    """Fully loaded, partly, by a clone, taken off, put on again: each time the values with or without it."""
    import comfy.sd

    lora, expected = merged_gguf
    model = load("vace_Q8_0.gguf")
    plain = velocity(model, inputs)
    patched, _ = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0)
    assert type(patched) is type(model) and patched.model is model.model
    close = {"atol": 2e-5, "rtol": 1e-4}
    with torch.inference_mode():
        for patcher, values in ((patched, expected), (model, plain), (patched.clone(), expected)):
            torch.testing.assert_close(velocity(patcher, inputs), values, **close)
            patcher.detach()
            torch.testing.assert_close(model.model.diffusion_model(**inputs), plain, **close)
        size = model.model_size()
        for memory in (1, size // 2, 2 * size):  # nothing, a part, everything in the device's memory
            patched.load(torch.device("cpu"), lowvram_model_memory=memory)
            torch.testing.assert_close(model.model.diffusion_model(**inputs), expected, **close)
            patched.partially_unload(torch.device("cpu"), size // 4)
            torch.testing.assert_close(model.model.diffusion_model(**inputs), expected, **close)
            patched.detach()
            torch.testing.assert_close(model.model.diffusion_model(**inputs), plain, **close)


def test_packed_weights_save_and_merge_as_their_values(load, gguf_forms):
    """Nodes that save or merge models read decoded weights."""
    import comfy.sd
    from safetensors.torch import load_file

    values = load_file(gguf_forms / "values_Q8_0.safetensors")
    lora, merged = lora_of(values, NAMES)
    patched, _ = comfy.sd.load_lora_for_models(load("vace_Q8_0.gguf"), None, lora, 1.0, 0)
    key = f"diffusion_model.{NAMES[0]}.weight"
    weight = patched.patch_weight_to_device(key, return_weight=True)
    torch.testing.assert_close(weight.float(), merged[f"{NAMES[0]}.weight"], atol=1e-5, rtol=1e-5)
    weight, convert = patched.get_key_patches()[key][0]
    torch.testing.assert_close(convert(weight, inplace=True).float(), values[f"{NAMES[0]}.weight"])


def test_lora_hooks_on_packed_weights_are_refused(load, gguf_forms):
    layer = load("vace_Q8_0.gguf").model.diffusion_model.blocks[0].ffn[0]
    with pytest.raises(ValueError, match="set weight_dtype of VDOT Load Model to bf16"):
        layer.set_weight(torch.zeros(256, 128), inplace_update=True, seed=1)


DIFFUSERS_NAMES = {
    "diffusion_model.blocks.1.self_attn.q": "blocks.1.attn1.to_q",
    "diffusion_model.vace_blocks.0.ffn.0": "vace_blocks.0.ffn.net.0.proj",
    "diffusion_model.blocks.0.ffn.2": "blocks.0.ffn.net.2",
    "diffusion_model.head.head": "proj_out",
}
DIFFUSERS_ENDS = {"up.weight": "B.weight", "down.weight": "A.weight"}
TABLES = ("blocks.0.modulation", "vace_blocks.1.modulation", "head.modulation")


@pytest.fixture(scope="module")
def lora_files(forms, native_state, tmp_path_factory):
    """LoRA files in a folder of their own."""
    import folder_paths

    folder = tmp_path_factory.mktemp("loras")
    lora, merged = lora_of(native_state, NAMES)
    save_file(lora, folder / "whole.safetensors")
    of_i2v = "diffusion_model.blocks.0.cross_attn.k_img.lora_up.weight"
    foreign = {of_i2v: torch.ones(4, 2), "other.x": torch.ones(1)}
    made_from = {"ss_sd_model_name": "D:\\models\\other_vace.safetensors"}
    save_file({**lora, **foreign}, folder / "part.safetensors", made_from)
    save_file(foreign, folder / "foreign.safetensors")
    tables = {f"diffusion_model.{n}.diff": torch.randn_like(native_state[n]) for n in TABLES}
    save_file(tables, folder / "tables.safetensors")
    named = {}
    for key, value in lora.items():
        module, end = key.rsplit(".lora_", 1)
        named[f"transformer.{DIFFUSERS_NAMES[module]}.lora_{DIFFUSERS_ENDS[end]}"] = value
    # PEFT divides alpha by the rank, 2; ComfyUI's key without one has the scale 1.
    alpha = json.dumps({"transformer.lora_alpha": 4, "transformer.r": 2})
    save_file(named, folder / "named.safetensors")
    save_file(named, folder / "doubled.safetensors", {"lora_adapter_metadata": alpha})
    ranked = json.dumps({"transformer.use_rslora": True})
    save_file(named, folder / "ranked.safetensors", {"lora_adapter_metadata": ranked})
    wide, _ = lora_of({f"{name}.weight": torch.zeros(5120, 5120) for name in NAMES}, NAMES)
    save_file(wide, folder / "wide.safetensors")
    off = {f"{name}.alpha": torch.tensor(0.0) for name in (key.split(".lora_")[0] for key in lora)}
    save_file({**lora, **off}, folder / "off.safetensors")
    last = [key for key in lora if key.endswith("up.weight")][-1]
    save_file({**lora, last: torch.zeros_like(lora[last])}, folder / "partly.safetensors")
    whole = (folder / "whole.safetensors").read_bytes()
    (folder / "cut_\udce8.safetensors").write_bytes(whole[:-9])
    save_file({**lora, next(iter(lora)): lora[next(iter(lora))] * math.nan}, folder / "nan.safetensors")
    before = folder_paths.folder_names_and_paths["loras"]
    folder_paths.folder_names_and_paths["loras"] = ([str(folder)], {".safetensors"})
    folder_paths.filename_list_cache.clear()
    yield merged
    folder_paths.folder_names_and_paths["loras"] = before
    folder_paths.filename_list_cache.clear()


@pytest.mark.parametrize("network", ["vdot", "comfyui"])
def test_loras_of_the_loader_are_on_the_model(lora_files, load, run, inputs, models_dir, network):
    import comfy.sd

    merged = velocity(comfy.sd.load_diffusion_model_state_dict(dict(lora_files)), inputs)
    arguments = {"model_name": "plain_vace.safetensors", "weight_dtype": "default", "network": network}
    # Half of it twice is all of it, and one at strength 0 is none.
    chosen = {"lora_1": "whole.safetensors", "lora_1_strength": 0.5, "lora_3": "part.safetensors"}
    chosen |= {"lora_3_strength": 0.5, "lora_2": "foreign.safetensors", "lora_2_strength": 0.0}
    out = run("VDOTLoadModel", **arguments, **chosen)
    torch.testing.assert_close(velocity(out.args[0], inputs), merged, atol=1e-4, rtol=1e-4)
    assert out.ui["text"][1:] == [
        "whole.safetensors at 0.5: 4 weights",
        "foreign.safetensors at 0: off",
        "part.safetensors at 0.5: 4 weights, 2 of 10 keys not of this network left out, made from "
        "other_vace.safetensors, and the model is plain_vace.safetensors: right if these are one network",
    ]


@pytest.mark.parametrize(("name", "strength"), [("named.safetensors", 1.0), ("doubled.safetensors", 0.5)])
def test_a_lora_of_diffusers_is_that_of_comfyui(lora_files, load, inputs, name, strength):
    """Its alpha, which diffusers keeps in the header, included."""
    expected = velocity(load("plain_vace.safetensors", lora_1="whole.safetensors"), inputs)
    model = load("plain_vace.safetensors", lora_1=name, lora_1_strength=strength)
    torch.testing.assert_close(velocity(model, inputs), expected, atol=1e-6, rtol=1e-6)


def test_a_lora_that_changes_nothing_says_so(lora_files, run):
    arguments = {"model_name": "plain_vace.safetensors", "weight_dtype": "default"}
    out = run("VDOTLoadModel", **arguments, lora_1="off.safetensors", lora_2="partly.safetensors")
    assert out.ui["text"][1:] == [
        "off.safetensors at 1: 4 weights, which change nothing (an alpha of 0, or factors of zeros): "
        "download the file again",
        "partly.safetensors at 1: 4 weights, 1 of them zeros",
    ]


@pytest.mark.parametrize("network", ["vdot", "comfyui"])
def test_changes_of_modulation_tables_are_on_the_model_and_end_with_it(
    lora_files, native_state, load, inputs, network
):
    """ComfyUI's own LoRA loader leaves them out."""
    import comfy.model_management
    import comfy.sd
    import folder_paths
    from safetensors.torch import load_file

    merged = dict(native_state)
    for key, change in load_file(folder_paths.get_full_path("loras", "tables.safetensors")).items():
        name = key.removeprefix("diffusion_model.").removesuffix(".diff")
        merged[name] = merged[name] + 0.5 * change
    chosen = {"lora_1": "tables.safetensors", "lora_1_strength": 0.2}
    chosen |= {"lora_2": "tables.safetensors", "lora_2_strength": 0.3}
    model = load("plain_vace.safetensors", network=network, **chosen)
    expected = velocity(comfy.sd.load_diffusion_model_state_dict(dict(merged)), inputs)
    torch.testing.assert_close(velocity(model, inputs), expected, atol=1e-4, rtol=1e-4)
    model.unpatch_model()
    after, before = (one.model.state_dict() for one in (model, load("plain_vace.safetensors")))
    for name in (f"diffusion_model.{table}" for table in TABLES):
        assert torch.equal(after[name], before[name]), name


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("foreign.safetensors", r"nothing of the LoRA foreign\.safetensors fits this model; give"),
        (
            "wide.safetensors",
            r"wide\.safetensors fits this model; all 4 weights are of another size; give",
        ),
        ("cut_\udce8.safetensors", r"cut_\\udce8\.safetensors"),
        ("ranked.safetensors", r"ranked\.safetensors was saved with rsLoRA.*save it with alpha tensors"),
        ("nan.safetensors", r"nan\.safetensors: .* has values that are not finite"),
    ],
)
def test_a_lora_that_cannot_be_used_is_refused_by_name(lora_files, load, name, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        load("plain_vace.safetensors", lora_1=name)
    assert str(error.value).encode() and len(str(error.value)) <= 400


@pytest.mark.parametrize(
    ("name", "weight_dtype", "module", "sentence"),
    [
        ("nvfp4.safetensors", "fp8_e4m3fn", None, "quantized as nvfp4 and stays so.*set it to default"),
        ("t2v.gguf", "default", "module_nvfp4.safetensors", "nvfp4 weights cannot be joined"),
    ],
)
def test_what_cannot_be_combined_is_said(
    forms, gguf_forms, load, native_state, name, weight_dtype, module, sentence
):
    import folder_paths

    save_file(quantized(part(native_state, True), "nvfp4"), forms / "module_nvfp4.safetensors")
    folder_paths.filename_list_cache.clear()
    with pytest.raises(ValueError, match=sentence):
        load(name, weight_dtype, **({"vace_name": module} if module else {}))


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2"])
def test_fp8_asked_of_an_fp8_file_is_the_file_as_it_is(forms, load, inputs, kind):
    weight_dtype = kind.replace("float8", "fp8")
    as_it_is = load(f"{kind}.safetensors", weight_dtype)
    assert type(as_it_is.model.diffusion_model.blocks[0].ffn[0].weight).__name__ == "QuantizedTensor"
    expected = velocity(load(f"{kind}.safetensors"), inputs)
    assert torch.equal(velocity(as_it_is, inputs), expected)
    decoded = load(f"{kind}.safetensors", "fp32")
    torch.testing.assert_close(velocity(decoded, inputs), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("group_size", [0, 64])
def test_int8_is_decoded_on_demand(gguf_forms, load, inputs, native_state, group_size):
    """To the values that ComfyUI's own tensors decode to; and joined with a file of another form."""
    import folder_paths
    from comfy.quant_ops import QuantizedTensor

    options = {"per_channel": True, "convrot": group_size > 0, "convrot_groupsize": group_size or 256}
    stored = quantized(native_state, "int8_tensorwise", options)
    save_file(stored, gguf_forms / "int8.safetensors")
    save_file(part(stored, True), gguf_forms / "int8_module.safetensors")
    folder_paths.filename_list_cache.clear()
    for name, precision in (("blocks.0.ffn.2.weight", 1e-6), ("vace_blocks.1.self_attn.q.weight", 1e-6)):
        packed = QuantizedTensor.from_float(native_state[name], "TensorWiseINT8Layout", **options)
        values = load("int8.safetensors", "fp32").model.state_dict()[f"diffusion_model.{name}"]
        assert values.dtype == torch.float32 and relative(values, packed.dequantize()) < precision
    decoded = velocity(load("int8.safetensors", "fp32"), inputs)
    joined = load("t2v.gguf", vace_name="int8_module.safetensors")
    weight = joined.model.diffusion_model.vace_blocks[0].ffn[0].weight
    assert weight.nbytes <= weight.numel() * 1.1 and relative(velocity(joined, inputs), decoded) < 0.02


@pytest.mark.parametrize("network", ["vdot", "comfyui"])
def test_fp8_with_a_factor_for_each_row_stays_packed(forms, load, inputs, native_state, network):
    """ComfyUI's layers have one factor; these weights are read by ours."""
    import folder_paths

    stored, values = {}, {}
    for name, value in native_state.items():
        stored[name] = values[name] = value
        if value.ndim == 2 and "blocks." in name and name.endswith(".weight"):
            scale = value.abs().amax(1, keepdim=True) / 448
            stored[name] = (value / scale).to(torch.float8_e4m3fn)
            stored[name.replace(".weight", ".weight_scale")] = scale
            values[name] = stored[name].float() * scale
    save_file(stored, forms / "rows.safetensors")
    save_file(values, forms / "rows_values.safetensors")
    folder_paths.filename_list_cache.clear()
    model = load("rows.safetensors", network=network)
    weight = model.model.diffusion_model.blocks[0].ffn[0].weight
    assert weight.nbytes == weight.numel()
    expected = velocity(load("rows_values.safetensors", network=network), inputs)
    torch.testing.assert_close(velocity(model, inputs), expected, atol=1e-5, rtol=1e-5)


def test_comfyui_s_own_reader_is_used_where_it_does_more_than_map(forms, load, inputs, monkeypatch):
    import comfy.cli_args
    import comfy.utils

    expected, read = velocity(load("plain_vace.safetensors"), inputs), []
    original = comfy.utils.load_torch_file
    monkeypatch.setattr(comfy.cli_args.args, "disable_mmap", True)
    monkeypatch.setattr(comfy.utils, "DISABLE_MMAP", True)
    monkeypatch.setattr(
        comfy.utils, "load_torch_file", lambda path, **options: read.append(path) or original(path, **options)
    )
    for name in ("plain_vace.safetensors", "vdot_release.pt"):
        torch.testing.assert_close(velocity(load(name), inputs), expected, atol=1e-4, rtol=1e-4)
    assert read == [str(forms / "plain_vace.safetensors")]


class MappedFile:
    """Stands for comfy-aimdo's map of a file, which needs a GPU."""

    def __init__(self, path):
        self.file = Path(path).open("rb")
        self.map = mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_COPY)

    def get_file_handle(self):
        return self.file

    def get(self):
        return ctypes.addressof(ctypes.c_char.from_buffer(self.map))


def test_weights_keep_comfyui_s_place_in_their_file(forms, pack, monkeypatch):
    """By it ComfyUI's dynamic memory reads a weight from the disk straight into the GPU's memory."""
    import comfy.memory_management
    import comfy_aimdo.model_mmap

    monkeypatch.setattr(comfy_aimdo.model_mmap, "ModelMMAP", MappedFile)
    weights = submodule("nodes.comfy_weights")
    survey = submodule("vdot_core.checkpoints.survey").survey
    monkeypatch.setattr(comfy.memory_management, "aimdo_enabled", True)
    state_dict = weights.read_for_comfyui(survey(forms / "float8_e4m3fn.safetensors"), None).state_dict
    for name in ("blocks.0.ffn.0.weight", "blocks.0.ffn.0.weight_scale", "patch_embedding.weight"):
        tensor = state_dict[name]
        place = tensor.untyped_storage()._comfy_tensor_file_slice
        assert place.size == tensor.nbytes
        with (forms / "float8_e4m3fn.safetensors").open("rb") as file:
            file.seek(place.offset)
            assert file.read(place.size) == tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
