"""Techniques by which other node packs change ComfyUI's Wan network, each once, written for the tests.

A technique is a function of the network that returns what to put where: dotted paths of the network and the
objects that a pack would set there (ComfyUI's `add_object_patch`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

Patches = dict[str, Any]
Technique = Callable[[nn.Module], Patches]


@contextmanager
def applied(network: nn.Module, technique: Technique) -> Iterator[None]:
    """Set what the technique asks for, as ComfyUI does while a patched MODEL is loaded."""
    import comfy.utils

    before = {path: comfy.utils.set_attr(network, path, value) for path, value in technique(network).items()}
    try:
        yield
    finally:
        for path, value in before.items():
            comfy.utils.set_attr(network, path, value)


def attend(module: nn.Module, x: Tensor, freqs: Tensor, options: dict) -> tuple[Tensor, Tensor, Tensor]:
    """A self-attention written out: (result before the output layer, queries, keys)."""
    from comfy.ldm.flux.math import apply_rope
    from comfy.ldm.modules.attention import optimized_attention

    shape = (*x.shape[:2], module.num_heads, module.head_dim)
    q, k = apply_rope(module.norm_q(module.q(x)).view(shape), module.norm_k(module.k(x)).view(shape), freqs)
    y = optimized_attention(
        q.flatten(2), k.flatten(2), module.v(x), heads=module.num_heads, transformer_options=options
    )
    return y, q, k


def enhanced_self_attention(network: nn.Module) -> Patches:
    """Self-attention scaled by how much frames attend to each other; keeps settings on the module."""

    def forward(self, x, freqs, transformer_options={}):  # noqa: B006
        self.enhance_weight = 4.0
        y, q, k = attend(self, x, freqs, transformer_options)
        frames = transformer_options["grid_sizes"][0]
        q, k = (part.unflatten(1, (frames, -1)).transpose(1, 3) for part in (q, k))  # heads before frames
        between = (q @ k.mT * self.head_dim**-0.5).float().softmax(-1).diagonal(dim1=-2, dim2=-1)
        return self.o(y) * (1.5 - between.mean().to(y.dtype)) * self.enhance_weight**0.5

    return {
        f"blocks.{n}.self_attn.forward": MethodType(forward, block.self_attn)
        for n, block in enumerate(network.blocks)
    }


def _guided(module: nn.Module, context: Tensor, negative: Tensor, x: Tensor) -> Tensor:
    """Cross-attention pushed away from a negative text (normalized attention guidance)."""
    from comfy.ldm.modules.attention import optimized_attention

    q = module.norm_q(module.q(x))
    good, bad = (
        optimized_attention(q, module.norm_k(module.k(text)), module.v(text), heads=module.num_heads)
        for text in (context, negative.to(x).expand(len(x), -1, -1))
    )
    pushed = good * 5 - bad * 4
    norms = [values.norm(p=1, dim=-1, keepdim=True) for values in (good, pushed)]
    pushed = pushed * torch.clamp(2.5 * norms[0] / norms[1], max=1.0)
    return module.o(pushed * 0.25 + good * 0.75)


def guided_cross_attention(network: nn.Module) -> Patches:
    """A negative prompt in every cross-attention of the backbone, its text embedded by the network."""
    text = torch.randn(1, 5, network.text_dim, generator=torch.Generator().manual_seed(9))
    negative = network.text_embedding(text)

    def forward(self, x, context, transformer_options={}, **kwargs):  # noqa: B006
        return _guided(self, context, negative, x)

    return {
        f"blocks.{n}.cross_attn.forward": MethodType(forward, block.cross_attn)
        for n, block in enumerate(network.blocks)
    }


def attentions_found_by_class(network: nn.Module) -> Patches:
    """Every cross-attention of ComfyUI's exact class, wherever it is, with a required image length."""
    from comfy.ldm.wan.model import WanSelfAttention, WanT2VCrossAttention

    patches = {}
    for name, module in network.named_modules():
        if "cross_attn" in name and isinstance(module, WanSelfAttention):
            assert type(module) is WanT2VCrossAttention

            def forward(self, x, context, context_img_len, original=module.forward, **kwargs):
                assert context_img_len is None and len(x) == len(context)
                return original(x * 1.1, context[:, 1:], context_img_len=context_img_len, **kwargs)

            patches[f"{name}.forward"] = MethodType(forward, module)
    assert len(patches) > len(network.blocks)
    return patches


