"""The cache: it holds what encoding gives, resumes after a kill, and is the same however it was divided."""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from training import cache as program
from training.data import build_source
from training.data.cache import Cache
from training.data.config import DataConfig
from training.data.encoded import EncodedSample, SampleInfo, pack, unpack_contexts
from training.data.encoders import TextEncoder, VideoEncoder, text_encoder_digest, vae_digest
from training.data.held_out import ValidationConfig
from training.data.rows import RowsProducer
from training.data.umt5 import embed, load_umt5
from training.data.video_files import Media, fit, read_clip
from training.distributed import precision
from vdot_core import vcu
from vdot_core.networks.context_scale import ContextScale

from .conftest import write_manifest, write_tar

CPU = torch.device("cpu")


def files_of(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.fixture(scope="module")
def manifest(clips, records):
    bad = [
        {**records[0], "src_video_path": "broken.mp4"},
        {**records[0], "src_video_path": "long.mp4"},
        {**records[0], "task_name": "dept"},
        {**records[0], "target_video_path": "none.mp4"},
    ]
    return write_manifest(clips / "rows.jsonl", [*records[:3], *bad, *records[3:]])


@pytest.fixture(scope="module")
def whole(manifest, models, tmp_path_factory):
    """A cache made in one go, and its settings."""
    config = DataConfig(
        source="manifest", path=str(manifest), cache_dir=str(tmp_path_factory.mktemp("whole") / "cache"),
        vae=str(models[0]), text_encoder=str(models[1]), num_frames=5, rows_per_shard=2, device="cpu",
        batch_size=2, accumulation=1,
    )  # fmt: skip
    assert program.encode(config)
    return config


def test_masks_survive_packing():
    generator = torch.Generator().manual_seed(0)
    contexts = torch.randn(2, 96, 3, 4, 6, generator=generator).half()
    contexts[:, 32:] = (torch.rand(2, 64, 3, 4, 6, generator=generator) > 0.5).half()
    sample = EncodedSample(
        "a", "depth", None, contexts, (torch.zeros(3, 8),), context_scale=ContextScale(frames=(1.0, 0.5))
    )
    tensors, info = pack(sample, 0), sample.info(0)
    assert SampleInfo.from_dict(json.loads(json.dumps(info.to_dict()))) == info
    assert torch.equal(unpack_contexts(tensors["0.pictures"], tensors["0.masks"]), contexts)
    assert tensors["0.masks"].numel() * 8 == contexts[:, 32:].numel() and not info.has_latents
    contexts[0, 40] = 0.5
    with pytest.raises(ValueError, match="0 and 1"):
        pack(sample, 0)


def test_bad_rows_are_left_out_and_named(whole):
    opened = Cache(whole.cache_dir)
    assert len(opened.samples) == 6
    kinds = {row.id: row.kind for row in opened.skipped}
    assert kinds == {
        "00000003": "unreadable", "00000004": "misshapen", "00000005": "wrong", "00000006": "missing",
    }  # fmt: skip
    assert all(f"row {int(row.id) + 1}" in row.place and row.reason for row in opened.skipped)
    assert build_source(whole, seed=0).skipped == opened.skipped


def test_a_sample_is_what_the_nodes_encoding_gives(whole, clips):
    """Independently of the rows: the clip, vdot_core's builders and encode, and the encoders themselves."""
    opened = Cache(whole.cache_dir)
    at = next(i for i, (_, info) in enumerate(opened.samples) if info.task == "reference_gray")
    info = opened.samples[at][1]
    video = VideoEncoder(whole.vae, CPU)
    clip = fit(read_clip(Media(str(clips / "real.mp4")), 16, 81), 48, 32, "cover")
    control = fit(read_clip(Media(str(clips / "control.mp4")), 16, 81), 48, 32, "cover")
    images = [read_clip(Media(str(clips / n)), 16, 1)[0].float() / 255 for n in ("one.png", "two.png")]
    unit = vcu.compose(vcu.reference(images, width=48, height=32, num_frames=5), vcu.control(control))
    encoded = vcu.encode(unit, video)
    stored = opened.read(at, 0, contexts=True)
    assert info.num_reference_latents == encoded.num_reference_latents == 2 and info.shape == (16, 4, 4, 6)
    # Luma of a gray clip is the clip itself, to a rounding.
    assert torch.allclose(stored.contexts.float(), encoded.contexts[0], atol=2e-3)
    assert torch.equal(stored.contexts[0, :16, :2], encoded.contexts[0, 0, :16, :2].half())
    assert torch.equal(stored.latents[:, 2:], video(clip[None])[0].half())
    assert torch.equal(stored.latents[:, :2], stored.contexts[0, :16, :2])
    text = TextEncoder(whole.text_encoder, CPU)
    (expected,) = text(["these things, moving"])
    assert torch.equal(stored.texts[0], expected) and len(expected) < text.text_len


def test_text_ends_with_its_last_token_and_long_prompts_are_cut(models):
    file = load_umt5(models[1])
    text = TextEncoder(models[1], CPU)
    ids, mask = file.tokenizer(["a red square"])
    (cut,) = text(["  a red\n square "])
    padded = embed(file.encoder, ids, mask)[0]
    assert torch.allclose(padded[: len(cut)], cut, atol=1e-5) and not padded[len(cut) :].any()
    assert len(text(["square " * 200])[0]) == 64


def test_captions_that_are_cut_are_said_once_with_the_first_row(config, records, clips, caplog, tmp_path):
    """In two shards, the first row with two captions that are too long."""
    rows = [{**records[0], "prompt": prompt} for prompt in ("a square", ["square " * 9] * 2, "square " * 9)]
    path = write_manifest(clips / "captions.jsonl", rows)
    for text_len, cut in ((64, False), (6, True)):
        caplog.clear()
        settings = config(path=str(path), text_len=text_len, cache_dir=str(tmp_path / str(text_len)))
        with caplog.at_level("WARNING", "vdot"):
            assert program.encode(settings)
        lines = [record.getMessage() for record in caplog.records if "tokens" in record.getMessage()]
        assert len(lines) == cut
    assert lines[0].startswith("3 captions of 2 rows longer than 6 tokens and cut, that of row 00000001 (")


@pytest.mark.parametrize(("hardware", "dtype"), [(True, "bf16"), (False, "fp32")])
def test_a_cache_records_the_precision_that_auto_chose(config, manifest, monkeypatch, hardware, dtype):
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: hardware)
    producers = [RowsProducer(config(path=str(manifest), encode_dtype=name)) for name in ("auto", dtype)]
    automatic, explicit = (producer.header() for producer in producers)
    assert automatic == explicit and automatic["encode_dtype"] == dtype
    assert producers[0]._encoders()[0].dtype == {"bf16": torch.bfloat16, "fp32": torch.float32}[dtype]


