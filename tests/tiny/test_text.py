"""The tiny text encoder: ComfyUI gives the same tokens and embeddings for the same file."""

import json

import pytest
import torch

from tiny import text as tiny

PROMPTS = [
    "a red circle moves to the lower right and spins over a plain blue background",
    "",
    "A Cat riding a bicycle, in the RAIN",
    "日本 zyxq ~ é",
]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / tiny.FILE_NAME
    tokenizer = tiny.Tokenizer(tiny.train_vocabulary(num_captions=40))
    config = tiny.umt5_config(2, len(tokenizer))
    tiny.save_text_encoder(tiny.build_encoder(config), config, tokenizer, path)
    return path


@pytest.fixture(scope="module")
def clip(file, comfy):
    import comfy.sd
    import comfy.text_encoders.wan as wan
    from safetensors import safe_open

    with safe_open(str(file), framework="pt") as opened:
        metadata = opened.metadata()
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}
    target = type("Target", (), {"params": {}, "clip": wan.te(), "tokenizer": wan.WanT5Tokenizer})()
    options = {"spiece_model": tensors.pop("spiece_model"), "umt5xxl_min_length": int(metadata["text_len"])}
    model = {"dtype": torch.float32, "umt5xxl_model_config": json.loads(metadata["config"])}
    built = comfy.sd.CLIP(target, tokenizer_data=options, state_dict=[], model_options=model)
    missing, unexpected = built.load_sd(tensors)
    assert not unexpected and not missing
    return built


@pytest.mark.parametrize("prompt", PROMPTS)
def test_comfyui_gives_the_same_tokens_and_embeddings(file, clip, prompt):
    encoder, tokenizer, _ = tiny.load_text_encoder(file)
    ids, mask = tokenizer([prompt])
    tokens = clip.tokenize(prompt)
    assert [token for token, _ in tokens["umt5xxl"][0]] == ids[0].tolist()
    theirs = clip.encode_from_tokens_scheduled(tokens)[0][0]
    ours = tiny.embed(encoder, ids, mask)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
    assert ours.shape == (1, tiny.TEXT_LEN, 128)
    assert not ours[0, int(mask.sum()) :].any(), "beyond the eos the output is zero"


def test_every_text_can_be_written(file):
    _, tokenizer, _ = tiny.load_text_encoder(file)
    ids, mask = tokenizer(PROMPTS)
    assert 2 not in ids, "an unknown piece: bytes should have stood in"
    assert len(tokenizer) <= tiny.VOCAB_SIZE
    assert [int(row[int(m.sum()) - 1]) for row, m in zip(ids, mask, strict=True)] == [1] * len(PROMPTS)
    long, _ = tokenizer(["red " * 100])
    assert long.shape[1] == 101


def test_padding_does_not_change_a_prompts_embedding(file):
    encoder, tokenizer, _ = tiny.load_text_encoder(file)
    alone = tiny.embed(encoder, *tokenizer([PROMPTS[0]]))
    ids, mask = tokenizer([PROMPTS[0], "red " * 80])
    together = tiny.embed(encoder, ids, mask)
    torch.testing.assert_close(together[:1, : tiny.TEXT_LEN], alone, atol=1e-5, rtol=1e-4)


def test_a_foreign_file_is_refused(tmp_path):
    from training.engine.files import save_safetensors

    save_safetensors({"weight": torch.zeros(1)}, tmp_path / "x.safetensors", {})
    with pytest.raises(ValueError, match="config"):
        tiny.load_text_encoder(tmp_path / "x.safetensors")
