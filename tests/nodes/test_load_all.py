"""VDOT Load: menus with and without files, real names and shapes without bytes, choices that do not fit."""

import re
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.scale.sparse import write_header, write_release
from tests.support.comfy import ROOT
from tests.support.pack import submodule
from vdot_core.networks import WanVaceConfig, expected_shapes, wan_vace_14b

DEMO = "bundled demo"
CHOICES = {"model": DEMO, "text_encoder": DEMO, "vae": DEMO}
FOLDERS = {"model": "diffusion_models", "text_encoder": "text_encoders", "vae": "vae"}
UMT5, VAE = "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "wan_2.1_vae.safetensors"
T2V_14B = WanVaceConfig(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40)


@pytest.fixture
def folders(pack, monkeypatch, tmp_path):
    """ComfyUI's folders of models, text encoders and VAEs, empty."""
    import folder_paths

    table = dict(folder_paths.folder_names_and_paths)
    for name in ("diffusion_models", "text_encoders", "vae", "unet_gguf"):
        folder = tmp_path / ("diffusion_models" if name == "unet_gguf" else name)
        folder.mkdir(exist_ok=True)
        extensions = {".gguf"} if name == "unet_gguf" else {".safetensors", ".pt"}
        table[name] = ([str(folder)], extensions)
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", table)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


@pytest.fixture
def real_files(folders):
    """The published files by name and shape, none of their bytes."""
    write_release(folders / "diffusion_models/vdot_14b.pt", wan_vace_14b())
    shapes = expected_shapes(wan_vace_14b())
    vace = {name: ("F16", shape) for name, shape in shapes.items()}
    write_header(folders / "diffusion_models/wan2.1_vace_14B_fp16.safetensors", vace)
    t2v = {name: ("F16", shape) for name, shape in expected_shapes(T2V_14B).items()}
    write_header(folders / "diffusion_models/wan2.1_t2v_14B_fp16.safetensors", t2v)
    i2v = {**t2v, "img_emb.proj.0.weight": ("F16", (1280,))}
    write_header(folders / "diffusion_models/wan2.1_i2v_14B_fp16.safetensors", i2v)
    write_header(folders / "text_encoders" / UMT5, {"shared.weight": ("F8_E4M3", (256384, 4096))})
    write_header(folders / "text_encoders/t5xxl.safetensors", {"shared.weight": ("F16", (32128, 4096))})
    write_header(folders / "vae" / VAE, {"encoder.conv1.weight": ("F32", (96, 3, 3, 3, 3))})
    return folders


def options(node_classes):
    return {entry.id: entry.options for entry in node_classes["VDOTLoad"].define_schema().inputs}


def refusal(run, **choices):
    with pytest.raises(ValueError) as refused:
        run("VDOTLoad", **{**CHOICES, **choices})
    assert len(str(refused.value)) <= 400
    return str(refused.value)


def test_menus_without_any_file(node_classes, folders):
    menus = options(node_classes)
    assert menus["model"] == [DEMO, "vdot_14b.pt (not downloaded)"]
    assert menus["text_encoder"] == [DEMO, f"{UMT5} (not downloaded)"]
    assert menus["vae"] == [DEMO, f"{VAE} (not downloaded)"]


def test_what_is_not_there_says_where_to_get_it(run, node_classes, folders):
    """With addresses that README has; as a label of the menu and as the plain name of a saved graph."""
    readme = (ROOT / "README.md").read_text("utf-8")
    validate = node_classes["VDOTLoad"].validate_inputs
    for name, file, size in (
        ("model", "vdot_14b.pt", "34.7 GB"),
        ("text_encoder", UMT5, "6.7 GB"),
        ("vae", VAE, "0.25 GB"),
    ):
        for choice in (file, f"{file} (not downloaded)"):
            message = refusal(run, **{name: choice})
            assert validate(**{**CHOICES, name: choice}) == message
            assert size in message and f"to models/{FOLDERS[name]} and press R" in message
            assert all(url in readme for url in re.findall(r"https://\S+", message))
    assert "convert vdot_14b.pt vdot_14b_fp8_scaled.safetensors --dtype fp8_scaled" in refusal(
        run, model="vdot_14b.pt"
    )
    assert "no model 'mine.safetensors'" in refusal(run, model="mine.safetensors")
    assert validate(**CHOICES) is True and validate(**{**CHOICES, "model": None}) is True