def test_a_cache_is_not_made_around_its_source(config, manifest):
    for folder in (manifest.parent, manifest.parent.parent):
        before = sorted(folder.iterdir())
        with pytest.raises(ValueError, match=r"is the folder of data\.path, .*; give one of its own"):
            program.encode(config(path=str(manifest), cache_dir=str(folder)))
        assert sorted(folder.iterdir()) == before


def test_two_ranks_make_the_same_files_as_one(whole, config, manifest):
    other = config(path=str(manifest))
    assert not program.encode(other, rank=1, world_size=2), "rank 0 has not been here"
    with pytest.raises(ValueError, match="unfinished"):
        build_source(other, seed=0)
    assert program.encode(other, rank=0, world_size=2)
    assert files_of(other.cache_dir) == files_of(whole.cache_dir)


def test_it_resumes_after_a_kill(whole, config, manifest, monkeypatch):
    other = config(path=str(manifest))
    keys = ("source", "path", "cache_dir", "vae", "text_encoder", "num_frames", "rows_per_shard", "device")
    command = [sys.executable, "training/cache.py"]
    command += [word for key in keys for word in (f"--data.{key}", str(getattr(other, key)))]
    # Sums depend on how many threads share them, in their last bits.
    threads = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=threads
    )
    first = Path(other.cache_dir) / "shard-00000.json"
    deadline = time.monotonic() + 900
    while not first.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert first.is_file(), errors
    encoded, encode = [], RowsProducer.encode
    monkeypatch.setattr(
        RowsProducer, "encode", lambda self, shard: (encoded.append(shard), encode(self, shard))[1]
    )
    assert program.encode(other) and 0 not in encoded, "what was there was encoded again"
    files = files_of(other.cache_dir)
    assert {name: data for name, data in files.items() if not name.endswith(".partial")} == files_of(
        whole.cache_dir
    )


