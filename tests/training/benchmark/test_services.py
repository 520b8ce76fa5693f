"""VBench's program and a judge's server, by stand-ins that speak as they do."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from training.benchmark import vbench
from training.benchmark.config import JudgeConfig, VBenchConfig
from training.benchmark.evaluate import evaluate
from training.benchmark.judge import read_ratings
from training.benchmark.results import numbers_of
from training.preparation.stage import RetryLaterError, StopError

from .test_evaluate import results

ROOT = Path(__file__).resolve().parents[3]
ANSWER = '```json\n{"prompt_following": 4, "temporal_consistency": 2.5, "video_quality": 5}\n```'


def test_vbench_is_run_once_and_normalized_as_its_leaderboard_does(
    config, vbench_command, tmp_path, monkeypatch
):
    """Its program breaks on paths with spaces; the evaluation's folder may have them."""
    settings = config(vbench=VBenchConfig(vbench_command), out_dir=str(tmp_path / "with a space"))
    assert evaluate(settings) == []
    values = results(settings.out_dir)
    means = {name: m["real"]["value"] for name, m in values["groups"][0]["means"].items()}
    # Of 8 videos the stand-in says 0.5 to 0.57, and 1 of dynamic degree.
    raw = 0.535
    assert means["vbench_aesthetic_quality"] == pytest.approx(100 * raw)
    assert means["vbench_imaging_quality"] == pytest.approx(100 * raw)
    assert means["vbench_dynamic_degree"] == pytest.approx(100)
    assert means["vbench_motion_smoothness"] == pytest.approx(100 * (raw - 0.706) / (0.9975 - 0.706))
    six = [means[vbench.PREFIX + name] for name in vbench.RANGES]
    assert means[vbench.TOTAL] == pytest.approx(sum(six) / 6)
    assert "VBench" not in values["not_run"]
    page = (Path(settings.out_dir) / "results.md").read_text(encoding="utf-8")
    assert "VBench average" in page
    # Finished dimensions stay, also where the program is gone.
    assert evaluate(config(out_dir=settings.out_dir)) == []
    assert (
        results(settings.out_dir)["groups"][0]["means"][vbench.TOTAL]["real"]["value"] == means[vbench.TOTAL]
    )


def test_a_dimension_that_fails_is_named_and_the_others_stay(config, vbench_command, monkeypatch):
    monkeypatch.setenv("STAND_IN_FAILS", "aesthetic_quality")
    settings = config(vbench=VBenchConfig(vbench_command))
    (failure,) = evaluate(settings)
    assert "aesthetic_quality: it wrote no result (status 0)" in failure
    assert "no weights" in (Path(settings.out_dir) / "vbench/real/aesthetic_quality.log").read_text()
    means = results(settings.out_dir)["groups"][0]["means"]
    assert "vbench_imaging_quality" in means and vbench.TOTAL not in means
    monkeypatch.delenv("STAND_IN_FAILS")
    assert evaluate(settings) == []
    assert vbench.TOTAL in results(settings.out_dir)["groups"][0]["means"]


def test_a_result_that_lacks_videos_is_none(config, vbench_command, monkeypatch):
    monkeypatch.setenv("STAND_IN_LOSES", "2")
    failures = evaluate(config(vbench=VBenchConfig(vbench_command)))
    assert len(failures) == 6 and all("lacks 2 of 8 videos" in failure for failure in failures)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"dynamic_degree": 1}',
        '{"dynamic_degree": [0.5, [{"video_path": "a/000000.mp4"}]]}',
        '{"dynamic_degree": [0.5, [{"video_path": "b.mp4", "video_results": 1}]]}',
        '{"dynamic_degree": [0.5, [{"video_path": "a/000000.mp4", "video_results": "high"}]]}',
    ],
)
def test_other_results_are_refused(tmp_path, content):
    path = tmp_path / "x_eval_results.json"
    path.write_text(content)
    with pytest.raises(vbench.VBenchError, match=r"not as version 0\.1\.5"):
        vbench.read_results(path, "dynamic_degree", {"000000": "depth/0"})


def test_a_program_that_is_not_there_or_hangs_is_named(config, tmp_path):
    failures = evaluate(config(vbench=VBenchConfig(["/nowhere/vbench", "evaluate"])))
    assert len(failures) == 6 and "/nowhere/vbench cannot be started" in failures[0]
    hangs = tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\nsleep 60\n")
    hangs.chmod(0o755)
    failures = evaluate(config(vbench=VBenchConfig([str(hangs)], timeout_min=0.001)))
    assert len(failures) == 6 and "more than vbench.timeout_min 0.001" in failures[0]


