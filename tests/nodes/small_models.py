"""Random models in other forms, and what server tests find in their server: models, a node for text."""

import json
from pathlib import Path

import torch
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
# Block swap, as packs do it by callbacks and hooks: blocks have their weights while they run, NaN otherwise.
SWAP_NODE = """
import logging, torch
from comfy.patcher_extension import CallbacksMP
class TestBlockSwap:
    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "run", "test"
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}
    def run(self, model):
        model, swapped = model.clone(), []
        def put(block, weights):
            for parameter, weight in zip(block.parameters(), weights, strict=True):
                parameter.data = weight
        def swap_out(patcher, *_):
            network = patcher.model.diffusion_model
            for block in [] if swapped else [*network.blocks, *network.vace_blocks]:
                weights = [parameter.data for parameter in block.parameters()]
                nothing = [torch.full_like(weight, float("nan")) for weight in weights]
                put(block, nothing)
                enter = block.register_forward_pre_hook(lambda block, _, w=weights: put(block, w))
                leave = block.register_forward_hook(lambda block, *_, w=nothing: put(block, w))
                swapped.append((block, weights, enter, leave))
        def swap_in(_):
            logging.info(f"TestBlockSwap: {len(swapped)} blocks")
            for block, weights, *hooks in swapped:
                put(block, weights)
                [hook.remove() for hook in hooks]
            swapped.clear()
        model.add_callback(CallbacksMP.ON_LOAD, swap_out)
        model.add_callback(CallbacksMP.ON_CLEANUP, swap_in)
        return (model,)
NODE_CLASS_MAPPINGS = {"TestBlockSwap": TestBlockSwap}
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
    (base / "custom_nodes/test_swap.py").write_text(SWAP_NODE)
    return server


_OPTIONS = {
    "float8_e4m3fn": {"scale": "recalculate"},
    "float8_e5m2": {"scale": "recalculate"},
    "int8_tensorwise": {"per_channel": True},
    "convrot_w4a4": {"convrot_groupsize": 64},
}


def quantized(state, kind, options=None):
    """A state dict whose blocks are quantized by ComfyUI's own quantizers, in ComfyUI's form."""
    from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor

    stored = {}
    for name, value in state.items():
        stored[name] = value
        if value.ndim == 2 and "blocks." in name and name.endswith(".weight"):
            options = options or _OPTIONS.get(kind, {})
            layout = QUANT_ALGOS[kind]["comfy_tensor_layout"]
            packed = QuantizedTensor.from_float(value, layout, **options)
            parts = {key: part.contiguous() for key, part in packed.state_dict(name).items()}
            # e8m0 scales are stored as bytes, for not every reader knows their dtype.
            stored |= {k: v.view(torch.uint8) if "e8m0" in str(v.dtype) else v for k, v in parts.items()}
            settings = {key: value for key, value in options.items() if key.startswith("convrot")}
            text = json.dumps({"format": kind, **settings}).encode()
            stored[name.replace(".weight", ".comfy_quant")] = torch.tensor(list(text), dtype=torch.uint8)
    return stored


def lora_of(state, names, seed=0):
    """A LoRA of rank 2 in ComfyUI's names, and the weights that it gives at strength 1."""
    generator, lora, merged = torch.Generator().manual_seed(seed), {}, dict(state)
    for name in names:
        out, into = state[f"{name}.weight"].shape
        up, down = (0.1 * torch.randn(shape, generator=generator) for shape in ((out, 2), (2, into)))
        lora[f"diffusion_model.{name}.lora_up.weight"] = up
        lora[f"diffusion_model.{name}.lora_down.weight"] = down
        merged[f"{name}.weight"] = state[f"{name}.weight"] + up @ down
    return lora, merged
