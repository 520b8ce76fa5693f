"""Conditioning of other nodes that the sampler would use in part, or not at all: noted, or refused."""

import pytest
import torch

SETTINGS = {"preset": "trained", "steps": 4, "shift": 8.0, "solver": "renoise", "preview": False, "seed": 3}


@pytest.fixture
def sample(run, ours, encoded):
    """sample(positive, latent): the sampler's output and notes."""

    def call(positive=None, latent=None, **changes):
        inputs = {"model": ours, "positive": positive or encoded[0], "latent": latent or encoded[2]}
        outcome = run("VDOTSampler", **{**inputs, **SETTINGS, **changes})
        return outcome.args[0]["samples"], outcome.ui["text"]

    return call


def with_key(encoded, key, value):
    import node_helpers

    return node_helpers.conditioning_set_values(encoded[0], {key: value})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("concat_latent_image", torch.ones(1, 16, 5, 4, 6), "a start picture"),
        ("reference_latents", [torch.ones(1, 16, 1, 4, 6)], "reference latents"),
    ],
)
def test_what_no_vace_network_reads_is_noted(sample, encoded, key, value, words):
    plain, lines = sample()
    changed, more = sample(with_key(encoded, key, value))
    assert torch.equal(plain, changed)
    assert [line for line in more if line not in lines] == [
        f"positive has {words} of another Wan node, which VACE does not read: it has no effect; give "
        "pictures to VDOT Extend or VDOT Reference"
    ]


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("time_dim_concat", torch.ones(1, 16, 1, 4, 6), "further frames .* remove that node"),
        ("area", (2, 3, 0, 0), r"an area of the picture.*use Conditioning \(Set Mask\)"),
        ("set_area_to_bounds", True, r"an area of the picture.*set_cond_area default"),
    ],
)
def test_what_does_not_fit_all_of_the_context_is_refused(sample, encoded, key, value, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        sample(with_key(encoded, key, value))
    assert len(str(error.value)) <= 400


def test_steps_without_a_text_are_refused(sample, encoded):
    from nodes import ConditioningSetTimestepRange

    limit = ConditioningSetTimestepRange().set_range
    first, last = limit(encoded[0], 0.0, 0.5)[0], limit(encoded[0], 0.5, 1.0)[0]
    assert torch.isfinite(sample([*first, *last])[0]).all()
    with pytest.raises(ValueError, match=r"no text in steps 1, 2 of 4.*Set Timestep Range"):
        sample(last)
    with pytest.raises(ValueError, match="no text in step 4 of 4"):
        sample(first)
    sample(first, end_step=3)


def test_a_part_of_the_picture_without_a_text_is_noted(sample, encoded):
    from nodes import ConditioningSetMask

    left = torch.zeros(1, 32, 48)
    left[..., :24] = 1
    halves = [ConditioningSetMask().append(encoded[0], mask, "default", 1.0)[0] for mask in (left, 1 - left)]
    assert any(line.startswith("positive: 50% of the picture has no text") for line in sample(halves[0])[1])
    for covered in (halves[0] + halves[1], halves[0] + encoded[0]):
        assert not any("has no text" in line for line in sample(covered)[1])


def test_a_text_of_more_tokens_than_in_training_is_noted(sample, encoded):
    (tokens, extra), *_ = encoded[0]
    long = torch.ones(1, 600, tokens.shape[-1])
    note = "positive has 600 tokens, the model was trained with at most 512"
    assert any(line.startswith(note) for line in sample([[long, extra]])[1])
    long[:, 512:] = 0  # padding
    assert not any("tokens" in line for line in sample([[long, extra]])[1])


def test_a_negative_that_was_encoded_before_is_noted(run, encoded, text, vae):
    size = {"width": 48, "height": 32, "length": 9}
    unit = run("VDOTText", **size).args[0]
    unit = run("VDOTReference", images={"a": torch.rand(2, 8, 8, 3)}, **size, unit=unit)
    inputs = {"positive": text, "vae": vae, "unit": unit.args[0], "strength": 1.0}
    assert not any("earlier" in line for line in run("VDOTEncode", **inputs, negative=text).ui["text"])
    lines = run("VDOTEncode", **inputs, negative=encoded[0]).ui["text"]
    assert any(line.startswith("negative has a unit of an earlier node: all act") for line in lines)


def test_a_video_of_a_batch_is_the_one_that_it_is_alone(sample, encoded):
    latent = encoded[2]
    alone = sample()[0]
    batch = sample(latent={**latent, "samples": latent["samples"].repeat(3, 1, 1, 1, 1)})[0]
    torch.testing.assert_close(batch[:1], alone, atol=2e-3, rtol=2e-3)
    assert not torch.allclose(batch[1], batch[2], atol=0.1)
    third = sample(latent={**latent, "batch_index": [2]})[0]
    torch.testing.assert_close(batch[2:], third, atol=2e-3, rtol=2e-3)
