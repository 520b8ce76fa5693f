"""Refusals at the start of a program: odd configuration files, empty sections, launchers' variables."""

import os

import pytest

from training.data.config import DataConfig
from training.data.fill_cache import encode
from training.distributed.config import ParallelConfig
from training.distributed.environment import place, whole_number
from training.distributed.world import start
from training.methods.programs import distill_parser, finetune_parser

PARSERS = {"distill": distill_parser, "finetune": finetune_parser}


def refused(call, match):
    with pytest.raises(ValueError, match=match) as error:
        call()
    text = str(error.value)
    assert len(text) <= 400 and text.isprintable() and "invalid literal" not in text


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX's kinds of files")
@pytest.mark.parametrize("equals", [True, False])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop", "missing"])
def test_a_configuration_that_is_no_file_is_never_waited_for(tmp_path, kind, equals):
    path = tmp_path / "run.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "folder":
        path.mkdir()
    argv = [f"--config={path}"] if equals else ["--config", str(path)]
    refused(lambda: distill_parser().read(argv), r"run\.yaml is not a file")


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX's kinds of files")
@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("name", PARSERS)
def test_a_file_of_a_group_that_is_none_is_never_waited_for(tmp_path, name, kind):
    """Each group that jsonargparse reads from a file: on the command line, and in a file."""
    path, run = tmp_path / "keys", tmp_path / "run.yaml"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    groups = [a.dest for a in PARSERS[name]().parser._actions if type(a).__name__ == "_ActionConfigLoad"]
    assert {"data", "optim"} <= set(groups)
    for group in groups:
        for words in ([f"--{group}", str(path)], [f"--{group}={path}"]):
            refused(lambda words=words: PARSERS[name]().read(words), "keys is not a file but a")
        for key, value in ((group, path), (group, "keys")):
            run.write_text(f"{key}: {value}\n")
            refused(lambda: PARSERS[name]().read(["--config", str(run)]), "keys is not a file but a")
        refused(lambda group=group: PARSERS[name]().read_values({group: str(path)}), "keys is not a file")


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX's kinds of files")
def test_a_file_of_a_group_may_name_one_of_an_inner_group(tmp_path):
    run, model = tmp_path / "run.yaml", tmp_path / "model.yaml"
    os.mkfifo(tmp_path / "keys")
    model.write_text("adapters: keys\n")
    refused(lambda: distill_parser().read(["--model", str(model)]), "keys is not a file but a")
    model.write_text("adapters: {rank: 4}\n")
    run.write_text("model: model.yaml\n")
    assert distill_parser().read(["--config", str(run)])[0].model.adapters.rank == 4


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", r"run\.yaml holds nothing, expected keys"),
        (b"- 1", r"run\.yaml holds a list, expected keys"),
        (b"hello", r"run\.yaml holds a str, expected keys"),
        ("seed: 1".encode("utf-16"), r"run\.yaml is not UTF-8 .*save it as UTF-8"),
        (b"\x00\xff", r"run\.yaml is not UTF-8"),
        (b"data:\n\tpath: x", r"run\.yaml is no YAML .*correct it"),
        (b"data: null", "data is null, expected keys .*leave it out"),
        (b"optim:\nseed: 1\n", "optim is null, expected keys"),
    ],
)
@pytest.mark.parametrize("name", PARSERS)
def test_a_configuration_of_other_content_is_named(tmp_path, name, content, match):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    refused(lambda: distill_parser().read(["--config", str(path)]), match)


def test_a_word_in_place_of_a_group_is_named():
    refused(lambda: distill_parser().read(["--data", "null"]), "data is a group of keys; give them one by")


def test_a_mark_of_byte_order_is_no_part_of_the_first_key(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xef\xbb\xbfseed: 7\n")
    values = {"model.real_score": str(tmp_path)}
    words = [f"--{key}={value}" for key, value in values.items()]
    assert distill_parser().read(["--config", str(path), *words])[0].seed == 7


@pytest.mark.parametrize("text", ["abc", "1.5", "-1", "4(x2)", "٣", "9" * 400, "0x1", "1\x1b[31m"])
def test_a_launchers_variable_that_is_no_number_is_named(monkeypatch, text):
    monkeypatch.setenv("RANK", text)
    refused(lambda: whole_number("RANK"), "environment variable RANK is .* expected a whole number")
    refused(lambda: start(ParallelConfig()), "environment variable RANK is")


def test_an_empty_variable_is_none(monkeypatch):
    monkeypatch.setenv("RANK", "")
    monkeypatch.setenv("WORLD_SIZE", " ")
    assert place() == (0, 1) and whole_number("RANK", "SLURM_PROCID") is None


@pytest.mark.parametrize(("rank", "size"), [("0", "0"), ("2", "2"), ("5", "")])
def test_a_rank_beyond_the_processes_is_refused(monkeypatch, rank, size):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    refused(lambda: start(ParallelConfig()), "say RANK .* of WORLD_SIZE .*torchrun")


@pytest.mark.parametrize(("rank", "size"), [(0, 0), (-1, 1), (1, 1), (0, -3)])
def test_a_share_of_no_cache_is_refused_before_a_model_is_read(rank, size):
    config = DataConfig(source="manifest", path="none.csv", vae="none", text_encoder="none")
    refused(lambda: encode(config, rank, size), f"--rank is {rank} and --world_size {size}")
