"""Ports, links and the life of the server process; ComfyUI itself is played by a small program here."""

import os
import socket
import sys
import textwrap
import urllib.request

import pytest

from devtools import server as servers
from devtools.errors import DevError

FAKE_COMFYUI = """
import http.server, sys
{before}
port = int(sys.argv[sys.argv.index("--port") + 1])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"{{}}")
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def comfyui(tmp_path):
    """A folder whose main.py answers like a server; call it with a line to run first."""

    def make(before: str = ""):
        folder = tmp_path / "comfyui"
        folder.mkdir(exist_ok=True)
        (folder / "main.py").write_text(textwrap.dedent(FAKE_COMFYUI).format(before=before))
        return folder

    return make


def test_a_server_answers_and_is_gone_afterwards(comfyui, tmp_path):
    with servers.ComfyServer(sys.executable, comfyui(), tmp_path / "base") as server:
        assert urllib.request.urlopen(server.url + "/system_stats").status == 200
        assert (tmp_path / "base/custom_nodes" / servers.PACK_NAME / "dev.py").is_file()
        process = server._process
    assert process.poll() is not None
    servers.require_port(server.port)


def test_a_server_that_ends_shows_its_log(comfyui, tmp_path):
    folder = comfyui("sys.exit('no room for torch')")
    server = servers.ComfyServer(sys.executable, folder, tmp_path / "base")
    with pytest.raises(DevError, match=r"(?s)ended with code 1.*no room for torch"):
        server.start()


def test_a_server_that_never_answers_is_stopped(comfyui, tmp_path, monkeypatch):
    monkeypatch.setattr(servers, "START_SECONDS", 1)
    server = servers.ComfyServer(sys.executable, comfyui("import time; time.sleep(600)"), tmp_path / "base")
    with pytest.raises(DevError, match="did not answer"):
        server.start()
    assert server._process.poll() is not None


def test_the_pythonpath_does_not_reach_the_server(comfyui, tmp_path, monkeypatch):
    """The repository's `nodes` package would hide ComfyUI's nodes.py."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    folder = comfyui("import os; assert 'PYTHONPATH' not in os.environ")
    with servers.ComfyServer(sys.executable, folder, tmp_path / "base"):
        pass


def test_a_port_in_use_is_refused_with_a_way_out(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(DevError, match=rf"port {port} is in use .*--port"):
            servers.ComfyServer(sys.executable, tmp_path, tmp_path / "base", port=port)
    servers.require_port(port)


@pytest.mark.parametrize("port", [0, -1, 70000])
def test_what_is_no_port_is_refused(port):
    with pytest.raises(DevError, match="from 1 to 65535"):
        servers.require_port(port)


def test_free_ports_can_be_used():
    servers.require_port(servers.free_port())


def test_the_pack_is_linked_once_and_copied_where_links_are_not_allowed(tmp_path, monkeypatch):
    pack = tmp_path / "pack"
    for name in ("nodes/load.py", ".git/config", ".venv/bin/python", "outputs/a.mp4", "js/vdot.js"):
        (pack / name).parent.mkdir(parents=True, exist_ok=True)
        (pack / name).touch()
    linked = servers.link_pack(tmp_path / "one", pack)
    assert linked == servers.link_pack(tmp_path / "one", pack)
    assert (linked / "nodes/load.py").exists()

    def refuse(*args, **kwargs):
        raise OSError("a required privilege is not held by the client")

    monkeypatch.setattr(type(tmp_path), "symlink_to", refuse)
    if os.name == "nt":
        monkeypatch.setattr(servers.subprocess, "run", lambda *a, **k: type("R", (), {"returncode": 1}))
    copied = servers.link_pack(tmp_path / "two", pack)
    files = {p.relative_to(copied).as_posix() for p in copied.rglob("*") if p.is_file()}
    assert files == {"nodes/load.py", "js/vdot.js"}