def test_likely_files_come_first_by_name_and_by_content(node_classes, folders):
    models = folders / "diffusion_models"
    for name in ("aaa_flux", "Wan2.1_t2v", "my_VACE_mix", "zz_vdot_fp8"):
        write_header(models / f"{name}.safetensors", {"x": ("F32", (1,))})
    write_header(models / "b_unknown.safetensors", {"vace_blocks.0.ffn.0.weight": ("F32", (1,))})
    write_header(models / "c_export.safetensors", {"x": ("F32", (1,))}, {"vdot_format": "1"})
    (models / "damaged.safetensors").write_bytes(b"\0" * 20)
    names = options(node_classes)["model"][1:-1]
    assert names[:2] == ["c_export.safetensors", "zz_vdot_fp8.safetensors"]
    assert set(names[2:4]) == {"b_unknown.safetensors", "my_VACE_mix.safetensors"}
    assert names[4] == "Wan2.1_t2v.safetensors"


def test_a_file_in_a_subfolder_is_there(node_classes, folders):
    (folders / "vae/wan").mkdir()
    write_header(folders / "vae/wan" / VAE, {"x": ("F32", (1,))})
    assert options(node_classes)["vae"] == [DEMO, f"wan/{VAE}"]
    path = submodule("nodes.known_files").find_choice("vae", f"{VAE} (not downloaded)")
    assert path == folders / "vae/wan" / VAE


def test_thousands_of_files_are_listed_at_once(node_classes, folders):
    header = write_header(folders / "first.safetensors", {"x": ("F32", (1,))}).read_bytes()
    for number in range(3000):
        (folders / f"diffusion_models/file_{number:04}.safetensors").write_bytes(header)
    options(node_classes)
    start = time.process_time()
    for _ in range(5):
        menus = options(node_classes)
    assert len(menus["model"]) == 3002
    assert (time.process_time() - start) / 5 < 1.0


def test_real_files_lead_to_the_right_preset_and_size(run, real_files, monkeypatch, pack):
    """By headers alone: the 14B files here have no bytes, and loading them is replaced."""
    module, demo = submodule("nodes.comfy_load_all"), submodule("nodes.comfy_demo").load_demo()
    loaded = []

    def load_model(path, weight_dtype="default"):
        loaded.append((path.name, weight_dtype))
        model = demo[0].clone()
        model.cached_patcher_init = (load_model, (path,))
        return model

    monkeypatch.setattr(module, "load_model", load_model)
    monkeypatch.setattr(module, "_load_encoder", lambda path: loaded.append(path.name))
    monkeypatch.setattr(module, "load_vae", lambda path: loaded.append(path.name))
    purpose = submodule("nodes.comfy_purpose").purpose_of_model
    choices = {"text_encoder": UMT5, "vae": VAE}
    out = run("VDOTLoad", model="vdot_14b.pt", **choices, weight_dtype="fp8_e4m3fn")
    assert loaded == [("vdot_14b.pt", "fp8_e4m3fn"), UMT5, VAE]
    assert purpose(out.args[0]).preset == "released"
    size = out.args[3]
    assert size.fit(1920, 1080) == (832, 480) and size.most_frames == 81
    out = run("VDOTLoad", model="wan2.1_vace_14B_fp16.safetensors", **choices, size_class="720p")
    assert purpose(out.args[0]).preset == "vace" and out.args[3].fit(1920, 1080) == (1280, 720)


def test_choices_that_do_not_fit_say_what_to_pick(run, real_files):
    both = {"text_encoder": UMT5, "vae": VAE}
    real = {"model": "vdot_14b.pt"}
    assert "choose bundled demo in the menu text_encoder" in refusal(run, text_encoder=UMT5)
    assert "choose bundled demo in the menu vae" in refusal(run, vae=VAE)
    assert "choose umt5_xxl" in refusal(run, **real, vae=VAE)
    assert "choose wan_2.1_vae" in refusal(run, **real, text_encoder=UMT5)
    assert "is no UMT5-XXL" in refusal(run, **real, text_encoder="t5xxl.safetensors", vae=VAE)
    assert "give a VACE or T2V file" in refusal(run, model="wan2.1_i2v_14B_fp16.safetensors", **both)
    message = refusal(run, model="wan2.1_t2v_14B_fp16.safetensors", **both)
    assert "without VACE blocks" in message and "VDOT Load Model" in message


