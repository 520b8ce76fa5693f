"""A tiny vision-language model with random weights writes captions."""

import io
import json
import shutil
import time

import pytest
import torch

from training.paths import ROOT
from training.preparation import caption_model
from training.preparation.caption_model import describe, missing
from training.preparation.captions import caption, pictures_of
from training.preparation.clip_files import write_clip
from training.preparation.config import CaptionConfig, PrepareConfig
from training.preparation.dialog import WALL_S
from training.preparation.stage import StopError

from .conftest import panning

WORDS = ["<pad>", "<s>", "</s>", "<image>", *"a fox boat runs on the sea What is this ?".split()]
TEMPLATE = (
    "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image> "
    "{% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """LLaVA of one layer with a vocabulary of 14 words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    path = tmp_path_factory.mktemp("llava")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**sizes, image_size=16, patch_size=8),
        text_config=LlamaConfig(
            **sizes, vocab_size=len(WORDS), pad_token_id=0, bos_token_id=1, eos_token_id=2
        ),
        image_token_index=3,
    )
    torch.manual_seed(0)
    network = LlavaForConditionalGeneration(config)
    network.generation_config.suppress_tokens = [0, 1, 2, 3]
    network.save_pretrained(path)
    words = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<pad>")
    )
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    pictures = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    LlavaProcessor(
        pictures, tokenizer, patch_size=8, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=TEMPLATE,
    ).save_pretrained(path)  # fmt: skip
    return path


def test_a_model_of_transformers_describes_a_clip(folder, tmp_path):
    settings = CaptionConfig(model_dir=str(folder), prompt="What is this ?", frames=3, max_tokens=6)
    assert missing(settings) is None
    config = PrepareConfig(input=["x"], out_dir=str(tmp_path), captions=settings)
    (tmp_path / "clips").mkdir()
    write_clip(tmp_path / "clips/clip.mp4", panning(1, 5), 16, 12)
    row = {"id": "a", "path": "/none.mp4", "trim": {"file": "clips/clip.mp4", "num_frames": 5}}
    result = caption(row, config)
    assert result["source"] == "model" and {*result["prompt"].split()} <= {*WORDS[4:]}
    # Three pictures of four patches each, and the question.
    assert result["tokens_in"] == 3 * 4 + 4 and 1 <= result["tokens_out"] <= 6
    assert caption(row, config) == result


def test_a_folder_without_such_a_model_is_named(tmp_path):
    settings = CaptionConfig(model_dir=str(tmp_path))
    assert "holds no config.json" in missing(settings)
    for text in (
        '{"model_type": "bert"}',
        "null",
        "[" * 100_000,
        '{"model_type": "llava", "dtype": "float99"}',
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(StopError, match=r"as a vision-language model|is damaged") as error:
            describe(pictures_of(torch.rand(1, 16, 16, 3), 1), settings)
        assert len(str(error.value)) <= 400
    with pytest.raises(ValueError, match="both set"):
        CaptionConfig(model_dir="x", url="http://x")


@pytest.mark.parametrize("template", ["{{ raise_exception('no pictures') }}", "{{ x.y.z }}", "{% for"])
def test_a_template_that_fails_ends_the_run_in_a_sentence(folder, tmp_path, template):
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    (copy / "chat_template.jinja").write_text(template)
    with pytest.raises(StopError, match=r"cannot load .*/model as") as error:
        describe(pictures_of(torch.rand(1, 16, 16, 3), 1), CaptionConfig(model_dir=str(copy)))
    assert len(str(error.value)) <= 400


def test_a_folder_cannot_ask_for_a_search_that_takes_memory(folder, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    path = copy / "generation_config.json"
    pictures = pictures_of(torch.rand(1, 16, 16, 3), 1)
    expected = describe(pictures, CaptionConfig(model_dir=str(folder), max_tokens=3))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_beams": 10**6}))
    assert describe(pictures, CaptionConfig(model_dir=str(copy), max_tokens=3)) == expected


ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
HOSTILE = {
    "an endless loop": (ENDLESS, "more than 5 s|takes too long"),
    "a huge text": ("{% for a in range(9999) %}{{ 'x' * 99 }}{% endfor %}", "gives 989901 characters"),
    "a huge constant": ("{{ 'x' * 10 ** 11 }}", "MemoryError"),
    "a huge number": ("{{ 10 ** (10 ** 9) }}", "more than 5 s|MemoryError|takes too long|fails: ValueError"),
    "a long file": ("{# " + "x" * 200_000 + " #}", "has 200006 characters"),
    "a picture's methods": ("{{ messages[0].content[0].image.save('ran.png') }}", "is undefined|has no"),
}


# Each starts a process that imports transformers.
@pytest.mark.parametrize(
    "case", [c if c == "an endless loop" else pytest.param(c, marks=pytest.mark.full) for c in HOSTILE]
)
def test_a_hostile_template_ends_the_run_soon(folder, tmp_path, case, monkeypatch):
    template, expected = HOSTILE[case]
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    (copy / "chat_template.jinja").write_text(template)
    begin = time.monotonic()
    with pytest.raises(StopError, match=expected) as error:
        describe(pictures_of(torch.rand(1, 16, 16, 3), 1), CaptionConfig(model_dir=str(copy)))
    assert len(str(error.value)) <= 400 and time.monotonic() - begin < 2 * WALL_S
    assert not list(tmp_path.rglob("ran.png")) and not (ROOT / "ran.png").exists()


def test_the_model_is_asked_as_transformers_asks(folder, monkeypatch):
    from PIL import Image

    picture = Image.new("RGB", (16, 16), (200, 30, 40))
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "What is this ?"}]
    processor, network = caption_model._load(str(folder))
    expected = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
    )  # fmt: skip
    asked = {}
    monkeypatch.setattr(network, "generate", lambda **inputs: asked.update(inputs) or inputs["input_ids"])
    data = io.BytesIO()
    picture.save(data, "png")
    with pytest.raises(ValueError, match="an empty caption"):
        describe([data.getvalue()], CaptionConfig(model_dir=str(folder), prompt="What is this ?"))
    assert expected.keys() <= asked.keys() and len(expected) >= 3
    assert all(torch.equal(asked[name], value) for name, value in expected.items())
