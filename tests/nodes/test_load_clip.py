"""VDOT Load Clip, and the examples in ComfyUI's input folder."""

import math
import shutil
from collections.abc import Mapping
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch

from tests.core.test_excerpts import write_clip
from tests.support.comfy import ROOT
from tests.support.pack import submodule

NUMBERS = {"start": 0.0, "length": 0, "resolution": "auto", "fps": 16.0}


@pytest.fixture
def inputs(pack, monkeypatch, tmp_path):
    """ComfyUI's input folder, empty."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def size(pack):
    return submodule("vdot_core.vcu").SIZES["480p"]


def test_a_clip_takes_the_models_size_length_and_rate(run, inputs, size):
    write_clip(inputs / "a.mp4", [k / 30 for k in range(61)], sound=2.0, size=(192, 108))
    out = run("VDOTLoadClip", file="a.mp4", **NUMBERS, size=size)
    frames, audio, fps, video = out.args
    assert frames.shape == (33, 480, 832, 3) and fps == 16.0
    assert audio["waveform"].shape == (1, 1, round(33 / 16 * audio["sample_rate"]))
    assert video.get_components().images is frames and float(video.get_components().frame_rate) == 16
    text = "\n".join(out.ui["text"])
    assert text.startswith("832x480, 33 frames at 16 fps (2.06 s), sound of 48000 Hz")
    assert "30 -> 16 fps" in text and "192x108 -> 832x480" in text and "load a clip or picture" in text
    demo = submodule("nodes.comfy_load_all").DEMO_SIZE
    assert run("VDOTLoadClip", file="a.mp4", **NUMBERS, size=demo).args[0].shape == (17, 48, 80, 3)


def test_a_clip_of_wide_pixels_keeps_the_aspect_that_players_show(run, inputs, size):
    """64x64 with pixels twice as wide as high: shown as 128x64."""
    write_clip(inputs / "a.mp4", [k / 16 for k in range(9)], size=(64, 64), aspect=2)
    numbers = {**NUMBERS, "resolution": "as it is"}
    out = run("VDOTLoadClip", file="a.mp4", **numbers, size=size)
    assert out.args[0].shape == (9, 64, 128, 3)


def test_what_is_set_here_wins(run, inputs, size):
    write_clip(inputs / "a.mp4", [k / 30 for k in range(31)], size=(72, 50))
    numbers = {**NUMBERS, "resolution": "as it is", "fps": 0.0, "length": 12, "start": 0.5}
    frames, audio, fps, _ = run("VDOTLoadClip", file="a.mp4", **numbers, size=size).args
    assert frames.shape == (9, 48, 64, 3) and fps == pytest.approx(30, rel=1e-3) and audio is None
    frames = run("VDOTLoadClip", file="a.mp4", **{**NUMBERS, "resolution": "720p", "length": 1}).args[0]
    assert frames.shape[1] * frames.shape[2] > 800_000
    assert run("VDOTLoadClip", file="a.mp4", **NUMBERS).args[0].shape == (17, 48, 64, 3)


def test_a_video_of_another_node(run, inputs, size):
    from comfy_api.latest import InputImpl, Types

    path = write_clip(inputs / "a.mp4", [k / 30 for k in range(61)], sound=2.0)
    whole = InputImpl.VideoFromFile(str(path))
    trimmed = InputImpl.VideoFromFile(str(path), start_time=0.5, duration=0.55)
    direct = run("VDOTLoadClip", file="", **NUMBERS, video=whole).args[0]
    assert torch.equal(direct, run("VDOTLoadClip", file="a.mp4", **NUMBERS).args[0])
    cut = run("VDOTLoadClip", file="", **NUMBERS, video=trimmed).args[0]
    later = run("VDOTLoadClip", file="a.mp4", **{**NUMBERS, "start": 0.5, "length": 9}).args[0]
    assert torch.equal(cut, later)
    with pytest.raises(ValueError, match=r"the video is 0\.55 seconds long, and start is 0\.6"):
        run("VDOTLoadClip", file="", **{**NUMBERS, "start": 0.6}, video=trimmed)
    parts = whole.get_components()
    made = InputImpl.VideoFromComponents(
        Types.VideoComponents(images=parts.images, audio=parts.audio, frame_rate=Fraction(30))
    )
    frames, audio, _, _ = run("VDOTLoadClip", file="", **NUMBERS, video=made).args
    assert frames.shape == direct.shape and (frames - direct).abs().max() < 0.05
    assert audio["waveform"].shape[-1] == round(33 / 16 * audio["sample_rate"])


BAD_PARTS = {
    "no rate": {"frame_rate": None},
    "rate 0": {"frame_rate": Fraction(0)},
    "a negative rate": {"frame_rate": Fraction(-16)},
    "rate NaN": {"frame_rate": math.nan},
    "an endless rate": {"frame_rate": math.inf},
    "no frames": {"images": torch.zeros(0, 32, 48, 3)},
    "frames of 0 to 255": {"images": torch.full((5, 32, 48, 3), 200.0)},
    "frames of NaN": {"images": torch.full((5, 32, 48, 3), math.nan)},
    "a list of frames": {"images": [torch.zeros(32, 48, 3)]},
    "sound of rate 0": {"audio": {"waveform": torch.zeros(1, 2, 9), "sample_rate": 0}},
    "sound of an absurd rate": {"audio": {"waveform": torch.zeros(1, 2, 9), "sample_rate": 10**15}},
    "sound of one dimension": {"audio": {"waveform": torch.zeros(9), "sample_rate": 8000}},
    "sound that is a text": {"audio": "a.wav"},
}


@pytest.fixture
def made(run, inputs):
    """made(audio=.., ..) reads a video of 5 frames whose parts another pack made."""
    from comfy_api.latest import InputImpl, Types

    def outcome(**parts):
        plain = {"images": torch.zeros(5, 32, 48, 3), "audio": None, "frame_rate": Fraction(16)}
        video = InputImpl.VideoFromComponents(Types.VideoComponents(**plain | parts))
        return run("VDOTLoadClip", file="", **NUMBERS, video=video)

    def call(**parts):
        return outcome(**parts).args

    call.outcome = outcome
    return call


@pytest.mark.parametrize("name", BAD_PARTS)
def test_a_video_with_parts_that_are_none_is_refused_in_words(made, name):
    with pytest.raises(ValueError, match=r"^the video('s)? (has|frames?|sound).*(expected|give)") as error:
        made(**BAD_PARTS[name])
    assert len(str(error.value)) <= 400


def test_a_video_of_a_look_alike_without_parts_is_refused(run, inputs):
    video = SimpleNamespace(get_components=lambda: None)
    with pytest.raises(ValueError, match=r"the video's frames is missing, expected images"):
        run("VDOTLoadClip", file="", **NUMBERS, video=video)


def test_sound_of_other_packs_forms_is_taken(made):
    for audio in ({}, {"waveform": None, "sample_rate": 8000}):
        assert made(audio=audio)[1] is None
    for shape in ((0, 2, 9), (1, 2, 0)):
        assert made(audio={"waveform": torch.zeros(shape), "sample_rate": 8000})[1] is None
    several = made.outcome(audio={"waveform": torch.rand(2, 1, 9000), "sample_rate": 8000})
    assert several.ui["text"][-1] == "audio holds 2 sounds: the first is used, 1 left out"
    audio = made(audio={"waveform": torch.full((2, 9000), 16384, dtype=torch.int16), "sample_rate": 8e3})[1]
    assert audio["sample_rate"] == 8000 and float(audio["waveform"].max()) == 0.5
    audio = made(audio={"waveform": torch.ones(2, 9000), "sample_rate": 8000})[1]
    assert audio["waveform"].shape == (1, 2, 2500)
    frames = made(images=torch.full((5, 32, 48, 3), 255, dtype=torch.uint8))[0]
    assert torch.equal(frames, torch.ones_like(frames))


class ReadAtUse(Mapping):
    """Sound of a video as VideoHelperSuite's loaders give it."""

    def __init__(self, sound):
        self.sound = sound

    def __getitem__(self, key):
        if self.sound is None:
            raise RuntimeError("failed to extract audio")
        return self.sound[key]

    def __iter__(self):
        return iter(self.sound)

    def __len__(self):
        return len(self.sound)


