"""Validation on held-out samples: the split, what is measured, and that training does not notice."""

import dataclasses
import hashlib
import json

import pytest
import torch

from tests.support.distill import SIZES, tiny_config, tiny_values, write_teacher
from tests.support.processes import torchrun, wait
from training import distill
from training.data.cache import Cache
from training.data.cache_writer import fill
from training.data.encoded import EncodedSample, collate
from training.data.held_out import FILE, ValidationConfig, choose_held_out, clip_of, copies, read_held_out
from training.data.manifest import ManifestRows, Row, _resolved
from training.data.rows import clip_name
from training.data.source_files import record
from training.data.video_files import Media
from training.engine.draws import Draws, keyed_generator
from training.engine.run import ready
from training.engine.validation import TURNS, groups
from training.methods.vdot import Vdot

TASKS = ("depth", "text", "reference")


class Producer:
    """Ten clips, each for three tasks; references are one latent frame longer."""

    num_shards = 2

    def header(self):
        return {"text_len": SIZES.text_len}

    def empty_text(self):
        return torch.ones(1, SIZES.text_dim)

    def encode(self, shard):
        return [self._sample(clip, task) for clip in range(shard * 5, shard * 5 + 5) for task in TASKS], []

    def _sample(self, clip, task):
        generator = keyed_generator(clip, task)
        count = int(task == "reference")
        contexts = torch.randn(1, 96, 2 + count, 4, 4, generator=generator).half()
        contexts[:, 32:] = 1
        contexts[:, 16:, :count] = 0
        latents = torch.randn(16, 2 + count, 4, 4, generator=generator).half()
        text = torch.randn(3, SIZES.text_dim, generator=generator)
        return EncodedSample(f"{task} {clip}", task, latents, contexts, (text,), count, clip=f"clip {clip}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("validation")
    assert fill(folder / "cache", Producer())
    write_teacher(folder / "teacher.safetensors")
    return folder


def _settings(folder, **changes):
    settings = {"data__cache_dir": str(folder / "cache"), "data__batch_size": 2, "data__accumulation": 1}
    settings |= {"steps": 4, "log__save_every": 2, "optim__generator_every": 2}
    return settings | {"validation__every": 2, "validation__rows": 7, "validation__samples": 5} | changes


def _config(out, folder, **changes):
    return tiny_config(out, folder / "teacher.safetensors", **_settings(folder, **changes))


def _rows(out):
    return {row["step"]: row for row in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())}


def _held_out(row):
    return {name: value for name, value in row.items() if name.startswith("validation/")}


def test_clips_are_held_out_with_all_their_samples_in_any_order(folder):
    infos = [info for _, info in Cache(folder / "cache").samples]
    clips = choose_held_out(infos, ValidationConfig(every=1, rows=7))
    assert len(clips) == 3, "of three samples each"
    assert choose_held_out(infos[::-1], ValidationConfig(every=1, rows=7)) == clips
    assert choose_held_out(infos, ValidationConfig(every=1, fraction=0.2)) == clips[:2]
    older = [dataclasses.replace(info, clip=None) for info in infos]
    assert {clip_of(info) for info in older} == {info.id for info in infos}
    with pytest.raises(ValueError, match="all 30 samples, of 10 clips"):
        choose_held_out(infos, ValidationConfig(every=1, rows=28))


def test_rows_of_one_clip_have_one_name_wherever_it_lies():
    def name(target, source=None, folder="/a", prompt="p"):
        media = [Media(f"{folder}/{path}") if path else None for path in (source, target)]
        row = Row("1", "row 1", "depth", (prompt,), source=media[0], target=media[1])
        return clip_name(row, f"{folder}/clips.csv")

    assert name("x.mp4", "depth.mp4") == name("x.mp4", "pose.mp4", folder="/b")
    assert name("x.mp4") != name("y.mp4") and name(None, "x.mp4") == name("x.mp4")
    assert name(None, prompt="one") != name(None, prompt="two")


SPELLINGS = ("x.mp4", "./x.mp4", "{folder}/../{name}/x.mp4", "{folder}/x.mp4", "file://{folder}/x.mp4")


