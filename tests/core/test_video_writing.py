"""Videos written as they are made: read back by PyAV, also where the writing was cut off."""

from contextlib import suppress

import av
import pytest
import torch

from vdot_core.video_writing import open_writer


def decoded(path):
    with av.open(str(path)) as container:
        frames = [torch.from_numpy(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
        rate = container.streams.video[0].average_rate
    return torch.stack(frames).float() / 255, rate


def clip_of(num_frames):
    ramp = torch.linspace(0.1, 0.9, num_frames).view(-1, 1, 1, 1)
    return ramp.expand(-1, 48, 64, 3)


@pytest.mark.parametrize("fps", [16.0, 23.976])
def test_frames_rate_and_sound_come_back(tmp_path, fps):
    clip, seconds = clip_of(29), 29 / fps
    time = torch.arange(round(44100 * seconds) + 5000) / 44100
    sound = 0.5 * torch.sin(2 * torch.pi * 440 * time).expand(2, -1)
    with open_writer(tmp_path / "a.mp4", fps, 64, 48, sound, 44100) as writer:
        writer.write(clip[:17])
        writer.write(clip[17:])
    frames, rate = decoded(tmp_path / "a.mp4")
    assert len(frames) == 29 and float(rate) == pytest.approx(fps, abs=1e-3)
    assert (frames - clip).abs().max() < 0.03
    with av.open(str(tmp_path / "a.mp4")) as container:
        blocks = [block.to_ndarray() for block in container.decode(audio=0)]
    wave = torch.cat([torch.from_numpy(block) for block in blocks], 1)
    assert wave.shape[1] / 44100 == pytest.approx(seconds, abs=0.06)
    assert wave.square().mean().sqrt() == pytest.approx(0.5 / 2**0.5, abs=0.03)


def test_an_exception_leaves_a_playable_file(tmp_path):
    clip = clip_of(34)
    with pytest.raises(KeyError), open_writer(tmp_path / "a.mp4", 16, 64, 48) as writer:
        writer.write(clip[:17])
        writer.write(clip[17:])
        raise KeyError
    assert len(decoded(tmp_path / "a.mp4")[0]) == 34


def test_frames_are_in_the_file_while_it_grows(tmp_path):
    with open_writer(tmp_path / "a.mp4", 16, 64, 48) as writer:
        writer.write(torch.rand(33, 48, 64, 3))
        assert len(decoded(tmp_path / "a.mp4")[0]) == 32


def test_a_file_that_was_cut_off_plays_up_to_there(tmp_path):
    clip = torch.rand(51, 48, 64, 3)
    with open_writer(tmp_path / "a.mp4", 16, 64, 48) as writer:
        for part in clip.split(17):
            writer.write(part)
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(data[: len(data) * 9 // 10])
    count = 0
    with av.open(str(tmp_path / "b.mp4")) as container, suppress(av.error.InvalidDataError):
        for _ in container.decode(video=0):
            count += 1
    assert count >= 34


def test_a_missing_folder_is_a_sentence(tmp_path):
    with (
        pytest.raises(ValueError, match=r"cannot write the video a\.mp4: No such file"),
        open_writer(tmp_path / "no" / "a.mp4", 16, 64, 48) as writer,
    ):
        writer.write(clip_of(1))


def test_a_rate_that_aac_lacks_is_a_sentence(tmp_path):
    with (
        pytest.raises(ValueError, match="7 samples a second, expected 8000"),
        open_writer(tmp_path / "a.mp4", 16, 64, 48, torch.zeros(1, 9), 7),
    ):
        pass
    assert not (tmp_path / "a.mp4").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_sound_that_is_not_finite_is_refused_before_a_frame_is_made(tmp_path, value):
    with (
        pytest.raises(ValueError, match="the sound holds values that are not finite"),
        open_writer(tmp_path / "a.mp4", 16, 64, 48, torch.full((2, 9), value)),
    ):
        pass
    assert not (tmp_path / "a.mp4").exists()


def test_sound_that_is_too_loud_is_cut(tmp_path):
    with open_writer(tmp_path / "a.mp4", 16, 64, 48, torch.full((2, 4000), 1e30)) as writer:
        writer.write(clip_of(1))
    assert (tmp_path / "a.mp4").stat().st_size


@pytest.mark.parametrize("fps", [0, 1e-9, float("nan")])
def test_a_rate_of_no_video_is_refused(tmp_path, fps):
    with pytest.raises(ValueError, match="fps is"), open_writer(tmp_path / "a.mp4", fps, 64, 48):
        pass