def test_sound_that_is_read_when_it_is_used_is_taken(made):
    plain = {"waveform": torch.rand(1, 2, 9000), "sample_rate": 8000}
    assert torch.equal(made(audio=ReadAtUse(plain))[1]["waveform"], plain["waveform"][..., :2500])
    assert made(audio=ReadAtUse(None))[1] is None


def test_missing_files_are_said_before_the_run(run, node_classes, inputs):
    node = node_classes["VDOTLoadClip"]
    for name, message in (
        ("", "no video is chosen"),
        ("a.mp4", "no video 'a.mp4'"),
        ("../b.mp4", "no video"),
    ):
        assert message in node.validate_inputs(name)
        with pytest.raises(ValueError, match=message):
            run("VDOTLoadClip", file=name, **NUMBERS)
    assert node.validate_inputs("", video=None) is True, "a video is connected"
    write_clip(inputs / "a.mp4", [0, 0.1])
    assert node.validate_inputs("a.mp4") is True
    before = node.fingerprint_inputs("a.mp4", **NUMBERS)
    assert before == node.fingerprint_inputs("a.mp4", **NUMBERS)
    write_clip(inputs / "a.mp4", [0, 0.1, 0.2])
    changed = node.fingerprint_inputs("a.mp4", **NUMBERS)
    assert changed != before
    shutil.copy2(inputs / "a.mp4", inputs / "b.mp4")
    (inputs / "b.mp4").replace(inputs / "a.mp4")
    assert node.fingerprint_inputs("a.mp4", **NUMBERS) != changed, "another file of the same size and time"


