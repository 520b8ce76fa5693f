"""Damaged weight files of every kind are read, or refused in a sentence, within bounds of time and memory."""

import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import save_file

from tests.core.checkpoints.helpers import TINY, prefixed, wan_json, weights_of, write_gguf, write_shards
from tests.support.mutations import damaged_archive, damaged_bytes, damaged_json, damaged_safetensors
from tests.support.watch import check_refusal, outcome
from vdot_core.checkpoints import inspect, read_weights, save_weights

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits memory by Linux's resource limits")
NUM_CASES = 60
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", "")


def scaled_weights() -> dict[str, torch.Tensor]:
    """Some weights as fp8 with a factor."""
    weights = weights_of()
    for name in [name for name in weights if name.endswith("ffn.0.weight")]:
        weights[name] = weights[name].to(torch.float8_e4m3fn)
        weights[name.replace(".weight", ".scale_weight")] = torch.ones(())
    return weights


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, Path]:
    """One intact checkpoint of every kind."""
    folder = tmp_path_factory.mktemp("originals")
    save_weights(folder / "ours.safetensors", TINY, weights_of())
    save_file(scaled_weights(), folder / "scaled.safetensors")
    content = {"generator": prefixed(weights_of(), "model."), "step": 3, "shape": torch.Size([1])}
    write_gguf(folder / "gguf.gguf", weights_of(), "Q8_0")
    torch.save(content, folder / "archive.pt")
    torch.save(content, folder / "old.pth", _use_new_zipfile_serialization=False)
    repo = write_shards(folder / "repo", weights_of(), 2)
    (repo / "config.json").write_text(json.dumps(wan_json(TINY)))
    return {path.stem: path for path in folder.iterdir()}


def damage(rng: Random, path: Path, kind: str) -> None:
    """Damage one file of a kind in place."""
    content = path.read_bytes()
    smart = {"ours": damaged_safetensors, "scaled": damaged_safetensors, "archive": damaged_archive}
    change = smart.get(kind, damaged_bytes) if rng.random() < 0.6 else damaged_bytes
    path.write_bytes(change(rng, content))


def damage_folder(rng: Random, folder: Path) -> None:
    """Damage the index, the config or a shard."""
    path = rng.choice(sorted(folder.iterdir()))
    if path.suffix == ".json" and rng.random() < 0.8:
        text = damaged_json(rng, json.loads(path.read_text()))
        path.write_text(text, encoding="utf-8", errors="replace")
    else:
        damage(rng, path, "ours" if path.suffix == ".safetensors" else "")


def run_case(kind: str, number: int, original: Path, folder: Path) -> str:
    """Damage a copy and read it; 'read', 'refused', or 'problem' for what `inspect` says is not loadable."""
    rng = Random(f"{kind} {number}")
    if original.is_dir():
        path = shutil.copytree(original, folder / "case", dirs_exist_ok=False)
        damage_folder(rng, path)
    else:
        suffix = rng.choice(SUFFIXES) if rng.random() < 0.2 else original.suffix
        path = folder / ("case" + ("\udce8" if rng.random() < 0.05 else "") + suffix)
        shutil.copyfile(original, path)
        damage(rng, path, kind)
    try:
        return _read(path, None if kind in ("ours", "repo") else TINY)
    except Exception as error:
        raise AssertionError(
            f"case {number} of {kind}: {type(error).__name__}: {str(error)[:500]}"
        ) from error
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _read(path: Path, config) -> str:
    problems: list[str] = []
    if outcome(lambda: problems.append(inspect(path, config=config).problem)) == "refused":
        return "refused"
    if problems[0]:
        check_refusal(problems[0])
        return "problem"
    return outcome(lambda: [tensor.sum() for tensor in _weights(path, config).values()])


def _weights(path: Path, config) -> dict[str, torch.Tensor]:
    weights = read_weights(path, config=config, dtype=torch.bfloat16)
    assert weights.config.num_layers == TINY.num_layers
    return weights.state_dict


@pytest.mark.parametrize("kind", ["ours", "scaled", "gguf", "archive", "old", "repo"])
def test_damaged_checkpoints_are_read_or_refused(originals, tmp_path, fuzz_cases, kind):
    results = Counter(
        run_case(kind, number, originals[kind], tmp_path) for number in range(fuzz_cases(NUM_CASES))
    )
    assert results["refused"] + results["problem"] > NUM_CASES / 4 and results["read"] > 0, results


def test_the_watchdog_sees_what_it_should():
    with pytest.raises(RuntimeError, match="allocate"):
        outcome(lambda: torch.ones(2**30))
    with pytest.raises(AssertionError, match="characters"):
        check_refusal("give " + "x" * 500)
    with pytest.raises(AssertionError):
        check_refusal("something went wrong with a file")