def _block_forward(self, x, e, freqs, context, context_img_len=257, transformer_options={}):  # noqa: B006
    """A block written out with its parts, slightly changed."""
    e = (self.modulation.to(x) + (e if e.ndim == 3 else e[:, 0])).chunk(6, dim=1)
    y = self.self_attn(self.norm1(x) * (1 + e[1]) + e[0], freqs, transformer_options=transformer_options)
    x = x + y * e[2] * 0.9
    x = x + self.cross_attn(
        self.norm3(x), context, context_img_len=context_img_len, transformer_options=transformer_options
    )
    return x + self.ffn(self.norm2(x) * (1 + e[4]) + e[3]) * e[5]


def rewritten_blocks(network: nn.Module) -> Patches:
    """Blocks whose forward is a changed copy of ComfyUI's."""
    return {f"blocks.{n}.forward": MethodType(_block_forward, network.blocks[n]) for n in (0, 1, 3)}


class Wrapped(nn.Module):
    """A block inside another module, as packs that swap or time blocks put it."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        assert set(kwargs) == {"e", "freqs", "context", "context_img_len", "transformer_options"}
        return self.block(*args, **kwargs) * 0.9


def wrapped_blocks(network: nn.Module) -> Patches:
    """Blocks replaced by modules that call them."""
    return {f"blocks.{n}": Wrapped(network.blocks[n]) for n in (0, 2)}


def changed_vace_blocks(network: nn.Module) -> Patches:
    """VACE blocks that fade their hints over the frames and look at the video's tokens."""

    def forward(self, c, x, original, transformer_options={}, **kwargs):  # noqa: B006
        hint, c = original(c + 0.1 * x, x=x, transformer_options=transformer_options, **kwargs)
        frames = transformer_options["grid_sizes"][0]
        fade = torch.linspace(1, 0, frames).to(hint).repeat_interleave(hint.shape[1] // frames)
        return hint * fade[:, None], c

    blocks = enumerate(network.vace_blocks)
    return {
        f"vace_blocks.{n}.forward": MethodType(partial(forward, original=block.forward), block)
        for n, block in blocks
    }


def chunked_feed_forward(network: nn.Module) -> Patches:
    """A feed-forward in chunks of tokens, and one with another activation."""

    def forward(self, x):
        assert type(self) is nn.Sequential
        return torch.cat([nn.Sequential.forward(self, part) for part in x.chunk(2, dim=1)], dim=1) * 1.1

    return {
        "blocks.0.ffn.forward": MethodType(forward, network.blocks[0].ffn),
        "blocks.1.ffn.1.forward": torch.relu,
        "vace_blocks.0.ffn": nn.Sequential(*network.vace_blocks[0].ffn, nn.Tanh()),
    }


def changed_head(network: nn.Module) -> Patches:
    """A head whose forward is written out with its parts."""

    def forward(self, x, e):
        e = (self.modulation.to(x) + (e.unsqueeze(1) if e.ndim == 2 else e)).chunk(2, dim=1)
        return self.head(self.norm(x) * (1 + e[1]) + e[0]) * 0.8

    return {"head.forward": MethodType(forward, network.head)}


def cached_forward(network: nn.Module) -> Patches:
    """The forward pass of the VACE network with a cache: every second call reuses the blocks' change."""
    from comfy.ldm.wan.model import sinusoidal_embedding_1d

    def forward_orig(
        self, x, t, context, vace_context, vace_strength, clip_fea=None, freqs=None,
        transformer_options=None, **kwargs,
    ):  # fmt: skip
        x = self.patch_embedding(x.float()).to(x.dtype)
        grid_sizes = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)
        e = self.time_embedding(sinusoidal_embedding_1d(self.freq_dim, t).to(dtype=x[0].dtype))
        e0 = self.time_projection(e).unflatten(1, (6, self.dim))
        context = self.text_embedding(context)
        batch = len(vace_context)
        parts = vace_context.transpose(0, 1).flatten(0, 1)
        c = self.vace_patch_embedding(parts.float()).to(parts.dtype).flatten(2).transpose(1, 2)
        c, start = list(c.split(batch)), x
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls % 2 == 0:
            x = x + self.residual * 0.9
        else:
            for i, block in enumerate(self.blocks):
                x = block(x, e=e0, freqs=freqs, context=context, context_img_len=None)
                place = self.vace_layers_mapping.get(i)
                for n in range(len(c) if place is not None else 0):
                    hint, c[n] = self.vace_blocks[place](
                        c[n], x=start, e=e0, freqs=freqs, context=context, context_img_len=None
                    )
                    x += hint * vace_strength[n]
            self.residual = x = x - start
        return self.unpatchify(self.head(x, e), grid_sizes)

    network.__dict__.pop("calls", None)
    return {"forward_orig": MethodType(forward_orig, network)}