def test_another_vae_is_refused(whole, models, tmp_path, manifest):
    other = tmp_path / "vae.safetensors"
    other.write_bytes(models[0].read_bytes()[:-1] + b"\x01")
    changed = dataclasses.replace(whole, vae=str(other))
    with pytest.raises(ValueError, match="another vae"):
        build_source(changed, seed=0)
    with pytest.raises(ValueError, match="another vae"):
        program.encode(changed)
    with pytest.raises(ValueError, match="another num_frames"):
        program.encode(dataclasses.replace(whole, num_frames=9))
    with pytest.raises(ValueError, match=r"cache\.py"):
        build_source(dataclasses.replace(whole, cache_dir=str(tmp_path / "none")), seed=0)


def test_models_that_are_not_there_are_named_and_null_compares_nothing(whole, tmp_path):
    gone = dataclasses.replace(whole, text_encoder=str(tmp_path / "mispelled"))
    with pytest.raises(ValueError, match=r"data\.text_encoder is .*mispelled.* or null"):
        build_source(gone, seed=0)
    assert build_source(gone, seed=0, rank=1, world_size=2), "the first process compares for all"
    assert build_source(dataclasses.replace(whole, vae=None, text_encoder=None), seed=0)


def test_of_a_pipelines_folder_only_what_is_loaded_counts(tmp_path, models):
    """Neither the transformer's gigabytes nor what a download leaves behind (.cache) identify an encoder."""
    assert vae_digest(models[0]) == hashlib.sha256(models[0].read_bytes()).hexdigest()
    assert text_encoder_digest(models[1]) == hashlib.sha256(models[1].read_bytes()).hexdigest()
    pipeline = tmp_path / "pipeline"

    def write(name):
        path = pipeline / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{time.monotonic_ns()}")

    # Name -> whether the VAE's and the text encoder's identity depend on it.
    expected = {
        "vae/config.json": (True, False), "vae/w.safetensors": (True, False),
        "text_encoder/config.json": (False, True), "text_encoder/w.safetensors": (False, True),
        "tokenizer/spiece.model": (False, True), "transformer/w.safetensors": (False, False),
        "model_index.json": (False, False), "vae/.cache/x/w.lock": (False, False),
        "text_encoder/.gitattributes": (False, False),
    }  # fmt: skip
    for name in expected:
        write(name)
    before = vae_digest(pipeline), text_encoder_digest(pipeline)
    assert before == (vae_digest(pipeline / "vae"), text_encoder_digest(pipeline / "text_encoder"))
    changes = {}
    for name in expected:
        write(name)
        after = vae_digest(pipeline), text_encoder_digest(pipeline)
        changes[name] = before[0] != after[0], before[1] != after[1]
        before = after
    assert changes == expected


def test_skipped_rows_are_tried_again_when_asked(config, clips, records, tmp_path):
    rows = [{**records[1], "target_video_path": str(tmp_path / "late.mp4")}, records[1], records[1]]
    settings = config(path=str(write_manifest(clips / "late.csv", rows)))
    assert program.encode(settings) and len(Cache(settings.cache_dir).samples) == 2
    (tmp_path / "late.mp4").write_bytes((clips / "real.mp4").read_bytes())
    assert program.encode(settings) and len(Cache(settings.cache_dir).samples) == 2
    untouched = os.stat(Path(settings.cache_dir) / "shard-00001.json").st_mtime_ns
    assert program.encode(settings, retry_skipped=True)
    assert len(Cache(settings.cache_dir).samples) == 3 and not Cache(settings.cache_dir).skipped
    assert os.stat(Path(settings.cache_dir) / "shard-00001.json").st_mtime_ns == untouched


