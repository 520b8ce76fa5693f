"""VDOT Long Video in the real ComfyUI: equal to the nodes it joins, and resumed after an interruption."""

import av
import pytest
import torch

from tests.support.pack import submodule

FRAMES, CHUNK, OVERLAP = 29, 17, 5
SETTINGS = {"preset": "custom", "steps": 2, "shift": 8.0, "solver": "renoise"}


@pytest.fixture
def output(comfy, tmp_path, monkeypatch):
    """ComfyUI's output folder."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    return tmp_path


@pytest.fixture
def inputs(ours, vae, text, run):
    unit = run("VDOTText", width=48, height=32, length=FRAMES).args[0]
    return {
        **{"model": ours, "positive": text, "vae": vae, "unit": unit, "seed": 7, "chunk": CHUNK},
        **{"overlap": OVERLAP, "filename_prefix": "a/long", **SETTINGS},
    }


def frames_of(file) -> torch.Tensor:
    with av.open(str(file)) as container:
        return torch.stack(
            [torch.from_numpy(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
        )


def test_one_chunk_is_encode_sample_decode(run, inputs, output, vae, text):
    """A video that fits into one chunk goes through the same numbers as the three nodes."""
    made = run("VDOTLongVideo", **{**inputs, "chunk": 81}).args[0]
    positive, _, latent, _ = run("VDOTEncode", positive=text, vae=vae, unit=inputs["unit"], strength=1.0).args
    latent = run(
        "VDOTSampler", model=inputs["model"], positive=positive, latent=latent, seed=7, **SETTINGS
    ).args[0]
    with torch.inference_mode():
        expected = vae.decode(latent["samples"])[0]
    torch.testing.assert_close(made, expected, atol=2e-5, rtol=0)


def test_kept_pixels_are_the_clip_s_own(run, inputs, output):
    clip, mask = torch.rand(FRAMES, 32, 48, 3), torch.zeros(FRAMES, 32, 48)
    mask[:, 4:20, 4:20] = 1
    unit = run(
        "VDOTMask", frames=clip, mask=mask, mask_shape="original", expand=0.0, width=0, height=0, length=0
    ).args[0]
    far = torch.ones(32, 48, dtype=torch.bool)
    far[:28, :28] = False
    made = run("VDOTLongVideo", **{**inputs, "unit": unit}).args[0]
    assert torch.equal(made[:, far], clip[:, far])
    decoded = run("VDOTLongVideo", **{**inputs, "unit": unit}, paste_back=False).args[0]
    assert not torch.equal(decoded[:, far], clip[:, far])


def test_the_file_has_all_frames_rate_and_sound(run, inputs, output):
    rate = 8000
    audio = {"waveform": 0.1 * torch.randn(1, 1, rate * 4), "sample_rate": rate}
    outcome = run("VDOTLongVideo", **inputs, fps=12.5, audio=audio)
    images, video = outcome.args
    file = output / "a" / "long_00001_.mp4"
    shown = outcome.ui["images"][0]
    assert shown == {"filename": file.name, "subfolder": "a", "type": "output"}
    assert images.shape == (FRAMES, 32, 48, 3)
    written = frames_of(file).float() / 255
    assert written.shape == images.shape and (written - images).abs().mean() < 0.1
    parts = video.get_components()
    assert float(parts.frame_rate) == pytest.approx(12.5) and parts.audio is not None
    assert [path.name for path in file.parent.iterdir()] == [file.name], "nothing unfinished is left"
    two = {"waveform": audio["waveform"].repeat(2, 6, 1), "sample_rate": rate}
    outcome = run("VDOTLongVideo", **inputs, all_frames=False, audio=two)
    assert "audio holds 2 sounds: the first is used, 1 left out" in outcome.ui["text"]
    assert any("6 channels: the first two are written" in text for text in outcome.ui["text"])
    empty = {"waveform": torch.zeros(1, 2, 0), "sample_rate": rate}
    silent = run("VDOTLongVideo", **inputs, audio=empty)
    assert "audio is empty, or its clip has no sound: the file has none" in silent.ui["text"]
    assert silent.args[1].get_components().audio is None
    last = outcome.args[0]
    assert len(last) < FRAMES and torch.equal(last, images[-len(last) :])


def test_an_interrupted_video_plays_and_is_resumed(run, inputs, output):
    import comfy.model_management
    import comfy.patcher_extension

    whole = run("VDOTLongVideo", **{**inputs, "filename_prefix": "whole"}).args[0]
    calls = []

    def interrupt(executor, *args, **kwargs):
        calls.append(0)
        if len(calls) > SETTINGS["steps"]:
            raise comfy.model_management.InterruptProcessingException
        return executor(*args, **kwargs)

    model = inputs["model"].clone()
    kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
    model.add_wrapper_with_key(kind, "interrupt", interrupt)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run("VDOTLongVideo", **{**inputs, "model": model})
    file = output / "a" / "long_00001_.mp4"
    assert len(frames_of(file)) == CHUNK - OVERLAP + 1
    with pytest.raises(ValueError, match=r"long_00001__unfinished was made with another seed \(7, now 8\)"):
        run("VDOTLongVideo", **{**inputs, "seed": 8}, resume=True)
    outcome = run("VDOTLongVideo", **inputs, resume=True)
    assert torch.equal(outcome.args[0], whole) and len(frames_of(file)) == FRAMES
    assert any("resumed after 1 chunk" in line for line in outcome.ui["text"])
    with pytest.raises(ValueError, match="no unfinished video a/long to resume"):
        run("VDOTLongVideo", **inputs, resume=True)


def test_a_video_too_large_for_memory_is_the_same(run, inputs, output, monkeypatch):
    scratch = submodule("vdot_core.scratch")
    plain = run("VDOTLongVideo", **inputs).args[0]
    monkeypatch.setattr(scratch, "SHARE", 0.0)
    outcome = run("VDOTLongVideo", **inputs)
    assert scratch.is_mapped(outcome.args[0]) and torch.equal(outcome.args[0], plain)
    assert any("in a temporary file" in line for line in outcome.ui["text"])


def test_a_loop_is_as_long_as_its_unit(run, inputs, output):
    plain, looped = (run("VDOTLongVideo", **inputs, loop=loop).args[0] for loop in (False, True))
    assert looped.shape == plain.shape and not torch.equal(looped[-1], plain[-1])
    with pytest.raises(ValueError, match="has no chunk between its end and its beginning"):
        run("VDOTLongVideo", **{**inputs, "chunk": 81}, loop=True)


def test_a_change_reaches_its_chunk(run, inputs, output, text):
    other = [[text[0][0] * -1, {}]]
    schedule = run("VDOTFromFrame", frame=20, positive=other).args[0]
    plain = run("VDOTLongVideo", **inputs).args[0]
    outcome = run("VDOTLongVideo", **inputs, schedule=schedule)
    changed, seam = outcome.args[0], CHUNK - OVERLAP + 1
    assert torch.equal(plain[:seam], changed[:seam]) and not torch.equal(plain[seam:], changed[seam:])
    assert any(f"the change at frame 20 acts from frame {CHUNK} on" in line for line in outcome.ui["text"])


def test_a_change_that_no_chunk_has_is_named(run, inputs, output, text):
    """One behind the video's end, one of its last frames, and one that another replaces in the same chunk."""
    said = {81: "is never reached: the video has 29 frames", FRAMES - 1: "acts in no chunk"}
    for frame, words in said.items():
        schedule = run("VDOTFromFrame", frame=frame, positive=[[text[0][0] * -1, {}]]).args[0]
        lines = run("VDOTLongVideo", **inputs, schedule=schedule).ui["text"]
        assert any(line.startswith(f"the change at frame {frame} {words}") for line in lines)
    first = run("VDOTFromFrame", frame=12, positive=[[text[0][0] * -1, {}]]).args[0]
    both = run("VDOTFromFrame", frame=20, positive=[[text[0][0] * 2, {}]], schedule=first).args[0]
    lines = run("VDOTLongVideo", **inputs, schedule=both).ui["text"]
    assert any(line.startswith("the change at frame 12 acts in no chunk") for line in lines)


