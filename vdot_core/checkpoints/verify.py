"""Checks a checkpoint against the published layout, one line for each check."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..files import file_size, sha256_of
from ..networks import PRESETS, WanVaceConfig, expected_shapes
from ..text import listed, shown
from .info import Survey
from .join import has_vace
from .read import iterate_tensors
from .streams import reported, unchanged
from .survey import survey

_RELEASED = {"14B": "wan_vace_14b", "1.3B": "wan_vace_1_3b"}
_MAX_OVERHEAD = 0.01  # of the tensors' bytes: headers, alignment, the pickle
_SMALL_FILE = 2**20


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Args:
        title: what was checked.
        passed: False where the file is not as published.
        detail: what was found, and what was expected where they differ.
    """

    title: str
    passed: bool
    detail: str

    def line(self) -> str:
        """One line for a terminal."""
        return f"{'ok  ' if self.passed else 'FAIL'}  {self.title:<11} {self.detail}"


def verify(
    path: str | Path,
    *,
    vace: str | Path | None = None,
    values: bool = True,
    sha256: bool = False,
) -> Iterator[Check]:
    """Check names, shapes, dtypes, sizes and values of a network's files, block by block.

    The layout expected is that of the released network of the file's width, or that of the config which the
    file carries.

    Args:
        path: anything that `inspect` takes.
        vace: the VACE module that goes with a T2V network at `path`.
        values: read every value; otherwise the headers alone.
        sha256: compute the files' checksums.
    Yields:
        The checks in order. Values are read only where the layout fits.
    Raises:
        ValueError: a file is missing, damaged or of a format that is not read.
    """
    checkpoint = survey(path, vace)
    info = checkpoint.info
    num_bytes = sum(map(file_size, info.files))
    names = listed([file.name for file in info.files], 3)
    yield Check("files", True, f"{names}: {num_bytes:,} bytes, readable")
    if not checkpoint.entries:
        yield Check("layout", False, info.problem)
        return
    name, config = _expected_network(checkpoint)
    if config is None:
        yield Check("layout", False, info.problem)
        return
    yield Check("layout", True, f"{info.layout}, compared with {name}")
    passed = True
    for check in _layout_checks(checkpoint, config):
        passed &= check.passed
        yield check
    yield _size_check(checkpoint, num_bytes)
    if values and passed:
        yield _values_check(checkpoint)
    yield from _checksums(info.files, compute=sha256)


def _expected_network(checkpoint: Survey) -> tuple[str, WanVaceConfig | None]:
    """(name, config) of the network that the file should hold."""
    own, entries = checkpoint.info.config, checkpoint.entries
    embedding = entries.get("patch_embedding.weight")
    width = embedding.spec.shape[0] if embedding is not None and embedding.spec.shape else None
    for size, preset in _RELEASED.items():
        config = PRESETS[preset]()
        is_another = (
            checkpoint.info.layout == "vdot" and own is not None and own.num_layers != config.num_layers
        )
        if config.dim == width and not is_another:
            if has_vace(checkpoint):
                return f"Wan2.1-VACE-{size}", config
            return f"Wan2.1-T2V-{size}", replace(config, vace_layers=())
    return "the config that it carries", own


def _layout_checks(checkpoint: Survey, config: WanVaceConfig) -> Iterator[Check]:
    expected, entries = expected_shapes(config), checkpoint.entries
    missing = [key for key in expected if key not in entries]
    unexpected = [key for key in entries if key not in expected]
    faults = [f"{len(missing)} missing: {listed(missing, 3)}"] * bool(missing)
    faults += [f"{len(unexpected)} unexpected: {listed(unexpected, 3)}"] * bool(unexpected)
    detail = "; ".join(faults) or f"{len(expected)} of {len(expected)}"
    yield Check("names", not faults, detail)
    misshapen = [key for key in expected if key in entries and entries[key].spec.shape != expected[key]]
    detail = f"all {len(expected) - len(missing)} as expected"
    if misshapen:
        key = misshapen[0]
        got, want = shown(list(entries[key].spec.shape), 40), shown(list(expected[key]), 40)
        detail = f"{len(misshapen)} differ: {key} is {got}, expected {want}"
    yield Check("shapes", not misshapen, detail)
    got, total = checkpoint.info.num_parameters, sum(torch.Size(shape).numel() for shape in expected.values())
    yield Check("parameters", got == total, f"{got:,}" + (f", expected {total:,}" if got != total else ""))
    dtypes = ", ".join(f"{dtype} {count:,}" for dtype, count in sorted(checkpoint.info.dtypes.items()))
    yield Check("dtypes", True, dtypes)


def _size_check(checkpoint: Survey, num_bytes: int) -> Check:
    """Files hold their tensors and little else; helpers of quantized weights are not counted."""
    of_tensors = sum(entry.spec.num_bytes for entry in checkpoint.entries.values())
    quantized = checkpoint.info.encoded_as or checkpoint.info.formats
    detail = f"{of_tensors:,} bytes of tensors in {num_bytes:,}"
    if quantized:
        return Check("size", True, f"{num_bytes:,} bytes, quantized")
    return Check("size", of_tensors <= num_bytes <= of_tensors * (1 + _MAX_OVERHEAD) + _SMALL_FILE, detail)


def _values_check(checkpoint: Survey) -> Check:
    """Every value is finite, and no matrix is all zeros, as the unwritten part of a broken download is."""
    if checkpoint.info.formats:
        return Check("values", True, f"not read: {', '.join(checkpoint.info.formats)}")
    entries = checkpoint.entries
    targets = {name: torch.float32 if entry.is_encoded else None for name, entry in entries.items()}
    stream = unchanged(iterate_tensors(entries, targets, mapped=False, finite=False), entries)
    broken, zero = [], []
    for name, tensor in reported(stream, sum(e.spec.num_bytes for e in entries.values()), "checked"):
        smallest, largest = (float(value) for value in torch.aminmax(tensor.float()))
        if not math.isfinite(smallest + largest):
            broken.append(name)
        elif tensor.ndim > 1 and smallest == largest == 0:
            zero.append(name)
        del tensor
    faults = [f"NaN or infinity in {len(broken)} tensors: {listed(broken, 3)}"] * bool(broken)
    faults += [f"{len(zero)} matrices of zeros: {listed(zero, 3)}"] * bool(zero)
    return Check("values", not faults, "; ".join(faults) or "all finite, no matrix of zeros")


def _checksums(files: Sequence[Path], *, compute: bool) -> Iterator[Check]:
    """Nobody publishes a checksum of VDOT's or VACE's networks: it can only be printed."""
    if not compute:
        yield Check("checksum", True, "none published; --sha256 computes this file's")
        return
    for file in files:
        yield Check("checksum", True, f"{sha256_of(file)}  {shown(file.name)}; none published")
