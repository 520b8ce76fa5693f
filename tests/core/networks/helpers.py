"""Random small networks, and the two independent implementations they are held against."""

import re

import torch

from vdot_core.networks import WanVace, WanVaceConfig

SIZES = {
    "narrow heads": WanVaceConfig(
        dim=64, ffn_dim=96, num_heads=2, num_layers=4, vace_layers=(0, 2), text_dim=24, freq_dim=32
    ),
    "wan heads": WanVaceConfig(
        dim=128, ffn_dim=160, num_heads=1, num_layers=6, vace_layers=(0, 2, 4), text_dim=40, freq_dim=256
    ),
}

_DIFFUSERS = (
    (r"^text_embedding\.(\d)", lambda m: f"condition_embedder.text_embedder.linear_{int(m[1]) // 2 + 1}"),
    (r"^time_embedding\.(\d)", lambda m: f"condition_embedder.time_embedder.linear_{int(m[1]) // 2 + 1}"),
    (r"^time_projection\.1", "condition_embedder.time_proj"),
    (r"^head\.head", "proj_out"),
    (r"(^head\.|\.)modulation$", lambda m: m[1].replace("head.", "") + "scale_shift_table"),
    (r"self_attn\.([qkv])\.", r"attn1.to_\1."),
    (r"cross_attn\.([qkv])\.", r"attn2.to_\1."),
    (r"self_attn\.o\.", "attn1.to_out.0."),
    (r"cross_attn\.o\.", "attn2.to_out.0."),
    (r"self_attn\.", "attn1."),
    (r"cross_attn\.", "attn2."),
    (r"norm3\.", "norm2."),
    (r"ffn\.0\.", "ffn.net.0.proj."),
    (r"ffn\.2\.", "ffn.net.2."),
    (r"before_proj", "proj_in"),
    (r"after_proj", "proj_out"),
)


def diffusers_name(name: str) -> str:
    """Wan's parameter name in diffusers' words."""
    for pattern, replacement in _DIFFUSERS:
        name = re.sub(pattern, replacement, name)
    return name


def randomize(network: torch.nn.Module, seed: int = 0) -> None:
    """Give every parameter a random value, none of them neutral, that keeps activations near 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:
            values = values * 0.1 + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
        elif name.endswith("modulation"):
            values = values * 0.3
        else:
            values = values * parameter[0].numel() ** -0.5
        parameter.data.copy_(values)


def random_network(config: WanVaceConfig, seed: int = 0, **kwargs) -> WanVace:
    """Our network with random weights."""
    network = WanVace(config, **kwargs)
    randomize(network, seed)
    return network


def native_network(network: WanVace, operations=None, dtype=torch.float32):
    """ComfyUI's own network with the same weights; text-only where ours is."""
    import comfy.ldm.wan.model as wan
    import comfy.ops

    config = network.config
    shared = {
        name: getattr(config, name)
        for name in ("dim", "ffn_dim", "num_heads", "num_layers", "text_dim", "freq_dim", "text_len", "eps")
    }
    vace = {"vace_layers": len(config.vace_layers), "vace_in_dim": config.vace_in_channels}
    kind, vace = (wan.VaceWanModel, vace) if config.vace_layers else (wan.WanModel, {})
    operations = operations or comfy.ops.disable_weight_init
    native = kind(**shared, **vace, device="cpu", dtype=dtype, operations=operations)
    missing, unexpected = native.load_state_dict(network.state_dict(), strict=False)
    assert not missing and not unexpected
    return native.requires_grad_(False)


def diffusers_network(network: WanVace):
    """diffusers' network with the same weights; text-only where ours is."""
    from diffusers import WanTransformer3DModel, WanVACETransformer3DModel

    config = network.config
    sizes = {
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.head_dim,
        "text_dim": config.text_dim,
        "freq_dim": config.freq_dim,
        "ffn_dim": config.ffn_dim,
        "num_layers": config.num_layers,
        "eps": config.eps,
    }
    if config.vace_layers:
        peer = WanVACETransformer3DModel(**sizes, vace_layers=list(config.vace_layers))
    else:
        peer = WanTransformer3DModel(**sizes)
    state = {diffusers_name(name): value for name, value in network.state_dict().items()}
    peer.load_state_dict(state, strict=True)
    return peer


def inputs(config: WanVaceConfig, batch=1, frames=3, height=4, width=6, num_contexts=1, tokens=7, seed=1):
    """Random (x, timestep [B], text, contexts [B, K, ..]) of the given size."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, config.in_channels, frames, height, width, generator=generator)
    timestep = torch.tensor([979.8, 402.0, 31.5][:batch])
    text = torch.randn(batch, tokens, config.text_dim, generator=generator)
    contexts = torch.randn(
        batch, num_contexts, config.vace_in_channels, frames, height, width, generator=generator
    )
    return x, timestep, text, contexts


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    assert got.shape == expected.shape, (got.shape, expected.shape)
    return ((got.double() - expected.double()).norm() / expected.double().norm()).item()
