"""The user's clips and masks reach the units of the shipped workflows, frame by frame; no model runs."""

import asyncio
import io
import os
import re
from contextlib import nullcontext
from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image

from devtools.demo.annotators import fit_pens, shows_skeletons, with_annotators
from devtools.demo.client import ComfyClient
from devtools.demo.convert import to_prompt
from devtools.demo.flags import parse
from devtools.demo.graph import apply, final_units, tap_prompt
from devtools.demo.links import unit_nodes
from devtools.demo.loaders import VIDEO_LOADERS, assign, loaders
from devtools.demo.media import probe_video
from devtools.demo.options import DemoOptions, read_workflow, tasks
from devtools.demo.upload import fitted, inspect_files, send
from devtools.errors import DevError, UsageError
from devtools.paths import ROOT

SIZE = (96, 64)
NUM_FRAMES = 41
SIDE = 24  # of the mask's square, in pixels of the clip


def gray(i):
    return 40 + 4 * i


def square(i, scale=1.0):
    """The moving mask [H, W] at frame i; also for a mask of another size."""
    mask = np.zeros([round(side * scale) for side in SIZE[::-1]], np.uint8)
    left, top, side = (round(pixels * scale) for pixels in (2 * i, 20, SIDE))
    mask[top : top + side, left : left + side] = 255
    return mask


