"""Talks to a ComfyUI server: uploads, queues a prompt, follows it on the websocket, downloads the results."""

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

from devtools.errors import DevError


@dataclass
class Outcome:
    """The results of a prompt.

    Attributes:
        outputs: each output node's UI values, by node id.
        seconds: time spent in each node, by node id.
    """

    outputs: dict[str, dict] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def files(self) -> list[tuple[str, dict]]:
        """(node id, file description for download()) of everything saved or previewed."""
        return [
            (node_id, item)
            for node_id, values in self.outputs.items()
            for items in values.values()
            if isinstance(items, list)
            for item in items
            if isinstance(item, dict) and "filename" in item
        ]


class ComfyClient:
    """One session with a server; an asynchronous context manager.

    Args:
        url: the server's address, as in http://127.0.0.1:8188.
    """

    def __init__(self, url: str):
        self._url = url
        self._id = uuid.uuid4().hex
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "ComfyClient":
        # No time limit for requests: uploads may be large, and the server is on this machine.
        self._session = aiohttp.ClientSession(
            self._url, timeout=aiohttp.ClientTimeout(total=None, connect=10)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def object_info(self) -> dict:
        """The server's description of every node."""
        async with self._session.get("/object_info") as answer:
            answer.raise_for_status()
            return await answer.json()

    async def upload(self, path: Path, name: str | None = None) -> str:
        """Put a file into the server's input folder.

        Args:
            path: the file.
            name: its name there, `folder/file` allowed; its own name if None.

        Returns:
            The name that a loader node takes.

        Raises:
            DevError: the server refused it.
        """
        folder, _, file_name = (name or path.name).rpartition("/")
        form = aiohttp.FormData()
        with open(path, "rb") as file:
            form.add_field("image", file, filename=file_name, content_type="application/octet-stream")
            form.add_field("overwrite", "true")
            if folder:
                form.add_field("subfolder", folder)
            async with self._session.post("/upload/image", data=form) as answer:
                if answer.status != 200:
                    text = await answer.text()
                    raise DevError(f"ComfyUI refused {path.name} (status {answer.status}): {text[:200]}")
                stored = await answer.json()
        return f"{stored['subfolder']}/{stored['name']}" if stored["subfolder"] else stored["name"]

    async def run(
        self, prompt: dict, progress: Callable[[str, dict], Any] = lambda kind, data: None
    ) -> Outcome:
        """Queue a prompt and wait for its end.

        Args:
            prompt: API format.
            progress: called with every event of this prompt: its type and data.

        Returns:
            The outputs and how long each node took.

        Raises:
            DevError: the server refused the prompt or a part of it, or a node failed.
        """
        outcome = Outcome()
        # The socket opens before the prompt is queued: earlier events would be lost.
        async with self._session.ws_connect(f"/ws?clientId={self._id}", max_msg_size=0) as socket:
            prompt_id = await self._queue(prompt)
            node_id, since = None, 0.0
            async for message in socket:
                if message.type != aiohttp.WSMsgType.TEXT:
                    continue
                event = json.loads(message.data)
                kind, data = event["type"], event.get("data") or {}
                if data.get("prompt_id") != prompt_id:
                    continue
                progress(kind, data)
                if kind == "executing":
                    now = time.monotonic()
                    if node_id is not None:
                        outcome.seconds[node_id] = outcome.seconds.get(node_id, 0.0) + now - since
                    node_id, since = data.get("node"), now
                elif kind == "executed":
                    outcome.outputs[data["node"]] = data.get("output") or {}
                elif kind == "execution_success":
                    return outcome
                elif kind in ("execution_error", "execution_interrupted"):
                    raise DevError(_describe_failure(prompt, data))
        raise DevError(
            "ComfyUI closed the connection before the prompt was done; it may have run out of memory"
        )

    async def download(self, item: dict) -> bytes:
        """The bytes of a saved or previewed file."""
        query = {key: item.get(key, "") for key in ("filename", "subfolder", "type")}
        async with self._session.get("/view", params=query) as answer:
            answer.raise_for_status()
            return await answer.read()

    async def _queue(self, prompt: dict) -> str:
        async with self._session.post("/prompt", json={"prompt": prompt, "client_id": self._id}) as answer:
            body = await answer.json()
        # A partly invalid graph is answered with 200 and runs without the invalid parts.
        if answer.status != 200 or body.get("node_errors"):
            raise DevError(_describe_refusal(prompt, body))
        return body["prompt_id"]


def _describe_refusal(prompt: dict, body: dict) -> str:
    lines = [f"ComfyUI refused the workflow: {(body.get('error') or {}).get('message', 'a node is wrong')}"]
    for node_id, problem in (body.get("node_errors") or {}).items():
        for error in problem.get("errors", []):
            title = prompt[node_id]["class_type"]
            lines.append(f"  {title} ({node_id}): {error['message']} {error.get('details', '')}".rstrip())
    return "\n".join(lines)


def _describe_failure(prompt: dict, data: dict) -> str:
    if "exception_message" not in data:
        return "the run was interrupted"
    node = prompt.get(data.get("node_id"), {}).get("class_type", data.get("node_type"))
    return f"{node} failed: {data['exception_message'].strip()}"
