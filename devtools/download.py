"""Downloads one archive of a package by pip, and checks its hash before anything reads it."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from devtools.errors import DevError
from devtools.unpack import sha256_of

TRIES = 2


def download_archive(
    scratch: Path, python: Path, package: str, sha256: str, options: Sequence[str], pattern: str
) -> Path:
    """Download an archive.

    Args:
        scratch: folder to work in.
        python: interpreter whose pip downloads.
        package: `NAME==VERSION`.
        sha256: of the archive.
        options: pip's, which choose the archive.
        pattern: of the archive's name.

    Returns:
        The archive, in `scratch`.

    Raises:
        DevError: it could not be downloaded, or is another archive.
    """
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{package} --hash=sha256:{sha256}\n", encoding="utf-8")
    command = [str(python), "-m", "pip", "download", "--require-hashes", "--no-deps", *options]
    command += ["--progress-bar", "off", "-r", str(requirements), "-d"]
    for attempt in range(1, TRIES + 1):
        downloads = scratch / f"download-{attempt}"
        run = subprocess.run(
            [*command, str(downloads)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        archives = sorted(downloads.glob(pattern))
        if run.returncode == 0 and len(archives) == 1:
            break
    else:
        raise DevError(f"pip could not download {package}, tried {TRIES} times:\n{_last_error(run.stdout)}")
    if sha256_of(archives[0]) != sha256:
        raise DevError(f"{archives[0].name} does not have the pinned SHA-256: refused")
    return archives[0]


def _last_error(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line] or lines
    return "\n".join("    " + line.strip() for line in errors[-3:])
