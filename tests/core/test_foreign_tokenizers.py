"""Steps of a tokenizer.json: refused where they blow a text up, read as they are in common tokenizers."""

import base64
import json

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from vdot_core.foreign_files import check_files

VOCABULARY = {"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "type": 4}
LONG = {"type": "Replace", "pattern": {"Regex": "."}, "content": "y" * 1_000_000}
CHAIN = [{"type": "Replace", "pattern": {"String": "y" if i else "a"}, "content": "y" * 16} for i in range(5)]
EMPTY = [{"type": "Replace", "pattern": {"Regex": ""}, "content": "y"} for _ in range(20)]
TABLE = base64.b64encode(bytes(4) + b"y" * 100_000 + b"\0").decode()
SEQUENCE = {"Sequence": {"id": "A", "type_id": 0}}
TEMPLATE = {"type": "TemplateProcessing", "single": [SEQUENCE] * 2, "pair": [], "special_tokens": {}}
END = {"id": "</s>", "ids": [1] * 100_000, "tokens": ["</s>"] * 100_000}
SEQUENCED = {"type": "Sequence", "normalizers": CHAIN}
GROWING = {
    "long": {"normalizer": LONG},
    "chain": {"normalizer": SEQUENCED},
    "nested": {"normalizer": {"type": "Sequence", "normalizers": [SEQUENCED]}},
    "no type": {"normalizer": {"normalizers": [{k: v for k, v in s.items() if k != "type"} for s in CHAIN]}},
    "empty": {"normalizer": {"type": "Sequence", "normalizers": EMPTY}},
    "prepended": {"normalizer": {"type": "Prepend", "prepend": "y" * 1_000_000}},
    "table": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": TABLE}},
    "decoder": {"decoder": {"type": "Sequence", "decoders": CHAIN}},
    "template": {"post_processor": {"type": "Sequence", "processors": [TEMPLATE] * 30}},
    "ids": {"post_processor": TEMPLATE | {"special_tokens": {"</s>": END}}},
}


def tokenizer(**steps):
    made = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    made.add_special_tokens([AddedToken("<extra>" * 20)])
    for name, step in steps.items():
        setattr(made, name, step)
    return made


@pytest.mark.parametrize("kind", GROWING)
@pytest.mark.parametrize("escaped", [False, True])
def test_steps_that_make_a_text_longer_without_bound_are_refused(tmp_path, kind, escaped):
    text = json.dumps(json.loads(tokenizer().to_str()) | GROWING[kind])
    if escaped:
        text = text.replace('"content"', '"c\\u006fntent"').replace('"normalizer"', '"n\\u006frmalizer"')
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(ValueError, match=r"can make a text over 1000 times as long .* give another") as error:
        check_files(tmp_path)
    assert len(str(error.value)) <= 400


def test_a_file_for_later_versions_is_checked_and_stays_in_the_folder(tmp_path):
    """transformers reads the one of tokenizer_config.json that suits its version."""
    config, later = tmp_path / "tokenizer_config.json", tmp_path / "tokenizer.4.0.0.json"
    config.write_text(json.dumps({"fast_tokenizer_files": [later.name]}))
    later.write_text(json.dumps(GROWING["long"]))
    with pytest.raises(ValueError, match=r"tokenizer\.4\.0\.0\.json can make a text over"):
        check_files(tmp_path)
    later.unlink()
    check_files(tmp_path)
    for name in ("../tokenizer.4.0.0.json", "below/tokenizer.4.0.0.json", "my_tokenizer.4.0.0.json"):
        config.write_text(json.dumps({"fast_tokenizer_files": [name]}))
        with pytest.raises(ValueError, match=r"names a tokenizer elsewhere .*give the folder"):
            check_files(tmp_path)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    twice = '{"type": "Replace", "pattern": {"String": "a"}, "content": "yyyy", "content": "y"}'
    (tmp_path / "tokenizer.json").write_text(f'{{"normalizer": {twice}}}')
    with pytest.raises(ValueError, match="a key stands twice"):
        check_files(tmp_path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[1]", "", '{"normalizer": {"precompiled_charsmap": "abc"}}']
)
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(ValueError, match=r"tokenizer\.json is damaged .*download it again"):
        check_files(tmp_path)


LLAMA = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|\s+(?!\S)|\s+"
COMMON = {
    "T5": {
        "normalizer": normalizers.Sequence(
            [normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKC(),
             normalizers.Replace(Regex(" {2,}"), "▁")]
        ),
        "pre_tokenizer": pre_tokenizers.Metaspace(),
        "post_processor": processors.TemplateProcessing(
            single=["$A", "</s>"], pair=["$A", "</s>", "$B", "</s>"], special_tokens=[("</s>", 1)]
        ),
        "decoder": decoders.Metaspace(),
    },
    "LLaMA": {
        "normalizer": normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        "decoder": decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        ),
    },
    "Qwen": {
        "normalizer": normalizers.NFC(),
        "pre_tokenizer": pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(LLAMA), "isolated"), pre_tokenizers.ByteLevel(use_regex=False)]
        ),
        "post_processor": processors.ByteLevel(),
        "decoder": decoders.ByteLevel(),
    },
    "CLIP": {
        "normalizer": normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        ),
        "post_processor": processors.RobertaProcessing(("</s>", 1), ("<pad>", 0)),
    },
    "BERT": {
        "normalizer": normalizers.BertNormalizer(),
        "pre_tokenizer": pre_tokenizers.BertPreTokenizer(),
        "post_processor": processors.BertProcessing(("</s>", 1), ("<pad>", 0)),
        "decoder": decoders.WordPiece(),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", COMMON)
def test_the_steps_of_common_tokenizers_are_read(tmp_path, name):
    tokenizer(**COMMON[name]).save(str(tmp_path / "tokenizer.json"))
    check_files(tmp_path)
