"""A real ComfyUI server with the pack linked into it, and a small client for its HTTP and websocket API."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.support.comfy import ROOT, comfyui_path

# The longest that an answer takes on a busy machine.
ANSWER_S = 120


@dataclass
class Run:
    """The result of one queued prompt.

    Attributes:
        prompt_id: ComfyUI's id of the prompt.
        status: 'success', 'error' or 'interrupted'.
        events: every JSON websocket event as (type, data), in order.
        num_binary: number of binary messages (stock previews) received.
        outputs: the UI outputs of each node that has any, by node id.
        error: the data of `execution_error`, where there was one.
    """

    prompt_id: str
    status: str = "unknown"
    events: list[tuple[str, dict]] = field(default_factory=list)
    num_binary: int = 0
    outputs: dict[str, dict] = field(default_factory=dict)
    error: dict | None = None

    def of_type(self, name: str) -> list[dict]:
        """The data of every event of one type."""
        return [data for kind, data in self.events if kind == name]


class PromptRefusedError(Exception):
    """The server answered 400: no output of the graph is valid. Holds the decoded answer."""

    def __init__(self, answer: dict):
        super().__init__(json.dumps(answer, indent=1))
        self.answer = answer


class ComfyServer:
    """Starts ComfyUI on a free port with its own base directory, and talks to it; a context manager."""

    def __init__(self, base: Path, *extra_args: str):
        self.base = base
        self.port = _free_port()
        self.log_path = base / "server.log"
        for name in (
            "custom_nodes",
            "input",
            "output",
            "models/diffusion_models",
            "models/vae",
            "models/loras",
        ):
            (base / name).mkdir(parents=True, exist_ok=True)
        link = base / "custom_nodes" / "ComfyUI-VDOT"
        if not link.exists():
            link.symlink_to(ROOT, target_is_directory=True)
        self._args = [
            *(sys.executable, str(comfyui_path() / "main.py"), "--cpu", "--port", str(self.port)),
            *("--base-directory", str(base), "--database-url", "sqlite:///:memory:", "--disable-api-nodes"),
            *extra_args,
        ]
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> "ComfyServer":
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self, timeout_s: float = 240) -> None:
        """Start the process and wait until it answers."""
        env = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self._args,
                cwd=self.base,
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(
                    f"ComfyUI ended with code {self._process.returncode}:\n{self.log()[-4000:]}"
                )
            try:
                self.get("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        self.stop()
        raise RuntimeError(f"ComfyUI did not answer within {timeout_s} s:\n{self.log()[-4000:]}")

    def stop(self) -> None:
        """End the process that this object started."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def log(self) -> str:
        """Everything the server wrote so far."""
        return self.log_path.read_text(errors="replace")

    def get(self, path: str):
        """GET a JSON resource."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=ANSWER_S) as answer:
            return json.loads(answer.read())

    def post(self, path: str, body: dict) -> dict:
        """POST JSON; a 400 raises PromptRefusedError with the decoded answer."""
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            if error.code != 400:
                raise
            raise PromptRefusedError(json.loads(error.read())) from None

    def run(
        self, prompt: dict, *, on_event: Callable[[str, dict], None] | None = None, timeout_s: float = 240
    ) -> Run:
        """Queue an API-format prompt, follow it to its end and return what happened."""
        return asyncio.run(asyncio.wait_for(self._run(prompt, on_event), timeout_s))

    def interrupt(self) -> None:
        """Press the stop button."""
        self.post("/interrupt", {})

    async def _run(self, prompt: dict, on_event: Callable[[str, dict], None] | None) -> Run:
        client = uuid.uuid4().hex
        url = f"http://127.0.0.1:{self.port}/ws?clientId={client}"
        async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket_:
            body = {"prompt": prompt, "client_id": client}
            run = Run((await asyncio.to_thread(self.post, "/prompt", body))["prompt_id"])
            async for message in socket_:
                if message.type == aiohttp.WSMsgType.BINARY:
                    run.num_binary += 1
                    continue
                event = json.loads(message.data)
                kind, data = event["type"], event["data"]
                run.events.append((kind, data))
                if on_event is not None:
                    await asyncio.to_thread(on_event, kind, data)
                if data.get("prompt_id") == run.prompt_id and kind in _ENDS:
                    run.status = _ENDS[kind]
                    run.error = data if kind == "execution_error" else None
                    break
        for data in run.of_type("executed"):
            run.outputs[data["node"]] = data["output"]
        return run


_ENDS = {
    "execution_success": "success",
    "execution_error": "error",
    "execution_interrupted": "interrupted",
}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
