"""One request to a server that may do anything: the answer's size and time are bounded, no other is asked."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any

from vdot_core.text import shown


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The next address would get the key of the first; a redirect is an error of its status."""

    def redirect_request(self, *args: Any) -> None:
        return None


def post(address: str, body: bytes, headers: dict[str, str], timeout_s: float, max_bytes: int) -> bytes:
    """Post to an address.

    Args:
        address: http or https; proxies are those of the environment.
        body, headers: Of the request.
        timeout_s: For the entire answer, however it drips in.
        max_bytes: The rest of a longer one is left out.

    Raises:
        urllib.error.HTTPError: A status other than 200 to 299, redirects among them.
        ValueError: An address or a header that no request can hold.
        OSError, HTTPException: No connection, no end of the answer in time, or one that broke off.
    """
    sockets: list[socket.socket] = []
    expired = threading.Event()

    def noting(kind: type[HTTPConnection]) -> type[HTTPConnection]:
        class Noting(kind):
            def connect(self) -> None:
                super().connect()
                sockets.append(self.sock)

        return Noting

    class Http(urllib.request.HTTPHandler):
        def http_open(self, request):
            return self.do_open(noting(HTTPConnection), request)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, request):
            return self.do_open(noting(HTTPSConnection), request, context=self._context)

    def end() -> None:
        expired.set()
        for one in sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    # A socket's own timeout begins again with every byte.
    timer = threading.Timer(timeout_s, end)
    timer.daemon = True
    timer.start()
    try:
        request = urllib.request.Request(address, body, headers)
        with urllib.request.build_opener(_NoRedirect, Http, Https).open(request, timeout=timeout_s) as answer:
            content = answer.read(max_bytes)
    except (OSError, HTTPException) as error:
        if expired.is_set() and not isinstance(error, urllib.error.HTTPError):
            raise TimeoutError(f"no end of the answer in {timeout_s:g} s") from error
        raise
    finally:
        timer.cancel()
    if expired.is_set():
        raise TimeoutError(f"no end of the answer in {timeout_s:g} s")
    return content


def refusal(error: urllib.error.HTTPError) -> str:
    """A status that is no success, with the start of its text, as far as it comes."""
    if address := error.headers.get("Location"):
        return f"status {error.code}, it sends to {shown(address, 100)}: give that address if you trust it"
    try:
        text = error.read(2000).decode("utf-8", "replace")
    except (OSError, HTTPException) as broken:
        text = type(broken).__name__
    return f"status {error.code}: {shown(text, 120)}"
