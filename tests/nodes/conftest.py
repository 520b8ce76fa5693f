"""Random tiny models in ComfyUI's own formats, and the pack loaded as ComfyUI loads it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.support import pack as pack_support
from tests.support.comfy import ROOT

NATIVE_CONFIG = {
    "dim": 128,
    "ffn_dim": 256,
    "num_heads": 1,
    "num_layers": 4,
    "vace_layers": 2,
    "vace_in_dim": 96,
    "in_dim": 16,
    "out_dim": 16,
}


@pytest.fixture(scope="session")
def pack(comfy):
    """The node pack, loaded by file location next to the real ComfyUI."""
    return pack_support.load_pack()


@pytest.fixture(scope="session")
def node_classes(pack):
    """Node id -> class, through the pack's entry point."""
    return pack_support.load_nodes()


@pytest.fixture(scope="session")
def run(node_classes):
    """run('VDOTText', width=.., ..) executes one node as ComfyUI does and returns its outputs."""

    def call(node_id, **inputs):
        return pack_support.run_node(node_classes[node_id], **inputs)

    return call


@pytest.fixture(scope="session")
def native_state(comfy):
    """Random weights of a small VACE network, made by ComfyUI's own class."""
    import comfy.ldm.wan.model
    import comfy.ops

    with torch.random.fork_rng():
        torch.manual_seed(11)
        network = comfy.ldm.wan.model.VaceWanModel(**NATIVE_CONFIG, operations=comfy.ops.disable_weight_init)
        state = network.state_dict()
        for name, value in state.items():
            norm = ".norm" in name and name.endswith("weight")
            value.copy_(torch.randn(value.shape) * 0.05 + (1.0 if norm else 0.0))
    return {name: value.float().contiguous() for name, value in state.items()}


@pytest.fixture(scope="session")
def models_dir(native_state, tmp_path_factory) -> Path:
    """A folder of model files: a plain Wan file, one with our metadata, and a VAE."""
    root = tmp_path_factory.mktemp("models")
    save_file(native_state, root / "plain_vace.safetensors")
    config = {
        **{name: NATIVE_CONFIG[name] for name in ("dim", "ffn_dim", "num_heads", "num_layers")},
        **{"vace_layers": [0, 2], "image_model": "wan2.1", "vdot": 1},
    }
    metadata = {"format": "pt", "vdot_format": "1", "config": json.dumps({"transformer": config})}
    save_file(native_state, root / "vdot_meta.safetensors", metadata=metadata)
    torch.save({"generator": {f"model.{k}": v for k, v in native_state.items()}}, root / "vdot_release.pt")
    save_file(vae_state(), root / "tiny_vae.safetensors")
    return root


@pytest.fixture(scope="session")
def model_folder(pack, models_dir):
    """ComfyUI's diffusion_models folder pointed at `models_dir`, and this small width taken as released.

    Without a config in the file only released widths are known; the real ones are too large for a test.
    """
    import folder_paths

    infer = pack_support.submodule("vdot_core.checkpoints.infer")
    small = pack_support.submodule("vdot_core.networks").WanVaceConfig(128, 256, 1, 4, vace_layers=(0, 2))
    infer.PRESETS = {**infer.PRESETS, "small": lambda: small}
    infer._RELEASED = (*infer._RELEASED, "small")

    folder_paths.add_model_folder_path("diffusion_models", str(models_dir))
    folder_paths.filename_list_cache.clear()
    return models_dir


@pytest.fixture(scope="session")
def ours(pack, node_classes, models_dir):
    """A MODEL with our network, as Load Diffusion Model gives it for a file with our metadata."""
    import comfy.sd

    return comfy.sd.load_diffusion_model(str(models_dir / "vdot_meta.safetensors"))


@pytest.fixture(scope="session")
def native(comfy, models_dir):
    """The same weights from a plain Wan file, with ComfyUI's own network."""
    import comfy.sd

    return comfy.sd.load_diffusion_model(str(models_dir / "plain_vace.safetensors"))


@pytest.fixture(scope="session")
def vae(comfy):
    """A Wan 2.1 VAE of width 8 with random weights, through ComfyUI's own loader."""
    import comfy.sd

    return comfy.sd.VAE(sd=vae_state())


@pytest.fixture(scope="session")
def text():
    """A CONDITIONING as CLIP Text Encode gives it: zero-padded to 512 tokens."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        tokens = torch.zeros(1, 512, 4096)
        tokens[:, :9] = torch.randn(1, 9, 4096)
    return [[tokens, {"pooled_output": None}]]


@pytest.fixture(scope="session")
def demo_assets() -> Path:
    """The bundled demo's folder."""
    folder = ROOT / "assets"
    names = ("vdot_tiny_student.safetensors", "vdot_tiny_vae.safetensors", "vdot_tiny_text.safetensors")
    missing = [name for name in names if not (folder / name).is_file()]
    assert not missing, f"{missing} are not in {folder}"
    return folder


def vae_state() -> dict[str, torch.Tensor]:
    """Random weights of a small Wan VAE, made by ComfyUI's own class."""
    import comfy.ldm.wan.vae

    network = comfy.ldm.wan.vae.WanVAE(
        dim=8,
        z_dim=16,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=2,
        attn_scales=[],
        temperal_downsample=[False, True, True],
        dropout=0.0,
    )
    state = {name: value.float().contiguous() for name, value in network.state_dict().items()}
    generator = torch.Generator().manual_seed(12)
    for name, value in state.items():
        if name.endswith("gamma"):
            value.fill_(1.0)
        elif name.endswith("bias"):
            value.zero_()
        else:
            value.copy_(torch.randn(value.shape, generator=generator) / value[0].numel() ** 0.5)
    return state


@pytest.fixture(scope="module")
def encoded(run, vae, text):
    """(positive, negative, latent, trim) of a control clip with two references: 3 latent frames and 2."""
    clip = torch.rand(9, 32, 48, 3, generator=torch.Generator().manual_seed(3))
    unit = run("VDOTControl", frames=clip, width=0, height=0, length=0).args[0]
    images = {"image0": clip[:1], "image1": clip[4:5].flip(2)}
    unit = run("VDOTReference", images=images, width=48, height=32, length=9, unit=unit).args[0]
    return run("VDOTEncode", positive=text, vae=vae, unit=unit, strength=0.8).args
