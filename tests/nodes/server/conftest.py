"""A real ComfyUI server with the pack and small models in several forms."""

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from tests.core.checkpoints.helpers import write_gguf
from tests.nodes.small_models import lora_of, quantized, server_with_models


@pytest.fixture(scope="package")
def server(comfy, models_dir, native_state, tmp_path_factory):
    """One server for all tests of this folder."""
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