def test_examples_are_copied_and_never_over_a_file(inputs, caplog):
    module = submodule("nodes.comfy_inputs")
    names = {path.name for path in (ROOT / "assets/examples").iterdir()}
    (inputs / "clip.mp4").write_text("my own")
    (inputs / "mask.png").symlink_to(inputs / "nowhere")
    module.install_examples()
    assert {path.name for path in inputs.iterdir()} == names
    assert (inputs / "clip.mp4").read_text() == "my own" and (inputs / "mask.png").is_symlink()
    same = ROOT / "assets/examples/depth.mp4"
    assert (inputs / "depth.mp4").read_bytes() == same.read_bytes()
    (inputs / "depth.mp4").write_text("changed")
    (inputs / "first.png").unlink()
    module.install_examples()  # at the next start, as after an update with a new example
    assert (inputs / "depth.mp4").read_text() == "changed" and (inputs / "first.png").is_file()
    shutil.rmtree(inputs)
    module.install_examples()
    assert "could not be copied" in caplog.text


def test_ordinary_nodes_take_a_clip_that_lies_in_a_file(run, inputs, monkeypatch):
    import nodes

    write_clip(inputs / "a.mp4", [k / 16 for k in range(17)], size=(64, 48))
    plain = run("VDOTLoadClip", file="a.mp4", **NUMBERS).args[0]
    scratch = submodule("vdot_core.scratch")
    monkeypatch.setattr(scratch, "IN_MEMORY", 0)
    mapped = run("VDOTLoadClip", file="a.mp4", **NUMBERS).args[0]
    assert scratch.is_mapped(mapped) and not scratch.is_mapped(plain)
    calls = (
        lambda clip: nodes.ImageScale().upscale(clip, "bicubic", 32, 32, "center")[0],
        lambda clip: nodes.ImageInvert().invert(clip)[0],
        lambda clip: nodes.ImageBatch().batch(clip, clip)[0],
    )
    for call in calls:
        assert torch.equal(call(mapped), call(plain))
