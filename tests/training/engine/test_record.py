"""A run's settings: saved, shown where they differ at a resume, refused where the result depends on them."""

import dataclasses
import os
import shutil

import pytest
import yaml

from tests.support.distill import NoiseSource, new_trainer, tiny_config, write_teacher
from training.engine.checkpoint import complete, read_progress
from training.engine.hashes import sampled_hash, tree_hash
from training.engine.record import FILE, FREE, changes, content, identity, require_output, settings
from training.methods.programs import distill_config, finetune_config


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """A run that was stopped after one step."""
    folder = tmp_path_factory.mktemp("started")
    write_teacher(folder / "teacher.safetensors")
    new_trainer(tiny_config(folder / "out", folder / "teacher.safetensors", max_steps=1)).run()
    return folder


def _resumed(started, folder, teacher=None, **changes):
    """A trainer that resumes a copy of the run with some settings changed."""
    shutil.copytree(started / "out", folder / "out")
    return new_trainer(tiny_config(folder / "out", teacher or started / "teacher.safetensors", **changes))


def test_settings_are_saved_as_a_configuration_with_versions(started):
    text = (started / "out" / FILE).read_text()
    config = tiny_config(started / "out", started / "teacher.safetensors", max_steps=1)
    assert distill_config(yaml.safe_load(text)) == config
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert any(line.startswith("# commit ") for line in comments)
    assert any(line.startswith("# torch 2.") for line in comments)
    progress = read_progress(complete(started / "out" / "checkpoints")[-1])
    assert progress["settings"] == {**settings(config), "data.encoding": "noise"}
    assert progress["versions"]["torch"]


@pytest.mark.parametrize(
    "key, value, change",
    [
        ("losses__guidance", 2.0, "losses.guidance 3.0 -> 2.0"),
        ("losses__task_guidance", {"depth": 1.0}, 'losses.task_guidance {} -> {"depth": 1.0}'),
        ("optim__ema", 0.5, "optim.ema 0.99 -> 0.5"),
        ("optim__generator_lr", 1e-4, "optim.generator_lr 0.001 -> 0.0001"),
        ("optim__generator_every", 2, "optim.generator_every 5 -> 2"),
        ("rollout__steps", 2, "rollout.steps 4 -> 2"),
        ("model__frozen", ["vace_"], 'model.frozen [] -> ["vace_"]'),
        ("data__batch_size", 24, "data.batch_size 12 -> 24"),
    ],
)
def test_settings_that_the_result_depends_on_are_refused_unless_allowed(
    started, tmp_path, caplog, key, value, change
):
    name = key.replace("__", ".")
    with pytest.raises(ValueError, match=rf"does not fit this run: .* another {name} .*allow_changes"):
        _resumed(started, tmp_path, **{key: value})
    assert f"changed since step 1: {change}" in caplog.text
    assert not list((tmp_path / "out").glob(f"{FILE}.*"))
    assert (tmp_path / "out" / FILE).read_text() == (started / "out" / FILE).read_text()


def test_allowed_changes_are_resumed_with_and_saved(started, tmp_path, caplog):
    settings = {"losses__guidance": 2.0, "allow_changes": True, "max_steps": 2}
    trainer = _resumed(started, tmp_path, **settings)
    assert trainer.step == 1 and "losses.guidance 3.0 -> 2.0" in caplog.text
    trainer.run()
    assert yaml.safe_load((tmp_path / "out" / FILE).read_text())["losses"]["guidance"] == 2.0
    caplog.clear()
    # From now on they are the run's own, and the next change has to be allowed again.
    again = tiny_config(tmp_path / "out", started / "teacher.safetensors", losses__guidance=2.0)
    assert new_trainer(again).step == 2 and "losses.guidance" not in caplog.text
    with pytest.raises(ValueError, match=r"another losses\.guidance"):
        new_trainer(tiny_config(tmp_path / "out", started / "teacher.safetensors"))


@pytest.mark.parametrize("allowed", [False, True])
def test_what_is_held_out_is_chosen_once(started, tmp_path, allowed):
    changes = {"validation__fraction": 0.3, "validation__every": 5, "allow_changes": allowed}
    with pytest.raises(ValueError, match=r"fraction 0\.02 -> 0\.3 chooses others") as error:
        _resumed(started, tmp_path, **changes)
    assert "allow_changes" not in str(error.value)


@pytest.mark.parametrize("allowed", [False, True])
def test_no_clips_are_held_out_that_were_trained_on(started, tmp_path, allowed):
    with pytest.raises(ValueError, match=r"trained on all clips.*validation\.every 0"):
        _resumed(started, tmp_path, validation__every=5, allow_changes=allowed)