def test_a_file_has_one_name_however_its_path_is_written(tmp_path):
    def name(path, manifest):
        row = Row("1", "row 1", "text", ("p",), target=Media(_resolved(path, manifest)))
        return clip_name(row, manifest)

    local, remote = f"{tmp_path}/clips.csv", "s3://bucket/set/clips.csv"
    plain = {path.format(folder=tmp_path, name=tmp_path.name) for path in SPELLINGS}
    assert {name(path, local) for path in plain} == {hashlib.sha256(b"x.mp4").hexdigest()[:16]}
    others = {"x.mp4", "./x.mp4", "a/../x.mp4", "s3://bucket/./set/x.mp4"}
    assert {name(path, remote) for path in others} == {name("x.mp4", local)}
    # Names of existing caches.
    for path, written in (
        ("../v/x.mp4", "../v/x.mp4"),
        ("/v/x.mp4", "v/x.mp4"),
        ("s3://b/a//x", "s3://b/a//x"),
    ):
        assert name(path, local) == hashlib.sha256(written.encode()).hexdigest()[:16]
    assert len({name(path, remote) for path in ("a/x.mp4", "b/x.mp4", "../x.mp4", "a//x.mp4")}) == 4


@pytest.mark.parametrize("number", range(4))
def test_links_and_copies_of_a_clip_are_held_out_with_it(tmp_path, number):
    for clip in range(4):
        (tmp_path / f"{clip}.mp4").write_bytes(bytes([clip]) * 1000)
    (tmp_path / "link.mp4").symlink_to(f"{number}.mp4")
    (tmp_path / "copy.mp4").write_bytes((tmp_path / f"{number}.mp4").read_bytes())
    files = [*(f"{clip}.mp4" for clip in range(4)), "link.mp4", f"./{number}.mp4", "copy.mp4"]
    manifest = tmp_path / "clips.jsonl"
    lines = ({"task_name": "text", "prompt": "p", "target_video_path": file} for file in files)
    manifest.write_text("\n".join(map(json.dumps, lines)))
    rows = ManifestRows(str(manifest), 2)
    versions = [record(rows.files(shard)) for shard in range(rows.num_shards)]
    names = [clip_name(row, rows.path) for shard in range(rows.num_shards) for row in rows.rows(shard)]
    infos = [_info(name) for name in names]
    same = copies(versions)
    one = {names[number], *names[4:]}
    for count in range(1, 5):
        try:
            chosen = {*choose_held_out(infos, ValidationConfig(every=1, rows=count), same)}
        except ValueError:
            continue
        assert chosen & one in (set(), one)
    assert len({same.get(name, name) for name in names}) == 4


def test_a_resumed_run_trains_no_longer_on_copies_of_its_held_out_clips(tmp_path, caplog):
    (tmp_path / "checkpoints" / "step-00000001").mkdir(parents=True)
    (tmp_path / FILE).write_text(json.dumps({"clips": ["a"], "samples": ["a"]}))
    infos, config = [_info(name) for name in "abc"], ValidationConfig(every=1, rows=1)
    assert read_held_out(tmp_path, infos, config, {"b": "a"}, write=True) == ["a", "b"]
    assert "1 clip with the content" in caplog.text
    assert read_held_out(tmp_path, infos, config, {"c": "b"}, write=True) == ["a"]


def _info(name):
    sample = EncodedSample(
        name, "text", None, torch.zeros(1, 96, 1, 4, 4), (torch.zeros(1, 8),), 0, clip=name
    )
    return sample.info(0)


