"""UMT5 encoders of several sizes in ComfyUI's single-file layout: the same tokens and embeddings as there."""

import json

import pytest
import torch

from training.data.encoders import TextEncoder
from training.data.umt5 import TEXT_LEN, embed, load_umt5

CPU = torch.device("cpu")
BUNDLED = "assets/vdot_tiny_text.safetensors"
# Heads times their width is not the model's, as in neither UMT5-XXL nor the bundled file.
MIDDLE = {"d_model": 192, "d_kv": 32, "d_ff": 384, "num_heads": 5, "num_layers": 5}
PROMPTS = [
    "a red circle moves to the lower right and spins over a plain blue background",
    "",
    "A Cat riding a bicycle, in the RAIN",
    "日本 zyxq ~ é",
]


def bundled_vocabulary():
    return load_umt5(BUNDLED).tokenizer.model


@pytest.fixture(scope="module")
def middle(tmp_path_factory):
    """A file as ComfyUI publishes them: no configuration in its header."""
    from safetensors import safe_open
    from safetensors.torch import save_file
    from transformers import UMT5Config, UMT5EncoderModel

    model = bundled_vocabulary()
    with safe_open(BUNDLED, "pt") as bundled:
        config = json.loads(bundled.metadata()["config"]) | MIDDLE
    torch.manual_seed(3)
    encoder = UMT5EncoderModel(UMT5Config(**config))
    tensors = {k: v.half() for k, v in encoder.state_dict().items() if k != "encoder.embed_tokens.weight"}
    tensors["spiece_model"] = torch.frombuffer(bytearray(model), dtype=torch.uint8)
    path = tmp_path_factory.mktemp("umt5") / "umt5_middle_fp16.safetensors"
    save_file(tensors, path)
    return path


def comfy_clip(path, config, text_len):
    import comfy.sd
    import comfy.text_encoders.wan as wan
    from safetensors.torch import load_file

    tensors = load_file(path)
    target = type("Target", (), {"params": {}, "clip": wan.te(), "tokenizer": wan.WanT5Tokenizer})()
    options = {"spiece_model": tensors.pop("spiece_model"), "umt5xxl_min_length": text_len}
    model = {"dtype": torch.float32, "umt5xxl_model_config": config}
    clip = comfy.sd.CLIP(target, tokenizer_data=options, state_dict=[], model_options=model)
    missing, unexpected = clip.load_sd(tensors)
    assert not unexpected and not missing
    return clip


def test_sizes_are_read_from_the_weights(middle):
    file = load_umt5(middle)
    assert {name: file.config[name] for name in MIDDLE} == MIDDLE
    assert file.config["vocab_size"] == len(file.tokenizer) and file.text_len == TEXT_LEN == 512
    bundled = load_umt5(BUNDLED)
    assert (bundled.config["d_model"], bundled.config["num_layers"], bundled.text_len) == (128, 3, 64)
    assert file.encoder.encoder.embed_tokens.weight is file.encoder.shared.weight, "held once"
    assert {p.dtype for p in load_umt5(middle, torch.bfloat16).encoder.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("name", ["bundled", "middle"])
def test_comfyui_gives_the_same_tokens_and_embeddings(name, middle, comfy):
    path = BUNDLED if name == "bundled" else middle
    file = load_umt5(path)
    clip = comfy_clip(path, file.config, file.text_len)
    text = TextEncoder(path, CPU)
    for prompt in PROMPTS:
        ids, mask = file.tokenizer([prompt])
        tokens = clip.tokenize(prompt)
        assert [token for token, _ in tokens["umt5xxl"][0]] == ids[0].tolist()
        expected = clip.encode_from_tokens_scheduled(tokens)[0][0]
        padded = embed(file.encoder, ids, mask)
        torch.testing.assert_close(padded, expected, atol=5e-5, rtol=1e-4)
        assert padded.shape[1] == file.text_len
        length = int(mask.sum())
        assert not padded[0, length:].any(), "beyond the eos the output is zero"
        (cut,) = text([prompt])
        torch.testing.assert_close(cut, padded[0, :length], atol=5e-5, rtol=1e-4)


def test_padding_does_not_change_a_prompts_embedding():
    file = load_umt5(BUNDLED)
    alone = embed(file.encoder, *file.tokenizer([PROMPTS[0]]))
    ids, mask = file.tokenizer([PROMPTS[0], "red " * 80])
    together = embed(file.encoder, ids, mask)
    torch.testing.assert_close(together[:1, : file.text_len], alone, atol=1e-5, rtol=1e-4)


def test_a_hugging_face_folder_is_the_same_encoder(middle, tmp_path):
    """The folder's tokenizer is transformers' own reading of the same sentencepiece model."""
    file = load_umt5(middle)
    file.encoder.save_pretrained(tmp_path / "text_encoder")
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "spiece.model").write_bytes(file.tokenizer.model)
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "eos_token": "</s>", "pad_token": "<pad>"}
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(settings))
    folder = TextEncoder(tmp_path, CPU)
    assert folder.text_len == 512
    prompts = [PROMPTS[0], PROMPTS[1]]
    for one, other in zip(folder(prompts), TextEncoder(middle, CPU)(prompts), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_scaled_fp8_weights_are_expanded(middle, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(middle)
    quantized, expected = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}, {}
    for name, value in tensors.items():
        if value.ndim == 2 and "SelfAttention.q" in name:
            scale = value.abs().max().float() / 400
            quantized[name] = (value.float() / scale).to(torch.float8_e4m3fn)
            quantized[name.replace(".weight", ".scale_weight")] = scale
            expected[name] = quantized[name].float() * scale
        else:
            quantized[name] = value
    save_file(quantized, tmp_path / "fp8.safetensors")
    weights = load_umt5(tmp_path / "fp8.safetensors").encoder.state_dict()
    assert len(expected) == 5 and all(torch.equal(weights[name], value) for name, value in expected.items())
    half = {**tensors, next(iter(expected)): torch.zeros(2, 2, dtype=torch.int8)}
    save_file(half, tmp_path / "int8.safetensors")
    with pytest.raises(ValueError, match="quantization that is not read; give umt5_xxl_fp16"):
        load_umt5(tmp_path / "int8.safetensors")


def test_other_files_are_refused(middle, tmp_path):
    from safetensors.torch import load_file, save_file

    path, tensors = tmp_path / "x.safetensors", load_file(middle)

    def refused(changed, match, metadata=None):
        save_file(changed, path, metadata)
        with pytest.raises(ValueError, match=match):
            load_umt5(path)

    refused({"weight": torch.zeros(1)}, "not a UMT5 file")
    refused({k: v for k, v in tensors.items() if k != "spiece_model"}, "no spiece_model, its tokenizer")
    bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    refused({k: v for k, v in tensors.items() if k != bias}, f"it has no {bias}")
    # T5 has this table in its first block alone.
    refused({k: v for k, v in tensors.items() if k != bias.replace("0", "1", 1)}, "not a UMT5 encoder")
    refused(tensors, "metadata", {"config": "{"})
    refused(tensors, "metadata", {"text_len": "many"})
    path.write_text("no weights")
    with pytest.raises(ValueError, match=r"not safetensors.*expected a UMT5 encoder"):
        load_umt5(path)
    with pytest.raises(ValueError, match="does not exist"):
        TextEncoder(tmp_path / "none", CPU)
