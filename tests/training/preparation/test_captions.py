"""Captions of a server: asked again, left open, or replaced by the template until it answers."""

from dataclasses import replace

import pytest

from training.preparation import captions
from training.preparation.captions import ask, cost, settings_of
from training.preparation.config import CaptionConfig, PrepareConfig
from training.preparation.prepare import prepare
from training.preparation.stage import RetryLaterError, StopError

from .conftest import BROKEN
from .test_prepare import results, table

GOOD = {
    "choices": [{"message": {"content": " a fox\nruns "}}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3},
}


def test_a_busy_server_is_asked_again(server):
    url, answers, requests = server
    answers += [(503, {}), (429, {}), (200, GOOD)]
    result = ask([b"jpeg"], CaptionConfig(url=url, model="vlm"), pause_s=0.01)
    assert result == {"prompt": "a fox runs", "source": "server", "tokens_in": 9, "tokens_out": 3}
    assert len(requests) == 3 and requests[0]["model"] == "vlm"
    assert requests[0]["messages"][0]["content"][0]["image_url"]["url"] == "data:image/jpeg;base64,anBlZw=="


@pytest.mark.parametrize(
    ("answer", "reason", "prompt"),
    [
        ("<think>A fox?\nYes.</think>\nA fox  runs.", "stop", "A fox runs."),
        ("A fox? Yes.</think>A fox runs.", "stop", "A fox runs."),
        ("A fox runs. It is 3.5 m", "length", "A fox runs."),
        ('It says "Go!" It then', "length", 'It says "Go!"'),
        ("\u72d0\u72f8\u5728\u8dd1\u3002\u5b83", "length", "\u72d0\u72f8\u5728\u8dd1\u3002"),
        ("A fox that runs", "length", "A fox that runs"),
        ("A fox runs. It is 3.5 m", "stop", "A fox runs. It is 3.5 m"),
    ],
)
def test_a_caption_is_the_answer_without_thinking_and_half_sentences(server, answer, reason, prompt):
    url, answers, _ = server
    choice = {"message": {"content": answer}, "finish_reason": reason}
    answers += [(200, {"choices": [choice]})]
    assert ask([], CaptionConfig(url=url))["prompt"] == prompt


def test_an_answer_that_is_all_thinking_is_none(server):
    url, answers, _ = server
    answers += [(200, {"choices": [{"message": {"content": "<think>A fox"}, "finish_reason": "length"}]})]
    with pytest.raises(RetryLaterError, match="thinking; raise max_tokens"):
        ask([], CaptionConfig(url=url))


def test_captions_tell_their_tokens_and_cost():
    rows = [
        {"source": "server", "tokens_in": 1_500_000, "tokens_out": 200_000},
        {"source": "server"},  # a server that counts none
        {"source": "template"},
    ]
    text = "2 captions by a model: 1,500,000 tokens in, 200,000 out"
    assert cost(rows, CaptionConfig()) == text
    assert cost(rows, CaptionConfig(prices=(0.2, 0.6))) == f"{text}, 0.42 by captions.prices"
    assert cost(rows[2:], CaptionConfig(prices=(0.2, 0.6))) is None
    with pytest.raises(ValueError, match="expected two numbers from 0"):
        CaptionConfig(prices=(0.2, -1))


def test_settings_around_a_caption_keep_it(tmp_path):
    def settings(**values):
        return settings_of(
            PrepareConfig(input=["x"], out_dir=str(tmp_path), captions=CaptionConfig(**values))
        )

    assert settings() == settings(retries=0, timeout_s=9, prices=(1, 2)) != settings(max_tokens=9)


def test_a_silent_server_leaves_the_row_open_and_a_refusal_ends_the_run(server):
    url, answers, _ = server
    answers += [(500, {})] * 3 + [(401, {"error": "no key"})] + [(200, {"choices": []})]
    settings = CaptionConfig(url=url, retries=2)
    with pytest.raises(RetryLaterError, match="no answer in 3 tries"):
        ask([], settings, pause_s=0.01)
    with pytest.raises(StopError, match="401"):
        ask([], settings)
    with pytest.raises(RetryLaterError, match="no text"):
        ask([], settings)


CUT = b"HTTP/1.1 %d OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{"