def test_length_log_and_processes_may_change_and_are_shown(started, tmp_path, caplog):
    settings = {"steps": 20, "log__save_every": 1, "data__workers": 1, "parallel__fsdp": False}
    assert _resumed(started, tmp_path, **settings).step == 1
    for line in ("steps 10 -> 20", "log.save_every 4 -> 1", 'parallel.fsdp "auto" -> false'):
        assert f"changed since step 1: {line}" in caplog.text


def test_another_teacher_is_refused_at_any_path_and_the_same_one_is_not(started, tmp_path):
    same = shutil.copy(started / "teacher.safetensors", tmp_path / "moved.safetensors")
    assert _resumed(started, tmp_path / "a", same).step == 1
    other = write_teacher(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(ValueError, match=r"another model\.real_score"):
        _resumed(started, tmp_path / "b", other)
    shutil.copy(other, same)
    with pytest.raises(ValueError, match=r"another model\.real_score"):
        _resumed(started, tmp_path / "c", same)


def test_a_cache_that_was_encoded_otherwise_is_refused(started, tmp_path):
    """Its samples have the same names and shapes."""
    other = NoiseSource()
    other.encoding = "another VAE's"
    shutil.copytree(started / "out", tmp_path / "out")
    with pytest.raises(ValueError, match=r"another data\.encoding"):
        new_trainer(tiny_config(tmp_path / "out", started / "teacher.safetensors"), other)


def test_a_checkpoint_of_before_settings_were_saved_is_resumed():
    assert changes({}, {"losses.guidance": 2.0}) == []


def test_the_identity_of_weights_is_of_their_content(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part.bin").write_bytes(b"x" * 3000)
    assert identity(tmp_path / "a") == identity(tmp_path / "b") != identity(tmp_path / "a" / "part.bin")
    (tmp_path / "b" / "part.bin").write_bytes(b"x" * 2999 + b"y")
    assert identity(tmp_path / "a") != identity(tmp_path / "b")
    assert identity(tmp_path / "none") is None and content(tmp_path / "none") is None


def test_names_of_other_bytes_than_utf8_count_as_any(tmp_path):
    digests = set()
    for name in (b"a\xe8", b"a\xe9", b"a"):
        folder = tmp_path / name.hex()
        folder.mkdir()
        (folder / os.fsdecode(name)).write_bytes(b"x")
        digests.add((identity(folder), content(folder), tree_hash(folder)))
    assert all(len(set(values)) == 3 for values in zip(*digests, strict=True))


def test_only_a_file_is_replaced_by_an_export(tmp_path):
    require_output(tmp_path / "new.safetensors", {})
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "none")
    for name in ("pipe", "link", ""):
        with pytest.raises(ValueError, match="is not a file"):
            require_output(tmp_path / name, {})


def test_a_byte_in_the_middle_of_a_file_is_another_content(tmp_path):
    """Up to 256 MiB; the digest of older versions does not notice it."""
    path = tmp_path / "weights"
    path.write_bytes(bytes(5 << 20))
    before = {"path": str(path), "identity": identity(path), "content": content(path)}
    with path.open("r+b") as file:
        file.seek(5 << 19)
        file.write(b"x")
    now = {"path": str(path), "identity": identity(path), "content": content(path)}
    assert now["identity"] == before["identity"] and now["content"] != before["content"]
    (change,) = changes({"model.real_score": before}, {"model.real_score": now})
    assert not change.free and before["content"] in str(change) and now["content"] in str(change)
    old = {name: before[name] for name in ("path", "identity")}
    assert changes({"model.real_score": old}, {"model.real_score": now}) == [], "as an older version saw it"
    moved = {**now, "path": "elsewhere"}
    assert changes({"model.real_score": moved}, {"model.real_score": now}) == []


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 64, 65, 200, 1000])
def test_a_sampled_hash_reads_all_of_a_small_file_and_spread_blocks_of_a_large_one(tmp_path, size):
    path = tmp_path / "file"

    def hash_of(values):
        path.write_bytes(values)
        return sampled_hash(path, num_blocks=4, block_bytes=16)

    values = bytes(size)
    plain = hash_of(values)
    assert hash_of(values + b"\0") != plain, "the size counts"
    noticed = [at for at in range(size) if hash_of(values[:at] + b"x" + values[at + 1 :]) != plain]
    starts = [0, (size - 16) // 3, (size - 16) * 2 // 3, size - 16]
    expected = range(size) if size <= 64 else sorted({at + i for at in starts for i in range(16)})
    assert noticed == list(expected)


@pytest.mark.parametrize("config", [distill_config({}), finetune_config({})])
def test_what_may_change_is_named_by_keys_that_exist(config):
    keys = settings(config)
    of_other_methods = {"model.adapters.export"} if hasattr(config, "samples") else {"samples."}
    free_keys = [key for key in FREE if key not in of_other_methods]
    assert all(any(key.startswith(free) for key in keys) for free in free_keys)
    assert dataclasses.is_dataclass(config) and not any(key.startswith(("losses.", "optim.")) for key in FREE)
