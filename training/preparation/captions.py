"""Captions: of a text file next to the source, a server or a model, or a template."""

from __future__ import annotations

import base64
import io
import json
import os
import time
import unicodedata
import urllib.error
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vdot_core.files import read_file, sha256_of
from vdot_core.text import counted, described, parse_json, shown

from .answers import answer_text
from .caption_model import describe
from .clip_files import load, to_bytes
from .config import CaptionConfig, PrepareConfig
from .post import post, refusal
from .stage import RetryLaterError, Row, StopError, model_state, out_path

MAX_TEXT_BYTES = 20_000
MAX_ANSWER_BYTES = 2**20
MAX_TOKENS = 10**9  # of one answer; a table's column holds their sum
PICTURE_SIDE = 512
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
# Settings that change no caption.
AROUND = ("api_key_variable", "retries", "timeout_s", "prices", "unanswered")
# Of these the same request may succeed later: too many requests, and errors of the server.
RETRIED = (408, 409, 425, 429, 500, 502, 503, 504)
# After so many clips in succession without an answer, a worker asks once for each, until there is one.
PATIENCE = 3
_silence: Counter[str] = Counter()


def caption(row: Row, config: PrepareConfig) -> Row:
    """The caption of a clip.

    Args:
        row: A clip's row after `trim`.
        config: Its `captions`.

    Returns:
        `prompt`; `source`: file, server, model or template; of a server or model, the count of tokens as
        `tokens_in` and `tokens_out`; and `provisional`, why the template stands in for the server, as
        `unanswered` asks for.

    Raises:
        RetryLaterError, StopError: As `ask` and `describe`.
        ValueError: The text file is not UTF-8.
    """
    settings = config.captions
    text = _text_file(row["path"])
    if text.is_file():
        try:
            words = read_file(text, MAX_TEXT_BYTES).decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise ValueError(f"{shown(text.name)} is not UTF-8; save it as UTF-8") from error
        if words:
            return {"prompt": words, "source": "file"}
    if settings.url is None and settings.model_dir is None:
        return _template(row["path"], settings)
    clip = row["trim"]
    frames = load(out_path(config, clip["file"]), config.clips.frame_rate, clip["num_frames"])
    pictures = pictures_of(frames, settings.frames)
    if settings.model_dir is not None:
        return describe(pictures, settings)
    try:
        return ask(pictures, settings)
    except RetryLaterError as error:
        if settings.unanswered == "wait":
            raise
        return _template(row["path"], settings) | {"provisional": shown(error, 300)}


def _template(path: str, settings: CaptionConfig) -> Row:
    """The template's caption of a source."""
    name = words_of(Path(path).stem) or "something"
    return {"prompt": settings.template.replace("{name}", name), "source": "template"}


def words_of(name: str) -> str:
    """The words of a file's name, of any language."""
    letters = unicodedata.normalize("NFC", name)
    return " ".join("".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in letters).split())


def settings_of(config: PrepareConfig) -> dict[str, Any]:
    """The settings that captions depend on."""
    values = {name: value for name, value in asdict(config.captions).items() if name not in AROUND}
    return values | {"model_dir": model_state(config.captions.model_dir)}


def cost(captions: Iterable[Row], settings: CaptionConfig) -> str | None:
    """A sentence on the tokens of captions, and their price where it is known; None where no model made any.

    Args:
        captions: Results of `caption`, those of rejected clips among them.
        settings: Its `prices`.
    """
    made = [row for row in captions if row.get("source") in ("server", "model")]
    if not made:
        return None
    tokens = [sum(row.get(name, 0) for row in made) for name in ("tokens_in", "tokens_out")]
    text = f"{counted(len(made), 'caption')} by a model: {tokens[0]:,} tokens in, {tokens[1]:,} out"
    if settings.prices is None:
        return text
    price = sum(count * each / 1e6 for count, each in zip(tokens, settings.prices, strict=True))
    return f"{text}, {price:.2f} by captions.prices"


def _text_file(path: str) -> Path:
    return Path(path).with_suffix(".txt")


def text_state(path: str) -> list[str]:
    """State of the text file of a source: its digest; empty where there is none.

    Args:
        path: The source.
    """
    text = _text_file(path)
    if not text.is_file():
        return []
    try:
        return [sha256_of(text)]  # an edit may keep size and time
    except ValueError:  # its row says why
        return ["unreadable"]


