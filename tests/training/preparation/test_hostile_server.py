"""A caption server that does what it can: the run keeps its key, its time, its memory and its tables."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from training.preparation.answers import answer_text
from training.preparation.captions import ask
from training.preparation.config import CaptionConfig
from training.preparation.stage import RetryLaterError, StopError


@contextmanager
def serving(answer):
    """The address of a server that runs `answer(handler)`, and the requests that it got."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            requests.append((self.command, self.path, self.headers.get("Authorization")))
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                answer(self)
            except OSError:
                pass  # the client went away

        def do_GET(self):
            self.do_POST()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()


def says(text, **others):
    """An answer of this text."""
    body = json.dumps({"choices": [{"message": {"content": text}}], **others}).encode()

    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_does_not_get_the_key(status, monkeypatch):
    monkeypatch.setenv("CAPTION_KEY", "secret")
    with serving(says("a fox")) as (elsewhere, stolen):

        def redirect(handler):
            handler.send_response(status)
            handler.send_header("Location", f"{elsewhere}/\x1b[31m")
            handler.end_headers()

        with serving(redirect) as (url, requests):
            settings = CaptionConfig(url=url, api_key_variable="CAPTION_KEY", retries=0)
            with pytest.raises(StopError, match=f"status {status}, it sends to {elsewhere}") as caught:
                ask([], settings)
    assert requests[0][2] == "Bearer secret" and not stolen
    assert "\x1b" not in str(caught.value) and len(str(caught.value)) <= 400


@pytest.mark.parametrize("part", ["body", "header"])
def test_an_answer_that_drips_ends_at_the_limit(part):
    def drip(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"\r\n" if part == "body" else b"X: "))
        for _ in range(100):
            handler.wfile.write(b"a")
            handler.wfile.flush()
            time.sleep(0.1)

    with serving(drip) as (url, _):
        begin = time.monotonic()
        with pytest.raises(RetryLaterError, match="no end of the answer in 1 s"):
            ask([], CaptionConfig(url=url, retries=0, timeout_s=1))
        assert time.monotonic() - begin < 6


def test_a_caption_holds_no_control_characters_or_halves_of_letters():
    with serving(says("a \ud800 fox\0 \x1b[31mruns")) as (url, _):
        prompt = ask([], CaptionConfig(url=url, retries=0))["prompt"]
    assert prompt == "a ? fox [31mruns" and prompt.encode()


@pytest.mark.parametrize("count", [10**19, -5, True, "7", None, 1.5])
def test_counts_of_tokens_that_no_table_holds_are_left_out(count):
    usage = {"prompt_tokens": count, "completion_tokens": 3}
    with serving(says("a fox", usage=usage)) as (url, _):
        assert ask([], CaptionConfig(url=url, retries=0)) == {
            "prompt": "a fox", "source": "server", "tokens_out": 3
        }  # fmt: skip


def test_a_caption_is_as_long_as_a_text_file_at_most():
    with (
        serving(says("word " * 20_000)) as (url, _),
        pytest.raises(RetryLaterError, match="99999 characters"),
    ):
        ask([], CaptionConfig(url=url, retries=0))


@pytest.mark.parametrize("pause", ["nan", "inf", "-inf", "x", "-1"])
def test_a_pause_that_is_no_time_rejects_no_clip(pause, monkeypatch):
    def busy(handler):
        handler.send_response(429)
        handler.send_header("Retry-After", pause)
        handler.end_headers()

    monkeypatch.setattr("training.preparation.captions.LONGEST_PAUSE_S", 0.05)
    with serving(busy) as (url, requests):
        with pytest.raises(RetryLaterError, match="no answer in 2 tries"):
            ask([], CaptionConfig(url=url, retries=1), pause_s=0.01)
    assert len(requests) == 2


def test_thoughts_without_an_end_take_no_time():
    begin = time.monotonic()
    with pytest.raises(ValueError, match="while the model is thinking"):
        answer_text("<think>" * 150_000, is_cut=False)
    assert answer_text("<think>a</think>b" * 60_000, is_cut=True)
    assert time.monotonic() - begin < 5
    assert answer_text("A <think>x</think> fox <think>y</think>runs", is_cut=False) == "A fox runs"
