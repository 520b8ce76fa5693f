"""Exports of a run with adapters: a LoRA or a merged network, with the run's own settings."""

import json

import pytest
import torch

from tests.support.distill import tiny_config, tiny_values, write_teacher
from tests.training.methods.adapters.runs import ADAPTERS, CHANGES, export_of, stage_one_lora, train
from training import distill
from training.engine.export import export
from training.methods.vdot import Vdot
from vdot_core.checkpoints import inspect, load_network, read_weights
from vdot_core.checkpoints.merge import merge


def _outputs(network, sizes):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 16, 2, 4, 6, generator=generator)
    text = torch.randn(1, 5, sizes.text_dim, generator=generator)
    contexts = torch.randn(1, 1, 96, 2, 4, 6, generator=generator)
    with torch.no_grad():
        return network(x, torch.tensor([500.0]), text, contexts)


@pytest.mark.parametrize("stage_one", ["none", "lora", "dense"])
@pytest.mark.parametrize("form", ["lora", "merged"])
def test_the_export_gives_what_the_averaged_generator_gives(form, stage_one, tmp_path, teacher):
    """A LoRA, merged into the teacher by the checkpoints' own command, or a merged file."""
    adapters = {**ADAPTERS, "export": form}
    changes = {
        "model__adapters": adapters,
        "export_dtype": "fp32",
        "max_steps": 3,
        "optim__generator_every": 1,
    }
    if stage_one == "lora":
        changes["model__acc_wan_init"] = str(stage_one_lora(tmp_path, teacher)[0])
    elif stage_one == "dense":
        changes["model__acc_wan_init"] = str(
            write_teacher(tmp_path / "stage_one.safetensors", seed=4, vace_layers=())
        )
    config = tiny_config(tmp_path, teacher, **{**CHANGES, **changes})
    if (form, stage_one) == ("lora", "dense"):
        with pytest.raises(ValueError, match=r"set model\.adapters\.export merged"):
            Vdot.check(config)
        return
    Vdot.check(config)
    trainer = train(tmp_path, teacher, **changes)
    path = export(config, tmp_path / "export.safetensors", {}, trainer.method.adapted_from())
    if form == "lora":
        merge(teacher, [path], tmp_path / "merged.safetensors")
        path = tmp_path / "merged.safetensors"
    metadata = inspect(path).metadata
    assert form == "lora" or (metadata["step"] == "3" and metadata["base"] == teacher.name)
    got = _outputs(load_network(path), trainer.method.sizes)
    trainer.average.swap(trainer.method.generator)
    expected = _outputs(trainer.method.generator, trainer.method.sizes)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    start = _outputs(load_network(teacher), trainer.method.sizes)
    assert (expected - start).norm() > 1e-3 * start.norm()


def test_a_merged_export_is_rounded_once(small_run):
    folder, changes = small_run
    changes["model__adapters"] = {**ADAPTERS, "export": "merged"}
    exact, rounded = (
        read_weights(export_of(folder, {**changes, "export_dtype": dtype}, folder / f"{dtype}.safetensors"))
        for dtype in ("fp32", "bf16")
    )
    for name, value in exact.state_dict.items():
        assert torch.equal(rounded.state_dict[name], value.bfloat16()), name


def test_an_export_with_other_settings_than_the_runs_is_refused(small_run, teacher):
    """The adapter's scale, and the weights that it changes, are not in the checkpoint."""
    folder, changes = small_run
    for change in (
        {"model__real_score": str(write_teacher(folder / "other.safetensors", seed=1))},
        {"model__acc_wan_init": str(stage_one_lora(folder, teacher)[0])},
        {"rollout__shift": 3.0},
    ):
        with pytest.raises(ValueError, match=r"was trained with other settings: .* -> .*allow_changes"):
            export_of(folder, changes | change, folder / "export.safetensors")
    for adapters in (
        {**ADAPTERS, "alpha": 60.0},
        {"rank": 2, "alpha": 6.0},
        {**ADAPTERS, "targets": ["ffn"]},
        {**ADAPTERS, "roles": ["generator"]},
        {"rank": 0},
    ):
        for allowed in (False, True):
            change = {"model__adapters": adapters, "allow_changes": allowed}
            with pytest.raises(ValueError, match=r"other settings: model\.adapters.*run\.yaml\)$"):
                export_of(folder, changes | change, folder / "export.safetensors")
    assert not (folder / "export.safetensors").exists()


@pytest.mark.parametrize("form", ["lora", "merged"])
def test_an_export_never_replaces_a_file_that_the_run_reads(small_run, teacher, form):
    folder, changes = small_run
    changes["model__adapters"] = {**ADAPTERS, "export": form}
    with pytest.raises(ValueError, match=r"is model\.real_score, which the export would replace"):
        export_of(folder, changes, folder / "own.safetensors")
    assert (folder / "own.safetensors").read_bytes() == teacher.read_bytes()
    (folder / "run" / "export").mkdir()
    (folder / "own.safetensors").rename(folder / "run" / "export" / "generator.safetensors")
    changes["model__real_score"] = str(folder / "run" / "export" / "generator.safetensors")
    with pytest.raises(ValueError, match="which the export would replace"):
        train(folder / "run", teacher, **changes)
    assert export_of(folder, changes, folder / "new.safetensors").exists()


def test_an_export_that_cannot_be_written_is_a_sentence(small_run, capsys):
    folder, changes = small_run
    (folder / "file").touch()
    (folder / "folder.safetensors").mkdir()
    values = tiny_values(folder / "run", folder / "own.safetensors", **changes)
    (folder / "config.json").write_text(json.dumps(values))
    for place, cure in (("file/x.safetensors", "give"), ("folder.safetensors", "not a file but a folder")):
        argv = ["--config", str(folder / "config.json"), "--export", str(folder / place)]
        assert distill.main(argv) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and cure in lines[0]
