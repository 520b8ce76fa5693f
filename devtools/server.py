"""A real ComfyUI server with the pack linked in, in a separate base folder."""

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from devtools.errors import DevError
from devtools.paths import ROOT

PACK_NAME = "ComfyUI-VDOT"
START_SECONDS = 180
NOT_THE_PACK = (".git", ".venv*", "__pycache__", "outputs", "runs", "node_modules", "*.egg-info", ".*_cache")


def free_port() -> int:
    """A TCP port on the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def require_port(port: int) -> None:
    """Refuse a port that is taken.

    Raises:
        DevError: something listens there, or the number is no port.
    """
    if not 0 < port < 65536:
        raise DevError(f"--port {port}: a port is a number from 1 to 65535")
    with socket.socket() as probe:
        if os.name == "posix":  # on Windows this option would allow a second listener
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise DevError(f"port {port} is in use ({error.strerror}): choose another with --port") from error


def link_pack(custom_nodes: Path, pack: Path = ROOT) -> Path:
    """Put the pack into a custom_nodes folder: a symbolic link, on Windows else a junction, else a copy."""
    custom_nodes.mkdir(parents=True, exist_ok=True)
    target = custom_nodes / PACK_NAME
    if target.is_symlink() or target.exists():
        return target
    try:
        target.symlink_to(pack, target_is_directory=True)
    except OSError:
        # Windows asks for a privilege for links, not for junctions; a copy works on any disk.
        process = (
            subprocess.run(
                ["cmd", "/c", "mklink", "/J", str(target), str(pack)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            if os.name == "nt"
            else None
        )
        if process is None or process.returncode:
            shutil.copytree(pack, target, ignore=shutil.ignore_patterns(*NOT_THE_PACK))
    return target


class ComfyServer:
    """Runs main.py as a child process; as a context manager it is always stopped.

    Args:
        python: interpreter with ComfyUI's requirements.
        comfyui: ComfyUI's folder.
        base: folder for models, input, output and custom_nodes; the pack is linked into the last.
        port: to listen on at 127.0.0.1; a free one if None.
        cpu: run without an accelerator.
        show: let the server write to this terminal instead of `base`/server.log.
    """

    def __init__(
        self,
        python: Path,
        comfyui: Path,
        base: Path,
        *,
        port: int | None = None,
        cpu: bool = True,
        show: bool = False,
    ):
        if port is not None:
            require_port(port)
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = base / "server.log"
        self._show = show
        self._process: subprocess.Popen | None = None
        link_pack(base / "custom_nodes")
        # The pack is part of this process's import path only: ComfyUI's nodes.py must stay the first `nodes`.
        self._environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        self._command = [str(python), str(comfyui / "main.py"), "--port", str(self.port)]
        self._command += ["--base-directory", str(base), "--database-url", "sqlite:///:memory:"]
        self._command += ["--disable-api-nodes", "--disable-auto-launch", *(["--cpu"] if cpu else [])]

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc_info):
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            DevError: it ended or did not answer in time; the message has the end of its log.
        """
        sink = None if self._show else open(self.log, "w", encoding="utf-8")
        self._process = subprocess.Popen(
            self._command, stdout=sink, stderr=subprocess.STDOUT if sink else None, env=self._environment
        )
        if sink:
            sink.close()
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise DevError(
                    f"ComfyUI ended with code {self._process.returncode} while starting.\n{self.log_tail()}"
                )
            try:
                with urllib.request.urlopen(self.url + "/system_stats", timeout=5):
                    return
            except (urllib.error.URLError, HTTPException, OSError):
                time.sleep(0.1)
        raise DevError(f"ComfyUI did not answer on {self.url} in {START_SECONDS} s.\n{self.log_tail()}")

    def log_tail(self, num_lines: int = 20) -> str:
        """The end of the server's log."""
        if self._show or not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-num_lines:])

    def wait(self) -> int:
        """Block until the server ends by itself."""
        return self._process.wait()

    def stop(self) -> None:
        """End the server, and the process it is, even when it does not listen."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
