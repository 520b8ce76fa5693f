"""Hostile and damaged files are refused with ValueError; nothing of them is ever run."""

import os
import pickle
import struct
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.core.checkpoints.helpers import TINY, prefixed, weights_of, write_shards
from vdot_core.checkpoints import convert, inspect, load_network, read_weights, save_weights
from vdot_core.checkpoints.__main__ import main


class Payload:
    """An attacker's pickle: a shell command that unpickling would run."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


def zip_file(content, path):
    torch.save(content, path)


def legacy_file(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def plain_pickle(content, path):
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("write", [zip_file, legacy_file, plain_pickle])
@pytest.mark.parametrize("place", ["generator", "beside", "top"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_malicious_pickle_runs_nothing(tmp_path, monkeypatch, write, place, suffix):
    marker, path = tmp_path / "owned", tmp_path / f"vdot_14b{suffix}"
    evil, weights = Payload(marker), prefixed({"head.head.bias": torch.ones(64)}, "model.")
    content = {
        "generator": {"generator": {**weights, "model.x": evil}},
        "beside": {"generator": weights, "optimizer": evil},
        "top": evil,
    }[place]
    write(content, path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # must not open the door
    for attempt in (
        inspect,
        read_weights,
        load_network,
        lambda file: convert(file, tmp_path / "o.safetensors"),
    ):
        with pytest.raises(ValueError) as error:
            attempt(path)
        assert path.name in str(error.value) and "weights_only" not in str(error.value)
        if write is not plain_pickle:
            assert "asks for posix.system; nothing of it was run" in str(error.value)
    assert main(["inspect", str(path)]) == 1
    assert not marker.exists() and not (tmp_path / "o.safetensors").exists()
    if write is plain_pickle:  # the payload is a real one
        pickle.loads(path.read_bytes())
        assert marker.exists()


def written(folder, kind):
    path = folder / {"ours": "w.safetensors", "zip": "w.pt", "legacy": "w.pth"}[kind]
    if kind == "ours":
        save_weights(path, TINY, weights_of())
    else:
        content = {"generator": prefixed(weights_of(), "model."), "step": 3}
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    return path


@pytest.mark.parametrize("kind", ["ours", "zip", "legacy"])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.2, 0.5, 0.9, -1])
def test_truncated_files_are_refused_by_name(tmp_path, kind, part):
    path = written(tmp_path, kind)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part) if part >= 0 else -1])
    with pytest.raises(ValueError, match=path.name.replace(".", r"\.")):
        load_network(path, config=TINY)


def test_truncated_shard_is_refused_by_name(tmp_path):
    folder = write_shards(tmp_path, weights_of())
    shard = folder / "diffusion_pytorch_model-00003-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"00003-of-00003\.safetensors is truncated.*download it again"):
        inspect(folder)


@pytest.mark.parametrize("kind", ["ours", "zip", "legacy"])
def test_extended_files_are_refused(tmp_path, kind):
    path = written(tmp_path, kind)
    path.write_bytes(path.read_bytes() + b"\0" * 9)
    if kind == "ours":
        with pytest.raises(ValueError, match=r"truncated, corrupt or not safe.*download it again"):
            load_network(path)


def shorten_record(path, target):
    """The same archive, intact as a zip, but for one tensor that has fewer bytes than its pickle says."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as lying:
        for name in source.namelist():
            data = source.read(name)
            lying.writestr(name, data[:-2] if name.endswith("/data/5") else data)


def test_packed_archive_and_lying_archive_are_refused(tmp_path):
    """A compressed .pt, and one whose pickle claims more bytes than its record has."""
    path = written(tmp_path, "zip")
    with (
        zipfile.ZipFile(path) as source,
        zipfile.ZipFile(tmp_path / "z.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in source.namelist():
            packed.writestr(name, source.read(name))
    with pytest.raises(ValueError, match="compressed"):
        inspect(tmp_path / "z.pt")
    shorten_record(path, tmp_path / "s.pt")
    with pytest.raises(ValueError, match=r"s\.pt"):
        read_weights(tmp_path / "s.pt", config=TINY)


@pytest.mark.parametrize("added", [1, 8, 64])
def test_shifted_record_is_refused(tmp_path, added):
    """A damaged local header would move a tensor's bytes by a few, with nothing else to show for it."""
    path = written(tmp_path, "zip")
    damaged = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        record = next(record for record in archive.infolist() if record.filename.endswith("/data/5"))
    (extra,) = struct.unpack_from("<H", damaged, record.header_offset + 28)
    struct.pack_into("<H", damaged, record.header_offset + 28, extra + added)
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"record w/data/5 does not end where the directory says"):
        read_weights(path, config=TINY)


def test_renamed_tensors_inside_a_pickle_are_refused(tmp_path):
    """Two blocks exchanged would load strictly; the archive's checksum tells."""
    path = written(tmp_path, "zip")
    content = path.read_bytes().replace(b".blocks.1.", b".blocks.X.").replace(b".blocks.2.", b".blocks.1.")
    path.write_bytes(content.replace(b".blocks.X.", b".blocks.2."))
    with pytest.raises(ValueError, match="Bad CRC-32"):
        read_weights(path, config=TINY)


def test_changed_digit_of_the_config_is_refused(tmp_path):
    """Twice as many heads fit the same shapes, and make another network."""
    path = written(tmp_path, "ours")
    content = path.read_bytes().replace(b'num_heads\\": 2', b'num_heads\\": 4')
    assert content != path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"was changed after writing .*; download it again"):
        load_network(path)