def test_a_cache_of_no_sample_is_an_error_in_encoding_and_training(config, clips, records, tmp_path, capsys):
    """Also where training holds a part of the samples out."""
    rows = [{**records[1], "target_video_path": "none.mp4"}] * 2
    settings = config(path=str(write_manifest(clips / "none.csv", rows)))
    names = ("source", "path", "cache_dir", "vae", "text_encoder", "device", "num_frames")
    words = [f"--data.{name}={getattr(settings, name)}" for name in names]
    for again in range(2):
        assert program.main(words) == 2, again
        message = capsys.readouterr().err.splitlines()[-1]
        assert f"{settings.cache_dir} holds no sample: 2 rows were left out (the first: none.csv" in message
        assert "encode them again" in message and len(message.partition(" ")[2]) <= 400
    validation = ValidationConfig(every=5)
    with pytest.raises(ValueError, match=r"cache holds no sample: 2 rows .* encode them again"):
        build_source(settings, seed=0, validation=validation, run_dir=tmp_path / "run")
    assert "none.mp4" in (tmp_path / "run" / "skipped.txt").read_text()


def test_a_cache_that_is_not_there_is_made_and_an_unfinished_one_resumed(whole, tmp_path):
    with pytest.raises(ValueError, match=r"holds no cache; .* makes it"):
        Cache(tmp_path / "copy")
    shutil.copytree(whole.cache_dir, tmp_path / "copy")
    (tmp_path / "copy" / "index.json").unlink()
    with pytest.raises(ValueError, match=r"is an unfinished cache; .* resumes it"):
        Cache(tmp_path / "copy")


def test_tars_make_the_same_samples(whole, config, clips, records):
    settings = config(source="webdataset", path=str(write_tar(clips / "good.tar", records, clips)))
    assert program.encode(settings)
    one, other = Cache(whole.cache_dir), Cache(settings.cache_dir)
    assert len(one.samples) == len(other.samples) == 6
    for sample in range(6):
        first, second = (cache.read(sample, 0, contexts=True) for cache in (one, other))
        assert torch.equal(first.contexts, second.contexts) and torch.equal(first.texts[0], second.texts[0])
        assert torch.equal(first.latents, second.latents)


def test_a_shard_that_was_cut_off_afterwards_is_left_out_and_named(config, clips, records):
    settings = config(path=str(write_manifest(clips / "cut.csv", records[1:3] + records[5:])))
    program.encode(settings)
    shard = Path(settings.cache_dir) / "shard-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-10])
    source = build_source(settings, seed=0)
    assert {row.kind for row in source.skipped} == {"unreadable"} and len(source.skipped) == 2
    assert {task for batch in source.batches(0) for task in batch.tasks} == {"firstframe"}


ENCODED_WITH = {
    "width and height": {"width": 64, "height": 48},
    "num_frames": {"num_frames": 9},
    "frame_rate": {"frame_rate": 8.0},
    "resize": {"resize": "stretch"},
    "max_pixels": {"max_pixels": 1024},
    "empty_prompt": {"empty_prompt": "blurred"},
    "text_len": {"text_len": 32},
    "encode_dtype": {"encode_dtype": "bf16"},
}


@pytest.mark.parametrize("change", ENCODED_WITH)
@pytest.mark.parametrize("source", ["manifest", "cache"])
def test_other_settings_than_the_caches_are_refused_in_training(whole, source, change):
    """Training refuses a cache of other sizes than the configuration's, from any source."""
    # Of source cache, defaults compare nothing: the configuration need not repeat the settings.
    defaults = {} if source == "manifest" else {"num_frames": DataConfig().num_frames}
    settings = dataclasses.replace(whole, source=source, **{**defaults, **ENCODED_WITH[change]})
    named = change.split()[0]
    with pytest.raises(ValueError, match=rf"another {named}: it has .*, this run .*; give another cache_dir"):
        build_source(settings, seed=0)
    assert build_source(dataclasses.replace(whole, source=source, **defaults), seed=0)


