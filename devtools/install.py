"""Installs the pinned packages of an environment, completely or not at all.

Two files in the environment record its state. `vdot-stamp.json` is written last and holds a hash of the pins:
when it matches, nothing is installed. `vdot-installing` exists while packages change: when it is there at the
start, an earlier run was cut off and the environment is rebuilt (see venv.py).
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from devtools.documents import read_json
from devtools.errors import DevError
from devtools.explain import explain_failure
from devtools.installer import PINNED_OPTIONS, Installer, find_installer, require_own_target
from devtools.paths import python_of, writing_to
from devtools.pins import pinned_names
from devtools.venv import INSTALLING, LOG, SCRATCH, STAMP, delete, site_packages

MANY_PACKAGES = 50  # torch is among so many


def install(
    venv: Path,
    pins: Path,
    say: Callable[[str], None],
    lock: TextIO | None = None,
    requirements: Sequence[str] = (),
) -> bool:
    """Install the pinned packages of an environment.

    Args:
        venv: an environment from create_venv().
        pins: file with exact versions and hashes of all that is needed.
        say: called with one-line progress messages.
        lock: the environment's lock file; the installer shares it, so that it is held until both have ended.
        requirements: further requirement lines, of somebody's own ComfyUI; no hash is known of these.

    Returns:
        True if anything was installed; False if the stamp matched.

    Raises:
        DevError: the installation failed; the message has the last lines and what to do.
    """
    python = python_of(venv)
    stamp = venv / STAMP
    key = install_key(python, pins, requirements)
    if read_stamp(stamp) == key:
        return False
    count = len(pinned_names(pins))
    size = " (several GB the first time)" if count >= MANY_PACKAGES else ""
    say(f"installing {count} package{'s' * (count != 1)} into {venv}{size}")
    if requirements:
        say(f"and {len(requirements)} requirements of the ComfyUI in COMFYUI_PATH, of which no hash is known")
    # Gigabytes are unpacked: next to what is installed, where a cut-off run is cleared.
    scratch = venv / SCRATCH
    with writing_to(venv, "VDOT_VENV"):
        stamp.unlink(missing_ok=True)
        delete(scratch)
        scratch.mkdir()
        try:
            _install(venv, pins, say, lock, requirements)
        finally:
            delete(scratch)
        stamp.write_text(json.dumps({"key": key}), encoding="utf-8")
    return True


def install_key(python: Path, pins: Path, requirements: Sequence[str]) -> str:
    """Hash of everything that decides what gets installed."""
    # pyvenv.cfg changes with the interpreter that the environment stands on.
    parts = [str((python.parent.parent / "pyvenv.cfg").read_text(encoding="utf-8")), sys.platform]
    parts += [pins.read_text(encoding="utf-8"), *requirements]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def read_stamp(stamp: Path) -> str | None:
    """The key in a stamp file; None where there is no readable one."""
    try:
        return read_json(stamp, "it is written again").get("key")
    except DevError:
        return None


def _install(
    venv: Path, pins: Path, say: Callable[[str], None], lock: TextIO | None, requirements: Sequence[str]
) -> None:
    python, marker, log = python_of(venv), venv / INSTALLING, venv / LOG
    require_own_target(python)
    packages = Path(site_packages(python))
    before = packages.stat().st_mtime_ns
    log.unlink(missing_ok=True)

    def run(installer: Installer, arguments: list[str]) -> str:
        return _run(installer, arguments, venv, lock)

    marker.touch()
    try:
        installer = find_installer(python, venv / SCRATCH, run, say)
        before = packages.stat().st_mtime_ns  # with uv it is as complete as it was
        run(installer, [*PINNED_OPTIONS, "-r", str(pins)])
        if requirements:
            listed = venv / SCRATCH / "requirements.txt"
            listed.write_text("\n".join(requirements) + "\n", encoding="utf-8")
            run(installer, ["-r", str(listed)])
    except DevError:
        if packages.stat().st_mtime_ns == before:
            marker.unlink()  # it failed before it changed a package: the environment is unchanged
        raise
    marker.unlink()


def _run(installer: Installer, arguments: Sequence[str], venv: Path, lock: TextIO | None) -> str:
    """Run an installer, with its output in the log; on a terminal one changing line shows its progress."""
    log = venv / LOG
    environment = {
        **os.environ,
        **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(venv / SCRATCH)),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_USER": "0",
        "PIP_DRY_RUN": "0",
        "PYTHONUNBUFFERED": "1",
        **installer.variables,
    }
    shared = (lock.fileno(),) if lock and os.name == "posix" else ()
    output = []
    with (
        open(log, "a", encoding="utf-8") as sink,
        subprocess.Popen(
            [*installer.command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            pass_fds=shared,
        ) as process,
    ):
        try:
            for line in process.stdout:
                sink.write(line)
                output.append(line)
                _show(line)
        except BaseException:
            process.terminate()
            raise
    _show("")
    if process.returncode:
        raise explain_failure(installer.name, "".join(output), log)
    return "".join(output)


def _show(line: str) -> None:
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        sys.stdout.write("\r\033[K" + line.strip()[:width])
        sys.stdout.flush()
