"""Files that are cut or exchanged while they are read are refused; weights that stay in their files."""

import os

import pytest
import torch
from safetensors.torch import save_file

from tests.core.checkpoints.helpers import TINY, prefixed, weights_of, write_shards
from vdot_core.checkpoints import load_network, open_weights, read, read_weights, save_weights


@pytest.fixture(params=["safetensors", "shards", "zip", "pickle"])
def stored(request, tmp_path):
    """(what to open, a file of it, whether it can be mapped)."""
    if request.param == "safetensors":
        save_weights(tmp_path / "w.safetensors", TINY, weights_of())
        return tmp_path / "w.safetensors", tmp_path / "w.safetensors", True
    if request.param == "shards":
        folder = write_shards(tmp_path, weights_of())
        return folder, folder / "diffusion_pytorch_model-00003-of-00003.safetensors", True
    archive = request.param == "zip"
    content = {"generator": prefixed(weights_of(), "model."), "config": None}
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=archive)
    return tmp_path / "w.pt", tmp_path / "w.pt", archive


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """This small width is taken as released."""
    from vdot_core.checkpoints import infer

    monkeypatch.setattr(infer, "PRESETS", {**infer.PRESETS, "tiny": lambda: TINY})
    monkeypatch.setattr(infer, "_RELEASED", (*infer._RELEASED, "tiny"))


def cut(path):
    os.truncate(path, path.stat().st_size - 10)


def test_weights_in_their_files_are_those_of_a_read(stored):
    path, _, _ = stored
    opened, whole = open_weights(path), read_weights(path)
    assert opened.config == whole.config and opened.state_dict.keys() == whole.state_dict.keys()
    assert all(torch.equal(opened.state_dict[name], value) for name, value in whole.state_dict.items())
    some = opened.state_dict.without(("vace_", "head."))
    assert 0 < len(some) < len(opened.state_dict)
    assert all(not name.startswith(("vace_", "head.")) for name in some)


def test_a_file_cut_after_it_was_opened_is_an_error_at_the_next_value(stored):
    path, file, can_be_mapped = stored
    weights = open_weights(path).state_dict
    first, *_, last = sorted(weights)
    assert weights[first].numel()
    cut(file)
    if can_be_mapped:
        with pytest.raises(ValueError, match="changed while it was being read; try again"):
            [weights[name] for name in weights]
    else:
        assert weights[last].numel(), "a plain pickle was read at once"


@pytest.mark.parametrize("load", [load_network, read_weights])
@pytest.mark.parametrize("change", [cut, lambda path: save_file({"x": torch.zeros(9)}, path)])
def test_a_file_that_changes_while_it_is_mapped_is_refused(stored, monkeypatch, load, change):
    path, file, _ = stored
    iterate = read.iterate_tensors

    def then_changed(entries, targets, **options):
        yield from iterate(entries, targets, **options)
        if entries:
            change(file)

    monkeypatch.setattr(read, "iterate_tensors", then_changed)
    with pytest.raises(ValueError, match=rf"{file.name} changed while it was being read; try again"):
        load(path)
