"""What a transformer learns from: drawn clips in a cache of latents, and real ones encoded before."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tiny import latents, pretrain
from tiny import producer as drawn
from tiny.clips import CLIPS_VERSION
from tiny.config import CacheGroup, TeacherConfig
from tiny.latents import LatentCache, encode_clips
from tiny.teacher_data import DrawnClips, RealClips
from tiny.vae import save_vae
from training import cache
from training.data.config import DataConfig
from training.data.wan_vae import load_vae
from training.distributed import precision
from training.distributed.world import World
from training.engine.files import load_checkpoint, save_checkpoint
from vdot_core.checkpoints import inspect, load_network, save_network
from vdot_core.networks import WanVace, vdot_tiny

ASSETS = Path(__file__).resolve().parents[2] / "assets"
VAE = str(ASSETS / "vdot_tiny_vae.safetensors")
SIZE = {"width": 32, "height": 32, "num_frames": 5}


def _world(rank: int = 0, size: int = 1) -> World:
    return World(rank, size, torch.device("cpu"), None, "fp32")


@pytest.fixture
def groups(monkeypatch):
    monkeypatch.setattr(latents, "CHUNK_CLIPS", 2)
    return [
        CacheGroup(**SIZE, num_clips=5, tasks=["text", "depth"]),
        CacheGroup(**SIZE, num_clips=2, tasks=["reference"]),
    ]


def test_a_cache_holds_what_encoding_gives_as_far_as_asked_for(groups, tmp_path):
    made = LatentCache(groups, tmp_path, VAE, bf16=False)
    made.encode(0.5)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"group0-32x32x5-000{i}.pt" for i in (0, 1)} | {"group1-32x32x5-0000.pt"}
    text, reference = made.read(0.5)
    assert text.tasks == ["text", "depth"] * 4 and reference.latents.shape == (2, 16, 3, 4, 4)
    expected = encode_clips(made.vae, groups[0], "train", 2, 2, bf16=False)
    assert torch.equal(text.contexts[4:], expected.contexts) and text.captions[4:] == expected.captions
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    for rank in (0, 1):
        made.encode(1.0, rank, 2)
    assert {n: (tmp_path / n).stat().st_mtime_ns for n in times} == times, "nothing is encoded twice"
    assert len(made.read(1.0)[0].tasks) == 10
    # Groups take different scenes: the second begins where the first ends.
    expected = encode_clips(made.vae, groups[1], "train", 5, 2, bf16=False)
    assert torch.equal(made.read(1.0)[1].latents, expected.latents)


SAID = {
    "vae": r"VAE \(teacher\.vae\)",
    "simple": "simple: it has False, this run True",
    "tasks": r"tasks: it has \['text', 'depth'\], this run \['text', 'gray'\]",
    "start": "first clip .*: it has 5, this run 6",
    "bf16": r"precision \(teacher\.bf16\)",
    "drawing": f"version of the drawn clips: it has {CLIPS_VERSION}, this run {CLIPS_VERSION + 1}",
}


@pytest.mark.parametrize("change", SAID)
def test_a_cache_of_other_clips_is_refused_and_what_differs_is_said(groups, tmp_path, monkeypatch, change):
    LatentCache(groups, tmp_path / "cache", VAE, bf16=False).encode(1.0)
    vae, bf16 = VAE, change == "bf16"
    if change == "vae":
        other = load_vae(VAE)
        other.decoder.conv_out.bias.data += 1e-3
        vae = tmp_path / "other.safetensors"
        save_vae(other, vae)
    if change == "drawing":
        monkeypatch.setattr(latents, "CLIPS_VERSION", CLIPS_VERSION + 1)
    changes = {"simple": {"simple": True}, "tasks": {"tasks": ["text", "gray"]}, "start": {"num_clips": 6}}
    changed = [CacheGroup(**{**vars(groups[0]), **changes.get(change, {})}), groups[1]]
    said = rf"group\d-32x32x5-0000\.pt was encoded with another {SAID[change]}.* delete that folder"
    with pytest.raises(ValueError, match=said):
        LatentCache(changed, tmp_path / "cache", vae, bf16=bf16)


def test_a_cache_from_before_its_files_said_what_they_are_of_is_refused(groups, tmp_path):
    made = LatentCache(groups, tmp_path, VAE, bf16=False)
    made.encode(1.0)
    path = tmp_path / "group1-32x32x5-0000.pt"
    save_checkpoint({**load_checkpoint(path), "made_from": "0123"}, path)
    with pytest.raises(ValueError, match=r"another format of the file: it has 1, this run 2; .* delete"):
        made.read(1.0)


def test_other_metadata_of_the_same_vae_changes_nothing(groups, tmp_path):
    LatentCache(groups, tmp_path / "cache", VAE, bf16=False).encode(1.0)
    save_vae(load_vae(VAE).half(), tmp_path / "same.safetensors", {"trained_by": "somebody else"})
    assert (tmp_path / "same.safetensors").read_bytes() != Path(VAE).read_bytes()
    LatentCache(groups, tmp_path / "cache", tmp_path / "same.safetensors", bf16=False).read(1.0)


@pytest.mark.parametrize(("before", "after", "kept"), [(3, 4, [0]), (3, 8, [0]), (4, 5, [0, 1]), (5, 3, [0])])
def test_a_group_that_grew_has_all_of_its_clips(groups, tmp_path, before, after, kept):
    """Its last file ended where the group did; an unfinished one would be missed for ever."""
    group = replace(groups[0], num_clips=before)
    LatentCache([group], tmp_path, VAE, bf16=False).encode(1.0)
    paths = [tmp_path / f"group0-32x32x5-{chunk:04d}.pt" for chunk in range(4)]
    written = [paths[chunk].stat().st_mtime_ns for chunk in kept]
    grown = LatentCache([replace(group, num_clips=after)], tmp_path, VAE, bf16=False)
    for rank in (0, 1):
        grown.encode(1.0, rank, 2)
    assert [paths[chunk].stat().st_mtime_ns for chunk in kept] == written
    (samples,) = grown.read(1.0)
    expected = encode_clips(grown.vae, group, "train", 0, after, bf16=False)
    assert samples.captions == expected.captions and torch.equal(samples.latents, expected.latents)
    again = LatentCache([replace(group, num_clips=after)], tmp_path, VAE, bf16=False)
    assert again.read(1.0)[0].captions == expected.captions


def test_processes_share_a_batch_of_drawn_clips(groups, tmp_path, monkeypatch):
    monkeypatch.setattr(World, "barrier", lambda world: None)
    settings = TeacherConfig(groups=groups, cache_dir=str(tmp_path), vae=VAE, batch=6, bf16=False)
    whole = DrawnClips(settings, 3, _world()).batch(2)
    parts = [DrawnClips(settings, 3, _world(rank, 2)).batch(2) for rank in (0, 1)]
    assert torch.equal(torch.cat([part.latents for part in parts]), whole.latents)
    assert [caption for part in parts for caption in part.text] == list(whole.text)
    half, total = len(whole) // 2, len(whole)
    assert [(p.first, len(p), p.total) for p in parts] == [(0, half, total), (half, half, total)]


@pytest.mark.parametrize("hardware", [True, False])
def test_caches_of_drawn_clips_record_the_precision_that_auto_chose(tmp_path, monkeypatch, hardware):
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: hardware)
    groups = [CacheGroup(**SIZE, num_clips=1, tasks=["text"])]
    settings = TeacherConfig(groups=groups, cache_dir=str(tmp_path / "teacher"), vae=VAE)
    clips = DrawnClips(settings, 0, _world())
    clips.batch(0)
    made = load_checkpoint(tmp_path / "teacher" / "group0-32x32x5-0000.pt")["made_from"]
    assert clips.cache.bf16 is made["bf16"] is hardware
    header = drawn.ShapesProducer(replace(_drawn(tmp_path / "cache"), encode_dtype="auto")).header()
    assert header["encode_dtype"] == ("bf16" if hardware else "fp32")


def _drawn(folder: Path) -> DataConfig:
    files = {"vae": VAE, "text_encoder": str(ASSETS / "vdot_tiny_text.safetensors")}
    groups = [{**SIZE, "num_clips": 4, "tasks": ["depth", "text"]}]
    return DataConfig(
        source="producer",
        producer="tiny.producer.ShapesProducer",
        producer_args={"groups": groups},
        cache_dir=str(folder),
        **files,
    )


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """A cache as training/cache.py writes it."""
    folder = tmp_path_factory.mktemp("real") / "cache"
    assert cache.encode(_drawn(folder))
    return folder


def test_another_version_of_the_clips_does_not_add_to_a_cache_of_drawn_clips(encoded, monkeypatch):
    monkeypatch.setattr(drawn, "CLIPS_VERSION", CLIPS_VERSION + 1)
    config = _drawn(encoded)
    with pytest.raises(ValueError, match=r"another clips_version: it has \d+, this run \d+.* remove the old"):
        cache.encode(config)


def _settings(encoded: Path, **changes) -> dict:
    given = {"clips": str(encoded), "steps": 3, "batch": 2, "bf16": False, "warmup": 1, "lr": 1e-4}
    return {**given, "start_from": str(ASSETS / "vdot_tiny.safetensors"), **changes}


def test_batches_of_real_clips_are_the_caches_samples_and_captions_are_dropped(encoded):
    clips = RealClips(TeacherConfig(**_settings(encoded, text_drop=0.5)), 0, _world())
    empty, dropped = clips.source.empty_text[0], []
    for step in range(30):
        batch = clips.batch(step)
        (plain,) = clips.source.batches(step)
        assert torch.equal(batch.latents, plain.latents) and torch.equal(batch.contexts, plain.contexts)
        for made, full in zip(batch.text, plain.text, strict=True):
            dropped.append(torch.equal(made, empty))
            assert dropped[-1] or torch.equal(made, full)
    assert 0.3 < np.mean(dropped) < 0.7
    (again,) = (RealClips(TeacherConfig(**_settings(encoded, text_drop=0.5)), 0, _world()).batch(29),)
    assert torch.equal(again.text, batch.text), "a step's batch is the same however often it is asked for"


def test_a_released_transformer_is_trained_on_with_real_clips(encoded, tmp_path):
    released = tmp_path / "released" / "transformer"
    released.mkdir(parents=True)
    shutil.copy(ASSETS / "vdot_tiny.safetensors", released / "diffusion_pytorch_model.safetensors")
    settings = _settings(encoded, checkpoint_every=1, start_from=str(released.parent))
    config = {"model": "teacher", "out_dir": str(tmp_path / "out"), "ema": 0.0, "validate_every": 3}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**config, "teacher": settings}))
    assert pretrain.main(["--config", str(tmp_path / "run.yaml")]) == 0
    made = tmp_path / "out" / "export" / "vdot_tiny.safetensors"
    assert [path.name for path in made.parent.iterdir()] == [made.name], "the text encoder is not ours"
    assert inspect(made).config == inspect(ASSETS / "vdot_tiny.safetensors").config
    before = load_network(ASSETS / "vdot_tiny.safetensors", dtype=torch.float32).state_dict()
    after = load_network(made, dtype=torch.float32).state_dict()
    moved = {name: (after[name] - before[name]).abs().max().item() for name in before}
    assert 0 < max(moved.values()) < 3e-3, "three small steps from where the file was"
    assert sum(value > 0 for value in moved.values()) > 0.9 * len(moved)


def test_clips_that_do_not_fit_are_refused(encoded, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"holds no cache.*training/cache\.py"):
        RealClips(TeacherConfig(**_settings(tmp_path)), 0, _world())
    config = {"model": "teacher", "out_dir": str(tmp_path / "out")}

    def refused(settings: dict) -> str:
        (tmp_path / "run.yaml").write_text(yaml.safe_dump({**config, "teacher": settings}))
        assert pretrain.main(["--config", str(tmp_path / "run.yaml")]) == 2
        return capsys.readouterr().err.splitlines()[-1]

    groups = [{**SIZE, "num_clips": 1, "tasks": ["text"]}]
    for changes, count in (({"clips": None, "vae": VAE}, 0), ({"groups": groups}, 1)):
        said = refused(_settings(encoded, **changes))
        assert f"teacher.groups has {count} groups and teacher.clips is" in said
    assert "nowhere holds no cache" in refused(_settings(tmp_path / "nowhere"))
    other = tmp_path / "other.safetensors"
    save_network(other, WanVace(replace(vdot_tiny(), ffn_dim=256)))
    said = refused(_settings(encoded, start_from=str(other)))
    assert "teacher.start_from: " in said and "has ffn_dim 256 (expected 512)" in said
    narrow = tmp_path / "narrow"
    shutil.copytree(encoded, narrow)
    from safetensors.torch import save_file

    save_file({"text": torch.zeros(3, 64)}, str(narrow / "empty.safetensors"))
    assert "encoded to width 64, the network takes 128" in refused(_settings(narrow))