def test_the_losses_are_the_methods_and_change_nothing_of_training(folder, tmp_path):
    config = _config(tmp_path / "with", folder)
    with ready(config, Vdot, {}) as trainer:
        held_out = {trainer.source.cache.samples[number][1].id for number in trainer.source.held_out}
        assert len(held_out) == 9
        trained = {i for step in range(200) for batch in trainer.source.batches(step) for i in batch.ids}
        assert not trained & held_out and len(trained) == 21
        measured = trainer.validation.losses()
        method, sums = trainer.method, {}
        for place, number in enumerate(trainer.validation.samples):
            sample = trainer.source.cache.read(number, 0, contexts=True)
            batch = collate([sample], trainer.source.cache.samples[number][1].shape, (place,), SIZES.text_len)
            for turn in range(TURNS):
                draws = Draws(0, turn, (place,))
                loss = method.critic_matching(batch, draws).metrics["denoising"].detach()
                sums["validation/critic/denoising"] = sums.get("validation/critic/denoising", 0) + loss
        for name, value in sums.items():
            assert measured[name] == pytest.approx(float(value / (TURNS * 5)), rel=1e-5)
        assert {"validation/generator/dmd", "validation/critic/discriminator_accuracy"} <= measured.keys()
        assert all(parameter.grad is None for parameter in method.generator.parameters())
        trainer.run()
    rows = _rows(tmp_path / "with")
    assert [step for step, row in rows.items() if _held_out(row)] == [2, 4]
    assert _held_out(rows[2]).keys() == measured.keys() and _held_out(rows[2]) != _held_out(rows[4])
    saved = json.loads((tmp_path / "with" / FILE).read_text())
    assert set(saved["samples"]) == held_out

    with ready(_config(tmp_path / "rare", folder, validation__every=100), Vdot, {}) as trainer:
        trainer.run()
    for step, row in _rows(tmp_path / "rare").items():
        same = {name: rows[step][name] for name in row if name != "seconds"}
        assert {name: value for name, value in row.items() if name != "seconds"} == same


def test_a_start_without_a_checkpoint_decides_nothing(folder, tmp_path):
    infos = [info for _, info in Cache(folder / "cache").samples]
    few, many = (ValidationConfig(every=1, rows=rows) for rows in (1, 7))
    first = read_held_out(tmp_path, infos, few, write=True)
    assert read_held_out(tmp_path, infos, many, write=True) == choose_held_out(infos, many) != first
    (tmp_path / "checkpoints" / "step-00000001").mkdir(parents=True)
    assert read_held_out(tmp_path, infos, few, write=True) == choose_held_out(infos, many)


def test_the_split_stays_that_of_the_first_start(folder, tmp_path):
    out = tmp_path / "out"
    config = _config(out, folder, max_steps=2)
    with ready(config, Vdot, {}) as trainer:
        trainer.run()
    saved = json.loads((out / FILE).read_text())
    other = saved["clips"][:1]
    (out / FILE).write_text(json.dumps({**saved, "clips": other}))
    infos = [info for _, info in Cache(folder / "cache").samples]
    assert read_held_out(out, infos, config.validation, write=True) == other
    (out / FILE).write_text("{}")
    with pytest.raises(ValueError, match="is damaged"):
        read_held_out(out, infos, config.validation, write=True)
    (out / FILE).unlink()
    with pytest.raises(ValueError, match=r"was trained without held_out\.json"):
        read_held_out(out, infos, config.validation, write=True)


def test_groups_have_one_bucket_and_count_each_sample_once():
    cut = groups([10, 11, 12, 13, 14], lambda sample: sample == 12, 2)
    assert cut == [[(0, True), (1, True)], [(3, True), (4, True)], [(2, True), (2, False)]]


@pytest.mark.full
def test_two_processes_measure_what_one_does(folder, tmp_path):
    settings = _settings(folder, steps=2, max_steps=2)
    values = tiny_values(tmp_path / "two", folder / "teacher.safetensors", **settings)
    words = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    process = torchrun(tmp_path, distill.__file__, *(f"--{key}={word}" for key, word in words.items()))
    assert wait(process, tmp_path) == 0, (tmp_path / "log.txt").read_text()[-3000:]
    with ready(_config(tmp_path / "one", folder, steps=2), Vdot, {}) as trainer:
        trainer.run()
    one, two = (_held_out(_rows(tmp_path / name)[2]) for name in ("one", "two"))
    assert one.keys() == two.keys() and len(one) > 8
    for name, value in one.items():
        assert two[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name
