"""The tiny text encoder's vocabulary and file."""

import pytest

from tiny import text as tiny
from training.data.umt5 import Tokenizer, load_umt5

PROMPTS = [
    "a red circle moves to the lower right and spins over a plain blue background",
    "",
    "A Cat riding a bicycle, in the RAIN",
    "日本 zyxq ~ é",
]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / tiny.FILE_NAME
    tokenizer = Tokenizer(tiny.train_vocabulary(num_captions=40), tiny.TEXT_LEN)
    config = tiny.umt5_config(2, len(tokenizer))
    tiny.save_text_encoder(tiny.build_encoder(config), config, tokenizer, path)
    return path


def test_every_text_can_be_written(file):
    tokenizer = load_umt5(file).tokenizer
    ids, mask = tokenizer(PROMPTS)
    assert 2 not in ids, "an unknown piece: bytes should have stood in"
    assert len(tokenizer) <= tiny.VOCAB_SIZE
    assert [int(row[int(m.sum()) - 1]) for row, m in zip(ids, mask, strict=True)] == [1] * len(PROMPTS)
    long, _ = tokenizer(["red " * 100])
    assert long.shape[1] == 101
