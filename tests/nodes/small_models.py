"""What the pack's server tests find in their server: random models, a picture, a node for text."""

from pathlib import Path

from PIL import Image

from tests.support.server import ComfyServer

# Stands for CLIP Text Encode, whose encoder for Wan has 5 billion parameters; and notes every clip that goes
# through the VAE's encoder.
TEXT_NODE = """
import torch
from pathlib import Path
from comfy.ldm.wan.vae import WanVAE
class TestText:
    RETURN_TYPES, FUNCTION, CATEGORY = ("CONDITIONING",), "run", "test"
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}, "optional": {"prompt": ("INT", {"default": 0})}}
    def run(self, prompt=0):
        tokens = torch.zeros(1, 512, 4096)
        tokens[:, :5] = torch.randn(1, 5, 4096, generator=torch.Generator().manual_seed(prompt))
        return ([[tokens, {}]],)
NODE_CLASS_MAPPINGS = {"TestText": TestText}
encode = WanVAE.encode
def noted(self, x, *args, **kwargs):
    with open(Path(__file__).with_name("passes.txt"), "a") as passes:
        passes.write("*" * len(x))
    return encode(self, x, *args, **kwargs)
WanVAE.encode = noted
"""
# A file name in an encoding that is not the system's, as Python gives it.
LATIN_1 = "mod\udce8le.safetensors"


def server_with_models(base: Path, models_dir: Path) -> ComfyServer:
    """A server, not yet started, with the random models of `models_dir`, a picture and a text node."""
    server = ComfyServer(base, "--preview-method", "auto")
    for name in ("vdot_meta.safetensors", "plain_vace.safetensors"):
        (base / "models/diffusion_models" / name).symlink_to(models_dir / name)
    whole = (models_dir / "vdot_meta.safetensors").read_bytes()
    for name, content in {LATIN_1: whole, f"cut_{LATIN_1}": whole[:-9]}.items():
        (base / "models/diffusion_models" / name).write_bytes(content)
    (base / "models/vae/tiny_vae.safetensors").symlink_to(models_dir / "tiny_vae.safetensors")
    Image.new("RGB", (48, 40), (200, 60, 20)).save(base / "input/subject.png")
    (base / "custom_nodes/test_text.py").write_text(TEXT_NODE)
    return server
