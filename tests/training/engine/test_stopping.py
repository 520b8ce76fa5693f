"""Programs at signals: the second request ends at once, Ctrl-C ends in one sentence, nohup is heeded."""

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = (
    "training.finetune", "training.distill", "training.cache", "training.prepare", "training.evaluate",
    "training.sweep", "tiny.pretrain", "tiny.train", "tiny.evaluate",
)  # fmt: skip
pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX's signals")
STOPS = """
import os, signal, sys, time
from training.engine import stopping
from training.engine.lock import locked

number = int(sys.argv[2])
signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
stopping.ONE_REQUEST_S = 0.2
with locked(sys.argv[1], "out_dir"), stopping.stop_request() as request:
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)
    assert request.made
    print("noted", flush=True)
    time.sleep(0.5)
    os.kill(os.getpid(), number)
    time.sleep(60)
"""
HANGS_UP = """
import os, signal, sys
from training.engine import stopping
from training.engine.lock import LOCK, locked

signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[2] == "nohup" else signal.SIG_DFL)
with locked(sys.argv[1], "out_dir"):
    os.kill(os.getpid(), signal.SIGHUP)
    assert os.path.exists(os.path.join(sys.argv[1], LOCK))
    with stopping.stop_request() as request:
        os.kill(os.getpid(), signal.SIGHUP)
        print(request.made)
"""


def _run(program, *words):
    command = [sys.executable, "-c", program, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_second_request_ends_at_once_and_releases_the_folder(tmp_path, number):
    done = _run(STOPS, tmp_path, int(number))
    assert done.stdout == "noted\n" and done.returncode == -signal.SIGTERM, done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.iterdir())


def test_a_closed_terminal_releases_the_folder_unless_nohup_ignores_it(tmp_path):
    done = _run(HANGS_UP, tmp_path, "terminal")
    assert done.returncode == -signal.SIGHUP and not list(tmp_path.iterdir()), done.stderr
    done = _run(HANGS_UP, tmp_path, "nohup")
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


@pytest.mark.parametrize("name", PROGRAMS)
def test_ctrl_c_ends_a_program_in_one_sentence(name, monkeypatch, caplog):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    main = importlib.import_module(name).main
    monkeypatch.setattr("logging.basicConfig", interrupted)  # the first call of each
    before = signal.getsignal(signal.SIGINT)
    try:
        assert main([]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert caplog.messages == ["ended by Ctrl-C; the same command resumes"]
