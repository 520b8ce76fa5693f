"""WebDataset shards: the rows of a manifest, each with its files beside it in a tar.

000001.json             {"task_name": "depth", "prompt": ".."}   (or the prompt in 000001.txt)
000001.src_video.mp4    000001.mask_video.mp4    000001.target_video.mp4
000001.ref_image.png, or 000001.ref_image_0.png, 000001.ref_image_1.png, ..
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

from .clips import Media
from .manifest import RENAMED, Row, make_row
from .samples import Skipped

logger = logging.getLogger("vdot")
FILES = {"src_video": "source", "mask_video": "mask", "target_video": "target"}


class TarRows:
    """The rows of tar shards; a tar is one shard of the cache.

    Args:
        path: One tar or several: "clips-{000..099}.tar", or a pattern with *; local or remote.

    Raises:
        ValueError: Nothing matches, or the address would run a program.
    """

    def __init__(self, path: str) -> None:
        import fsspec
        from webdataset.shardlists import expand_urls

        if path.startswith("pipe:"):
            raise ValueError(f"{path}: addresses that run programs are not opened; give files")
        self.urls = []
        for url in expand_urls(path):
            if "*" not in url:
                self.urls.append(url)
                continue
            files, _, found = fsspec.get_fs_token_paths(url)
            self.urls += sorted(files.unstrip_protocol(name) if "://" in url else name for name in found)
        if not self.urls:
            raise ValueError(f"no file matches {path}; give tar shards")
        self.num_shards = len(self.urls)

    def identity(self) -> str:
        """A hash of the shards' names."""
        names = [url.rsplit("/", 1)[-1] for url in self.urls]
        return hashlib.sha256(json.dumps(names).encode()).hexdigest()

    def rows(self, shard: int) -> Iterator[Row | Skipped]:
        """The rows of one tar, in order; where it breaks off, what is left is named as one."""
        name = self.urls[shard].rsplit("/", 1)[-1]
        for sample in _samples(self.urls[shard], name):
            yield sample if isinstance(sample, Skipped) else _row(name, sample)


def _samples(url: str, name: str) -> Iterator[dict[str, Any] | Skipped]:
    """The groups of files of a tar; where it breaks off, why."""
    import fsspec
    from webdataset.tariterators import group_by_keys, tar_file_expander

    try:
        with fsspec.open(url, "rb") as stream:
            yield from group_by_keys(tar_file_expander([{"url": url, "stream": stream}]))
    except FileNotFoundError:
        yield Skipped(name, name, "missing", f"{url} does not exist")
    except ImportError:
        # A backend that is not installed would skip every tar.
        raise
    except Exception as error:
        # Object stores have errors of their own, which are no OSErrors; webdataset adds to their arguments.
        reason = error.args[0] if error.args else ""
        said = f"{type(error).__name__}: {reason}"
        yield Skipped(name, name, "unreadable", f"{url} cannot be read to its end: {said}")


def _row(shard: str, sample: dict[str, Any]) -> Row | Skipped:
    """One group of files as a row."""
    key = str(sample["__key__"])
    place = f"{shard} sample {key}"
    files: dict[str, Any] = {}
    references = []
    for ending, data in sample.items():
        field = ending.split(".", 1)[0]
        if field in FILES:
            files[FILES[field]] = Media(f"{shard}/{key}.{ending}", data)
        elif match := re.fullmatch(r"ref_image(?:_(\d+))?", field):
            references.append((int(match[1] or 0), Media(f"{shard}/{key}.{ending}", data)))
    try:
        record = json.loads(sample.get("json", b"{}"))
    except (ValueError, RecursionError) as error:
        return Skipped(key, place, "unreadable", f"{key}.json is no JSON: {error}")
    if not isinstance(record, dict):
        return Skipped(key, place, "unreadable", f"{key}.json is no JSON object")
    record = {RENAMED.get(name, name): value for name, value in record.items()}
    if "txt" in sample:
        record.setdefault("prompt", sample["txt"].decode("utf-8", "replace"))
    files["references"] = tuple(media for _, media in sorted(references, key=lambda item: item[0]))
    return make_row(key, place, record, **files)
