"""One step of this project's network and of ComfyUI's on the same weights, one block in memory at a time."""

import torch

from vdot_core.checkpoints.read import loadable
from vdot_core.checkpoints.streamed import Reader, random_inputs, reader, stream_weights
from vdot_core.checkpoints.verify import Check
from vdot_core.networks import WanVace, WanVaceConfig

LIMIT = 1e-4
"""Relative difference in float32; 5e-6 is usual, and a wrong norm, position or hint gives 1e-2 or more."""
_TIMESTEP = 979.0
# Our name of a size -> ComfyUI's.
_SAME = ("dim", "ffn_dim", "num_heads", "num_layers", "text_dim", "freq_dim", "text_len")
_SAME += ("patch_size", "qk_norm", "cross_attn_norm", "eps")
_SIZES = {**{name: name for name in _SAME}, "in_channels": "in_dim", "out_channels": "out_dim"}


@torch.no_grad()
def compare_step(path: str, vace: str | None, device: str) -> Check:
    """Compare the velocities of both networks on the same random input.

    Args:
        path: anything that `inspect` takes.
        vace: the VACE module that goes with a T2V network at `path`.
        device: where to compute, in float32.
    Returns:
        The check: their relative difference.
    Raises:
        ValueError: not a loadable network, or one that ComfyUI's cannot represent.
    """
    checkpoint = loadable(path, vace, None, torch.float32)
    config, read = checkpoint.info.config, reader(checkpoint.entries)
    x, text, contexts = random_inputs(config, device)
    arguments = (x, torch.tensor([_TIMESTEP], device=device), text, contexts)
    ours, native = _our_step(config, read, device, arguments), _native_step(config, read, device, arguments)
    difference = float((ours - native).norm() / native.norm())
    detail = f"relative difference {difference:.1e} from ComfyUI's network, at most {LIMIT:.0e}, on {device}"
    return Check("step", difference <= LIMIT, detail)


def _our_step(
    config: WanVaceConfig, read: Reader, device: str, arguments: tuple[torch.Tensor | None, ...]
) -> torch.Tensor:
    network = WanVace(config, device="meta", dtype=torch.float32).eval()
    stream_weights(network, read, device)
    return network(*arguments)


def _native_step(
    config: WanVaceConfig, read: Reader, device: str, arguments: tuple[torch.Tensor | None, ...]
) -> torch.Tensor:
    import comfy.ldm.wan.model as wan
    import comfy.ops

    spaced = range(0, config.num_layers, config.num_layers // max(len(config.vace_layers), 1))
    if config.vace_layers and config.vace_layers != tuple(spaced)[: len(config.vace_layers)]:
        raise ValueError(
            f"VACE blocks are at the layers {config.vace_layers}; ComfyUI's network spaces them evenly, so "
            "that there is nothing to compare with"
        )
    sizes = {theirs: getattr(config, ours) for ours, theirs in _SIZES.items()}
    place = {"device": "meta", "dtype": torch.float32, "operations": comfy.ops.disable_weight_init}
    x, timestep, text, contexts = arguments
    if not config.vace_layers:
        network = wan.WanModel(model_type="t2v", **sizes, **place)
        stream_weights(network, read, device)
        return network(x, timestep, text)
    vace = {"vace_layers": len(config.vace_layers), "vace_in_dim": config.vace_in_channels}
    network = wan.VaceWanModel(**sizes, **vace, **place)
    stream_weights(network, read, device)
    return network(x, timestep, text, vace_context=contexts, vace_strength=[1.0])
