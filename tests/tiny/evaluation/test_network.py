"""The evaluation network: files, shapes, learning and resuming; and the shipped weights' accuracy."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.support.pretraining import pretrained
from tiny import vae
from tiny.clips.shapes import HELD_OUT, OBJECT_COLORS, SPLITS, clip, figure_clip, split_of
from tiny.config import EvaluatorConfig, PretrainConfig
from tiny.evaluation.accuracy import reading_accuracy, stack_frames, visible_frames
from tiny.evaluation.network import (
    SEEN_SHAPES,
    Evaluator,
    EvaluatorWidths,
    load_evaluator,
    save_evaluator,
)
from tiny.evaluation.observe import observe
from tiny.evaluator_task import NO_TARGET, EvaluatorTask, frame_targets, turned_and_mirrored
from training.data import wan_vae

ASSET = Path(__file__).resolve().parents[3] / "assets" / "vdot_tiny_evaluator.safetensors"


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return Evaluator(EvaluatorWidths(fine=8, middle=16, coarse=16, slot=16, scene=8, motion=16)).eval()


def test_files_hold_the_sizes_and_the_weights(small, tmp_path):
    path = tmp_path / "evaluator.safetensors"
    save_evaluator(small, path)
    with safe_open(str(path), "pt") as file:
        assert json.loads(file.metadata()["config"])["evaluator"]["scene"] == 8
    frames = torch.rand(3, 64, 64, 3)
    for one, other in zip(small(frames), load_evaluator(path)(frames), strict=True):
        torch.testing.assert_close(one, other, atol=5e-3, rtol=5e-3)
    vae_file = tmp_path / "vae.safetensors"
    vae.save_vae(wan_vae.build_vae(4), vae_file)
    with pytest.raises(ValueError, match="no evaluation network"):
        load_evaluator(vae_file)


SIZES = {"fine": 8, "middle": 16, "coarse": 16, "slot": 16, "scene": 8, "motion": 16}


@pytest.mark.parametrize(
    "config",
    ["[" * 100_000, "null", '{"evaluator": null}', '{"evaluator": {"evil": 1}}',
     *(json.dumps({"evaluator": SIZES | {"slot": size}}) for size in (10**9, -1, 1.5, "x", 17))],
)  # fmt: skip
def test_a_file_with_other_sizes_is_refused_before_anything_is_built(small, tmp_path, config):
    path = tmp_path / "evaluator.safetensors"
    save_file({name: value.half() for name, value in small.state_dict().items()}, path, {"config": config})
    with pytest.raises(ValueError, match=r"no evaluation network|is not an evaluation network") as caught:
        load_evaluator(path)
    assert len(str(caught.value)) <= 400


def test_observation_does_not_depend_on_the_batch(small, drawn_clips):
    videos = stack_frames(drawn_clips[:3])
    together, alone = observe(small, videos), observe(small, videos, batch=1)
    for name in ("presence", "shape", "positions", "features"):
        torch.testing.assert_close(getattr(together, name), getattr(alone, name), atol=1e-5, rtol=1e-4)
    assert together[1].labels.shape == (17, 64, 64) and len(together) == 3
    with pytest.raises(ValueError, match=r"\[B, 17, 64, 64, 3\]"):
        observe(small, videos[:, :9])


def test_targets_are_the_drawing(drawn_clips):
    scene = next(d for d in drawn_clips if len(d.objects) == 2 and (visible_frames(d)[:, [0, 9]]).all())
    targets = frame_targets(scene, [0, 9])
    slots = {OBJECT_COLORS.index(track.color): track for track in scene.objects}
    assert set((targets["presence"] == 1).all(0).nonzero().flatten().tolist()) == set(slots)
    for slot in range(len(OBJECT_COLORS)):
        named = SEEN_SHAPES.index(slots[slot].shape) if slot in slots else NO_TARGET
        assert set(targets["shape"][:, slot].tolist()) <= {named, NO_TARGET}
    assert (targets["shape"] != NO_TARGET).any()
    assert torch.allclose(targets["labels"].sum(1), torch.ones(2, 32, 32))
    assert torch.allclose(
        1 - targets["labels"][:, 0].mean((1, 2)), scene.masks[[0, 9]].mean((1, 2)), atol=1e-6
    )


def _task(folder: Path, seed: int) -> EvaluatorTask:
    vae.save_vae(wan_vae.build_vae(4), folder / "vae.safetensors")
    settings = EvaluatorConfig(vae=str(folder / "vae.safetensors"), steps=1300)
    config = PretrainConfig("evaluator", str(folder), seed=seed, evaluator=settings)
    return EvaluatorTask(config, torch.device("cpu"))


@pytest.mark.parametrize("seed", [0, 7])
def test_it_learns_from_clips_of_seeds_that_nothing_else_uses(tmp_path, seed):
    task = _task(tmp_path, seed)
    clips = [one for step in (0, 1, 1299) for one in task._draw(step)]
    assert len({one.seed for one in clips}) == 3 * 32
    assert {split_of(one.seed) for one in clips} == {one.split for one in clips} == {"evaluator"}
    seeds = SPLITS["evaluator"]
    assert not any(seeds.start in other for name, other in SPLITS.items() if name != "evaluator")


def test_it_learns_the_pairs_that_the_models_never_see(tmp_path):
    task = _task(tmp_path, 0)
    clips = [one for step in range(12) for one in task._draw(step)]
    pairs = {(track.color, track.shape) for one in clips for track in one.objects}
    assert pairs >= HELD_OUT, f"in 384 clips it never saw {sorted(HELD_OUT - pairs)}"


def _config(folder: Path, vae_file: Path) -> dict:
    settings = {"vae": str(vae_file), "steps": 4, "clips": 8, "vae_clips": 1, "num_validation": 1}
    common = {"seed": 3, "log_every": 1, "validate_every": 0, "threads": 1}
    return {"model": "evaluator", "out_dir": str(folder), **common, "evaluator": settings}


def test_training_resumes_to_the_same_bits_and_exports(tmp_path):
    network = wan_vae.build_vae(4)
    vae.initialize_vae(network, torch.Generator().manual_seed(0))
    vae_file = tmp_path / "vae.safetensors"
    vae.save_vae(network, vae_file)
    _, whole, _ = pretrained(_config(tmp_path / "whole", vae_file), tmp_path / "whole.yaml")
    config = _config(tmp_path / "halves", vae_file)
    assert pretrained(config, tmp_path / "halves.yaml", "--max_steps", "2")[0] == 2
    _, halves, _ = pretrained(config, tmp_path / "halves.yaml")
    assert any(name.startswith("ema.") for name in whole)
    for name, value in whole.items():
        assert torch.equal(value, halves[name]), f"{name} differs after resuming"
    exported = load_evaluator(tmp_path / "whole" / "export" / "vdot_tiny_evaluator.safetensors")
    assert observe(exported, torch.rand(1, 17, 64, 64, 3)).presence.shape == (1, 9)


def test_shipped_weights_read_drawn_clips_right(drawn_clips):
    assert ASSET.stat().st_size <= 1_000_000
    network = load_evaluator(ASSET)
    scores = reading_accuracy(observe(network, stack_frames(drawn_clips)), drawn_clips)
    # Of 40 clips; over 400 each share is at least 0.97 (docs/TINY.md).
    shares = ("colors", "shape", "size", "background_color", "background_kind", "direction")
    for name, least in {**dict.fromkeys(shares, 0.95), "overlap": 0.9}.items():
        assert scores[name] >= least, f"{name} is {scores[name]:.3f}: retrain the evaluation network"
    assert scores["position_px"] < 1.5
    figures = [figure_clip(SPLITS["evaluation"].start + i) for i in range(8)]
    assert reading_accuracy(observe(network, stack_frames(figures)), figures)["shape"] >= 0.85


def test_shipped_weights_do_not_see_what_is_not_there():
    network = load_evaluator(ASSET)
    clips = [clip(SPLITS["evaluation"].start + i) for i in range(20)]
    empty = torch.stack([one.background_frames for one in clips])
    assert (observe(network, empty).presence > 0.5).float().sum(-1).mean() < 0.2


def test_symmetries_of_a_track_move_where_their_names_say():
    headings = torch.arange(8)
    angle = headings * torch.pi / 4
    along = torch.stack([angle.cos(), angle.sin()], -1)[:, None] * torch.linspace(-0.3, 0.3, 17)[:, None]
    positions, names = turned_and_mirrored(0.5 + along, headings)
    moved = positions[:, -1] - positions[:, 0]
    expected = names * torch.pi / 4
    assert torch.allclose(moved, 0.6 * torch.stack([expected.cos(), expected.sin()], -1), atol=1e-5)
    assert len({tuple(row) for row in names.unflatten(0, (8, 8)).tolist()}) == 8
    assert (turned_and_mirrored(0.5 + along, torch.full((8,), NO_TARGET))[1] == NO_TARGET).all()