def test_other_references_reach_their_chunk(run, inputs, output):
    red, blue = (
        run(
            "VDOTReference", images={"image0": color.expand(1, 32, 48, 3)}, width=48, height=32, length=FRAMES
        ).args[0]
        for color in torch.eye(3)[[0, 2]]
    )
    schedule = run("VDOTFromFrame", frame=20, references=blue).args[0]
    plain = run("VDOTLongVideo", **{**inputs, "unit": red}).args[0]
    changed = run("VDOTLongVideo", **{**inputs, "unit": red}, schedule=schedule).args[0]
    seam = CHUNK - OVERLAP + 1
    assert torch.equal(plain[:seam], changed[:seam]) and not torch.equal(plain[seam:], changed[seam:])


@pytest.mark.parametrize(
    "node, settings, own, taken",
    [
        ("VDOTStrength", {"curve": "0: 0.2"}, "0.2", "has strength 0.2, as unit"),
        (
            *("VDOTStepRange", {"start_percent": 0.0, "end_percent": 0.25}),
            *("0 % to 25 %", "acts from 0 % to 25 % of the steps, as unit"),
        ),
    ],
)
def test_references_keep_no_strength_of_their_own_in_silence(run, inputs, node, settings, own, taken):
    """The unit's holds for the references of From Frame: another is refused, the unit's is said."""
    size = {"width": 48, "height": 32, "length": FRAMES}
    plain = run("VDOTReference", images={"image0": torch.rand(1, 32, 48, 3)}, **size).args[0]
    changed = run(node, unit=plain, **settings).args[0]
    schedule = run("VDOTFromFrame", frame=20, references=changed).args[0]

    def lines(unit, schedule):
        options = submodule("nodes.sample_inputs").Settings(**SETTINGS)
        places = [inputs[name] for name in ("model", "positive", "vae")]
        job = submodule("nodes.long_run").Job
        return job(*places, unit, CHUNK, OVERLAP, 7, options, 16.0, schedule=schedule).lines

    with pytest.raises(ValueError, match=f"reference of frame 20 .*{own}; a chunk has one .*remove VDOT"):
        lines(plain, schedule)
    assert not any("as unit" in line for line in lines(changed, schedule))
    schedule = run("VDOTFromFrame", frame=20, references=plain).args[0]
    assert f"the reference of frame 20 {taken}" in lines(changed, schedule)


