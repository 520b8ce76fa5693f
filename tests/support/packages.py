"""Small packages in place of gigabytes: wheels, their pins, and an index that serves them on demand."""

import hashlib
import http.server
import importlib.metadata
import sys
import threading
import zipfile
from pathlib import Path
from urllib.parse import unquote


def make_wheel(folder: Path, name: str, version: str, num_bytes: int = 0) -> Path:
    """A wheel with one module that knows its version, and a file of so many zeros."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f'version = "{version}"\n',
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for inner, text in files.items():
            wheel.writestr(inner, text)
        if num_bytes:
            wheel.writestr(f"{name}.zeros", bytes(num_bytes))
    return path


def installed_uv(folder: Path) -> Path | None:
    """A wheel of the uv that this environment has; None where it has none."""
    try:
        uv = importlib.metadata.distribution("uv")
    except importlib.metadata.PackageNotFoundError:
        return None
    folder.mkdir(exist_ok=True)
    path = folder / f"uv-{uv.version}-py3-none-any.whl"
    names = []
    with zipfile.ZipFile(path, "w") as wheel:
        for file in uv.files:
            name = file.as_posix()
            if name.startswith("../") and file.stem in ("uv", "uvx"):  # bin/uv, Scripts/uv.exe
                name = f"uv-{uv.version}.data/scripts/{file.name}"
            if name.startswith("../") or name.endswith((".pyc", "/RECORD", "/INSTALLER", "/REQUESTED")):
                continue
            wheel.write(file.locate(), name)
            names.append(name)
        record = f"uv-{uv.version}.dist-info/RECORD"
        wheel.writestr(record, "".join(f"{name},,\n" for name in [*names, record]))
    return path


def pin(wheel: Path) -> str:
    """The pinned line of a wheel."""
    name, version = wheel.name.split("-")[:2]
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


class Index(threading.Thread):
    """A package index on this machine, of a folder's wheels; those of `tiny` wait until `go` is set."""

    def __init__(self, folder: Path):
        super().__init__(daemon=True)
        self.go = threading.Event()
        self.downloads: list[str] = []
        index = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self, body: bytes, kind: str):
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                parts = unquote(self.path).strip("/").split("/")
                if parts[0] == "files" and (folder / parts[-1]).is_file():
                    if parts[-1].startswith("tiny-"):
                        index.downloads.append(parts[-1])
                        index.go.wait(600)
                    self.answer((folder / parts[-1]).read_bytes(), "application/octet-stream")
                elif names := sorted(path.name for path in folder.glob(f"{parts[-1]}-*.whl")):
                    links = "".join(f'<a href="/files/{name}">{name}</a>\n' for name in names)
                    self.answer(f"<!DOCTYPE html><html><body>{links}</body></html>".encode(), "text/html")
                else:
                    self.send_error(404)

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, request, client_address):
                """Say nothing of a client that was killed while it waited."""
                if not isinstance(sys.exc_info()[1], ConnectionError):
                    super().handle_error(request, client_address)

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/simple"

    def run(self):
        self._server.serve_forever()

    def close(self):
        """Let every waiting download through and end."""
        self.go.set()
        self._server.shutdown()
        self._server.server_close()