def test_other_rows_than_the_caches_are_refused_in_training(whole, clips, records, tmp_path):
    text = Path(whole.path).read_text().splitlines()
    for name, lines in {"edited": [text[0].replace("red", "blue"), *text[1:]], "fewer": text[:-1]}.items():
        path = clips / f"{name}.jsonl"
        path.write_text("\n".join(lines))
        changed = dataclasses.replace(whole, path=str(path))
        with pytest.raises(ValueError, match=r"does not have the rows that the cache .* was made from"):
            build_source(changed, seed=0)
        with pytest.raises(ValueError, match=r"was made from other rows; rows appended at the end can be"):
            program.encode(changed)
    gone = dataclasses.replace(whole, path=str(tmp_path / "none.jsonl"))
    with pytest.raises(
        ValueError, match=r"none\.jsonl cannot be read: .* \(data\.source cache trains without"
    ):
        build_source(gone, seed=0)
    assert build_source(dataclasses.replace(gone, source="cache"), seed=0)
    assert build_source(gone, seed=0, rank=1, world_size=2), "the first process compares for all"


def test_rows_that_are_appended_are_encoded_alone(config, clips, records, monkeypatch):
    """In separate shards, by any number of processes; existing shards stay as they are."""
    path = clips / "grown.jsonl"
    settings = config(path=str(write_manifest(path, records[:3])))
    assert program.encode(settings)
    before = files_of(settings.cache_dir)
    write_manifest(path, [*records[:3], records[5]])
    with pytest.raises(
        ValueError, match=r"run `python training/cache\.py`, which encodes rows that were app"
    ):
        build_source(settings, seed=0)
    encoded, encode = [], RowsProducer.encode
    monkeypatch.setattr(
        RowsProducer, "encode", lambda self, shard: (encoded.append(shard), encode(self, shard))[1]
    )
    assert not program.encode(settings, rank=1, world_size=2)
    with pytest.raises(ValueError, match="unfinished"):
        Cache(settings.cache_dir)
    assert program.encode(settings, rank=0, world_size=2) and encoded == [2]
    write_manifest(path, [*records[:3], records[5], *records[3:5]])
    assert program.encode(settings) and encoded == [2, 3]
    after = files_of(settings.cache_dir)
    shards = [name for name in before if name.startswith("shard-")]
    assert len(shards) == 4 and all(after[name] == before[name] for name in shards)
    ids = [info.id for _, info in Cache(settings.cache_dir).samples]
    assert ids == [f"{number:08d}" for number in range(6)]
    assert build_source(settings, seed=0) and program.encode(settings) and encoded == [2, 3]


def test_tars_that_are_appended_are_encoded_alone(config, clips, records, tmp_path):
    write_tar(tmp_path / "set-0.tar", records[:2], clips)
    settings = config(source="webdataset", path=str(tmp_path / "set-*.tar"))
    assert program.encode(settings)
    first = os.stat(Path(settings.cache_dir) / "shard-00000.json").st_mtime_ns
    write_tar(tmp_path / "set-1.tar", records[5:], clips)
    assert program.encode(settings) and len(Cache(settings.cache_dir).samples) == 3
    assert os.stat(Path(settings.cache_dir) / "shard-00000.json").st_mtime_ns == first
    (tmp_path / "set-0.tar").rename(tmp_path / "set-2.tar")
    with pytest.raises(ValueError, match="was made from other rows"):
        program.encode(settings)


def test_a_cache_of_the_first_layout_is_read_and_not_added_to(whole, tmp_path):
    """Its header has one hash of all rows."""
    shutil.copytree(whole.cache_dir, tmp_path / "old")
    header = json.loads((tmp_path / "old" / "cache.json").read_text())
    header["rows"] = header["rows"][-1][1]
    del header["rows_per_shard"]
    (tmp_path / "old" / "cache.json").write_text(json.dumps(header))
    index = json.loads((tmp_path / "old" / "index.json").read_text())
    for shard in index["shards"]:
        del shard["made_from"], shard["checksum"]
    (tmp_path / "old" / "index.json").write_text(json.dumps(index))
    save_file({"text": Cache(whole.cache_dir).empty_text}, str(tmp_path / "old" / "empty.safetensors"))
    old = dataclasses.replace(whole, cache_dir=str(tmp_path / "old"))
    assert build_source(old, seed=0) and build_source(dataclasses.replace(old, source="cache"), seed=0)
    with pytest.raises(ValueError, match="was made from other rows"):
        program.encode(old)
