"""Captions by a vision-language model of transformers, from a local folder."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch

from vdot_core.foreign import load_transformers, loading, missing_model
from vdot_core.pictures import read_picture
from vdot_core.text import shown

from .answers import answer_text
from .config import CaptionConfig
from .dialog import render
from .stage import Row, StopError

# The folder may ask for others, of which each takes memory.
SEARCH = {"do_sample": False, "num_beams": 1, "num_return_sequences": 1}


def missing(config: CaptionConfig) -> str | None:
    """Why the configured model cannot be run here; None where it can, or where there is none."""
    if config.model_dir is None:
        return None
    what = "a vision-language model of transformers, such as Qwen2.5-VL"
    return missing_model("captions.model_dir", config.model_dir, what)


def describe(pictures: Sequence[bytes], config: CaptionConfig) -> Row:
    """A caption of pictures by the configured model, word by word the most probable.

    Args:
        pictures: JPEGs.
        config: Its folder, the question and the longest answer.

    Raises:
        StopError: The folder's model cannot be loaded, or takes no pictures in a dialog.
        ValueError: The answer is empty.
    """
    from PIL import Image

    processor, network = _load(config.model_dir)
    images = [Image.fromarray(read_picture(io.BytesIO(data))) for data in pictures]
    with loading("transformers", config.model_dir, "a vision-language model that takes pictures", StopError):
        tokenizer = processor.tokenizer
        tokens = json.dumps(tokenizer.special_tokens_map, default=str, sort_keys=True)
        text = render(_template(processor), len(images), config.prompt, tokens)
        # As transformers does: the template has written the token of the beginning already.
        is_begun = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
        options = {"add_special_tokens": False} if is_begun else {}
        inputs = processor(text=[text], images=[images], return_tensors="pt", **options)
        inputs = inputs.to(network.device, network.dtype)
    with torch.inference_mode():
        tokens = network.generate(**inputs, **SEARCH, max_new_tokens=config.max_tokens)
    num_asked = inputs["input_ids"].shape[1]
    is_cut = tokens.shape[1] - num_asked >= config.max_tokens
    text = answer_text(processor.decode(tokens[0, num_asked:], skip_special_tokens=True), is_cut=is_cut)
    if not text:
        raise ValueError(f"the model in {shown(config.model_dir, 100)} gave an empty caption")
    counts = {"tokens_in": num_asked, "tokens_out": tokens.shape[1] - num_asked}
    return {"prompt": text, "source": "model", **counts}


@lru_cache(maxsize=1)
def _load(folder: str):
    """Processor and network, read at the first use."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor, network = load_transformers(
        folder, "a vision-language model", AutoModelForImageTextToText, AutoProcessor, StopError, dtype="auto"
    )
    if not _template(processor):
        raise StopError(
            f"the model in {shown(folder, 100)} has no chat template; give one that follows instructions"
        )
    return processor, network


def _template(processor: Any) -> str | None:
    """The chat template of a processor, the default one where it has several; None where it has none."""
    templates = getattr(processor, "chat_template", None)
    return templates.get("default") if isinstance(templates, Mapping) else templates
