"""The installer: uv, several times as fast, or pip if uv is not available; both check every hash.

uv reads neither pip.conf nor PIP_* variables, so their index, certificates and proxy are passed to it.
"""

import ast
import os
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from devtools.errors import DevError
from devtools.explain import InstallError
from devtools.pins import UV

# pip's settings and uv's options for them.
URLS = {
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "trusted-host": "--allow-insecure-host",
}
# With these pip installs into another folder or interpreter.
ELSEWHERE = ("target", "prefix", "root", "python")
# Where several indexes have a package, the hash decides; versions are pinned.
UV_OPTIONS = ("--index-strategy", "unsafe-best-match")
PIP_OPTIONS = ("--progress-bar", "off", "--no-input")
# Only built packages: build requirements are not pinned.
PINNED_OPTIONS = ("--require-hashes", "--no-deps", "--only-binary", ":all:")


@dataclass(frozen=True)
class Installer:
    """A program's command up to `install`, and the variables that it runs with."""

    name: str
    command: list[str]
    variables: dict[str, str] = field(default_factory=dict)


def pip_installer(python: Path) -> Installer:
    """The pip of an environment."""
    return Installer("pip", [str(python), "-m", "pip", "install", *PIP_OPTIONS])


def find_installer(
    python: Path, scratch: Path, run: Callable[[Installer, list[str]], str], say: Callable[[str], None]
) -> Installer:
    """uv, installed by the environment's pip, or that pip.

    Args:
        python: the environment's interpreter.
        scratch: folder that may be filled and is deleted afterwards.
        run: runs an installer with arguments and returns its output; raises InstallError when it fails.
        say: called with the reason why pip installs.

    Raises:
        InstallError: the package index cannot be reached, or the disk is full: pip would fail too.
    """
    pip = pip_installer(python)
    try:
        run(pip, [*PINNED_OPTIONS, "-r", str(UV)])
    except InstallError as error:
        if error.cause != "no wheel":
            raise
        say("this package index has no uv for this machine: pip installs, which takes a few times longer")
        return pip
    if (cache := uv_cache(python)) is None:
        say("uv does not run on this machine: pip installs, which takes a few times longer")
        return pip
    return uv_installer(python, scratch, cache)


def uv_cache(python: Path) -> Path | None:
    """The folder of uv's cache; None if uv does not run."""
    command = [str(python), "-m", "uv", "cache", "dir"]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    folder = run.stdout.strip()
    return Path(folder) if run.returncode == 0 and folder else None


def uv_installer(python: Path, scratch: Path, cache: Path) -> Installer:
    """The uv of an environment, with pip's settings."""
    settings = pip_settings(python)
    options = ["--no-index"] if settings.get("no-index", "0").lower() in ("1", "true", "yes", "on") else []
    for name, option in URLS.items():
        for value in settings.get(name, "").split():
            options += [option, value]
    variables = {}
    if cert := settings.get("cert"):
        variables["SSL_CERT_FILE"] = cert
    elif ssl.create_default_context().cert_store_stats()["x509_ca"]:  # pip trusts what the system trusts
        variables["UV_SYSTEM_CERTS"] = os.environ.get("UV_SYSTEM_CERTS", "1")
    if proxy := settings.get("proxy"):
        variables["ALL_PROXY"] = proxy
    if timeout := settings.get("timeout") or settings.get("default-timeout"):
        variables["UV_HTTP_TIMEOUT"] = timeout
    if not _links_from(cache, scratch):
        variables["UV_CACHE_DIR"] = str(scratch / "uv")
    command = [str(python), "-m", "uv", "pip", "install", "--python", str(python), *UV_OPTIONS, *options]
    return Installer("uv", command, variables)


def pip_settings(python: Path) -> dict[str, str]:
    """pip's settings for `install`, from its files and PIP_* variables."""
    command = [str(python), "-m", "pip", "config", "list"]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    values: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in lines:
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in values:
            values[section][name] = str(ast.literal_eval(value))
    return {**values["global"], **values["install"], **values[":env:"]}


def require_own_target(python: Path) -> None:
    """Refuse settings of pip with which packages would go elsewhere than into the environment.

    Raises:
        DevError: there is one.
    """
    settings = pip_settings(python)
    for name in ELSEWHERE:
        if value := settings.get(name):
            raise DevError(
                f"pip is set to install elsewhere ({name} = {value}): unset PIP_{name.upper()}, or take "
                "the line out of pip.conf, for this command"
            )


def _links_from(cache: Path, scratch: Path) -> bool:
    """True if uv's cache is writable and on the environment's disk, so that nothing is copied."""
    folder = cache
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK) and folder.stat().st_dev == scratch.stat().st_dev
