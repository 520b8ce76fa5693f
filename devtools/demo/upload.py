"""Uploads the user's files, cut and scaled to the workflow's length and size."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from devtools.demo.client import ComfyClient
from devtools.demo.graph import video_size
from devtools.demo.loaders import Loader, drop_unfit_masks, loaders, read_as_video
from devtools.demo.media import (
    Clip,
    cut_video,
    fitting_size,
    probe,
    probe_image,
    probe_video,
    require_depth,
    scaled_mask,
    still_video,
)
from devtools.demo.options import PEOPLE, DemoOptions
from devtools.errors import UsageError, counted
from devtools.paths import ROOT

EXAMPLES = ROOT / "assets" / "examples"
# Pixels of a real clip's frame: more than the bundled model was trained on, so that it stays recognizable.
DEMO_AREA = 128 * 128
DEMO_FRAMES = 17
MUCH_LARGER = 4  # times as many pixels


@dataclass(frozen=True)
class Given:
    """A file to send.

    Attributes:
        path: the file, or its converted copy.
        clip: its size and length.
        name: how messages call the file that was given; `flag` is the same, with the user's words.
    """

    path: Path
    clip: Clip
    name: str
    flag: str


def inspect_files(options: DemoOptions) -> dict[str, Clip]:
    """Read every file of the user once, before anything is started.

    Returns:
        What is in each, by its path.

    Raises:
        DevError: a file cannot be decoded, or is not what the task needs.
    """
    clips = {}
    for image in options.images:
        clips[image] = Clip(*probe_image(Path(image), "--image"), 1, is_picture=True)
    if options.mask and options.mask != PEOPLE:
        clips[options.mask] = probe(Path(options.mask), "--mask")
    if options.video:
        clips[options.video] = probe_video(Path(options.video), "--video")
        if options.uses_node("VDOTDepth"):
            require_depth(Path(options.video), "--video", options.num_frames or DEMO_FRAMES)
    return clips


def fitted(
    options: DemoOptions, files: dict[Loader, str], clips: dict[str, Clip], *, what: str = "video"
) -> DemoOptions:
    """Choose a size and length for the bundled model, from the user's clip, mask or picture.

    Args:
        options: what the user asked for; what is in it stays.
        files: the user's file of each loader.
        clips: from inspect_files().
        what: has that size: the video, or a region of it.
    """
    leading = [loader for loader in files if loader.role == "video"]
    leading += [loader for loader in files if loader.role == "mask" and loader.partner is None]
    leading += [loader for loader in files if loader.sets_size]
    if not leading:
        return options
    loader, clip = leading[0], clips[files[leading[0]]]
    size = options.size or fitting_size(clip, DEMO_AREA)
    free = loader.continued or clip.is_picture  # it does not limit how long the video is
    available = DEMO_FRAMES if free else (clip.num_frames - 1) // 4 * 4 + 1
    num_frames = options.num_frames or min(DEMO_FRAMES, available)
    name = {"video": "clip", "image": "picture"}.get(loader.role, loader.role)
    length = "" if clip.is_picture else f" and {counted(clip.num_frames, 'frame')}"
    print(
        f"[demo] the {name} has {clip.width}x{clip.height} pixels{length}, the {what} will have "
        f"{size[0]}x{size[1]} and {counted(num_frames, 'frame')} (--size and --frames change that)"
    )
    return replace(options, size=size, num_frames=num_frames)


async def send(
    client: ComfyClient,
    prompt: dict,
    object_info: dict,
    options: DemoOptions,
    files: dict[Loader, str],
    clips: dict[str, Clip],
) -> None:
    """Upload every loader's file, the user's or else the example that the workflow names.

    Args:
        client: the server.
        prompt: changed in place: it names the uploads; masks that no longer fit are removed.
        object_info: the server's node descriptions.
        options: with size and length as fitted() chose them.
        files: the user's file of each loader.
        clips: from inspect_files().

    Raises:
        UsageError: a mask cannot be laid over what it is for, or a file is missing.
    """
    entries = loaders(prompt, object_info)
    items = {loader: _given(loader, prompt, files, clips) for loader in entries}
    by_id = {loader.node_id: item for loader, item in items.items()}
    for loader in drop_unfit_masks(prompt, entries, files):
        mask = items.pop(loader)
        print(
            f"[demo] {by_id[loader.partner].name} is used without a mask: "
            f"the example's {mask.name} was not drawn for it"
        )
    defaults = [item.name for loader, item in items.items() if loader not in files]
    if files and defaults:
        print(f"[demo] other files are the workflow's examples: {', '.join(defaults)}")
    for line in _shrunk(files, clips, options.size or video_size(prompt, object_info)):
        print(line)
    with tempfile.TemporaryDirectory() as scratch:
        fitting = Fitting(prompt, object_info, options, Path(scratch))
        for loader, path in fitting.all_of(items):
            # A folder for each: two files may have the same name.
            name = f"node_{loader.node_id}/{path.name}"
            prompt[loader.node_id]["inputs"][loader.input_name] = await client.upload(path, name)


def _shrunk(files: dict[Loader, str], clips: dict[str, Clip], size: tuple[int, int] | None) -> Iterator[str]:
    """A line for each of the user's pictures that the small video hides the details of."""
    for loader, file in files.items():
        clip = clips[file]
        if size is None or loader.role != "image" or loader.sets_size:
            continue
        if clip.width * clip.height > MUCH_LARGER * size[0] * size[1]:
            yield (
                f"[demo] {Path(file).name} has {clip.width}x{clip.height} pixels, the bundled model sees it "
                f"at {size[0]}x{size[1]}: small details are lost (--size changes that)"
            )


