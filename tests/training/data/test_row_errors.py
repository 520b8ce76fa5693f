"""Errors while rows are read and encoded cost their row alone; a lack of memory and interrupts cost none."""

import dataclasses
import errno
import math
from pathlib import Path

import pytest
import torch

from training import cache as program
from training.data.cache import Cache
from training.data.manifest import Row
from training.data.rows import RowsProducer
from training.data.shards import TarRows

from .conftest import write_manifest, write_tar

ERRORS = {
    "RuntimeError": RuntimeError("Unable to cast Python instance"),
    "TypeError": TypeError("TextInputSequence must be str"),
    "UnicodeEncodeError": UnicodeEncodeError("utf-8", "a\ud800", 1, 2, "surrogates not allowed"),
    "AssertionError": AssertionError("a decoder's own"),
}


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("stage", ["decoding", "tokenizing", "encoding"])
def test_any_error_of_a_rows_encoding_costs_it_alone(config, clips, records, monkeypatch, stage, name):
    """Restarts go on, too, and --retry_skipped tries it again."""
    rows = [{**row, "target_video_path": str(clips / "real.mp4")} for row in (records[1], records[5])]
    settings = config(path=str(write_manifest(clips / "rows.jsonl", [*rows, records[1]])))

    def broken(original, *, bad):
        def call(*arguments):
            if bad(*arguments):
                raise ERRORS[name]
            return original(*arguments)

        return call

    from training.data import rows as module
    from training.data.encoders import TextEncoder

    with monkeypatch.context() as patch:
        if stage == "decoding":
            bad = broken(module.load_inputs, bad=lambda row, config: row.task == "firstframe")
            patch.setattr(module, "load_inputs", bad)
        elif stage == "tokenizing":
            bad = broken(TextEncoder._tokens, bad=lambda self, text: "goes on" in text)
            patch.setattr(TextEncoder, "_tokens", bad)
        else:
            bad = broken(module.build_unit, bad=lambda task, inputs: task == "firstframe")
            patch.setattr(module, "build_unit", bad)
        assert program.encode(settings)
    cache = Cache(settings.cache_dir)
    assert [info.id for _, info in cache.samples] == ["00000000", "00000002"]
    (bad,) = cache.skipped
    assert (bad.id, bad.kind, bad.place) == ("00000001", "failed", "rows.jsonl row 2")
    assert bad.reason.startswith(f"{name}: ")
    str(bad).encode()
    assert program.encode(settings, retry_skipped=True) and not Cache(settings.cache_dir).skipped


@pytest.mark.parametrize("error", [
    MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
], ids=["python", "gpu", "cpu", "cublas", "system"])  # fmt: skip
def test_out_of_memory_is_said_and_skips_no_row(config, clips, records, monkeypatch, error):
    from training.data import rows as module

    settings = config(path=str(write_manifest(clips / "rows.jsonl", records[1:3])))
    monkeypatch.setattr(module, "build_unit", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(RuntimeError, match=r"out of memory at rows\.jsonl row 1 \(00000000\).*max_pixels"):
        program.encode(settings)
    assert not list(Path(settings.cache_dir).glob("shard-*"))


@pytest.mark.parametrize("place", ["decoder", "storage"])
def test_out_of_memory_while_a_file_is_read_skips_no_row(config, clips, records, monkeypatch, place):
    """Not even where the library's own error for it is also one of a broken file."""
    import av

    from training.data import video_files

    settings = config(path=str(write_manifest(clips / "rows.jsonl", records[1:3])))
    error = av.error.MemoryError(12, "Cannot allocate memory") if place == "decoder" else MemoryError()

    module, name = (av, "open") if place == "decoder" else (video_files, "open_stream")
    original = getattr(module, name)

    def fail(file, *args, **named):
        if str(file).endswith(".jsonl"):
            return original(file, *args, **named)
        raise error

    monkeypatch.setattr(module, name, fail)
    with pytest.raises(RuntimeError, match=r"out of memory at rows\.jsonl row 1"):
        program.encode(settings)
    assert not list(Path(settings.cache_dir).glob("shard-*"))


@pytest.mark.parametrize("name", ["latents", "contexts", "texts"])
def test_a_row_whose_encoding_is_not_finite_is_left_out_and_named(config, clips, records, monkeypatch, name):
    """As of a VAE in bf16 that overflows: one such sample would make every step that draws it a bad one."""
    settings = config(path=str(write_manifest(clips / "rows.jsonl", [records[1], records[5], records[1]])))
    encode = RowsProducer._sample

    def overflowing(self, row):
        sample = encode(self, row)
        if row.task != "firstframe":
            return sample
        value = getattr(sample, name)
        value = tuple(x * math.inf for x in value) if name == "texts" else value * math.inf
        return dataclasses.replace(sample, **{name: value})

    monkeypatch.setattr(RowsProducer, "_sample", overflowing)
    assert program.encode(settings)
    cache = Cache(settings.cache_dir)
    assert [info.id for _, info in cache.samples] == ["00000000", "00000002"]
    (bad,) = cache.skipped
    output = "caption 0" if name == "texts" else name
    assert bad.kind == "failed" and bad.reason.startswith(f"its encoded {output} holds NaN or infinity as ")


def test_an_interrupt_ends_the_job_and_skips_no_row(config, clips, records, monkeypatch):
    settings = config(path=str(write_manifest(clips / "rows.jsonl", [records[1], records[5], records[1]])))
    encode = RowsProducer._sample

    def interrupted(self, row):
        if row.task == "firstframe":
            raise KeyboardInterrupt
        return encode(self, row)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RowsProducer, "_sample", interrupted)
        program.encode(settings)
    assert not [path.name for path in Path(settings.cache_dir).glob(".*")], "nor does it leave a lock"
    assert program.encode(settings) and len(Cache(settings.cache_dir).samples) == 3


def test_an_unforeseen_error_of_a_tars_row_costs_it_alone(clips, records, tmp_path, monkeypatch):
    from training.data import shards

    read = shards.read_texts

    def fail(record):
        if record["prompt"] == "bad":
            raise TypeError("unhashable type: 'dict'")
        return read(record)

    monkeypatch.setattr(shards, "read_texts", fail)
    rows = [records[1], {**records[1], "prompt": "bad"}, records[1]]
    first, bad, last = TarRows(str(write_tar(tmp_path / "rows.tar", rows, clips))).rows(0)
    assert isinstance(first, Row) and isinstance(last, Row)
    assert bad.kind == "failed" and bad.reason == "TypeError: unhashable type: 'dict'"
