"""WebDataset shards: the rows of a manifest, each with its files next to it in a tar.

000001.json             {"task_name": "depth", "prompt": ".."}   (or the prompt in 000001.txt)
000001.src_video.mp4    000001.mask_video.mp4    000001.target_video.mp4
000001.ref_image.png, or 000001.ref_image_0.png, 000001.ref_image_1.png, ..
"""

from __future__ import annotations

import codecs
import hashlib
import json
import logging
import re
import tarfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import IO

from vdot_core.text import parse_json, shown

from .bad_rows import BadRowError, Skipped, needs_package
from .cells import read_texts, renamed
from .manifest import Row
from .video_files import Media, TooLargeError, check_size, is_folder, open_stream, read_all

logger = logging.getLogger("vdot")
CLIPS = ("src_video", "mask_video", "target_video")
# Types of blocks that hold the name, link or other properties of the file after them.
EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
MAX_NAME_BYTES = 2**20
MAX_TARS = 100_000
BRACES = re.compile(r"\{(?:(-?\d+)\.\.(-?\d+)(?:\.\.-?\d+)?|([^{}]*))\}")
Files = dict[str, bytes | BadRowError]
HIDDEN = re.compile(r"__[^/]*__($|/)")  # webdataset's own entries


class TarRows:
    """The rows of tar shards; a tar is one shard of the cache.

    Args:
        path: One tar or several: "clips-{000..099}.tar", or a pattern with *; local or remote.
        cached: As in `ManifestRows`.

    Attributes:
        versions: As in `ManifestRows`, of tars and their names.

    Raises:
        ValueError: Nothing matches, or the address would run a program.
    """

    def __init__(self, path: str, cached: Sequence[Sequence] = ()) -> None:
        from webdataset.shardlists import expand_urls

        if path.startswith("pipe:"):
            raise ValueError(f"{shown(path)}: addresses that run programs are not opened; give files")
        if (count := _num_names(path)) > MAX_TARS:
            raise ValueError(f"{shown(path)} names {count} tars, expected at most {MAX_TARS}; give fewer")
        self.urls = []
        for url in expand_urls(path):
            if "*" not in url:
                self.urls.append(url)
                continue
            self.urls += _matches(url)
        if not self.urls:
            raise ValueError(f"no file matches {shown(path)}; give tar shards")
        if folder := next(filter(is_folder, self.urls), None):
            raise ValueError(f"{shown(folder)} is a folder; give its tars, such as {shown(folder)}/*.tar")
        self.num_shards = len(self.urls)
        self.versions = [[self.num_shards, self._hash(self.num_shards)]]
        if cached and cached[-1][0] <= self.num_shards and self._hash(cached[-1][0]) == cached[-1][1]:
            earlier = [list(version) for version in cached]
            self.versions = earlier + (self.versions if cached[-1][0] < self.num_shards else [])

    def _hash(self, count: int) -> str:
        """A hash of the first tars' names."""
        names = [url.rsplit("/", 1)[-1] for url in self.urls[:count]]
        return hashlib.sha256(json.dumps(names).encode()).hexdigest()

    def count(self, shard: int) -> None:
        """Only reading a tar tells how many rows it has."""
        return None

    def files(self, shard: int) -> dict[str, str]:
        """Name and address of a shard's tar."""
        return {self.urls[shard].rsplit("/", 1)[-1]: self.urls[shard]}

    def rows(self, shard: int) -> Iterator[Row | Skipped]:
        """The rows of one tar, in order; where it breaks off, the rest of it is one entry."""
        name = self.urls[shard].rsplit("/", 1)[-1]
        for sample in _samples(self.urls[shard], name):
            if isinstance(sample, Skipped):
                yield sample
                continue
            key, files = sample
            place = f"{name} sample {key}"
            try:
                yield _row(name, key, place, files)
            except Exception as error:
                yield Skipped.from_error(key, place, error)


def _matches(pattern: str) -> list[str]:
    """Sorted addresses that fit a pattern with *; ValueError where its files cannot be listed."""
    import fsspec

    try:
        files, _, names = fsspec.get_fs_token_paths(pattern)
    except ImportError as error:
        raise needs_package(pattern, error) from error
    except MemoryError:
        raise
    except Exception as error:  # object stores raise their own
        raise ValueError(
            f"{shown(pattern)} cannot be listed ({type(error).__name__}: {shown(error, 120)}); check the "
            "address"
        ) from error
    return sorted(files.unstrip_protocol(name) if "://" in pattern else name for name in names)


def _num_names(path: str) -> int:
    """The most names that a pattern with braces can stand for, without writing them out."""
    count = 1
    for match in BRACES.finditer(path):
        first, last, others = match.groups()
        count *= others.count(",") + 1 if first is None else abs(int(last[:20]) - int(first[:20])) + 1
    return count


