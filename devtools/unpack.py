"""Takes one folder out of a source archive without trusting the archive."""

import hashlib
import shutil
import tarfile
from pathlib import Path, PurePosixPath

from devtools.errors import DevError


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def unpack_folder(archive: Path, folder: str, destination: Path) -> int:
    """Write the files under `folder` of a .tar.gz to `destination`, and nothing else.

    Only regular files are written, each under its own relative path; owners, modes and times of the archive
    are ignored. One suspicious entry refuses the archive.

    Args:
        archive: a .tar.gz whose entries share one top folder, as sdists and release archives do.
        folder: path inside that top folder, "" for all of it.
        destination: folder to write to; created.

    Returns:
        The number of files written.

    Raises:
        DevError: the archive is damaged, has a link, a device or a path that leaves `destination`, or has no
            such folder.
    """
    prefix = PurePosixPath(folder).parts
    num_files = 0
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                relative = _checked_parts(member, archive)[1:]
                if relative[: len(prefix)] != prefix or len(relative) <= len(prefix):
                    continue
                target = destination.joinpath(*relative[len(prefix) :])
                if member.isdir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                if not member.isfile():
                    raise DevError(f"{archive.name}: {member.name} is a link or device, not a file: refused")
                target.parent.mkdir(parents=True, exist_ok=True)
                with tar.extractfile(member) as source, open(target, "xb") as sink:
                    shutil.copyfileobj(source, sink)
                num_files += 1
    except (tarfile.TarError, EOFError, FileExistsError, NotADirectoryError) as error:
        raise DevError(f"{archive.name} is damaged ({error}): delete it and run the command again") from error
    if not num_files:
        raise DevError(
            f"{archive.name} has no folder {folder or '.'}: it is not the archive that was expected"
        )
    return num_files


def _checked_parts(member: tarfile.TarInfo, archive: Path) -> tuple[str, ...]:
    parts = PurePosixPath(member.name).parts
    # A colon is a drive or an alternate stream on Windows; a backslash is a separator there.
    if member.name.startswith("/") or ".." in parts or any(c in member.name for c in "\\:\0"):
        raise DevError(f"{archive.name}: the path {member.name!r} leaves its folder: refused")
    return parts


def source_digest(folder: Path) -> str:
    """One SHA-256 over the names and contents of a folder's Python files.

    GitHub repacks its archives now and then, so the digest is of their contents, not their bytes. Files in
    hidden and test folders do not count: source distributions leave them out.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py"), key=lambda p: p.relative_to(folder).as_posix()):
        relative = path.relative_to(folder)
        if any(part.startswith((".", "tests")) for part in relative.parts):
            continue
        digest.update(f"{relative.as_posix()}\0{sha256_of(path)}\n".encode())
    return digest.hexdigest()
