"""GGUF files: values against the `gguf` package's, names and shapes, and headers that claim much."""

import struct
import sys
import time
from dataclasses import replace

import gguf
import numpy as np
import pytest
import torch

from tests.core.checkpoints.helpers import TINY, assert_same, weights_of, write_gguf
from tests.support.watch import check_refusal, watchdog
from vdot_core.checkpoints import inspect, load_network, read_weights
from vdot_core.checkpoints.ggml_types import GGML_TYPES, UNREAD_TYPES, dequantize
from vdot_core.checkpoints.infer import config_to_metadata
from vdot_core.checkpoints.open_tensors import open_tensor_file
from vdot_core.networks import WanVaceConfig, expected_shapes

KINDS = [kind.name for kind in GGML_TYPES.values()]
# Heads of 128 channels and rows of whole K blocks, as in the released networks; and the width of one of them.
SMALL = WanVaceConfig(dim=256, ffn_dim=512, num_heads=2, num_layers=1, vace_layers=(0,), text_dim=64)
WIDE = replace(SMALL, dim=1536, num_heads=12)


def random_blocks(kind: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Bytes of a format, all of them possible; some scales are infinite or not a number."""
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*shape[:-1], shape[-1] // block * size), dtype=np.uint8)


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:overflow")
@pytest.mark.parametrize("kind", KINDS)
def test_values_are_those_of_the_gguf_package(kind):
    raw = random_blocks(kind, (33, 1536))
    expected = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind])
    values = dequantize(torch.from_numpy(raw), kind, (3, 11, 1536))
    assert values.dtype == torch.float32 and np.isfinite(expected).mean() > 0.8
    np.testing.assert_array_equal(values.numpy().reshape(expected.shape), expected)


def test_formats_are_those_of_the_gguf_package():
    for number, kind in GGML_TYPES.items():
        assert gguf.GGMLQuantizationType(number).name == kind.name
        assert gguf.GGML_QUANT_SIZES[number] == (kind.block_size, kind.block_bytes)
    for number, name in UNREAD_TYPES.items():
        assert gguf.GGMLQuantizationType(number).name == name


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:overflow")
def test_a_large_tensor_is_decoded_in_parts():
    raw = random_blocks("Q4_K", (2731, 1536))  # the last part is shorter
    expected = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType.Q4_K)
    values = dequantize(torch.from_numpy(raw), "Q4_K", (2731, 1536), torch.bfloat16)
    torch.testing.assert_close(values, torch.from_numpy(expected).bfloat16(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("kind", "size"), [("Q4_X", 18), ("Q4_0", 17), ("Q4_0", 36)])
def test_bytes_that_are_not_the_shapes_are_refused(kind, size):
    with pytest.raises(ValueError, match=r"got .* expected") as error:
        dequantize(torch.zeros(size, dtype=torch.uint8), kind, (32,))
    check_refusal(str(error.value))


def check_against_package(path, read: dict[str, torch.Tensor], config: WanVaceConfig) -> None:
    """Names and shapes are the network's, values the package's."""
    reader = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    assert read.keys() == reader.keys() == expected_shapes(config).keys()
    for name, tensor in reader.items():
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert tuple(read[name].shape) == expected_shapes(config)[name]
        assert np.array_equal(read[name].numpy().ravel(), values.ravel(), equal_nan=True), name


@pytest.mark.full
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.endswith("_K")])
def test_k_blocks_at_a_released_width(tmp_path, kind):
    path = write_gguf(tmp_path / "w.gguf", weights_of(WIDE), kind)
    info = inspect(path)  # the width gives the number of heads
    assert info.config == WIDE and info.ggml_types == (kind,)
    check_against_package(path, read_weights(path, dtype=torch.float32).state_dict, WIDE)


@pytest.mark.parametrize("kind", ["Q8_0", "Q5_1", "Q4_K", "BF16"])
def test_a_file_of_another_tool(tmp_path, kind):
    """Read as the package reads it; blocks take a dtype, numbers keep theirs."""
    path = write_gguf(tmp_path / "w.gguf", weights_of(SMALL), kind)
    info = inspect(path, config=SMALL)
    assert (info.layout, info.config, info.problem) == ("wan", SMALL, "")
    assert info.metadata["general.architecture"] == "wan"
    assert info.ggml_types == ((kind,) if "Q" in kind else ())
    label = {"BF16": "bfloat16"}.get(kind, kind)
    assert info.dtypes.keys() == {label, "float32"} and info.num_parameters == sum(info.dtypes.values())
    read = read_weights(path, config=SMALL, dtype=torch.float32).state_dict
    check_against_package(path, read, SMALL)
    network = load_network(path, config=SMALL, dtype=torch.bfloat16)
    assert network.patch_embedding.weight.dtype == torch.float32
    assert torch.equal(network.blocks[0].ffn[0].weight, read["blocks.0.ffn.0.weight"].bfloat16())
    if "Q" not in kind:
        assert load_network(path, config=SMALL).blocks[0].ffn[0].weight.dtype == torch.bfloat16
        return
    with pytest.raises(ValueError, match=rf"quantized weights \({kind}\).*give dtype=") as error:
        load_network(path, config=SMALL)
    check_refusal(str(error.value))


def test_stored_blocks_are_mapped_for_who_decodes_them_later(tmp_path):
    file = open_tensor_file(write_gguf(tmp_path / "w.gguf", weights_of(SMALL), "Q4_0"))
    stored, name = file.read(), "blocks.0.ffn.0.weight"
    spec = file.specs[name]
    assert (spec.ggml_type, spec.shape, stored[name].dtype) == ("Q4_0", (512, 256), torch.uint8)
    assert spec.num_bytes == stored[name].numel() == 512 * 256 // 32 * 18
    assert torch.equal(stored[name], file.load(name))
    assert stored["head.head.bias"].dtype == torch.float32
    stored[name].zero_()  # in memory alone
    assert file.load(name).any()


def test_k_blocks_prefixes_reshaped_tensors_and_our_metadata(tmp_path):
    """Files of llama-quantize and other converters, and the config of a width that was never released."""
    writer, weights = gguf.GGUFWriter(None, "wan"), weights_of(dtype=torch.float32)
    for key, value in config_to_metadata(TINY).items():
        writer.add_string(f"vdot.{key}", value)
    writer.add_string("config", "another program's")
    writer.add_array("tokenizer.ggml.tokens", [f"word {n}" for n in range(1000)])
    for name, value in weights.items():
        values = value.numpy()
        if value.ndim == 5:
            writer.add_array(f"comfy.gguf.orig_shape.model.diffusion_model.{name}", list(value.shape))
            values = values.reshape(value.shape[0], -1)
        writer.add_tensor(f"model.diffusion_model.{name}", values)
    path = tmp_path / "w.gguf"
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    info = inspect(tmp_path)
    assert (info.config, info.layout, info.metadata["tokenizer.ggml.tokens"]) == (
        TINY,
        "comfyui",
        "1000 values",
    )
    assert_same(read_weights(path).state_dict, weights)


def header(
    fields: bytes = b"", tensors: bytes = b"", counts: tuple[int, int] = (0, 0), version: int = 3
) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, *counts) + fields + tensors


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def tensor(name="blocks.0.x", shape=(32,), kind=0, offset=0) -> bytes:
    axes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + axes + struct.pack("<IQ", kind, offset)


HUGE = 2**63
HOSTILE = {
    "truncated": b"GGUF\3",
    "version": header(version=1),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "tensors": header(counts=(HUGE, 0)),
    "fields": header(counts=(0, HUGE)),
    "name": header(counts=(1, 0), tensors=struct.pack("<Q", HUGE)),
    "long name": header(counts=(1, 0), tensors=tensor("x" * 2_000_000)),
    "not UTF-8": header(counts=(1, 0), tensors=struct.pack("<Q", 2) + b"\xff\xfe"),
    "axes": header(counts=(1, 0), tensors=text("x") + struct.pack("<I", 2**31)),
    "no axes": header(counts=(1, 0), tensors=tensor(shape=())),
    "shape": header(counts=(1, 0), tensors=tensor(shape=(HUGE, HUGE))),
    "empty": header(counts=(1, 0), tensors=tensor(shape=(32, 0))),
    "row": header(counts=(1, 0), tensors=tensor(shape=(33, 32), kind=8)),
    "unread format": header(counts=(1, 0), tensors=tensor(kind=23, shape=(256,))),
    "unknown format": header(counts=(1, 0), tensors=tensor(kind=2**32 - 1)),
    "past the end": header(counts=(1, 0), tensors=tensor(offset=2**40)),
    "odd offset": header(counts=(1, 0), tensors=tensor(offset=8)) + bytes(500),
    "twice": header(counts=(2, 0), tensors=tensor() + tensor(offset=128)) + bytes(500),
    "overlap": header(counts=(2, 0), tensors=tensor() + tensor("y", offset=32)) + bytes(500),
    "no alignment": header(text("general.alignment") + struct.pack("<II", 4, 0), counts=(0, 1)),
    "alignment of text": header(text("general.alignment") + struct.pack("<I", 8) + text("32"), counts=(0, 1)),
    "kind of field": header(text("x") + struct.pack("<I", 99), counts=(0, 1)),
    "array": header(text("x") + struct.pack("<IIQ", 9, 0, HUGE), counts=(0, 1)),
    "array of texts": header(text("x") + struct.pack("<IIQ", 9, 8, HUGE) + bytes(2_000_000), counts=(0, 1)),
    "array of arrays": header(text("x") + struct.pack("<IIQ", 9, 9, 1), counts=(0, 1)),
    "long header": header(text("x") + struct.pack("<IQ", 8, 17_000_000) + bytes(17_000_000), counts=(0, 1)),
    "original shape": header(
        text("comfy.gguf.orig_shape.x") + struct.pack("<IIQ2i", 9, 5, 2, 4, 9), tensor("x"), (1, 1)
    )
    + bytes(500),
    "negative shape": header(
        text("comfy.gguf.orig_shape.x") + struct.pack("<IIQ2i", 9, 5, 2, -4, -8), tensor("x"), (1, 1)
    )
    + bytes(500),
}


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory by Linux's resource limits")
@pytest.mark.parametrize("kind", HOSTILE)
def test_headers_that_claim_much_are_refused_at_the_cost_of_their_size(tmp_path, kind):
    path = tmp_path / "w.gguf"
    path.write_bytes(HOSTILE[kind])
    start = time.process_time()
    with watchdog(seconds=20, num_bytes=2**28), pytest.raises(ValueError, match=r"w\.gguf.*GGUF") as error:
        inspect(path)
    check_refusal(str(error.value))
    assert time.process_time() - start < 10