def test_expanded_tensor_is_refused(tmp_path):
    """A stride of zero would claim any amount of memory for a few bytes of file."""
    weights = weights_of()
    weights["head.head.weight"] = torch.ones(1, 1).expand(64, 24)
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"tensor \[64, 24\] lies over 1 values, fewer than its shape"):
        inspect(tmp_path / "w.pt", config=TINY)


ENTRY = '"%s":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}'
HEADERS = {
    "overlap": "{" + ENTRY % "a" + "," + ENTRY % "b" + "}",
    "gap": '{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
    "negative": '{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
    "huge": '{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}',
    "twice": "{" + ENTRY % "a" + "," + ENTRY % "a" + "}",
    "float": '{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}',
    "dtype": '{"a":{"dtype":"F4","shape":[8],"data_offsets":[0,4]}}',
    "list": '{"a":[]}',
    "array": "[]",
    "deep": '{"a":' * 20_000,
    "metadata": '{"__metadata__":{"a":1}}',
    "digits": '{"a":{"dtype":"F32","shape":[' + "9" * 5000 + '],"data_offsets":[0,4]}}',
}


@pytest.mark.parametrize("kind", HEADERS)
def test_false_headers_are_refused(tmp_path, kind):
    raw = HEADERS[kind].encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + b"\0\0\0\0")
    with pytest.raises(ValueError, match=r"w\.safetensors"):
        inspect(tmp_path / "w.safetensors")


def data_places(path):
    """Offsets of all bytes of the file that are a weight's value."""
    if path.suffix == ".safetensors":
        start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
        records = {start: path.stat().st_size - start}
    else:
        with zipfile.ZipFile(path) as archive:
            places = [(record, record.header_offset + 30) for record in archive.infolist()]
        raw = path.read_bytes()
        records = {
            at + sum(struct.unpack_from("<HH", raw, at - 4)): record.file_size
            for record, at in places
            if "/data/" in record.filename
        }
    return {at for begin, size in records.items() for at in range(begin, begin + size)}


@pytest.fixture(scope="module", params=["ours", "zip"])
def original(request, tmp_path_factory):
    path = written(tmp_path_factory.mktemp("fuzz"), request.param)
    read = read_weights(path, config=None if request.param == "ours" else TINY)
    values = {name: value.clone() for name, value in read.state_dict.items()}
    return path, path.read_bytes(), values, data_places(path)


CORRUPTIONS = st.tuples(
    st.sampled_from(["flip", "flip", "flip", "byte", "erase", "delete", "insert", "cut", "swap"]),
    st.sampled_from(["start", "anywhere", "end"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 255),
    st.integers(1, 64),
)


def corrupt(content, kind, where, position, value, length):
    """One damage, mostly in the places that describe the file: its first and last 8 KiB."""
    span = {"start": (0, 8192), "anywhere": (0, len(content)), "end": (len(content) - 8192, len(content))}[
        where
    ]
    at = span[0] + int(position * (span[1] - span[0]))
    damaged = bytearray(content)
    if kind == "flip":
        damaged[at] ^= 1 << value % 8
    elif kind == "byte":
        damaged[at] = value
    elif kind == "erase":
        damaged[at : at + length] = bytes(len(damaged[at : at + length]))
    elif kind == "delete":
        del damaged[at : at + length]
    elif kind == "insert":
        damaged[at:at] = bytes([value]) * length
    elif kind == "cut":
        del damaged[at:]
    else:
        other = at // 2
        damaged[at], damaged[other] = damaged[other], damaged[at]
    return bytes(damaged)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(CORRUPTIONS)
def test_random_corruptions(original, corruption):
    """Refused with ValueError, or loaded identically but for weight bytes that were changed themselves."""
    path, content, values, places = original
    damaged = corrupt(content, *corruption)
    target = path.with_name(f"damaged{path.suffix}")
    target.write_bytes(damaged)
    try:
        read = read_weights(target, config=None if path.suffix == ".safetensors" else TINY)
    except ValueError as error:
        assert target.name in str(error)
        return
    assert read.config == TINY and read.state_dict.keys() == values.keys()
    differing = 0
    for name, value in values.items():
        assert read.state_dict[name].dtype == value.dtype and read.state_dict[name].shape == value.shape
        pair = (read.state_dict[name].contiguous().view(torch.uint8), value.view(torch.uint8))
        differing += int((pair[0] != pair[1]).sum())
    changed = {at for at, (old, new) in enumerate(zip(content, damaged, strict=False)) if old != new}
    assert differing <= len(changed & places)


def test_fp8_file_of_another_program(tmp_path):
    """A file that safetensors itself wrote, with an odd header length, maps at odd addresses."""
    weights = weights_of()
    weights["blocks.0.norm3.bias"] = weights["blocks.0.norm3.bias"].to(torch.float8_e4m3fn)
    save_file(weights, tmp_path / "w.safetensors")
    raw = (tmp_path / "w.safetensors").read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = raw[8 : 8 + size].rstrip() + b" "
    header += b" " * (1 - len(header) % 2)
    (tmp_path / "odd.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + raw[8 + size :])
    read = read_weights(tmp_path / "odd.safetensors", config=TINY).state_dict
    assert all(torch.equal(read[name].float(), weights[name].float()) for name in weights)