def _given(loader: Loader, prompt: dict, files: dict[Loader, str], clips: dict[str, Clip]) -> Given:
    if loader in files:
        path = Path(files[loader])
        return Given(path, clips[files[loader]], path.name, f"--{loader.role} {path}")
    name = str(prompt[loader.node_id]["inputs"][loader.input_name])
    example = EXAMPLES / Path(name).name
    if not example.is_file():
        raise UsageError(f"the workflow reads {name}, which is not among the examples: give a {loader.role}")
    return Given(example, probe(example, example.name), example.name, example.name)


class Fitting:
    """Cuts clips to the frames that the workflow can use, and brings masks to the form of their clips.

    ComfyUI decodes all of a video, 25 MB for each frame of 1080p, however few of its frames are used.

    Args:
        prompt: changed in place where a video is given for a picture's loader.
        object_info: the server's node descriptions.
        options: with the video's length, or None where the workflow's own files decide it.
        scratch: a folder for what is written.
    """

    def __init__(self, prompt: dict, object_info: dict, options: DemoOptions, scratch: Path):
        self._prompt, self._object_info, self._options = prompt, object_info, options
        self._scratch = scratch

    def all_of(self, items: dict[Loader, Given]) -> list[tuple[Loader, Path]]:
        """The file of each loader; a mask's loader may have been replaced.

        Raises:
            UsageError: a mask is too short, or moves where a still one is needed.
        """
        ready = {loader.node_id: (loader, item) for loader, item in items.items()}
        for loader, item in items.items():
            if loader.role != "mask":
                ready[loader.node_id] = (loader, self._cut(loader, item))
        for loader, item in items.items():
            if loader.role == "mask":
                partner = ready[loader.partner][1] if loader.partner in ready else None
                ready[loader.node_id] = self._masked(loader, item, partner)
        return [(loader, item.path) for loader, item in ready.values()]

    def _cut(self, loader: Loader, item: Given) -> Given:
        available, length = item.clip.num_frames, self._options.num_frames
        if not loader.reads_video or length is None:
            return item
        if loader.continued and available >= length:
            # A third is given, as in the example; the rest of the video is what comes after it.
            count = (length - 1) // 12 * 4 + 1
            return self._part(loader, item, count, item.clip.size, start=available - count)
        return self._part(loader, item, min(available, length), item.clip.size)

    def _masked(self, loader: Loader, item: Given, partner: Given | None) -> tuple[Loader, Given]:
        """A mask as its clip or picture needs it, and the loader that reads it."""
        if item.clip.is_picture and not loader.reads_video:
            return loader, self._stretched(item, partner)
        if partner is not None and partner.clip.is_picture and not item.clip.is_picture:
            raise UsageError(
                f"{item.flag} is a video, and the {self._options.task} workflow has a mask for the picture "
                f"{partner.name} alone; give a picture"
            )
        size = partner.clip.size if partner else item.clip.size
        count = partner.clip.num_frames if partner else self._options.num_frames or item.clip.num_frames
        if item.clip.is_picture:
            return loader, self._held(loader, item, count, size)
        if not loader.reads_video:
            loader = read_as_video(self._prompt, self._object_info, loader)
        available = item.clip.num_frames
        if partner is not None and 1 < available < count:
            raise UsageError(
                f"{item.flag} has {available} frames, and {count} of {partner.name} are used; "
                f"give a mask of at least {count} frames, a picture for all of them, or --frames "
                f"{(available - 1) // 4 * 4 + 1}"
            )
        return loader, self._part(loader, item, min(available, count), size)

    def _stretched(self, item: Given, partner: Given | None) -> Given:
        if partner is None or item.clip.size == partner.clip.size:
            return item
        _say_stretched(item, partner.clip.size)
        path = scaled_mask(item.path, partner.clip.size, self._scratch)
        return replace(item, path=path, clip=replace(partner.clip, num_frames=1, is_picture=True))

    def _held(self, loader: Loader, item: Given, count: int, size: tuple[int, int]) -> Given:
        if item.clip.size != size:
            _say_stretched(item, size)
        print(f"[demo] the mask {item.name} stands still for all {count} frames")
        path = self._new_path(loader, item)
        still_video(item.path, path, count, size)
        return replace(item, path=path, clip=Clip(*size, count))

    def _part(
        self, loader: Loader, item: Given, count: int, size: tuple[int, int], *, start: int = 0
    ) -> Given:
        """Some frames of a video at a size; the file itself where that is all of it."""
        if (count, size) == (item.clip.num_frames, item.clip.size):
            return item
        if count < item.clip.num_frames:
            which = "last" if start else "first"
            why = ": the video continues from them" if start else ""
            print(
                f"[demo] only the {which} {count} of {item.name}'s {item.clip.num_frames} frames are "
                f"used{why}"
            )
        if size != item.clip.size:
            _say_stretched(item, size)
        path = self._new_path(loader, item)
        cut_video(item.path, path, count, start=start, size=size)
        return replace(item, path=path, clip=Clip(*size, count))

    def _new_path(self, loader: Loader, item: Given) -> Path:
        return self._scratch / f"{item.path.stem}_{loader.node_id}.mp4"


def _say_stretched(item: Given, size: tuple[int, int]) -> None:
    old = item.clip.size
    print(f"[demo] the mask {item.name} is stretched from {old[0]}x{old[1]} to {size[0]}x{size[1]}")
