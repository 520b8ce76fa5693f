"""Sentences that locales translate are sentences that nodes write, word for word."""

import itertools
import json
import re
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch

from tests.support.comfy import ROOT
from tests.support.pack import submodule
from vdot_core import vcu
from vdot_core.annotators.models import missing_files
from vdot_core.excerpts import Span, cut_excerpt
from vdot_core.signals.frames import check_result
from vdot_core.sounds import Sound

FRAMES = torch.rand(5, 32, 48, 3)
MASK = torch.ones(5, 32, 48)


def refused(call) -> list[str]:
    """The refusal of a call."""
    with pytest.raises(ValueError) as caught:
        call()
    return [str(caught.value)]


def control(num_frames: int, width: int = 48) -> vcu.VCU:
    return vcu.control(torch.rand(num_frames, 32, width, 3))


def refused_by(module: str, name: str, *args) -> list[str]:
    """The refusal of a function of the pack as ComfyUI has loaded it."""
    return refused(lambda: getattr(submodule(module), name)(*args))


def without_memory(call) -> list[str]:
    """The refusal of a call when no memory is free, of this vdot_core and of the pack's."""
    with (
        patch("vdot_core.memory.available_bytes", lambda: 0),
        patch.object(submodule("vdot_core.memory"), "available_bytes", lambda: 0),
    ):
        return refused(call)


def guarded(kind: str, value=None, **limits) -> list[str]:
    """Sentence of the guard on a value for an input of a type."""
    check = submodule("nodes.guard")._check
    entry = SimpleNamespace(get_io_type=lambda: kind, **limits)
    return refused(lambda: check(entry, "start", value))


def keyframes(images: int, *positions: int) -> list[str]:
    return refused(lambda: vcu.keyframes([FRAMES[:1]] * images, positions, num_frames=5))


def boxes(text: str, colors: str = "", size=(64, 32, 9)) -> list[str]:
    style = {"line_width": 1}
    return refused_by("nodes.vcu_layout", "_from_boxes", text, colors, (8, 8), size, style, None)


def picture(**options) -> list[str]:
    return refused(lambda: vcu.reference(FRAMES[0], width=48, height=32, num_frames=5, **options))


def conditioned(width: int, **extra) -> list:
    return [[torch.zeros(1, 2, width), extra]]


def checked(width: int, **extra) -> list[str]:
    """Sentence of the sampler on a conditioning for a model that reads texts 8 numbers wide."""
    import comfy.model_base

    base = object.__new__(comfy.model_base.WAN21_Vace)
    torch.nn.Module.__init__(base)
    base.diffusion_model = SimpleNamespace(text_dim=8, blocks=[])
    check = submodule("nodes.comfy_checks").check_conditioning
    return check(SimpleNamespace(model=base), conditioned(width, **extra), (1, 16, 3, 4, 6), "positive")


def load_weights() -> None:
    state = {"a": torch.zeros(1).expand(2**26)}
    weights = SimpleNamespace(is_packed=False, dtype=torch.float32, state_dict=state)
    submodule("nodes.comfy_weights").check_memory(Path("vace.safetensors"), weights)


def encode_frames() -> None:
    vae = SimpleNamespace(device=torch.device("cpu"), vae_dtype=torch.float32, first_stage_model=None)
    vae.memory_used_encode = lambda shape, dtype: 2**40
    submodule("nodes.comfy_vae")._check_memory(vae, (1, 5, 480, 832, 3))


def with_stand_in(module: str, inner: str, value, name: str, *args) -> list[str]:
    """The refusal of a function of the pack, which takes a value for what an inner one gives."""
    with patch.object(submodule(module), inner, lambda *_: value):
        return refused_by(module, name, *args)


def unknown_purpose() -> list[str]:
    with patch.object(submodule("nodes.comfy_purpose"), "purpose_of_model", lambda _: None):
        return refused_by("nodes.sample_presets", "_purpose", None, None)


def large_references() -> None:
    vcu.reference([FRAMES[0]] * 2, width=2048, height=2048, num_frames=5)


def control_of_strength(strength: float) -> SimpleNamespace:
    """The context of one control, as VDOT Encode describes it."""
    scale = SimpleNamespace(frames=(strength,))
    size = {"width": 48, "height": 32, "num_frames": 5, "num_reference_latents": 0}
    return SimpleNamespace(**size, context_scale=scale, step_ranges=((0, 1),), notes=())


def excerpt(sound: Sound | None = None) -> list[str]:
    """Notes of VDOT Load Clip on a clip."""
    clip = cut_excerpt(FRAMES, 16.0, sound, Span(0.0, None, 5, lambda *size: size))
    return submodule("nodes.comfy_clips").describe(clip, None)