@pytest.mark.parametrize(
    ("weight_dtype", "dtype", "size"), [("default", "float32", 69.4), ("bf16", "bfloat16", 34.7)]
)
def test_a_model_that_fills_the_memory_is_refused_without_a_gpu(
    run, real_files, monkeypatch, weight_dtype, dtype, size
):
    """It would end ComfyUI, after minutes of swapping."""
    monkeypatch.setattr(submodule("vdot_core.memory"), "available_bytes", lambda: 24e9)
    message = refusal(run, model="vdot_14b.pt", text_encoder=UMT5, vae=VAE, weight_dtype=weight_dtype)
    assert f"vdot_14b.pt in {dtype}, without a GPU, needs {size} GB of memory" in message
    assert "at most the 21.6 GB that are free; use a GPU, a smaller weight_dtype, or a file in" in message


def test_quantized_weights_stay_in_their_file(pack, monkeypatch):
    weights = submodule("nodes.comfy_weights")
    monkeypatch.setattr(submodule("vdot_core.memory"), "available_bytes", lambda: 8e9)
    matrix = torch.empty(100_000, 100_000, dtype=torch.float8_e4m3fn, device="meta")
    state = {"a.weight": matrix, "b.weight": matrix[:10_000]}
    quantized = {**state, "a.comfy_quant": torch.zeros(9, dtype=torch.uint8)}
    weights.check_memory("w", weights.ComfyWeights(quantized, None))
    with pytest.raises(ValueError, match=r"w in float.* needs (11|44)\.0 GB of memory"):
        weights.check_memory("w", weights.ComfyWeights(state, None))


def test_the_demo_is_the_first_choice_and_complete(run, text):
    out = run("VDOTLoad", **CHOICES)
    model, clip, vae, size = out.args
    assert str(size) == "demo: 64x64, 17 frames at 16 fps"
    tokens = clip.encode_from_tokens_scheduled(clip.tokenize("a red circle"))
    unit = run("VDOTText", width=832, height=832, length=81, size=size).args[0]
    positive, _, latent, _ = run("VDOTEncode", positive=tokens, vae=vae, unit=unit, strength=1.0).args
    settings = {"preset": "auto", "steps": 4, "shift": 16.0, "solver": "unipc"}
    out = run("VDOTSampler", model=model, positive=positive, latent=latent, seed=0, **settings)
    assert out.args[0]["samples"].shape == (1, 16, 5, 8, 8)
    assert bool(torch.isfinite(out.args[0]["samples"]).all())
    assert out.ui["text"][0].startswith("auto: trained")


def described(load, path):
    with pytest.raises(ValueError) as refused:
        load(path)
    assert len(str(refused.value)) <= 400 and path.name in str(refused.value)
    return str(refused.value)


class Program:
    def __reduce__(self):
        return open, ("was_run", "w")


@pytest.mark.parametrize("load", ["load_vae", "load_text_encoder"])
def test_unsafe_and_foreign_files_are_refused_in_words(pack, tmp_path, monkeypatch, load):
    monkeypatch.chdir(tmp_path)
    load = getattr(submodule("nodes.comfy_demo"), load)
    torch.save({"decoder.conv1.weight": Program()}, tmp_path / "unsafe.pt")
    assert "nothing of it was run" in described(load, tmp_path / "unsafe.pt")
    assert not (tmp_path / "was_run").exists()
    (tmp_path / "cut.safetensors").write_bytes(b"\x00\x01")
    described(load, tmp_path / "cut.safetensors")
    save_file({"decoder.conv1.weight": torch.zeros(3)}, tmp_path / "other.safetensors", {"text_len": "64"})
    assert "choose another file" in described(load, tmp_path / "other.safetensors")


@pytest.mark.parametrize("text_len", ["0", "-1", "9" * 400, "[" * 100_000, "1000000000", "1e3"])
def test_absurd_settings_of_a_text_encoder_are_refused_or_not_read(pack, tmp_path, demo_assets, text_len):
    demo = submodule("nodes.comfy_demo")
    tensors = load_file(demo_assets / demo.TEXT_FILE)
    save_file(tensors, tmp_path / "text.safetensors", {"text_len": text_len})
    assert "text_len is" in described(demo.load_text_encoder, tmp_path / "text.safetensors")
