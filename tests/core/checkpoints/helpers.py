"""Checkpoint files in every published shape, written by libraries other than ours."""

import json
import os
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

from tests.core.networks.helpers import random_network
from vdot_core.networks import WanVaceConfig, expected_shapes

TINY = WanVaceConfig(
    dim=24, ffn_dim=40, num_heads=2, num_layers=4, vace_layers=(0, 2), text_dim=12, freq_dim=8, text_len=16
)
TINY_TEXT = WanVaceConfig(
    dim=24, ffn_dim=40, num_heads=2, num_layers=4, vace_layers=(), text_dim=12, freq_dim=8, text_len=16
)


def weights_of(config: WanVaceConfig = TINY, dtype=torch.bfloat16, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under Wan's names; every parameter in the same dtype."""
    return {name: value.to(dtype) for name, value in random_network(config, seed).state_dict().items()}


def is_vace(name: str) -> bool:
    return name.startswith(("vace_blocks.", "vace_patch_embedding."))


def prefixed(weights: dict, prefix: str) -> dict:
    return {prefix + name: value for name, value in weights.items()}


def write_shards(
    folder: Path, weights: dict, num_shards: int = 3, stem: str = "diffusion_pytorch_model"
) -> Path:
    """Shards with an index, as Wan's and diffusers' repositories have them."""
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(weights)
    weight_map = {}
    for part in range(num_shards):
        file = f"{stem}-{part + 1:05d}-of-{num_shards:05d}.safetensors"
        mine = names[part::num_shards]
        save_file({name: weights[name].contiguous() for name in mine}, folder / file)
        weight_map |= dict.fromkeys(mine, file)
    index = folder / f"{stem}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}))
    return folder


def write_gguf(path: Path, weights: dict, kind: str, **fields: str) -> Path:
    """A GGUF file as ComfyUI-GGUF's tools write it: the blocks' matrices in a format, the rest as float32.

    K blocks, which the package does not quantize, are random bytes with plain scales.
    """
    writer = gguf.GGUFWriter(None, "wan")
    for key, value in fields.items():
        writer.add_string(key, value)
    for name, value in weights.items():
        block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
        is_matrix = value.ndim == 2 and "blocks." in name and not value.shape[1] % block
        ggml_type = gguf.GGMLQuantizationType[kind if is_matrix else "F32"]
        if is_matrix and kind.endswith("_K"):
            raw = np.random.default_rng(0).integers(0, 61, (value.shape[0], value.shape[1] // block * size))
            writer.add_tensor(name, raw.astype(np.uint8), raw_dtype=ggml_type)
        else:
            writer.add_tensor(
                name, gguf.quants.quantize(value.float().numpy(), ggml_type), raw_dtype=ggml_type
            )
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def wan_json(config: WanVaceConfig) -> dict:
    """config.json as in Wan's own repositories."""
    return {
        "_class_name": "VaceWanModel",
        "_diffusers_version": "0.30.0",
        "dim": config.dim,
        "eps": config.eps,
        "ffn_dim": config.ffn_dim,
        "freq_dim": config.freq_dim,
        "in_dim": config.in_channels,
        "model_type": "vace",
        "num_heads": config.num_heads,
        "num_layers": config.num_layers,
        "out_dim": config.out_channels,
        "text_dim": config.text_dim,
        "text_len": config.text_len,
        "vace_in_dim": config.vace_in_channels,
        "vace_layers": list(config.vace_layers),
    }


_CODES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32", torch.float8_e4m3fn: "F8_E4M3"}


def write_header_only(path: Path, shapes: dict, dtype=torch.bfloat16) -> Path:
    """A safetensors file of full size whose data is a hole: it takes no room on disk."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + end)
    return path


def shapes_of(config: WanVaceConfig, **other: tuple) -> dict:
    """Names and shapes of a released-size network, some of them changed."""
    return {**expected_shapes(config), **other}


def assert_same(got: dict, expected: dict) -> None:
    """Equal names, dtypes and bits."""
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].dtype == value.dtype, name
        pair = (tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (got[name], value))
        assert got[name].shape == value.shape and torch.equal(*pair), name


SUBPROCESS_ENV = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(__file__).resolve().parents[3]),
}
