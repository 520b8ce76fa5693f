"""Folders of models that transformers and diffusers read, whose errors are of any type for a damaged one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .out_of_memory import is_out_of_memory
from .text import shown


class UnusableModelError(RuntimeError):
    """A model cannot be read: every clip would fail alike, so none is to blame."""


@contextmanager
def loading(
    library: str, folder: str | Path, what: str, kind: type[Exception] = ValueError
) -> Iterator[None]:
    """Tell in words why a library cannot read a folder: `with loading("diffusers", path, "a VAE"): ...`.

    Args:
        library: that reads it.
        folder: the model's.
        what: it is read as.
        kind: of the error that is raised.

    Raises:
        kind: the library failed; exhausted memory and packages that are missing stay as they are.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error) or isinstance(error, ImportError):
            raise
        raise kind(
            f"{library} cannot load {shown(folder, 100)} as {what} ({shown(error, 120)}); download it again, "
            "or give another folder"
        ) from error