def taken(length: int) -> tuple[str, ...]:
    """Notes of a node on a size that is connected."""
    return submodule("nodes.sizes").canvas_of(vcu.SIZES["480p"], 832, 480, length).lines


def widened(width: int) -> tuple[str, ...]:
    """Notes on a clip of 48x32 with margins of 24 pixels at both sides."""
    return vcu.outpaint(FRAMES, left=24, right=24, width=width, height=16).notes


def loaded(num_parameters: int) -> list[str]:
    """Notes of VDOT Load on a VACE model."""
    network = torch.nn.Module()
    network.vace_patch_embedding = torch.nn.Linear(1, num_parameters, bias=False, device="meta")
    model = SimpleNamespace(diffusion_model=network, get_dtype=lambda: torch.bfloat16)
    describe = submodule("nodes.comfy_loading").describe_model
    return [f"vdot.pt: {describe(SimpleNamespace(model=model))}"]


def joined(other: vcu.VCU, **changes) -> vcu.VCU:
    """A unit and a control that is changed, in one."""
    return vcu.compose(control(5).replace(**changes), other)


PICTURE = vcu.reference(FRAMES[0], width=48, height=32, num_frames=5)
CROP = vcu.Crop(0, 0, 48, 32, source=(96, 64), size=(48, 32))
TEXT_MODEL = SimpleNamespace(problem="", config=SimpleNamespace(vace_layers=()))
PLAIN, LATE = Path("plain.pt"), Span(9.0, None, 5, lambda *size: size)
LOADING, WAN_VAE = "nodes.comfy_load_all", "wan_2.1_vae.safetensors"


