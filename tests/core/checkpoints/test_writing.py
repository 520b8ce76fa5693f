"""Our own files: readable by others, written atomically; stage 2's start; the command line."""

import errno
import io
import json
import os
import runpy
import signal
import stat
import subprocess
import sys

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from tests.core.checkpoints.helpers import (
    TINY,
    TINY_TEXT,
    assert_same,
    is_vace,
    prefixed,
    shapes_of,
    weights_of,
    write_header_only,
)
from tests.core.networks.helpers import inputs, random_network
from tests.support.comfy import ROOT
from vdot_core.checkpoints import (
    acc_wan_init,
    convert,
    inspect,
    load_network,
    read_weights,
    safetensors_files,
    save_network,
    save_weights,
)
from vdot_core.checkpoints.__main__ import main
from vdot_core.checkpoints.safetensors_files import write_safetensors
from vdot_core.checkpoints.tensor_files import TensorSpec
from vdot_core.networks import WanVaceConfig, wan_vace_1_3b


def test_round_trip(tmp_path):
    network = random_network(TINY)
    path = tmp_path / "vdot_tiny.safetensors"
    save_network(path, network, metadata={"step": "1200"})
    info = inspect(path)
    assert (info.layout, info.config, info.problem) == ("vdot", TINY, "")
    assert info.metadata["step"] == "1200" and info.metadata["vdot_format"] == "1"
    loaded = load_network(path)
    assert_same(dict(loaded.state_dict()), dict(network.state_dict()))
    arguments = inputs(TINY)
    with torch.no_grad():
        assert torch.equal(loaded(*arguments), network(*arguments))
    assert not [file for file in tmp_path.iterdir() if file != path]


def test_safetensors_itself_reads_our_files(tmp_path):
    """And ComfyUI finds what selects our network where it looks for it."""
    weights = weights_of()
    weights["patch_embedding.weight"] = weights["patch_embedding.weight"].float()
    weights["blocks.1.ffn.0.weight"] = weights["blocks.1.ffn.0.weight"].to(torch.float8_e4m3fn)
    weights["head.head.weight"] = weights["head.head.weight"].t().contiguous().t()
    path = tmp_path / "w.safetensors"
    save_weights(path, TINY, weights)
    assert_same(load_file(path), weights)
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    fields = json.loads(metadata["config"])["transformer"]
    assert fields.pop("image_model") == "wan2.1" and fields.pop("vdot") == 1
    assert metadata["format"] == "pt" and WanVaceConfig.from_dict(fields) == TINY
    assert_same(read_weights(path).state_dict, weights)


