"""Turns what pip or uv printed into its last words and what to do."""

from pathlib import Path

from devtools.errors import DevError

AGAIN = "then run the same command again"
# In the order in which they are looked for: after a failed connection pip also finds no distribution.
CAUSES = {
    "disk": ("No space left on device", "Errno 28", "os error 28", "Disk quota exceeded"),
    "hash": ("DO NOT MATCH THE HASHES", "Hash mismatch"),
    "proxy": ("ProxyError", "tunnel error", "Proxy Authentication Required"),
    "interrupted": ("Read timed out", "IncompleteRead", "operation timed out", "end of file before message"),
    "network": (
        "NewConnectionError",
        "name resolution",
        "Max retries exceeded",
        "dns error",
        "error sending request",
        "Connection refused",
        "are you offline",
    ),
    "certificate": ("CERTIFICATE_VERIFY_FAILED", "invalid peer certificate"),
    "no wheel": (
        "No matching distribution",
        "has no wheels with a matching",
        "has no usable wheels",
        "No solution found",
    ),
}
ADVICE = {
    "disk": f"the disk is full: make room, {AGAIN}",
    "hash": f"a download is damaged or is not the file that was pinned: check the network, {AGAIN}",
    "proxy": f"the proxy refused the connection: check HTTPS_PROXY, {AGAIN}",
    "interrupted": "the download was interrupted: run the same command again",
    "network": f"the package index cannot be reached: check the network, {AGAIN}",
    "certificate": f"the package index's certificate is not trusted: set PIP_CERT to your CA file, {AGAIN}",
    "no wheel": "no wheel for this Python and platform; 64-bit Python 3.12 is the safest choice",
    "": f"see the log, {AGAIN}",
}


def cause_of(output: str) -> str:
    """The key in CAUSES of a failed installation's output; "" where none is known."""
    return next((cause for cause, signs in CAUSES.items() if any(sign in output for sign in signs)), "")


class InstallError(DevError):
    """An installation that failed.

    Attributes:
        cause: a key of CAUSES, or "".
    """

    def __init__(self, message: str, cause: str):
        super().__init__(message)
        self.cause = cause


def explain_failure(program: str, output: str, log: Path) -> InstallError:
    """The program's last words and what to do, as an error to raise.

    Args:
        program: 'pip' or 'uv'.
        output: what it printed.
        log: the file with all of it.
    """
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines
    words = ["  " + line for line in errors[-6:]]
    cause = cause_of(output)
    return InstallError("\n".join([f"{program} failed:", *words, ADVICE[cause], f"log: {log}"]), cause)
