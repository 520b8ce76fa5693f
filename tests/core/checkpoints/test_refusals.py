"""Files that are not a loadable network: the error says what they are, what is wrong and what to do."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from tests.core.checkpoints.helpers import (
    TINY,
    shapes_of,
    weights_of,
    write_header_only,
    write_shards,
)
from vdot_core.checkpoints import convert, inspect, load_network, open_weights, read_weights
from vdot_core.checkpoints.__main__ import main
from vdot_core.checkpoints.verify import verify
from vdot_core.networks import wan_vace_1_3b

ONE = torch.ones(2, 2)
FOREIGN = {
    "lora": (
        ["blocks.0.self_attn.q.lora_A.weight", "blocks.0.self_attn.q.lora_B.weight"],
        "these are LoRA weights",
    ),
    "lora ": (["diffusion_model.blocks.0.ffn.0.lora_down.weight"], "these are LoRA weights"),
    "i2v": (["blocks.0.cross_attn.k_img.weight", "img_emb.proj.0.bias"], "Wan 2.2 / I2V: has img_emb"),
    "i2v ": (["condition_embedder.image_embedder.norm1.weight", "blocks.0.attn1.to_q.weight"], "I2V"),
    "vae": (["encoder.conv1.weight", "decoder.conv1.weight", "conv1.weight"], "this is a VAE"),
    "vae ": (["encoder.conv_in.weight", "post_quant_conv.weight"], "this is a VAE"),
    "text-encoder": (
        ["token_embedding.weight", "blocks.0.attn.q.weight", "norm.weight"],
        "this is a text encoder",
    ),
    "text-encoder ": (
        ["shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight"],
        "this is a text encoder",
    ),
    "image-encoder": (["visual.transformer.0.weight"], "CLIP image encoder"),
    "other": (["double_blocks.0.img_attn.qkv.weight"], "another family"),
    "wan-other": (["blocks.0.ffn.0.weight", "control_adapter.conv.weight"], "another Wan variant"),
    "unknown": (["some.weight"], "nothing in it looks like a Wan transformer; it has some.weight"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_files_are_named(tmp_path, kind):
    names, sentence = FOREIGN[kind]
    path = tmp_path / "file.safetensors"
    save_file({name: ONE.clone() for name in names}, path)
    info = inspect(path)
    assert info.layout == kind.strip() and info.config is None
    assert sentence in info.problem and str(path) in info.problem
    with pytest.raises(ValueError, match=r"file\.safetensors"):
        load_network(path)


def test_i2v_and_5b_by_their_channels(tmp_path):
    for channels, sentence in ((36, "Wan 2.2 / I2V or Fun"), (48, "Wan 2.2 5B")):
        shapes = shapes_of(wan_vace_1_3b(), **{"patch_embedding.weight": (1536, channels, 1, 2, 2)})
        assert sentence in inspect(write_header_only(tmp_path / f"{channels}.safetensors", shapes)).problem


def faulty(tmp_path, change, config=TINY):
    weights = weights_of()
    change(weights)
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(ValueError) as error:
        load_network(tmp_path / "w.safetensors", config=config)
    assert str(tmp_path / "w.safetensors") in str(error.value)
    return str(error.value)


def test_the_first_missing_keys_are_named(tmp_path):
    def remove(weights):
        for name in [name for name in weights if name.endswith(".bias")]:
            del weights[name]

    message = faulty(tmp_path, remove)
    num_missing = sum(name.endswith(".bias") for name in weights_of())
    assert f"misses {num_missing} keys: patch_embedding.bias, text_embedding.0.bias" in message
    assert f"and {num_missing - message.count('.bias')} more" in message and len(message) < 400
    assert "incomplete file" in message


def test_unexpected_and_misshapen_keys_are_named(tmp_path):
    message = faulty(tmp_path, lambda weights: weights.update({"blocks.1.extra.weight": ONE.bfloat16()}))
    assert "has unexpected 1 key: blocks.1.extra.weight" in message and "another variant" in message
    message = faulty(tmp_path, lambda weights: weights.update({"head.head.bias": torch.ones(63)}))
    assert "head.head.bias is [63], expected [64]" in message
    message = faulty(tmp_path, lambda weights: weights.pop("blocks.0.modulation"))
    assert "misses 1 key: blocks.0.modulation" in message


def test_the_same_parameter_twice(tmp_path):
    twin = {"_fsdp_wrapped_module.head.head.bias": torch.ones(64)}
    assert "are both head.head.bias" in faulty(tmp_path, lambda weights: weights.update(twin))


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({"blocks.0.ffn.0.weight": torch.ones(40, 24, dtype=torch.int8)}, "torch.int8, a quantization"),
        ({"blocks.0.ffn.0.weight_scale_2": torch.ones(())}, "only fp8 weights with scales"),
        ({"blocks.0.ffn.0.absmax": torch.ones(())}, "quantized in a way that is not read"),
        ({"blocks.0.ffn.0.weight_scale": torch.ones(())}, "only fp8 weights with scales"),
        ({"blocks.9.ffn.0.scale_weight": torch.ones(())}, "which the file does not hold"),
    ],
)
def test_other_quantizations_are_refused(tmp_path, extra, sentence):
    assert sentence in faulty(tmp_path, lambda weights: weights.update(extra))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"GGUF" + b"\0" * 60, "GGUF: it has version 0, expected 2 or 3"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git-lfs pointer"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"", "safetensors"),
        (b"\x08", "truncated or not safetensors"),
    ],
)
def test_what_is_no_weight_file(tmp_path, content, sentence):
    for name in ("file.safetensors", "file.gguf" if content.startswith(b"GGUF") else "file2.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=sentence):
            inspect(tmp_path / name)


def test_paths(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        inspect(tmp_path / "nothing.safetensors")
    with pytest.raises(ValueError, match="holds no weights"):
        inspect(tmp_path)
    for name in ("a", "b"):
        save_file(weights_of(), tmp_path / f"{name}.safetensors")
    with pytest.raises(ValueError, match=r"several weight files \(a.safetensors, b.safetensors\)"):
        inspect(tmp_path)
    with pytest.raises(ValueError, match="floating point"):
        read_weights(tmp_path / "a.safetensors", config=TINY, dtype=torch.int8)


def test_fp16_overflow_is_refused(tmp_path):
    weights = weights_of()
    weights["blocks.0.ffn.0.bias"][3] = 1e6
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"blocks.0.ffn.0.bias has values outside float16's range"):
        load_network(tmp_path / "w.safetensors", config=TINY, dtype=torch.float16)


def edit_index(folder, change):
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    content = json.loads(index.read_text())
    change(content)
    index.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "target", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "c:\\x", "a\0b", 7]
)
def test_index_that_points_outside_is_refused(tmp_path, target):
    folder = write_shards(tmp_path / "repo", weights_of())
    save_file(weights_of(), tmp_path / "x.safetensors")
    edit_index(folder, lambda content: content["weight_map"].update({"head.head.bias": target}))
    with pytest.raises(ValueError, match=r"is refused: it places 'head\.head\.bias'"):
        inspect(folder)


def test_missing_and_disagreeing_shards(tmp_path):
    folder = write_shards(tmp_path / "repo", weights_of())
    edit_index(folder, lambda content: content["weight_map"].pop("head.head.bias"))
    with pytest.raises(ValueError, match=r"disagree on 1 tensors: head.head.bias"):
        inspect(folder)
    folder = write_shards(tmp_path / "repo", weights_of())
    shard = folder / "diffusion_pytorch_model-00002-of-00003.safetensors"
    shard.rename(tmp_path / "moved")
    with pytest.raises(ValueError, match=r"lacks 1 of 3 shards: diffusion_pytorch_model-00002-of-00003"):
        inspect(folder)
    (folder / "diffusion_pytorch_model.safetensors.index.json").unlink()
    with pytest.raises(ValueError, match="is one shard of several"):
        inspect(folder / "diffusion_pytorch_model-00001-of-00003.safetensors")


HOSTILE = "a\udce8\x1b[31m\u202e\n" + "x" * 150


def hostile_folder(tmp_path, change):
    folder = write_shards(tmp_path / HOSTILE, weights_of())
    edit_index(folder, change)
    return folder


def written(path, weights, **options):
    save_file({name: value.contiguous() for name, value in weights.items()}, path, **options)
    return path


# Names of files, keys and metadata that no terminal should see as they are.
UNSHOWABLE = {
    "file": lambda folder: folder / HOSTILE,
    "key": lambda folder: written(folder / "w.safetensors", {**weights_of(), f"blocks.0.{HOSTILE[2:]}": ONE}),
    "unknown": lambda folder: written(folder / "w.safetensors", {HOSTILE[2:]: ONE}),
    "metadata": lambda folder: written(
        folder / "w.safetensors", weights_of(), metadata={"vdot_format": HOSTILE[2:]}
    ),
    "twice": lambda folder: written(
        folder / "w.safetensors", {**weights_of(), "_orig_mod.head.head.bias": ONE}
    ),
    "shard": lambda folder: hostile_folder(folder, lambda c: c["weight_map"].update({HOSTILE: HOSTILE})),
    "owner": lambda folder: hostile_folder(folder, lambda c: c["weight_map"].update({"x": f"{HOSTILE}/x"})),
    "index": lambda folder: hostile_folder(folder, lambda c: c.pop("weight_map")),
}


@pytest.mark.parametrize("kind", UNSHOWABLE)
def test_messages_can_be_shown_anywhere(tmp_path, kind, capsys):
    path = UNSHOWABLE[kind](tmp_path)
    if kind == "file":
        save_file(weights_of(), tmp_path / "w.safetensors")
        path.write_bytes((tmp_path / "w.safetensors").read_bytes()[:-9])
    for attempt in (load_network, read_weights):
        with pytest.raises(ValueError) as error:
            attempt(path, config=TINY)
        assert str(error.value).isprintable() and len(str(error.value)) < 2000
    assert main(["inspect", str(path)]) == 1
    lines = capsys.readouterr()
    assert all(line.isprintable() for text in lines for line in text.splitlines())


def test_what_never_ends_is_not_read(tmp_path):
    """A pipe or a device in the place of an index, a config or weights."""
    folder = write_shards(tmp_path / "repo", weights_of())
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    for file in (
        index,
        folder / "config.json",
        folder / "diffusion_pytorch_model-00001-of-00003.safetensors",
    ):
        content = file.read_bytes() if file.exists() else None
        for make in (lambda: os.mkfifo(file), lambda: file.symlink_to("/dev/zero")):  # noqa: B023
            file.unlink(missing_ok=True)
            make()
            if file.name == "config.json":  # one that is no file is none
                assert load_network(folder, config=TINY).config == TINY
                continue
            for path in (folder, file):
                with pytest.raises(ValueError, match=r"is not a file|lacks 1 of 3 shards"):
                    inspect(path)
        file.unlink()
        if content is not None:
            file.write_bytes(content)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_values_that_are_no_numbers_are_refused_where_they_are_read(tmp_path, dtype, value):
    name, weights = "blocks.2.ffn.0.weight", weights_of(dtype=dtype)
    weights[name] = weights[name].float().index_fill_(0, torch.tensor(3), value).to(dtype)
    config = json.dumps({"transformer": {**TINY.to_dict(), "vdot": 1}})
    save_file(weights, path := tmp_path / "w.safetensors", {"vdot_format": "1", "config": config})
    readers = {
        "training": lambda: [*open_weights(path).state_dict.values()],
        "a conversion": lambda: convert(path, tmp_path / "out.safetensors", dtype=torch.float16),
        "another dtype": lambda: read_weights(path, dtype=torch.float16),
    }
    for reader, read in readers.items():
        with pytest.raises(ValueError, match=rf"{name} has values that are not finite.*undamaged") as error:
            read()
        assert str(path) in str(error.value) and len(str(error.value)) <= 400, reader
    read_weights(path)  # as it is, a map, which is not read
    failed = [check for check in verify(path) if not check.passed]
    assert [check.title for check in failed] == ["values"] and name in failed[0].detail


def test_a_header_whose_length_spells_a_web_page_is_read(tmp_path):
    """A length of 0x13C20 bytes is stored as ' <\\1': one in 8,000 files of weights begins with ' <'."""
    path, length = tmp_path / "w.safetensors", 0x13C20
    save_file(weights_of(), path)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = {"notes": ""}
    header["__metadata__"]["notes"] = "x" * (length - len(json.dumps(header)))
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + content[8 + size :])
    assert path.read_bytes().startswith(b" <") and len(raw) == length
    assert inspect(path).num_parameters == sum(value.numel() for value in weights_of().values())
