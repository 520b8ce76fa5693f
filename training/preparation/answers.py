"""The text in an answer of a vision-language model."""

from __future__ import annotations

import re

THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
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
    text = THOUGHT.sub(" ", answer)
    # Some templates open the thinking themselves, so that the answer has its end alone.
    text = text.rpartition("</think>")[2]
    if "<think>" in text:
        raise ValueError("it ends while the model is thinking; raise max_tokens")
    text = " ".join(text.split())
    match = SENTENCES.match(text) if is_cut else None
    return match[0] if match else text
