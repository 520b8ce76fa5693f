"""Runs a program with its child processes, and ends all of them together."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

GRACE_SECONDS = 5.0
POLL_SECONDS = 0.1


def run_group(command: Sequence[str], log: Path, limit: float, *, cwd: Path) -> int | None:
    """Run a program in a separate process group, with its output in a file.

    Args:
        command: the program and its arguments.
        log: file for stdout and stderr. Not a pipe: surviving child processes would hold it open.
        limit: seconds after which the group is ended.
        cwd: working directory.

    Returns:
        The exit status; None when the limit was reached. Nothing of the group is alive then, nor after an
        exception such as Ctrl-C.
    """
    group = {"start_new_session": True}
    if os.name == "nt":
        group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    program = None
    with open(log, "wb") as sink:
        try:
            with signals_deferred():
                program = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, cwd=cwd, **group
                )
            return program.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if program:
                end_group(program)


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Hold Ctrl-C and termination back while a program starts, so that it is known to who must end it.

    Only in the main thread; signals reach no other.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(number, lambda n, _: received.append(n)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
        for number in received:
            signal.raise_signal(number)


def end_group(program: subprocess.Popen) -> None:
    """End a program's group: first by SIGTERM, then by force."""
    if os.name == "nt":
        command = ["taskkill", "/T", "/F", "/PID", str(program.pid)]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        program.wait()
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(program.pid, number)
        except (ProcessLookupError, PermissionError):  # macOS refuses for a group of zombies
            break
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline and _alive(program):
            time.sleep(POLL_SECONDS)
        if not _alive(program):
            break
    program.wait()


def _alive(program: subprocess.Popen) -> bool:
    """True if a process of the group runs; zombies do not count."""
    ended = program.poll() is not None
    if not Path("/proc/self/stat").exists():
        return not ended
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # pid (name) state parent group ...: the name may have spaces and brackets.
            state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(group) == program.pid and state not in "ZX":
            return True
    return False
