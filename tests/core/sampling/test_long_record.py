"""Resuming a long video: the same frames as in one go, and a refusal where anything differs."""

import itertools

import pytest
import torch

from tests.core.sampling.test_long import H, W, vae_decode, vae_encode
from vdot_core import vcu
from vdot_core.sampling.long import (
    Record,
    chunk_seed,
    digest_of,
    generate,
    plan_chunks,
    read_manifest,
    sampled_digest,
)

FACTS = {"seed": "5", "unit": "abc"}


def test_a_resumed_video_is_the_one_made_in_one_go(tmp_path):
    unit, spans = vcu.text(width=W, height=H, num_frames=61), plan_chunks(61, 17, 5)
    calls = []

    def sample(context, span, prompt):
        calls.append(span.index)
        generator = torch.Generator().manual_seed(chunk_seed(5, span.index))
        noise = torch.randn(1, 16, *context.contexts.shape[3:], generator=generator)
        return 0.5 + 0.1 * noise + 0.3 * context.contexts[:, 0, :16]

    def made(record):
        def recorded(context, span, prompt):
            latents = record.load(span.index)
            if latents is None:
                latents = sample(context, span, prompt)
                record.keep(span.index, latents)
            return latents

        return generate(unit, spans, vae_encode=vae_encode, vae_decode=vae_decode, sample=recorded)

    whole = torch.cat([chunk.frames for chunk in made(Record(tmp_path / "whole", FACTS, False))])
    first = Record(tmp_path / "part", FACTS, False)
    list(itertools.islice(made(first), 2))
    assert first.num_finished == 2
    calls.clear()
    second = Record(tmp_path / "part", FACTS, True)
    assert torch.equal(torch.cat([chunk.frames for chunk in made(second)]), whole)
    assert calls == [2, 3, 4]
    second.remove()
    assert not (tmp_path / "part").exists()


def test_what_differs_is_named(tmp_path):
    Record(tmp_path / "a", FACTS, False)
    with pytest.raises(ValueError, match=r"another seed \(5, now 6\); set it back"):
        Record(tmp_path / "a", {**FACTS, "seed": "6"}, True)
    with pytest.raises(ValueError, match="nothing to resume in "):
        Record(tmp_path / "b", FACTS, True)
    (tmp_path / "a" / "manifest.json").write_text("[]")
    with pytest.raises(ValueError, match="nothing to resume"):
        Record(tmp_path / "a", FACTS, True)


def test_a_damaged_chunk_is_named(tmp_path):
    record = Record(tmp_path / "a", FACTS, False)
    record.keep(0, torch.rand(1, 16, 5, 4, 6))
    path = tmp_path / "a" / "chunk_00000.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"chunk_00000\.safetensors in .* is damaged; delete it"):
        record.load(0)


def test_digests_tell_what_differs():
    unit = vcu.control(torch.rand(17, H, W, 3))
    changed = unit.frames.clone()
    changed[16, 3, 4, 1] += 0.01
    units = [
        unit,
        unit.replace(frames=changed.clamp(0, 1)),
        unit.scaled(0.5),
        vcu.text(width=W, height=H, num_frames=17),
    ]
    assert len({digest_of(unit) for unit in units}) == len(units)
    assert digest_of(unit) == digest_of(vcu.control(unit.frames.clone()))
    weights = {"a": torch.rand(4, 4), "b": torch.rand(3)}
    same, other = dict(reversed(weights.items())), {**weights, "b": weights["b"] + 1}
    assert sampled_digest(weights) == sampled_digest(same) != sampled_digest(other)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"facts": ' + "[" * 100_000, "9" * 5000, "null", "\xff"])
def test_a_manifest_that_cannot_be_read_is_none(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
    assert read_manifest(tmp_path) is None
