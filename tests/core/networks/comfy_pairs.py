"""Our network and ComfyUI's own, with the same weights and ComfyUI's layers, run side by side."""

import torch

from tests.core.networks.helpers import SIZES, inputs, native_network, random_network

CONFIG = SIZES["narrow heads"]


def make_pair(module, operations, dtype=torch.float32, dress=lambda network: None):
    """(ours, ComfyUI's own), built from what ComfyUI's detection finds, each changed by dress(network)."""
    source = random_network(CONFIG)
    native = native_network(source, operations, dtype)
    sizes = {name: getattr(CONFIG, name) for name in ("dim", "ffn_dim", "num_heads", "num_layers")}
    sizes |= {"text_dim": CONFIG.text_dim, "freq_dim": CONFIG.freq_dim, "vace_layers": 2, "vace_in_dim": 96}
    detected = {
        "image_model": "wan2.1",
        "model_type": "vace",
        "in_dim": 16,
        "out_dim": 16,
        "window_size": (-1, -1),
    }
    ours = module.ComfyWanVace(**sizes, **detected, device="cpu", dtype=dtype, operations=operations)
    missing, unexpected = ours.load_state_dict(source.state_dict(), strict=False)
    assert not missing and not unexpected
    dress(ours), dress(native)
    return ours.requires_grad_(False), native


def both(networks, options=dict, num_contexts=1, strengths=None, batch=1, dtype=torch.float32, **kwargs):
    """Run both networks, each with a separate options(), which may record; returns both results."""
    size = {name: kwargs.pop(name) for name in ("frames", "height", "width") if name in kwargs}
    x, timestep, text, contexts = inputs(CONFIG, batch=batch, num_contexts=num_contexts, **size)
    contexts = kwargs.pop("vace_context", contexts)
    results, used = [], []
    for network in networks:
        transformer_options = options()
        used.append(transformer_options)
        with torch.no_grad():
            vace = {"vace_context": contexts.to(dtype), "vace_strength": strengths or [1.0] * num_contexts}
            conditions = (x.to(dtype), timestep, text.to(dtype))
            results.append(network(*conditions, transformer_options=transformer_options, **vace, **kwargs))
    return *results, *used
