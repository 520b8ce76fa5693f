"""The text in an answer of a vision-language model."""

from __future__ import annotations

import re
import unicodedata

OPENED, CLOSED = "<think>", "</think>"
# Up to the last end of a sentence: a period within a number is none.
SENTENCES = re.compile(r".*(?:[.!?](?=[\s\"'”)]|$)[\"'”)]*|[\u3002\uff01\uff1f])")


def answer_text(answer: str, *, is_cut: bool) -> str:
    """The text of an answer in one line, without the model's thinking.

    Args:
        answer: As the model gave it.
        is_cut: It ended at the most tokens allowed: the sentence that breaks off is left out, if there are
            others.

    Raises:
        ValueError: It ended while the model was thinking.
    """
    # Some templates open the thinking themselves, so that the answer has its end alone.
    text = _without_thoughts(answer).rpartition(CLOSED)[2]
    if OPENED in text:
        raise ValueError("it ends while the model is thinking; raise max_tokens")
    text = " ".join(_printable(text).split())
    match = SENTENCES.match(text) if is_cut else None
    return match[0] if match else text


def _without_thoughts(answer: str) -> str:
    parts, place = [], 0
    # Of a regular expression, every start of a thought without an end would cost a search to the end.
    while (start := answer.find(OPENED, place)) >= 0 and (end := answer.find(CLOSED, start)) >= 0:
        parts.append(answer[place:start])
        place = end + len(CLOSED)
    return " ".join([*parts, answer[place:]])


def _printable(text: str) -> str:
    """Without control characters, and halves of surrogate pairs, which no file can hold."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(c for c in text if c.isspace() or unicodedata.category(c) != "Cc")