def write(path, pictures):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.height, stream.width = pictures[0].shape
        stream.pix_fmt = "yuv444p"
        for pixels in pictures:
            frame = av.VideoFrame.from_ndarray(np.repeat(pixels[..., None], 3, -1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Paths of clips, masks and pictures by name; two of them have one file name."""
    folder = tmp_path_factory.mktemp("media")
    (folder / "masks").mkdir()
    shape = SIZE[::-1]
    Image.fromarray(square(3)).save(folder / "mask.png")
    Image.new("RGB", (40, 80), (200, 30, 30)).save(folder / "cat.png")
    return {
        "clip": write(folder / "clip.mp4", [np.full(shape, gray(i), np.uint8) for i in range(NUM_FRAMES)]),
        "mask": write(folder / "masks/clip.mp4", [square(i) for i in range(NUM_FRAMES)]),
        "small_mask": write(folder / "small.mp4", [square(i, 0.5) for i in range(NUM_FRAMES)]),
        "short_mask": write(folder / "short.mp4", [square(i) for i in range(11)]),
        "mask_picture": str(folder / "mask.png"),
        "cat": str(folder / "cat.png"),
    }


def converted(task, object_info):
    return to_prompt(read_workflow(f"vdot_{task}"), object_info)


def told(server, object_info, out, task, *arguments):
    """Frames and masks [F, H, W] in 0..255 of the workflow's unit, and the sizes of the uploads."""
    size = f"{SIZE[0]}x{SIZE[1]}"
    options = parse(["--task", task, "--size", size, "--out", str(out), *arguments])
    clips = inspect_files(options)

    async def ask():
        async with ComfyClient(server.url) as client:
            prompt = converted(task, object_info)
            files = assign(loaders(prompt, object_info), options)
            fitted_options = fitted(options, files, clips)
            apply(prompt, object_info, fitted_options)
            await send(client, prompt, object_info, fitted_options, files, clips)
            uploads = {}
            for node_id, node in prompt.items():
                if node["class_type"] in VIDEO_LOADERS:
                    folder, _, name = node["inputs"]["file"].rpartition("/")
                    data = await client.download({"filename": name, "subfolder": folder, "type": "input"})
                    (out / "upload.mp4").write_bytes(data)
                    uploads[node_id] = probe_video(out / "upload.mp4", "").num_frames, data
            indices = range(fitted_options.num_frames or 17)
            units = final_units(prompt, object_info)
            outputs = (await client.run(tap_prompt(prompt, units, list(indices)))).outputs["tap0"]
            pictures = {}
            for name in ("frames", "masks", "references"):
                files = [await client.download(item) for item in outputs.get(name) or []]
                images = [Image.open(io.BytesIO(data)).convert("L") for data in files]
                pictures[name] = np.stack([np.asarray(image) for image in images]) if images else None
            return pictures, uploads

    return asyncio.run(ask())


def test_every_shipped_workflow_knows_its_masks_and_what_they_are_drawn_on(object_info):
    """The example files' names say it independently."""
    num_masks = 0
    for task in tasks():
        prompt = converted(task, object_info)
        entries = loaders(prompt, object_info)
        names = {loader.node_id: prompt[loader.node_id]["inputs"][loader.input_name] for loader in entries}
        for loader in entries:
            name = names[loader.node_id]
            assert (loader.role == "mask") == ("mask" in name), (task, name)
            assert loader.reads_video == name.endswith(".mp4")
            assert loader.continued == (name == "start.mp4")
            if loader.role != "mask":
                assert loader.partner is None
                continue
            num_masks += 1
            stem, suffix = os.path.splitext(name)
            expected = stem.removesuffix("_mask") + suffix if stem.endswith("_mask") else "clip.mp4"
            assert names.get(loader.partner) == (None if task == "layout_track" else expected), (task, name)
    assert num_masks > 15


@pytest.mark.parametrize("task", ["inpaint", "tryon"])
@pytest.mark.parametrize("mask", ["mask", "small_mask"])
def test_a_moving_mask_moves_with_the_users_clip(server, object_info, media, tmp_path, task, mask, capsys):
    """For workflows that read a picture (inpaint) or a video (try-on) themselves."""
    pictures, uploads = told(
        server, object_info, tmp_path, task, "--video", media["clip"], "--mask", media[mask], "--frames", "9"
    )
    assert sorted(count for count, _ in uploads.values()) == [9, 9]
    slack = 5 if task == "tryon" else 1  # pixels: it grows and rounds the mask
    for i, (frame, mask_frame) in enumerate(zip(pictures["frames"], pictures["masks"], strict=True)):
        rows, columns = np.nonzero(mask_frame > 127)
        corners = np.array([columns.min(), columns.max() + 1, rows.min(), rows.max() + 1])
        assert np.abs(corners - [2 * i, 2 * i + SIDE, 20, 20 + SIDE]).max() <= slack, i
        assert abs(int(np.median(frame[mask_frame < 128])) - gray(i)) <= 2, i
    output = capsys.readouterr().out
    assert "only the first 9 of clip.mp4's 41 frames are used" in output
    assert ("is stretched from 48x32 to 96x64" in output) == (mask == "small_mask")


@pytest.mark.parametrize("task", ["tryon", "inpaint"])
def test_a_picture_masks_all_frames(server, object_info, media, tmp_path, task):
    arguments = ("--video", media["clip"], "--mask", media["mask_picture"])
    masks = told(server, object_info, tmp_path, task, *arguments)[0]["masks"]
    assert len(masks) == 17 and (masks == masks[0]).all()
    rows, columns = np.nonzero(masks[0])
    assert abs(columns.min() - 6) <= 5 and abs(rows.min() - 20) <= 5
    assert (masks[0] > 127).sum() >= SIDE * SIDE


def test_a_clip_that_is_short_enough_is_sent_untouched(server, object_info, media, tmp_path):
    _, uploads = told(server, object_info, tmp_path, "pose", "--video", media["clip"], "--frames", "41")
    with open(media["clip"], "rb") as file:
        assert [data for _, data in uploads.values()] == [file.read()]


def test_a_clip_and_a_mask_of_one_file_name_do_not_overwrite_each_other(server, object_info, media, tmp_path):
    arguments = ("--video", media["clip"], "--mask", media["mask"], "--frames", "41")
    _, uploads = told(server, object_info, tmp_path, "removal", *arguments)
    sent = []
    for name in ("clip", "mask"):
        with open(media[name], "rb") as file:
            sent.append(file.read())
    assert sorted(data for _, data in uploads.values()) == sorted(sent)


def test_a_continued_clip_gives_its_end_and_leaves_frames_to_make(
    server, object_info, media, tmp_path, capsys
):
    pictures, _ = told(server, object_info, tmp_path, "extend", "--video", media["clip"])
    indices = [i for i in range(17) if pictures["masks"][i].max() == 0]
    assert indices == list(range(5))
    for i in indices:
        assert abs(int(np.median(pictures["frames"][i])) - gray(NUM_FRAMES - 5 + i)) <= 2
    assert "only the last 5 of clip.mp4's 41 frames are used" in capsys.readouterr().out


def test_an_examples_mask_is_not_laid_over_the_users_picture(server, object_info, media, tmp_path, capsys):
    pictures, _ = told(
        server, object_info, tmp_path, "swap", "--video", media["clip"], "--mask", media["mask"],
        "--image", media["cat"],
    )  # fmt: skip
    reference = pictures["references"][0]
    red = np.abs(reference.astype(int) - 81) < 4  # the cat's gray
    rows, columns = np.nonzero(red)
    assert columns.max() - columns.min() + 1 == 32 and rows.max() - rows.min() + 1 == 64  # 40x80, whole
    assert "cat.png is used without a mask" in capsys.readouterr().out


def test_remaining_example_files_are_listed(server, object_info, media, tmp_path, capsys):
    arguments = ("--video", media["clip"], "--mask", media["mask"])
    told(server, object_info, tmp_path, "replace", *arguments)
    assert (
        "other files are the workflow's examples: pose.mp4, subject.png, subject_mask.png"
        in capsys.readouterr().out
    )


def test_a_mask_of_its_own_gives_the_video_its_length_and_shape(server, object_info, media, tmp_path):
    masks = told(server, object_info, tmp_path, "layout_track", "--mask", media["mask"])[0]["frames"]
    assert masks.shape == (17, *SIZE[::-1])
    assert [np.nonzero(frame < 128)[1].min() // 2 for frame in masks[2:]] == pytest.approx(
        range(2, 17), abs=1
    )


def write_blocks(path, pictures):
    """A compressed clip of 1280x720 of large blocks, one for each pixel [9, 16, 3]."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for pixels in pictures:
            blocks = np.ascontiguousarray(pixels.repeat(80, 0).repeat(80, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(blocks, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


def test_a_clip_in_colors_is_no_depth_before_the_server_starts(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 255, (3, 9, 16, 3), np.uint8)
    colors = write_blocks(tmp_path / "colors.mp4", pictures)
    heights = write_blocks(tmp_path / "gray.mp4", pictures[..., :1].repeat(3, -1))
    for task in ("depth", "reference_depth"):
        options = parse(["--task", task, "--video", colors, "--out", str(tmp_path)])
        with pytest.raises(UsageError, match=r"colors\.mp4: depth is in colors.*--task gray"):
            inspect_files(options)
        inspect_files(replace(options, video=heights))
        inspect_files(replace(options, task="gray"))


@pytest.mark.parametrize("task", tasks())
@pytest.mark.parametrize("flag", ["video", "images", "mask"])
def test_a_file_without_a_place_is_refused_with_the_flags(object_info, media, tmp_path, task, flag):
    """As the running server's descriptions of the nodes would have it; also a clip without its mask."""
    file = media["clip" if flag == "video" else "mask"]
    expected = None
    try:
        options = DemoOptions(task, **{flag: (file,) if flag == "images" else file})
        assign(loaders(converted(task, object_info), object_info), options)
    except UsageError as error:
        expected = re.escape(str(error))
    with pytest.raises(UsageError, match=expected) if expected else nullcontext():
        parse(["--task", task, f"--{flag.removesuffix('s')}", file, "--out", str(tmp_path)])


def test_a_large_picture_of_a_small_video_is_announced(server, object_info, media, tmp_path, capsys):
    big = tmp_path / "big.png"
    Image.new("RGB", (900, 600)).save(big)
    told(server, object_info, tmp_path, "reference", "--image", str(big))
    assert "big.png has 900x600 pixels, the bundled model sees it at 96x64: small" in capsys.readouterr().out
    told(server, object_info, tmp_path, "reference", "--image", media["cat"])
    assert "the bundled model sees it" not in capsys.readouterr().out


@pytest.mark.parametrize("task", ["firstframe", "lastframe", "firstlast", "keyframes", "move"])
@pytest.mark.parametrize("arguments", [(), ("--size", "96x64"), ("--frames", "9")])
def test_a_picture_that_sets_the_videos_size_is_fitted(object_info, tmp_path, capsys, task, arguments):
    fitted_to_pictures(object_info, tmp_path, task, arguments, [(1280, 720)])
    size, count = ("96x64" if "--size" in arguments else "144x80"), (9 if "--frames" in arguments else 17)
    expected = f"the picture has 1280x720 pixels, the video will have {size} and {count} frames"
    assert expected in capsys.readouterr().out


def test_a_fitted_picture_starts_the_video(server, object_info, media, tmp_path):
    """Its size is written into the prompt before it is sent; the example must not take its place."""
    frames = told(server, object_info, tmp_path, "firstframe", "--image", media["cat"])[0]["frames"]
    assert abs(int(np.median(frames[0])) - 81) < 4  # the cat's gray
    assert len(frames) == 17


def test_a_reference_does_not_set_the_size_beside_a_first_frame(object_info, tmp_path, capsys):
    fitted_to_pictures(object_info, tmp_path, "reference_firstframe", (), [(1024, 1024), (300, 900)])
    assert "the picture has 1024x1024 pixels" in capsys.readouterr().out
    fitted_to_pictures(object_info, tmp_path, "reference", (), [(1024, 1024)], fits=False)
    assert capsys.readouterr().out == ""


def fitted_to_pictures(object_info, folder, task, arguments, sizes, *, fits=True):
    """Check that every task node's size is that of the options, which is small."""
    for i, size in enumerate(sizes):
        Image.new("RGB", size, (200, 30, 30)).save(folder / f"{i}.png")
        arguments = (*arguments, "--image", str(folder / f"{i}.png"))
    options = parse(["--task", task, "--out", str(folder), *arguments])
    prompt = converted(task, object_info)
    options = fitted(options, assign(loaders(prompt, object_info), options), inspect_files(options))
    assert (options.size is not None) == fits
    if fits:
        assert options.size[0] * options.size[1] < 1.5 * 128 * 128
        apply(prompt, object_info, options)
        for node_id in unit_nodes(prompt, object_info):
            inputs = prompt[node_id]["inputs"]
            assert inputs.get("width", options.size[0]) == options.size[0]
            assert inputs.get("height", options.size[1]) == options.size[1]


@pytest.mark.parametrize(
    ("task", "arguments", "message"),
    [
        ("removal", {"video": "clip"}, r"--video: the removal workflow needs a mask.*give --mask"),
        ("inpaint", {"video": "clip"}, r"the inpaint workflow needs a mask.*give --mask"),
        (
            "removal",
            {"video": "clip", "mask": "short_mask"},
            r"short\.mp4 has 11 frames, and 17 of clip\.mp4 are used.*or --frames 9",
        ),
        ("reference", {"mask": "mask"}, r"clip\.mp4 is a video.*the picture subject\.png.*give a picture"),
        ("layout_track", {"video": "clip"}, r"reads 0 videos; it does read 1 mask$"),
        ("depth", {"mask": "mask"}, r"--mask was given 1 time, the depth workflow reads 0 masks"),
    ],
)
def test_a_mask_that_cannot_fit_is_refused(server, object_info, media, tmp_path, task, arguments, message):
    flags = [part for name, key in arguments.items() for part in (f"--{name}", media[key])]
    with pytest.raises(DevError, match=message):
        told(server, object_info, tmp_path, task, *flags)


EXAMPLES = ROOT / "assets" / "examples"


def test_skeletons_are_told_from_people():
    assert shows_skeletons(EXAMPLES / "pose.mp4") and shows_skeletons(EXAMPLES / "long_pose.mp4")
    for name in ("person", "clip", "long_clip", "start", "depth"):
        assert not shows_skeletons(EXAMPLES / f"{name}.mp4"), name


@pytest.mark.parametrize(
    ("task", "video", "finds"),
    [
        ("pose", "person", True),
        ("pose", "pose", False),
        ("pose_clip", "pose", False),
        ("face_pose", "person", True),
        ("pose_clip", None, True),
        ("pose", None, False),
        ("depth", "depth", False),
    ],
)
def test_poses_are_found_where_a_clip_shows_people(task, video, finds, monkeypatch):
    monkeypatch.setattr("devtools.demo.annotators._require", lambda name, flag: None)
    options = DemoOptions(task, video=video and str(EXAMPLES / f"{video}.mp4"))
    assert with_annotators(options).uses_node("VDOTPose") == finds


def test_missing_models_are_said_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("VDOT_CACHE", str(tmp_path))
    person = str(EXAMPLES / "person.mp4")
    command = r"`python vdot_core/annotators/fetch\.py`"
    with pytest.raises(UsageError, match=rf"^--video {re.escape(person)}: pose .*{command}"):
        with_annotators(DemoOptions("pose", video=person))
    with pytest.raises(UsageError, match=rf"^--mask people: matte .*{command}"):
        with_annotators(DemoOptions("inpaint", video=person, mask="people"))
    with pytest.raises(UsageError, match=rf"^--task pose_clip: pose .*{command}"):
        with_annotators(DemoOptions("pose_clip"))


def test_skeletons_are_as_thick_as_in_a_small_video():
    prompt = {"1": {"class_type": "VDOTPose", "inputs": {"frames": ["2", 0], "pen": 0.0}}}
    fit_pens(prompt, DemoOptions("pose", size=(128, 96)))
    assert prompt["1"]["inputs"]["pen"] == pytest.approx(256 / 96)