SAID = {
    "length_rounded": lambda _: vcu.control(FRAMES, num_frames=7).notes,
    "size_rounded": lambda _: vcu.control(FRAMES, width=50, height=40).notes,
    "frames_dropped": lambda _: vcu.control(torch.rand(7, 32, 48, 3)).notes,
    "frames_free": lambda _: vcu.control(FRAMES, num_frames=13).notes,
    "frame_held": lambda _: vcu.inpaint(torch.rand(81, 32, 48, 3), torch.ones(80, 32, 48)).notes,
    "scaled_and_cropped": lambda _: vcu.control(FRAMES, width=64, height=64).notes,
    "scaled": lambda _: vcu.control(FRAMES, width=96, height=64).notes,
    "cropped": lambda _: vcu.control(torch.rand(5, 32, 50, 3)).notes,
    "margins_scaled": lambda _: widened(48),
    "margins_scaled_and_cropped": lambda _: widened(32),
    "clip_said": lambda _: excerpt(),
    "sound_none": lambda _: excerpt(),
    "sound_rate": lambda _: excerpt(Sound(torch.zeros(1, 16000), 16000)),
    "unit_said": lambda _: [str(control(5))],
    "unit_references": lambda _: [str(vcu.reference(FRAMES[0], width=48, height=32, num_frames=5))],
    "task_generate": lambda _: [str(vcu.reference(FRAMES[0], width=48, height=32, num_frames=5))],
    "task_control": lambda _: [str(control(5))],
    "task_repaint": lambda _: [str(vcu.inpaint(FRAMES, MASK))],
    "task_extension": lambda _: [str(vcu.extend(FRAMES[:1], num_frames=5))],
    "size_taken": lambda _: taken(81),
    "size_shortened": lambda _: taken(161),
    "span_moved": lambda _: submodule("nodes.tracks").Rescale(81, 17).span(20, 60)[2],
    "size_given": lambda _: [f"size {vcu.SIZES['480p']}"],
    "loaded_million": lambda _: loaded(3_490_000),
    "loaded_billion": lambda _: loaded(2**31),
    "stopped": lambda _: [submodule("nodes.sample_steps")._stop_line(1, 4, False)],
    "alpha_ignored": lambda _: vcu.control(torch.rand(5, 32, 48, 4)).notes,
    "all_kept": lambda _: vcu.inpaint(FRAMES, 0 * MASK).notes,
    "mask_empty": lambda _: refused(lambda: vcu.crop_region(FRAMES, 0 * MASK)),
    "mask_length": lambda _: refused(lambda: vcu.inpaint(FRAMES, torch.ones(3, 32, 48))),
    "mask_size": lambda _: refused(lambda: vcu.inpaint(FRAMES, torch.ones(5, 48, 32))),
    "sizes_differ": lambda _: refused(lambda: vcu.compose(control(5), control(5, 64))),
    "lengths_differ": lambda _: refused(lambda: vcu.compose(control(5), control(33))),
    "strengths_differ": lambda _: refused(lambda: joined(control(5), strength=0.5)),
    "steps_differ": lambda _: refused(lambda: joined(control(5), step_range=(0, 0.5))),
    "strength_taken": lambda _: joined(PICTURE, strength=0.5).notes,
    "steps_taken": lambda _: joined(PICTURE, step_range=(0, 0.5)).notes,
    "same_region": lambda _: refused(lambda: vcu.compose(control(5), control(5))),
    "nothing_to_outpaint": lambda _: refused(lambda: vcu.outpaint(FRAMES)),
    "nothing_left": lambda _: refused(lambda: vcu.extend(FRAMES, num_frames=5)),
    "length_range": lambda _: refused(lambda: vcu.snap_length(0)),
    "no_box": lambda run: refused(lambda: run("VDOTBoxMask", image=FRAMES, which="all")),
    "other_vae": lambda _: refused_by(LOADING, "_check_vae_choice", None, None, 4096),
    "size_least": lambda _: refused(lambda: vcu.snap_size(0, 64)),
    "size_most": lambda _: refused(lambda: vcu.snap_size(65536, 64)),
    "volume_most": lambda _: refused(lambda: vcu.text(width=8192, height=8192, num_frames=8193)),
    "units_differ": lambda _: refused(lambda: vcu.latent_shape([control(5), control(9)])),
    "layout_size": lambda _: boxes("0: 1, 2, 3, 4", size=(64, 0, 9)),
    "span_empty": lambda _: refused(lambda: vcu.control(FRAMES, start=3, end=2)),
    "no_strength": lambda _: submodule("nodes.encode")._describe(control_of_strength(0.0), ["unit"]),
    "keyframes_count": lambda _: keyframes(2, 0),
    "keyframes_meet": lambda _: keyframes(2, 0, 0),
    "keyframe_outside": lambda _: keyframes(1, 7),
    "keyframes_all": lambda _: keyframes(5, 0, 1, 2, 3, 4),
    "no_reference": lambda _: refused(lambda: vcu.reference([], width=48, height=32, num_frames=5)),
    "reference_plain": lambda _: picture(crop=True),
    "reference_empty": lambda _: picture(crop=True, masks=torch.zeros(1, 32, 48)),
    "boxes_line": lambda _: boxes("0: 1, 2, oops"),
    "boxes_empty": lambda _: boxes(" "),
    "boxes_twice": lambda _: boxes("0: 1, 2, 3, 4\n0: 1, 2, 3, 4"),
    "box_outside": lambda _: boxes("0: 900, 900, 920, 920"),
    "colors_count": lambda _: boxes("0: 1, 2, 9, 9\n\n0: 1, 2, 9, 9\n\n0: 1, 2, 9, 9", "red, blue"),
    "color_unknown": lambda _: boxes("0: 1, 2, 9, 9", "oops"),
    "positions_text": lambda _: refused_by("nodes.tracks", "numbers_from_text", "0, oops"),
    "curve_text": lambda _: refused_by("nodes.tracks", "curve_from_text", "0: oops"),
    "other_unit": lambda _: refused(lambda: vcu.paste_back(FRAMES[:1], vcu.inpaint(FRAMES, MASK))),
    "other_original": lambda _: refused(lambda: vcu.stitch(FRAMES, FRAMES, control(5), CROP)),
    "file_missing": lambda _: refused_by("nodes.comfy_files", "file_path", "vae", "oops.safetensors"),
    "not_downloaded": lambda _: refused_by(
        "nodes.known_files", "find_choice", "vae", "wan_2.1_vae.safetensors"
    ),
    "no_clip": lambda _: refused_by("nodes.comfy_inputs", "clip_path", ""),
    "clip_missing": lambda _: refused_by("nodes.comfy_inputs", "clip_path", "oops.mp4"),
    "clip_start": lambda _: refused(
        lambda: cut_excerpt(FRAMES, 16.0, None, Span(9.0, None, 5, lambda *size: size))
    ),
    "annotator_files": lambda _: [missing_files("pose", "oops.tflite")],
    "no_vace": lambda _: with_stand_in(LOADING, "inspect", TEXT_MODEL, "_checked_model", PLAIN),
    "demo_encoder": lambda _: refused_by(LOADING, "_check_encoder", None, 4096, "vace.pt"),
    "not_umt5": lambda _: with_stand_in(
        LOADING, "_embedding_shape", (), "_check_encoder", Path("t5"), 4096, ""
    ),
    "only_demo_vae": lambda _: refused_by(LOADING, "_check_vae_choice", None, PLAIN, 64),
    "other_model": lambda _: refused_by("nodes.comfy_checks", "check_model", SimpleNamespace(model=FRAMES)),
    "not_wan_vae": lambda _: refused_by(
        "nodes.comfy_vae", "check_vae", SimpleNamespace(first_stage_model=FRAMES, latent_channels=4)
    ),
    "text_width": lambda _: refused(lambda: checked(9)),
    "latent_size": lambda _: refused(lambda: checked(8, vace_frames=[torch.zeros(1, 32, 3, 4, 8)])),
    "no_context": lambda _: checked(8),
    "no_negative": lambda _: refused_by(
        "nodes.sample", "_validate", [], None, None, {"samples": FRAMES}, None, {"cfg is 2,": "cfg to 1"}
    ),
    "auto_unknown": lambda _: unknown_purpose(),
    "image_nan": lambda _: refused(lambda: vcu.control(FRAMES * torch.nan)),
    "image_range": lambda _: refused(lambda: vcu.control(FRAMES * 300)),
    "memory": lambda _: without_memory(lambda: vcu.inpaint(FRAMES, MASK, width=2048, height=2048)),
    "missing": lambda _: guarded("MODEL"),
    "other_value": lambda _: guarded("INT", 0, min=1, max=9),
    "what_video": lambda _: without_memory(lambda: vcu.inpaint(FRAMES, MASK, width=2048, height=2048)),
    "what_control": lambda _: without_memory(lambda: check_result((5, 2048, 2048))),
    "cure_control": lambda _: without_memory(lambda: check_result((5, 2048, 2048))),
    "cure_frames": lambda _: without_memory(lambda: vcu.inpaint(FRAMES, MASK, width=2048, height=2048)),
    "what_scaled": lambda _: without_memory(lambda: vcu.cover(FRAMES, 2048, 2048)),
    "what_references": lambda _: without_memory(large_references),
    "cure_pictures": lambda _: without_memory(large_references),
    "what_encoded": lambda _: without_memory(encode_frames),
    "cure_task": lambda _: without_memory(encode_frames),
    "what_weights": lambda _: without_memory(load_weights),
    "cure_dtype": lambda _: without_memory(load_weights),
    "expected_images": lambda _: guarded("IMAGE", 5),
    "expected_masks": lambda _: guarded("MASK"),
    "expected_model": lambda _: guarded("MODEL"),
    "expected_vae": lambda _: guarded("VAE"),
    "expected_task": lambda _: guarded("VDOT_VCU"),
    "expected_size": lambda _: guarded("VDOT_SIZE"),
    "expected_crop": lambda _: guarded("VDOT_CROP"),
    "expected_latent": lambda _: guarded("LATENT"),
    "expected_conditioning": lambda _: guarded("CONDITIONING"),
    "expected_boxes": lambda _: guarded("BOUNDING_BOX"),
    "expected_points": lambda _: guarded("POSE_KEYPOINT"),
    "expected_video": lambda _: guarded("VIDEO"),
    "expected_changes": lambda _: guarded("VDOT_SCHEDULE"),
    "expected_sound": lambda _: guarded("AUDIO"),
    "expected_text": lambda _: guarded("STRING"),
    "expected_choice": lambda _: guarded("COMBO", "oops", options=["a", "b"]),
    "expected_whole": lambda _: guarded("INT", 0, min=1, max=9),
    "expected_number": lambda _: guarded("FLOAT", -1.0, min=0.0, max=9.0),
}