def test_saving_over_the_file_that_the_network_is_mapped_from(tmp_path):
    path = tmp_path / "w.safetensors"
    save_network(path, random_network(TINY).bfloat16())
    network, inode = load_network(path), path.stat().st_ino
    with torch.no_grad():
        network.head.head.bias.fill_(2.0)
    save_network(path, network)
    assert (
        path.stat().st_ino != inode
    )  # a new file took the name; the old one stays whole for who has it open
    save_network(path, network)
    assert_same(dict(load_network(path).state_dict()), dict(network.state_dict()))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, TINY, weights_of())
    before = path.read_bytes()
    spec = TensorSpec((4,), torch.float32)

    def failing():
        yield "a", torch.ones(4)
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk is full"):
        write_safetensors(path, {"a": spec, "b": spec}, failing(), {})
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["w.safetensors"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask  # readable as any file the user writes


def test_what_cannot_be_saved(tmp_path):
    network = random_network(TINY)
    path = tmp_path / "w.safetensors"
    for wrong, sentence in (
        (lambda: save_network(tmp_path / "w.pt", network), "ends in .safetensors"),
        (lambda: save_network(tmp_path / "no" / "w.safetensors", network), "does not exist; create it first"),
        (lambda: save_network(path, torch.nn.Linear(2, 2)), "got a Linear; give a WanVace"),
        (lambda: save_network(path, network.to("meta")), "have no values"),
        (lambda: save_network(path, random_network(TINY), metadata={"config": "x"}), "written by the format"),
        (lambda: save_network(path, random_network(TINY), metadata={"step": 3}), "give strings"),
        (lambda: save_weights(path, TINY, weights_of(TINY_TEXT)), "does not fit its config; it misses"),
    ):
        with pytest.raises(ValueError, match=sentence):
            wrong()
    assert not list(tmp_path.iterdir())


def test_wrapped_names_are_cleaned(tmp_path):
    weights = {f"_orig_mod.{name}": value for name, value in weights_of().items()}
    save_weights(tmp_path / "w.safetensors", TINY, weights)
    assert_same(load_file(tmp_path / "w.safetensors"), weights_of())


def test_acc_wan_init():
    vace, wan = random_network(TINY, seed=1).bfloat16(), random_network(TINY_TEXT, seed=2)
    before = {name: value.clone() for name, value in vace.state_dict().items()}
    pointers = {name: value.data_ptr() for name, value in vace.state_dict().items()}
    assert acc_wan_init(vace, wan) is vace
    source = wan.state_dict()
    for name, value in vace.state_dict().items():
        assert value.data_ptr() == pointers[name] and value.dtype == torch.bfloat16
        assert torch.equal(value, before[name] if is_vace(name) else source[name].bfloat16()), name
    # With the branch left out, the result is stage 1's network.
    exact, arguments = acc_wan_init(random_network(TINY, seed=1), wan), inputs(TINY)
    with torch.no_grad():
        assert torch.equal(exact(*arguments[:3], None), wan(*arguments[:3], None))


def test_acc_wan_init_on_state_dicts_and_refusals():
    vace, wan = weights_of(TINY, seed=1), weights_of(TINY_TEXT, seed=2)
    assert acc_wan_init(vace, {f"_orig_mod.{n}": v for n, v in wan.items()}) is vace
    assert torch.equal(vace["head.modulation"], wan["head.modulation"])
    untouched = {name: value.clone() for name, value in vace.items()}
    for first, second, sentence in (
        (wan, vace, "no VACE branch"),
        (vace, weights_of(TINY, seed=3), "the Wan network has a VACE branch"),
        (
            vace,
            {**weights_of(TINY_TEXT, seed=4), "head.head.bias": torch.ones(3)},
            r"is \[3\], expected \[64\]",
        ),
        (vace, {n: v for n, v in weights_of(TINY_TEXT, seed=4).items() if "norm3" not in n}, "misses 8 keys"),
        (vace, {n: v.to("meta") for n, v in wan.items()}, "meta device"),
    ):
        with pytest.raises(ValueError, match=sentence):
            acc_wan_init(first, second)
    assert_same(vace, untouched)


def test_acc_wan_init_on_a_mapped_file_changes_only_memory(tmp_path):
    path = tmp_path / "vace.safetensors"
    save_weights(path, TINY, weights_of())
    before = path.read_bytes()
    acc_wan_init(load_network(path), random_network(TINY_TEXT, seed=5))
    assert path.read_bytes() == before


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_convert_the_released_file(tmp_path, dtype):
    """From the release's pickle to ours; mixed dtypes survive, and so does the network."""
    weights = weights_of()
    weights["patch_embedding.weight"] = weights["patch_embedding.weight"].float()
    torch.save({"generator": prefixed(weights, "model.")}, tmp_path / "vdot_14b.pt")
    target = tmp_path / "vdot.safetensors"
    info = convert(tmp_path / "vdot_14b.pt", target, config=TINY, dtype=dtype)
    assert (info.layout, info.config, info.problem) == ("vdot", TINY, "")
    expected = {name: value if dtype is None else value.to(dtype) for name, value in weights.items()}
    assert_same(load_file(target), expected)
    with pytest.raises(ValueError, match="exists already"):
        convert(tmp_path / "vdot_14b.pt", target, config=TINY)
    convert(target, target, overwrite=True, dtype=torch.float32)
    assert inspect(target).dtypes == {"float32": info.num_parameters}


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("change", ["cut", "overwritten"])
def test_a_source_that_changes_while_it_is_converted_is_refused(tmp_path, monkeypatch, name, change):
    source = tmp_path / name
    save = save_file if name == "w.safetensors" else torch.save
    save(weights_of(), source)
    write, size = safetensors_files._write, source.stat().st_size

    def changed_meanwhile(file, header, specs, tensors):
        if change == "cut":
            os.truncate(source, 100)
        else:
            with source.open("r+b") as writer:
                writer.seek(size // 2)
                writer.write(bytes(1000))
        write(file, header, specs, tensors)

    monkeypatch.setattr(safetensors_files, "_write", changed_meanwhile)
    with pytest.raises(ValueError, match=f"{name} changed while it was being read; try again"):
        convert(source, tmp_path / "out.safetensors", config=TINY)
    assert os.listdir(tmp_path) == [name]


def test_a_name_that_is_taken_meanwhile_is_not_overwritten(tmp_path, monkeypatch):
    source, target = tmp_path / "w.safetensors", tmp_path / "out.safetensors"
    save_weights(source, TINY, weights_of())
    write = safetensors_files._write

    def taken_meanwhile(*arguments):
        target.write_text("another result")
        write(*arguments)

    monkeypatch.setattr(safetensors_files, "_write", taken_meanwhile)
    with pytest.raises(ValueError, match=r"out\.safetensors exists already; give another name"):
        convert(source, target)
    assert target.read_text() == "another result"
    convert(source, target, overwrite=True)
    assert inspect(target).config == TINY and len(os.listdir(tmp_path)) == 2


@pytest.mark.skipif(os.name == "nt", reason="needs links and pipes")
@pytest.mark.parametrize("overwrite", [False, True])
def test_links_and_pipes_are_not_replaced(tmp_path, overwrite):
    save_weights(tmp_path / "w.safetensors", TINY, weights_of())
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "w.safetensors")
    (tmp_path / "dangling.safetensors").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.safetensors")
    before = sorted(tmp_path.iterdir())
    for name, kind in (("link", "a link"), ("dangling", "a link"), ("pipe", "not a file but a pipe")):
        target = tmp_path / f"{name}.safetensors"
        with pytest.raises(ValueError, match=rf"{name}\.safetensors is {kind}"):
            convert(tmp_path / "w.safetensors", target, overwrite=overwrite)
        assert target.is_symlink() or target.is_fifo()
    assert sorted(tmp_path.iterdir()) == before


def test_a_full_disk_is_a_sentence(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(safetensors_files, "_write", full)
    with pytest.raises(
        ValueError, match=r"cannot write .*w\.safetensors: No space left on device; make room"
    ):
        save_weights(tmp_path / "w.safetensors", TINY, weights_of())
    assert not list(tmp_path.iterdir())


def test_a_summary_is_short_and_fits_any_terminal(tmp_path, monkeypatch):
    path = tmp_path / ("視頻" * 30 + ".safetensors")
    save_weights(path, TINY, weights_of(), metadata={f"key {n}": "x" for n in range(1000)})
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", output)
    assert main(["inspect", str(path)]) == 0
    output.flush()
    text = output.buffer.getvalue().decode("ascii")
    assert r"\u8996" in text and "metadata    and " in text and len(text.splitlines()) < 60


def test_command_line_by_the_folder_s_path(tmp_path):
    """As on Windows' portable Python, which is isolated from the current folder."""
    folder, student = ROOT / "vdot_core/checkpoints", ROOT / "assets/vdot_tiny_student.safetensors"
    command = [sys.executable, "-I", str(folder), "inspect", str(student)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0 and "can be loaded" in run.stdout, run.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows ends processes without asking them")
@pytest.mark.parametrize("number", [15, 1])
def test_a_process_that_is_asked_to_end_leaves_nothing(tmp_path, number):
    """The program sends itself the signal when the first part of the file is written."""
    save_weights(tmp_path / "w.safetensors", TINY, weights_of())
    script = f"""
import os, runpy, sys
import vdot_core.files
sync = vdot_core.files.sync
vdot_core.files.sync = lambda path: (os.kill(os.getpid(), {number}), sync(path))
sys.argv = ["x", "convert", "w.safetensors", "o.safetensors"]
runpy.run_module("vdot_core.checkpoints", run_name="__main__", alter_sys=True)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    # What a parent ignores (nohup, a shell's background jobs), its children do too.
    heeding = {"preexec_fn": lambda: signal.signal(number, signal.SIG_DFL)}
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, check=False, **heeding
    )
    assert run.returncode == 128 + number
    assert sorted(os.listdir(tmp_path)) == ["w.safetensors"]


def test_command_line(tmp_path, capsys, monkeypatch):
    """Real commands, through `python -m`'s own entry."""

    def command(*arguments):
        monkeypatch.delitem(sys.modules, "vdot_core.checkpoints.__main__", raising=False)
        monkeypatch.setattr(sys, "argv", ["checkpoints", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_module("vdot_core.checkpoints", run_name="__main__")
        return end.value.code, *capsys.readouterr()

    big = write_header_only(tmp_path / "vace.safetensors", shapes_of(wan_vace_1_3b()))
    code, out, _ = command("inspect", big)
    assert code == 0 and "parameters  2,153,972,032" in out and "bfloat16 2,153,972,032" in out
    assert "num_heads   12" in out and "can be loaded" in out
    save_weights(tmp_path / "base.safetensors", TINY_TEXT, weights_of(TINY_TEXT))
    save_file({n: v for n, v in weights_of().items() if is_vace(n)}, tmp_path / "module.safetensors")
    out_file = tmp_path / "out.safetensors"
    code, out, _ = command(
        "convert",
        tmp_path / "base.safetensors",
        out_file,
        "--vace",
        tmp_path / "module.safetensors",
        "--dtype",
        "fp16",
    )
    assert code == 0 and "layout      vdot" in out and inspect(out_file).config == TINY
    code, _, err = command("convert", tmp_path / "base.safetensors", out_file)
    assert code == 1 and err.startswith("error: ") and "--overwrite" in err
    code, out, _ = command("inspect", tmp_path / "module.safetensors")
    assert code == 0 and "a VACE module: use it with the T2V network" in out and "cannot" not in out
    code, _, err = command("inspect", tmp_path / "nothing")
    assert code == 1 and "does not exist" in err
    assert command("convert", "one")[0] == 2
