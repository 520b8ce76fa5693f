"""Drawn clips as a named producer: what it makes, and how wrong settings are refused."""

from pathlib import Path

import pytest
import torch

from tiny.vae import initialize_vae, save_vae
from training import cache as program
from training.data import build_source
from training.data.config import DataConfig
from training.data.fill_cache import build_producer
from training.data.wan_vae import build_vae
from training.methods.programs import distill_config, distill_parser
from training.planning.plan import clip_of

ASSETS = Path(__file__).resolve().parents[2] / "assets"
NAME = "tiny.producer.ShapesProducer"
GROUP = {"width": 32, "height": 32, "num_frames": 5, "num_clips": 3, "tasks": ["text", "depth"]}


@pytest.fixture(scope="module")
def narrow_vae(tmp_path_factory):
    path = tmp_path_factory.mktemp("vae") / "vae.safetensors"
    network = build_vae(4)
    initialize_vae(network, torch.Generator().manual_seed(0))
    save_vae(network, path)
    return path


@pytest.fixture
def config(tmp_path, narrow_vae):
    def make(args, **changes):
        settings = {
            "source": "producer",
            "producer": NAME,
            "producer_args": args,
            "cache_dir": str(tmp_path / "cache"),
            "vae": str(narrow_vae),
            "text_encoder": str(ASSETS / "vdot_tiny_text.safetensors"),
            "batch_size": 4,
            "accumulation": 1,
            "rows_per_shard": 2,
            "device": "cpu",
        }
        return DataConfig(**{**settings, **changes})

    return make


def files_of(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_drawn_clips_need_no_files(config):
    groups = [GROUP, {**GROUP, "num_clips": 2, "tasks": ["reference"]}]
    settings = config({"groups": groups})
    source = build_source(settings, seed=1)
    before = files_of(settings.cache_dir)
    again = build_source(settings, seed=1)
    assert files_of(settings.cache_dir) == before, "a second start encodes nothing"
    samples = {}
    for step in range(12):
        (one,), (other,) = source.batches(step), again.batches(step)
        assert one.ids == other.ids and torch.equal(one.contexts, other.contexts)
        for task in one.tasks:
            samples[task] = one.shape, one.num_reference_latents
    assert samples == {
        "text": ((16, 2, 4, 4), 0),
        "depth": ((16, 2, 4, 4), 0),
        "reference": ((16, 3, 4, 4), 1),
    }
    with pytest.raises(ValueError, match="another first_clip: it has 0, this run 6"):
        build_source(config({"groups": groups, "first_clip": 6}), seed=1)


WRONG = {
    "no groups": ({}, r"data\.producer_args\.groups is empty"),
    "misspelled": ({"grops": [GROUP]}, "data.producer_args: unknown key grops; did you mean groups"),
    "misspelled in a group": (
        {"groups": [GROUP, {**GROUP, "heigth": 32}]},
        r"data\.producer_args\.groups\[1\]: unknown key heigth; did you mean height",
    ),
    "unknown": ({"groups": [{**GROUP, "color": 1}]}, "unknown key color; expected width, .*, weight"),
    "type": ({"groups": [{**GROUP, "width": "wide"}]}, "data.producer_args: .*width.*int.*wide"),
    "no list": ({"groups": 3}, "data.producer_args: .*groups.*3"),
    "size": ({"groups": [{**GROUP, "width": 40}]}, "multiples of 16"),
    "first": ({"groups": [GROUP], "first_clip": -1}, "first_clip is -1; expected 0 or more"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_settings_are_refused_in_one_sentence(config, case):
    args, match = WRONG[case]
    with pytest.raises(ValueError, match=match) as caught:
        build_producer(config(args))
    assert "\n" not in str(caught.value)


def test_the_command_line_sets_them_too(tmp_path, capsys):
    words = [
        "--data.source",
        "producer",
        "--data.producer",
        NAME,
        "--data.cache_dir",
        str(tmp_path / "cache"),
    ]
    words += ["--data.vae", str(ASSETS / "vdot_tiny_vae.safetensors")]
    words += ["--data.text_encoder", str(ASSETS / "vdot_tiny_text.safetensors")]
    data = distill_parser().read([*words, "--data.producer_args", str({"groups": [GROUP]})])[0].data
    assert data.producer_args == {"groups": [GROUP]}
    assert program.main([*words, "--data.producer_args", str({"groups": [{**GROUP, "heigth": 1}]})]) == 2
    assert "groups[0]: unknown key heigth; did you mean height?" in capsys.readouterr().err


def test_the_largest_clip_is_what_a_plan_is_of(config):
    groups = [GROUP, {**GROUP, "width": 48, "num_frames": 9}, {**GROUP, "height": 64}]
    values = {"source": "producer", "producer": NAME, "producer_args": {"groups": groups}, "vae": "v"}
    clip = clip_of(distill_config({"data": {**values, "text_encoder": "t"}}))
    assert (clip.width, clip.height, clip.num_frames) == (48, 32, 9)


def test_tasks_that_no_clip_has_are_named_before_anything_is_encoded(config, tmp_path):
    settings = config({"groups": [GROUP]}, task_weights={"dept": 1.0})
    for prepare in (lambda: build_producer(settings), lambda: build_source(settings, seed=1)):
        with pytest.raises(ValueError, match=r"data\.task_weights has 'dept', .* did you mean 'depth'"):
            prepare()
    named = {"losses.task_guidance": ["inpaint"]}
    with pytest.raises(ValueError, match=r"losses\.task_guidance has 'inpaint', of which there is no sample"):
        build_source(config({"groups": [GROUP]}), seed=1, named_tasks=named)
    assert not (tmp_path / "cache").exists()