FORMS = dict.fromkeys(("source", "scaled"), r"\d+x\d+")


def pattern_of(sentence: str) -> re.Pattern:
    """As js/strings.js reads it."""
    parts = re.split(r"\{(\w+)\}", sentence)
    fixed = [re.escape(part).replace(r"\(s\)", "s?") for part in parts[::2]]
    places = [f"(?P<{name}>{FORMS.get(name, '.+?')})" for name in parts[1::2]]
    return re.compile("".join(map("".join, itertools.zip_longest(fixed, places, fillvalue=""))))


SENTENCES = json.loads((ROOT / "locales/en/main.json").read_text("utf-8"))["vdot"]["sentences"]
PATTERNS = {key: pattern_of(sentence) for key, sentence in SENTENCES.items()}
PARTS = {"what", "expected", "cure", "task", "sound"}
# Those of runs with a model are seen in the page (tests/browser/test_page.py).
OF_RUNS = {"encoded", "sampled"}


def keys_of(line: str) -> set[str]:
    """The sentence that a line is translated by, and those of its parts; none where it stays English."""
    for key, pattern in PATTERNS.items():
        if match := pattern.fullmatch(line):
            parts = [keys_of(words) for name, words in match.groupdict().items() if name in PARTS]
            if all(parts):
                return {key}.union(*parts)
    return set()


def test_every_sentence_is_listed():
    assert set(SENTENCES) == set(SAID) | OF_RUNS


@pytest.mark.parametrize("key", SAID)
def test_nodes_write_the_sentence(run, key):
    lines = list(SAID[key](run))
    assert any(key in keys_of(line) for line in lines), lines


def test_places_for_sizes_hold_no_words():
    """A longer phrase would be shown in English within a Chinese sentence."""
    assert keys_of("video: 48x32 scaled to 32x16") == {"scaled"}
    assert keys_of("video: 48x32 in some other way scaled to 32x16") == set()
