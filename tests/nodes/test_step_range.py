"""Units that act in a part of the steps: two samplers, with and without the unit, are the reference."""

import pytest
import torch

from tests.nodes.test_sampler import SETTINGS, with_text

FIRST_HALF = {"start_percent": 0.0, "end_percent": 0.5}
# With exact levels at the model's own shift, 8, each of four steps is a quarter: ComfyUI's percents.
TRAINED = {**SETTINGS, "preset": "trained", "seed": 7}


@pytest.fixture(scope="module")
def units(run):
    """Two control clips of 9 frames."""
    clips = torch.rand(2, 9, 32, 48, 3, generator=torch.Generator().manual_seed(3))
    return [run("VDOTControl", frames=clip, width=0, height=0, length=0).args[0] for clip in clips]


@pytest.fixture(scope="module")
def encode(run, vae, text):
    """encode(*units, strengths=(..)): (positive, negative, latent, ..) of VDOT Encode."""

    def call(*units, strengths=(1.0, 1.0)):
        further = {"unit_2": units[1], "strength_2": strengths[1]} if len(units) > 1 else {}
        return run("VDOTEncode", positive=text, vae=vae, unit=units[0], strength=strengths[0], **further).args

    return call


@pytest.fixture(scope="module")
def ranged(run, units):
    """The second unit in the first half of the steps."""
    return run("VDOTStepRange", unit=units[1], **FIRST_HALF).args[0]


@pytest.fixture
def sample(run):
    def call(model, encoded, **changes):
        inputs = {"model": model, "positive": encoded[0], "latent": encoded[2], **TRAINED}
        return run("VDOTSampler", **{**inputs, **changes})

    return call


def samples_of(output):
    return output.args[0]["samples"]


@pytest.mark.parametrize("which", ["ours", "native"])
@pytest.mark.parametrize("alone", [True, False])
def test_a_unit_acts_in_its_part_alone(request, sample, encode, units, ranged, which, alone):
    """The same as strength 1, then 0, in two samplers; on ComfyUI's own network too."""
    model, before = request.getfixturevalue(which), [] if alone else units[:1]
    strengths = (0.0, 1.0) if alone else (1.0, 0.0)
    with_unit = encode(*before, units[1])
    without = encode(*before, units[1], strengths=strengths)
    first = sample(model, with_unit, end_step=2)
    expected = sample(model, without, latent=first.args[0])
    output = sample(model, encode(*before, ranged))
    torch.testing.assert_close(samples_of(output), samples_of(expected), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(samples_of(output), samples_of(sample(model, with_unit)), atol=1e-3)
    number = 1 if alone else 2
    assert any(f"unit {number} acts: 1, 2 of 4" in line for line in output.ui["text"])


def test_ksampler_on_our_network_hears_it(ours, encode, units, ranged):
    """ComfyUI's own euler and levels: the unit acts where ComfyUI's percents put it."""
    import nodes

    def ksampler(encoded, latent, **steps):
        with torch.inference_mode():
            return nodes.common_ksampler(
                ours, 3, 5, 1.0, "euler", "simple", encoded[0], encoded[1], latent, **steps
            )[0]

    sampling = ours.get_model_object("model_sampling")
    import comfy.samplers

    sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", 5)
    num_before = int((sigmas[:-1] > sampling.percent_to_sigma(0.5)).sum())
    assert num_before == 3
    first = ksampler(encode(*units), encode(*units)[2], last_step=num_before)
    second = ksampler(encode(*units, strengths=(1.0, 0.0)), first, start_step=num_before, disable_noise=True)
    result = ksampler(encode(units[0], ranged), encode(*units)[2])
    error = (result["samples"] - second["samples"]).norm() / second["samples"].norm()
    assert error < 1e-4


def test_two_units_hand_over_without_a_step_of_both_or_none(run, sample, ours, encode, units):
    early, late = (
        run("VDOTStepRange", unit=unit, start_percent=start, end_percent=end).args[0]
        for unit, start, end in ((units[0], 0.0, 0.25), (units[1], 0.25, 1.0))
    )
    output = sample(ours, encode(early, late))
    assert [line for line in output.ui["text"] if "acts" in line] == [
        "steps in which unit 1 acts: 1 of 4",
        "steps in which unit 2 acts: 2, 3, 4 of 4",
    ]
    again = run("VDOTStepRange", unit=early, start_percent=0.5, end_percent=1.0)
    assert "replaces the unit's earlier part of the steps, 0 % to 25 %" in again.ui["text"]
    never = run("VDOTStepRange", unit=units[0], start_percent=0.8, end_percent=0.9).args[0]
    none = sample(ours, encode(never))
    assert any("unit 1 acts: none of this run" in line for line in none.ui["text"])
    zero = sample(ours, encode(units[0], strengths=(0.0,)))
    assert torch.equal(samples_of(none), samples_of(zero))


def test_a_part_of_the_steps_goes_with_a_curve_and_with_guidance(run, sample, ours, encode, units, ranged):
    curve = run("VDOTStrength", unit=ranged, curve="0: 0.5").args[0]
    faded = encode(curve)
    half = run("VDOTStepRange", unit=units[1], **FIRST_HALF).args[0]
    plain = encode(half, strengths=(0.5,))
    negative = with_text(faded[1])
    for changes in ({}, {"cfg": 2.0, "negative": negative}):
        a, b = (samples_of(sample(ours, encoded, **changes)) for encoded in (faded, plain))
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_ksampler_on_comfyui_s_own_network_says_what_to_do(native, encode, ranged):
    import nodes

    encoded = encode(ranged)
    with torch.inference_mode(), pytest.raises(ValueError, match="use VDOT Sampler, or load the model"):
        nodes.common_ksampler(native, 1, 1, 1.0, "euler", "simple", encoded[0], encoded[1], encoded[2])


def test_vdot_encode_says_the_part(run, vae, text, ranged):
    out = run("VDOTEncode", positive=text, vae=vae, unit=ranged, strength=1.0)
    assert "strength 1 from 0 % to 50 % of the steps" in out.ui["text"][0]


def test_the_tooltip_tells_the_steps_of_each_preset(node_classes, sample, ours, encode, ranged):
    """The steps that 0.5 leaves depend on the preset: the sampler's own lines are the reference."""
    inputs = node_classes["VDOTStepRange"].define_schema().inputs
    (tooltip,) = (entry.tooltip for entry in inputs if entry.id == "end_percent")
    presets = {"the first two": [], "the first three": []}
    for preset in ("trained", "sharp", "released"):
        said = sample(ours, encode(ranged), preset=preset).ui["text"]
        (line,) = (line for line in said if "acts" in line)
        steps = {"1, 2 of 4": "the first two", "1, 2, 3 of 4": "the first three"}
        presets[steps[line.split(": ")[1]]].append(preset)
    assert presets == {"the first two": ["trained", "sharp"], "the first three": ["released"]}
    assert "0.5 is the first two with presets trained and sharp, the first three with released" in tooltip