@pytest.fixture
def server():
    """A stand-in for a model's server: address, the status and words of its answers, the requests it got."""
    answer, requests = {"status": 200, "words": ANSWER}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(answer["status"])
            self.end_headers()
            body = {"choices": [{"message": {"content": answer["words"]}}]}
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/v1", answer, requests
        running.shutdown()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")
def test_sigterm_ends_vbench_too(tmp_path):
    program = tmp_path / "hangs"
    program.write_text(f"#!/bin/sh\nsleep 300 & echo $! > {tmp_path}/child\nwait\n")
    program.chmod(0o755)
    code = f"""
from pathlib import Path
from training.benchmark.vbench import _call
_call([{str(program)!r}], Path({str(tmp_path)!r}), Path({str(tmp_path / "log")!r}), 300)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    child = tmp_path / "child"
    while not child.is_file() or not child.read_text().endswith("\n"):
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert process.wait(60) == -signal.SIGTERM
    end = time.monotonic() + 60
    while _runs(int(child.read_text())):
        assert time.monotonic() < end
        time.sleep(0.05)


def _runs(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    "value", ["null", '"high"', "[]", '{"niqe": "x"}', '{"niqe": NaN}', '{"niqe": true}']
)
def test_results_that_are_no_numbers_are_a_sentence(tmp_path, value):
    with pytest.raises(ValueError, match=r"x\.json is damaged \(its scores are no numbers\); remove it"):
        numbers_of({"scores": json.loads(value)}, "scores", tmp_path / "x.json")
    values = {"niqe": 3.5, "motion": 1}
    assert numbers_of({"scores": values}, "scores", tmp_path) == values


def test_a_judge_sees_frames_and_the_prompt_once_for_each_video(config, server):
    url, _, requests = server
    settings = config(judge=JudgeConfig(url, "vlm", frames=3))
    assert evaluate(settings) == []
    assert len(requests) == 8 and requests[0]["model"] == "vlm"
    *pictures, question = requests[0]["messages"][0]["content"]
    assert len(pictures) == 3 and "clouds <b>0</b>" in question["text"] and "3 moments" in question["text"]
    means = {n: m["real"]["value"] for n, m in results(settings.out_dir)["groups"][0]["means"].items()}
    assert means["judge_prompt_following"] == 4 and means["judge_temporal_consistency"] == 2.5
    assert evaluate(settings) == [] and len(requests) == 8


def test_what_a_judge_could_not_rate_is_tried_again(config, server):
    url, answer, requests = server
    settings = config(judge=JudgeConfig(url, retries=0), samples_per_task=1, tasks=["gray"])
    answer["words"] = "I like it."
    (later,) = evaluate(settings)
    assert "gray/0000: the answer holds no ratings" in later
    answer.update(words=ANSWER)
    assert evaluate(settings) == [] and len(requests) == 2
    answer["status"] = 401
    with pytest.raises(StopError, match="refused"):
        evaluate(config(judge=JudgeConfig(url, "another"), samples_per_task=1, tasks=["gray"]))


def test_ratings_of_earlier_videos_are_none_of_the_new_ones(bench, config, server):
    url, answer, _ = server
    settings = config(judge=JudgeConfig(url, "vlm", retries=0), tasks=["gray"])
    assert evaluate(settings) == []
    assert evaluate(config(tasks=["gray"])) == []
    assert "judge_video_quality" in results(settings.out_dir)["groups"][0]["means"], "those videos are rated"
    os.replace(bench / "real" / "extension" / "0001.mp4", bench / "real" / "gray" / "0000.mp4")
    answer["words"] = "I like it."
    assert len(evaluate(settings)) == 1
    for one in (settings, config(tasks=["gray"])):
        evaluate(one)
        means = results(settings.out_dir)["groups"][0]["means"]
        assert means["judge_video_quality"]["real"]["count"] == 1
        assert means["motion"]["real"]["count"] == 2


@pytest.mark.parametrize(
    "answer",
    ["", "{}", '{"prompt_following": 9, "temporal_consistency": 1, "video_quality": 1}', "[" * 9999],
)
def test_other_answers_are_no_ratings(answer):
    with pytest.raises(RetryLaterError, match="no ratings"):
        read_ratings(answer)