def _samples(url: str, name: str) -> Iterator[tuple[str, Files] | Skipped]:
    """The rows' names and files in a tar; where it breaks off, why, without the row that it cuts."""
    try:
        with open_stream(url) as stream:
            for key, files in groupby(_files(stream), key=itemgetter(0)):
                yield key, _by_ending(files)
    except FileNotFoundError:
        yield Skipped(name, name, "missing", f"{shown(url)} does not exist")
    except ImportError as error:  # it would skip every tar
        raise needs_package(url, error) from error
    except MemoryError:
        raise
    except Exception as error:
        # Object stores raise their own errors, which are no OSErrors.
        message = f"{type(error).__name__}: {shown(error)}"
        yield Skipped(name, name, "unreadable", f"{shown(url)} cannot be read to its end: {message}")


class _Header(tarfile.TarInfo):
    """A tar's header; a damaged one, or the end of the file without the end mark, is an error.

    `tarfile` itself takes them for the end of the tar, without the rows that follow.
    """

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> _Header:
        """Parse one block; ReadError where it is no header, or one of names that fill the memory."""
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"a damaged or cut-off header ({error})") from error
        if header.type in EXTENSIONS and header.size > MAX_NAME_BYTES:
            raise tarfile.ReadError(
                f"a name or comment of {header.size} bytes, expected at most {MAX_NAME_BYTES}"
            )
        return header


def _files(stream: IO[bytes]) -> Iterator[tuple[str, str, bytes | BadRowError]]:
    """Row, ending and content of each file of a tar; an error for one that is too large with its row's."""
    row, total = None, 0
    with tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Header) as archive:
        for member in archive:
            archive.members = []  # it would keep them all
            folder, slash, file = member.name.rpartition("/")
            stem, dot, ending = file.partition(".")
            if member.isdir() or not (stem and dot) or HIDDEN.match(member.name):
                continue
            key = f"{folder}{slash}{stem}"
            if not member.isreg():
                reason = f"{shown(member.name)} is a link or a device; pack the file with tar --dereference"
                yield key, ending.lower(), BadRowError("unreadable", reason)
                continue
            if member.issparse():  # its holes take no space in the tar
                reason = f"{shown(member.name)} is a sparse file; pack it without tar --sparse"
                yield key, ending.lower(), BadRowError("unreadable", reason)
                continue
            row, total = key, member.size + (total if key == row else 0)
            try:
                check_size(total)
                # In blocks: `read` would hold the content twice.
                yield key, ending.lower(), read_all(archive.extractfile(member))
            except TooLargeError as error:
                reason = f"{shown(member.name)} cannot be read: with the row's other files {error}"
                yield key, ending.lower(), BadRowError("unreadable", reason)


def _by_ending(files: Iterator[tuple[str, str, bytes | BadRowError]]) -> Files:
    """A row's files by their endings; an error for one that is there twice."""
    result: Files = {}
    for key, ending, data in files:
        if ending in result:
            data = BadRowError("unreadable", f"{shown(f'{key}.{ending}')} is in the tar twice")
        result[ending] = data
    return result


def _caption(data: bytes, key: str) -> str:
    """Text of a caption's file; BadRowError where it is in another encoding."""
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise BadRowError(
            "unreadable", f"{shown(key)}.txt is not UTF-8 ({shown(error, 80)}); save it as UTF-8"
        ) from error


def _row(shard: str, key: str, place: str, files: Files) -> Row:
    """One group of files as a row; BadRowError where its JSON is none or says too little."""
    for data in files.values():
        if isinstance(data, BadRowError):
            raise data
    clips: dict[str, Media] = {}
    references = []
    for ending, data in files.items():
        field = ending.split(".", 1)[0]
        if field in CLIPS:
            clips[field] = Media(f"{shard}/{key}.{ending}", data)
        elif match := re.fullmatch(r"ref_image(?:_(\d+))?", field):
            references.append((int(match[1] or 0), Media(f"{shard}/{key}.{ending}", data)))
    try:
        content = files.get("json", b"{}").removeprefix(codecs.BOM_UTF8)
        record = parse_json(content, allow_nan=True, unique_keys=True)
    except ValueError as error:
        raise BadRowError("unreadable", f"{shown(key)}.json is no JSON: {error}") from error
    if not isinstance(record, dict):
        raise BadRowError("unreadable", f"{shown(key)}.json is no JSON object")
    record = renamed(record)
    if "txt" in files:
        caption = _caption(files["txt"], key)
        if record.get("prompt") not in (None, "", caption):
            raise BadRowError("wrong", f"{shown(key)}.json and {shown(key)}.txt have two captions; keep one")
        record["prompt"] = caption
    task, prompts = read_texts(record)
    source, mask, target = (clips.get(name) for name in CLIPS)
    pictures = tuple(media for _, media in sorted(references, key=lambda item: item[0]))
    return Row(key, place, task, prompts, source, mask, pictures, target)