def pictures_of(frames: Tensor, count: int) -> list[bytes]:
    """JPEGs of at most `count` frames, spread over a clip [F, H, W, 3] float in [0, 1]."""
    from PIL import Image

    files = []
    for index in np.unique(np.linspace(0, len(frames) - 1, count).round().astype(int)):
        picture, file = Image.fromarray(to_bytes(frames[index])), io.BytesIO()
        picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
        picture.save(file, "JPEG", quality=85)
        files.append(file.getvalue())
    return files


def ask(pictures: list[bytes], config: CaptionConfig, pause_s: float = FIRST_PAUSE_S) -> Row:
    """Ask the server for a caption, several times if need be.

    Args:
        pictures: JPEGs.
        config: Address, model and question.
        pause_s: Before the first repetition; each further pause is twice as long.

    Raises:
        RetryLaterError: No answer after all tries, or one without a caption.
        StopError: The server refuses the request.
    """
    images = [f"data:image/jpeg;base64,{base64.b64encode(data).decode()}" for data in pictures]
    content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in images]
    content.append({"type": "text", "text": config.prompt})
    body = {
        "model": config.model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": config.max_tokens,
        "temperature": 0,
    }
    headers = {"Content-Type": "application/json"}
    if config.api_key_variable:
        headers["Authorization"] = f"Bearer {os.environ.get(config.api_key_variable, '').strip()}"
    address = config.url.rstrip("/") + "/chat/completions"
    reason, wait_s = "", 0.0
    num_tries = config.retries + 1 if _silence[config.url] < PATIENCE else 1
    for number in range(num_tries):
        if number:
            time.sleep(min(max(wait_s, pause_s * 2 ** (number - 1)), LONGEST_PAUSE_S))
        try:
            content = post(address, json.dumps(body).encode(), headers, config.timeout_s, MAX_ANSWER_BYTES)
            _silence[config.url] = 0
            return _read(content)
        except urllib.error.HTTPError as error:
            wait_s = _asked_pause(error)
            reason = refusal(error)
            if error.code not in RETRIED:
                raise StopError(
                    f"the server {shown(config.url, 80)} refused the request ({reason}); look at the model's "
                    "name and the key"
                ) from error
        except ValueError as error:  # an address or a key that no request can hold
            raise StopError(
                f"the server {shown(config.url, 80)} cannot be asked ({shown(error, 120)}); look at its "
                "address and the key"
            ) from error
        except (OSError, HTTPException) as error:  # no connection, none in time, or one that broke off
            reason = shown(getattr(error, "reason", error), 120) or type(error).__name__
    _silence[config.url] += 1
    raise RetryLaterError(
        f"the server {shown(config.url, 80)} gave no answer in {_tries(num_tries)} ({reason})"
    )


def _tries(count: int) -> str:
    return "1 try" if count == 1 else f"{count} tries"


def _asked_pause(error: urllib.error.HTTPError) -> float:
    """Seconds that a server asks to wait, such as with status 429; 0 where it names none, or a date."""
    try:
        pause_s = float(error.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0
    return pause_s if pause_s > 0 else 0.0  # "nan" is no time to sleep


def _read(answer: bytes) -> Row:
    """The caption in a server's answer."""
    try:
        values = parse_json(answer)
        choice = values["choices"][0]
        words = choice["message"]["content"]
        if not isinstance(words, str):
            raise ValueError(f"its text is {described(words)}")
        text = answer_text(words, is_cut=choice.get("finish_reason") == "length")
        if not text:
            raise ValueError(f"its text is {described(words)}")
        if len(text) > MAX_TEXT_BYTES:
            raise ValueError(f"its text has {len(text)} characters, expected at most {MAX_TEXT_BYTES}")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise RetryLaterError(f"the server's answer holds no text ({shown(error, 120)})") from error
    usage = values.get("usage") if isinstance(values.get("usage"), dict) else {}
    tokens = {"tokens_in": usage.get("prompt_tokens"), "tokens_out": usage.get("completion_tokens")}
    counts = {name: n for name, n in tokens.items() if type(n) is int and 0 <= n <= MAX_TOKENS}
    return {"prompt": text, "source": "server", **counts}