@pytest.mark.parametrize("answer", [CUT % 200, CUT % 503, b"SSH-2.0 hello\r\n", b""])
def test_an_answer_that_breaks_off_is_asked_for_again(server, answer):
    url, answers, _ = server
    answers += [(answer, BROKEN), (200, GOOD)]
    settings = CaptionConfig(url=url, retries=1)
    assert ask([], settings, pause_s=0.01)["prompt"] == "a fox runs"
    answers += [(answer, BROKEN)] * 2
    with pytest.raises(RetryLaterError, match=r"no answer in 2 tries \(.+\)"):
        ask([], settings, pause_s=0.01)


def test_a_key_with_its_line_end_is_sent_and_one_that_no_request_holds_ends_the_run(server, monkeypatch):
    url, answers, _ = server
    answers += [(200, GOOD)]
    monkeypatch.setenv("VDOT_TEST_KEY", "secret\n")
    settings = CaptionConfig(url=url, api_key_variable="VDOT_TEST_KEY")
    assert ask([], settings)["prompt"] == "a fox runs"
    monkeypatch.setenv("VDOT_TEST_KEY", "a\nb\u2026")
    with pytest.raises(StopError, match=r"cannot be asked.*the key"):
        ask([], settings)


def test_a_pause_that_the_server_asks_for_is_kept(server, monkeypatch):
    url, answers, _ = server
    limited = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n"
    pauses = b"7", b"Wed, 21 Oct 2026 07:28:00 GMT"
    answers += [*((limited % pause, BROKEN) for pause in pauses), (200, GOOD)]
    slept = []
    monkeypatch.setattr(captions.time, "sleep", slept.append)
    assert ask([], CaptionConfig(url=url))["prompt"] == "a fox runs"
    assert slept == [7.0, 2.0]


def test_a_server_that_is_down_is_asked_once_for_each_further_clip(server):
    url, answers, requests = server
    settings = CaptionConfig(url=url, retries=2)
    answers += [(503, {})] * 10 + [(200, GOOD), (503, {}), (200, GOOD)]
    for _ in range(4):
        with pytest.raises(RetryLaterError):
            ask([], settings, pause_s=0.001)
    assert len(requests) == 3 * 3 + 1
    for _ in range(2):  # it answers again: all tries count again
        assert ask([], settings, pause_s=0.001)["prompt"] == "a fox runs"


@pytest.fixture
def settings(config, raw, server):
    """Two clips that a server describes, and one with a text file."""
    caption = CaptionConfig(url=server[0], retries=0)
    return config(input=[str(raw / "pan.mp4"), str(raw / "day")], annotators=[], captions=caption)


def prompts(settings):
    """Clip -> its caption and where that comes from, of all rows."""
    rows = [row for name in ("manifest", "held_out") for row in table(f"{settings.out_dir}/{name}.parquet")]
    return {
        row["clip"].rsplit("-", 2)[0] + row["clip"][-1]: (row["prompt"], row["caption_source"])
        for row in rows
    }


def test_clips_without_a_caption_are_left_out_and_named_until_the_next_run(settings, server, caplog):
    _, answers, _ = server
    answers += [(200, GOOD), (503, {})]
    assert len(prepare(settings).later) == 1
    assert set(prompts(settings)) == {"pan0", "two-shots0"}
    assert "1 clip is not in the tables and tars" in caplog.text
    rows = {row["id"]: row["waits_for"] for row in table(f"{settings.out_dir}/clips.parquet")}
    (reason,) = filter(None, rows.values())
    assert (
        "captions: the server http://127.0.0.1" in reason and "gave no answer in 1 try (status 503" in reason
    )
    answers.append((200, GOOD))
    assert not prepare(settings).later
    assert prompts(settings)["two-shots1"] == ("a fox runs", "server")


def test_the_template_stands_in_by_choice_until_the_server_answers(settings, server, caplog, tmp_path):
    _, answers, requests = server
    chosen = replace(settings, captions=replace(settings.captions, unanswered="template"))
    for _ in range(2):
        answers += [(503, {})] * 2
        assert not prepare(chosen).later
        assert prompts(chosen)["two-shots1"] == ("A video of two shots.", "template")
        assert "2 clips have the template's caption" in caplog.text
    answers += [(200, GOOD)] * 2
    prepare(chosen)
    assert prompts(chosen)["two-shots1"] == ("a fox runs", "server")
    assert len(requests) == 6 and not prepare(chosen).provisional
    answers += [(200, GOOD)] * 2
    straight = replace(settings, out_dir=str(tmp_path / "straight"))
    prepare(straight)
    assert results(straight.out_dir) == results(chosen.out_dir)