def test_colors_match_at_the_border(run, inputs, output):
    """Generated pixels move, kept ones do not."""
    clip, mask = torch.rand(FRAMES, 32, 48, 3), torch.zeros(FRAMES, 32, 48)
    mask[:, 4:20, 4:20] = 1
    task = {"mask_shape": "original", "expand": 0.0, "width": 0, "height": 0, "length": 0}
    unit = run("VDOTMask", frames=clip, mask=mask, **task).args[0]
    far = torch.ones(32, 48, dtype=torch.bool)
    far[:28, :28] = False
    plain, matched = (
        run("VDOTLongVideo", **{**inputs, "unit": unit}, match_colors=match).args[0]
        for match in (False, True)
    )
    assert torch.equal(matched[:, far], clip[:, far]) and not torch.equal(plain[:, 8, 8], matched[:, 8, 8])


def test_mistakes_are_sentences(run, inputs, output, vae, text):
    positive = run("VDOTEncode", positive=text, vae=vae, unit=inputs["unit"], strength=1.0).args[0]
    with pytest.raises(ValueError, match="positive comes from VDOT Encode, but this node encodes"):
        run("VDOTLongVideo", **{**inputs, "positive": positive})
    with pytest.raises(ValueError, match="overlap is 17, chunk is 17"):
        run("VDOTLongVideo", **{**inputs, "overlap": 17})
    with pytest.raises(ValueError, match="changes nothing; connect a prompt"):
        run("VDOTFromFrame", frame=20)
    with pytest.raises(ValueError, match=r"audio is .*, expected sound"):
        run("VDOTLongVideo", **inputs, audio=[])
    with pytest.raises(ValueError, match="cfg is 2 but nothing is connected to negative"):
        run("VDOTLongVideo", **inputs, cfg=2.0)
    assert not [path for path in output.rglob("*") if path.name != "a"], "nothing is left behind"


def test_a_lora_and_a_changed_weight_are_another_model(ours):
    identity = submodule("nodes.comfy_long").identity_of
    patched = ours.clone()
    key = next(key for key in patched.model_state_dict() if key.endswith("weight"))
    patched.add_patches({key: (torch.ones_like(patched.model_state_dict()[key]),)}, 0.5)
    stronger = ours.clone()
    stronger.add_patches({key: (torch.ones_like(patched.model_state_dict()[key]),)}, 0.6)
    assert len({identity(model) for model in (ours, patched, stronger)}) == 3
    assert identity(ours) == identity(ours.clone())


def test_progress_counts_over_all_chunks_and_each_has_a_preview(run, inputs, output, monkeypatch):
    import comfy.utils

    bar, previews = [], []
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda step, total, *_, **__: bar.append((step, total))
    )
    preview = submodule("nodes.comfy_preview")
    monkeypatch.setattr(
        preview, "_send", lambda message: previews.append((message["step"], message["num_steps"]))
    )
    run("VDOTLongVideo", **inputs)
    total = 2 * SETTINGS["steps"]  # two chunks
    assert previews == [(step, total) for step in range(1, total + 1)]
    assert (
        bar == sorted(bar) and set(bar) <= set(previews) and bar[-1] == (total, total)
    )  # not more often than ComfyUI