def wrapped_forward(network: nn.Module) -> Patches:
    """A forward pass that calls the network's twice, at another text and strength."""
    original = network.forward_orig

    def forward_orig(x, t, context, vace_context, vace_strength, **kwargs):
        strengths = [strength * 0.5 for strength in vace_strength]
        first = original(x, t, context, vace_context, strengths, **kwargs)
        inputs = {"t": t, "context": context.flip(1), "vace_context": vace_context}
        return first + original(x * 0.9, **inputs, vace_strength=vace_strength, **kwargs)

    return {"forward_orig": forward_orig}


class Stretched(nn.Module):
    """Rotary positions on other frequencies, for videos longer than trained."""

    def __init__(self, embedder: nn.Module) -> None:
        super().__init__()
        self.dim, self.theta, self.axes_dim = embedder.dim, embedder.theta * 3, embedder.axes_dim

    def forward(self, ids: Tensor) -> Tensor:
        from comfy.ldm.flux.math import rope

        parts = [rope(ids[..., n] * 0.5, dim, self.theta) for n, dim in enumerate(self.axes_dim)]
        return torch.cat(parts, dim=-3).unsqueeze(1)


class Skewed(Stretched):
    """Position matrices that are no rotations."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) * torch.tensor([[1.0, 0.5], [0.25, 0.75]])


def stretched_positions(network: nn.Module) -> Patches:
    """Another embedder of positions."""
    return {"rope_embedder": Stretched(network.rope_embedder)}


def skewed_positions(network: nn.Module) -> Patches:
    """Another one, whose matrices are no rotations."""
    return {"rope_embedder": Skewed(network.rope_embedder)}


def edited_positions(network: nn.Module) -> Patches:
    """The embedder's own settings, changed."""
    d = network.dim // network.num_heads
    return {"rope_embedder.theta": 500.0, "rope_embedder.axes_dim": [d - 8, 4, 4]}


class Remapped:
    """A mapping that other code fills in, with nothing but `get`."""

    def get(self, layer: int, default: Any = None) -> Any:
        return {1: 0, 3: 1}.get(layer, default)


def remapped_layers(network: nn.Module) -> Patches:
    """VACE blocks moved to other layers."""
    return {"vace_layers_mapping": Remapped()}


def dropped_layer(network: nn.Module) -> Patches:
    """A VACE block left out."""
    return {"vace_layers_mapping": {0: 0}}


TECHNIQUES: tuple[Technique, ...] = (
    enhanced_self_attention,
    guided_cross_attention,
    attentions_found_by_class,
    rewritten_blocks,
    wrapped_blocks,
    changed_vace_blocks,
    chunked_feed_forward,
    changed_head,
    cached_forward,
    wrapped_forward,
    stretched_positions,
    skewed_positions,
    edited_positions,
    remapped_layers,
    dropped_layer,
)
