"""The picture of a unit shows its frames, hatches what is made, and has a command line."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from vdot_core.vcu import compose, control, extend, inpaint, preview, reference, text
from vdot_core.vcu.__main__ import main


def colors(picture, top, bottom, left, right):
    return picture[top:bottom, left:right].reshape(-1, 3)


def test_kept_pixels_are_as_they_are_and_others_hatched():
    clip = torch.zeros(5, 64, 64, 3)
    clip[..., 2] = 1.0
    mask = torch.zeros(64, 64)
    mask[:, 32:] = 1
    picture = preview(inpaint(clip, mask), columns=1)
    assert picture.ndim == 3 and picture.shape[2] == 3 and 0 <= picture.min() and picture.max() <= 1
    top, left, side = 40, 20, 130
    source = colors(picture, top, top + 100, left, left + side // 2 - 12)
    assert torch.allclose(source, torch.tensor([0.0, 0.0, 1.0]), atol=0.01)
    hatched = colors(picture, top, top + 100, left + side // 2 + 12, left + side - 4)
    assert (hatched[:, 0] > hatched[:, 2] + 0.05).all() and hatched.std(0).max() > 0.02


def test_every_unit_has_a_picture():
    frames = torch.rand(13, 48, 80, 3)
    several = compose(
        control(frames, end=9), reference(torch.rand(3, 20, 10, 3), width=80, height=48, num_frames=13)
    )
    one = preview(control(frames, strength=(1, 0.5, 0, 0)), columns=4)
    assert preview(several, columns=4).shape[1] > one.shape[1] > preview(control(frames), columns=2).shape[1]
    assert preview(text(16, 16, 1)).shape[2] == 3
    assert preview(text(1280, 16, 5)).numel() and preview(text(16, 1280, 5)).numel()
    assert not torch.equal(preview(extend(frames[:1], num_frames=13)), preview(text(80, 48, 13)))
    with pytest.raises(ValueError, match="columns is 0"):
        preview(several, columns=0)
    with pytest.raises(ValueError, match="vcu is a Tensor"):
        preview(frames)


def test_the_title_tells_strength_and_part_of_the_steps(monkeypatch):
    titles = []
    monkeypatch.setattr("PIL.ImageDraw.ImageDraw.text", lambda self, xy, text, **_: titles.append(text))
    unit = control(torch.rand(5, 48, 80, 3), strength=(0.5, 0.5))
    preview(unit.replace(step_range=(0, 0.25)), columns=1)
    assert any(title.endswith("strength 0.5, 0 % to 25 % of the steps") for title in titles)


def test_command_line_composes_what_it_is_given(tmp_path, caplog):
    picture, mask, out = tmp_path / "a.png", tmp_path / "mask.png", tmp_path / "unit.png"
    Image.fromarray((np.random.default_rng(0).random((48, 64, 3)) * 255).astype(np.uint8)).save(picture)
    Image.fromarray(np.eye(48, 64, dtype=np.uint8) * 255).save(mask)
    files = ["--inpaint", str(picture), str(mask), "--mask_shape", "box", "--reference", str(picture)]
    assert main(["preview", *files, "--num_frames", "9", "--out", str(out)]) == 0
    assert Image.open(out).size[0] > 300
    first = ["--first", str(picture), "--gray", str(picture), "--num_frames", "9", "--out", str(out)]
    assert main(["preview", *first]) == 0 and main(["preview", "--outpaint", str(picture), "--aspect", "2:1",
                                                    "--out", str(out)]) == 0  # fmt: skip
    assert main(["preview", "--outpaint", str(picture), "--out", str(out)]) == 2
    assert "nothing to outpaint" in caplog.text
    assert main(["preview", "--first", str(tmp_path / "none.png"), "--out", str(out)]) == 2


def test_command_line_reads_deep_pictures(tmp_path, caplog):
    for name, pixels in (
        ("gray.png", np.full((16, 32), 32768, np.uint16)),
        ("float.tif", np.ones((16, 32), "f4")),
    ):
        Image.fromarray(pixels).save(tmp_path / name)
    out = tmp_path / "out.png"
    first = ["preview", "--num_frames", "5", "--out", str(out), "--first"]
    assert main([*first, str(tmp_path / "gray.png")]) == 0
    assert (128, 128, 128) in {color for _, color in Image.open(out).convert("RGB").getcolors(10**6)}
    assert main([*first, str(tmp_path / "float.tif")]) == 2
    assert "float.tif cannot be read: its pixels are of Pillow's mode F" in caplog.text


def test_runs_as_a_module(tmp_path):
    out = tmp_path / "unit.png"
    command = [sys.executable, "-m", "vdot_core.vcu", "preview", "--width", "64", "--height", "64"]
    subprocess.run([*command, "--num_frames", "5", "--out", str(out)], check=True, capture_output=True)
    assert Image.open(out).size[0] > 100


@pytest.mark.parametrize(
    "options",
    ["--mask_shape box", "--expand 0.3", "--grow_px 4", "--pad 16 0 0 0", "--aspect 1:1", "--feather_px 8",
     "--start 0.5", "--end 0.5"],
)  # fmt: skip
def test_an_option_without_its_input_is_refused(options, tmp_path, caplog):
    out = tmp_path / "unit.png"
    assert main(["preview", *options.split(), "--out", str(out)]) == 2
    assert f"{options.split()[0]} is given without --" in caplog.text and not out.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files by Linux's means")
def test_a_picture_that_cannot_be_written_leaves_the_one_before(tmp_path):
    out = tmp_path / "unit.png"
    command = [sys.executable, "-m", "vdot_core.vcu", "preview", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    before = out.read_bytes()
    limited = ["sh", "-c", 'ulimit -f 4; trap "" XFSZ; exec "$@"', "sh", *command, "--num_frames", "41"]
    run = subprocess.run(limited, capture_output=True, text=True)
    assert run.returncode == 2 and "cannot write" in run.stderr and "Traceback" not in run.stderr
    assert out.read_bytes() == before and list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("name", ["unit.evil", "unit", ""])
def test_a_name_of_no_picture_is_refused(name, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    assert main(["preview", "--out", name]) == 2
    assert "has no ending of a picture; give one such as unit.png" in caplog.text
