"""Random damage to files, drawn from a `random.Random`: bytes, length fields, JSON, archives and pickles."""

import io
import json
import pickletools
import struct
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

LENGTHS = (0, 1, 7, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
TEXTS = ("", "x", "../x", "/dev/zero", "a\0b", "\x1b[31m\u202e", "x" * 10**5, "[" * 10**4)
VALUES: tuple[Callable[[Random], Any], ...] = (
    lambda rng: rng.choice(LENGTHS),
    lambda rng: -rng.choice(LENGTHS),
    lambda rng: 10 ** rng.choice((9, 19, 20, 400)),
    lambda rng: rng.choice((True, False, None, 1.5, 0.0, -1.0, 1e30)),
    lambda rng: rng.choice((float("inf"), float("nan"), float("-inf"))),
    lambda rng: rng.choice(
        ("", "x", "../x", "/dev/zero", "a\0b", "\x1b[31m\u202e", "x" * 10**5, "[" * 10**4)
    ),
    lambda rng: [rng.choice(LENGTHS) for _ in range(rng.choice((0, 1, 3, 5, 3000)))],
    lambda rng: {rng.choice(("a", "", "dtype", "shape")): rng.choice(LENGTHS)},
    lambda rng: nested(rng.choice((50, 500))),
)
GLOBALS = (
    b"os\nsystem", b"builtins\nbytearray", b"builtins\nset", b"torch\nTensor", b"torch\nFloatTensor",
    b"torch.storage\nUntypedStorage", b"torch\nSize", b"torch\ndevice", b"torch\nbfloat16",
    b"torch\nHalfStorage", b"torch\nDoubleStorage", b"collections\nOrderedDict", b"collections\nCounter",
    b"_codecs\nencode", b"torch._utils\n_rebuild_tensor_v2", b"torch._utils\n_rebuild_tensor_v3",
    b"torch._utils\n_rebuild_parameter", b"torch._utils\n_rebuild_sparse_tensor",
    b"torch._utils\n_rebuild_qtensor", b"torch._tensor\n_rebuild_from_type_v2",
    b"torch._utils\n_rebuild_meta_tensor_no_storage", b"torch.nn.parameter\nParameter",
)  # fmt: skip


def nested(depth: int) -> list:
    """A list in a list in a list .."""
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def damaged_bytes(rng: Random, content: bytes) -> bytes:
    """One damage to bytes, mostly near the start and the end, where formats keep what describes the rest."""
    size = len(content)
    place = rng.choice(((0, size), (0, 512), (0, 8192), (size - 512, size), (size - 8192, size)))
    at = min(max(rng.randrange(max(place[0], 0), max(place[1], 1)), 0), max(size - 1, 0))
    count = rng.choice((1, 2, 4, 8, 64, 512))
    damaged = bytearray(content)
    kind = rng.randrange(8)
    if kind == 0:
        del damaged[at:]
    elif kind == 1:
        for _ in range(rng.choice((1, 1, 3, 30))):
            if damaged:
                damaged[min(at + rng.randrange(64), size - 1)] ^= 1 << rng.randrange(8)
    elif kind == 2:
        del damaged[at : at + count]
    elif kind == 3:
        damaged[at:at] = rng.randbytes(count)
    elif kind == 4:
        length = rng.choice(LENGTHS)
        form = rng.choice(("<H", "<I", "<Q", ">I"))
        packed = struct.pack(form, length % 2 ** (8 * struct.calcsize(form)))
        damaged[at : at + len(packed)] = packed
    elif kind == 5:
        damaged[at : at + count] = bytes(len(damaged[at : at + count]))
    elif kind == 6:
        other = rng.randrange(max(size, 1))
        damaged[at : at + count] = damaged[other : other + count]
    else:
        damaged += content if rng.random() < 0.5 else rng.randbytes(count)
    return bytes(damaged)


def damaged_json(rng: Random, value: Any) -> str:
    """JSON text of a value in which a few entries are replaced, removed, renamed or repeated."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2, 5))):
        value = _damage(rng, value)
    text = json.dumps(value)
    if rng.random() < 0.1:
        text = text[: rng.randrange(len(text))]
    return text.replace('": ', '": ' + "[" * 10**5, 1) if rng.random() < 0.03 else text


def _damage(rng: Random, value: Any) -> Any:
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.15:
        return rng.choice(VALUES)(rng)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = rng.choice(keys)
    kind = rng.randrange(6)
    if kind == 0:
        del value[key]
    elif kind == 1 and isinstance(value, dict):
        value[rng.choice(("x", "", str(key) + "x", "__metadata__", "\ud800", "x" * 5000))] = value.pop(key)
    elif kind == 2:
        value[key] = value[rng.choice(keys)]
    else:
        value[key] = _damage(rng, value[key])
    return value


def damaged_safetensors(rng: Random, content: bytes) -> bytes:
    """A file with a false header of the right length."""
    size = int.from_bytes(content[:8], "little")
    header = damaged_json(rng, json.loads(content[8 : 8 + size])).encode("utf-8", "replace")
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def damaged_archive(rng: Random, content: bytes) -> bytes:
    """A stored zip archive, intact as one, with other records."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = [(name, archive.read(name)) for name in archive.namelist()]
    number, other = rng.randrange(len(records)), rng.randrange(len(records))
    name, data = records[number]
    pickles = [place for place, (name, _) in enumerate(records) if name.endswith("data.pkl")]
    kind = rng.randrange(7)
    if kind == 0:
        records[number], records[other] = (name, records[other][1]), (records[other][0], data)
    elif kind == 1:
        del records[number]
    elif kind == 2:
        suffix = rng.choice(("x", "../x", "code/x.py", "constants.pkl", "data.pkl", "a\\b", "DATA/0"))
        records.append((f"{name.split('/')[0]}/{suffix}", rng.randbytes(rng.choice((0, 9, 5000)))))
    elif kind == 3:
        records[number] = (name, damaged_bytes(rng, data))
    elif pickles:
        records[pickles[0]] = (records[pickles[0]][0], damaged_pickle(rng, records[pickles[0]][1]))
    out = io.BytesIO()
    with zipfile.ZipFile(
        out, "w", zipfile.ZIP_DEFLATED if rng.random() < 0.05 else zipfile.ZIP_STORED
    ) as archive:
        for name, data in records:
            archive.writestr(name, data)
    return out.getvalue()


def damaged_pickle(rng: Random, content: bytes) -> bytes:
    """A pickle in which complete instructions are removed, repeated, exchanged or rewritten."""
    try:
        starts = [place for _, _, place in pickletools.genops(content)]
    except ValueError:
        return damaged_bytes(rng, content)
    parts = [content[a:b] for a, b in zip(starts, [*starts[1:], len(content)], strict=True)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, other = rng.randrange(len(parts)), rng.randrange(len(parts))
        kind = rng.randrange(7)
        if kind == 0:
            del parts[at]
        elif kind == 1:
            parts.insert(at, parts[other] * rng.choice((1, 2, 1000)))
        elif kind == 2:
            parts[at], parts[other] = parts[other], parts[at]
        elif kind == 3:
            parts.insert(at, b"c" + rng.choice(GLOBALS) + b"\n" + rng.choice((b"", b")R", b")\x81")))
        elif kind == 4:
            parts.insert(at, b"".join(b"q\xc8h\xc8h\xc8\x86" for _ in range(rng.choice((1, 60)))))
        else:
            numbers = [place for place, part in enumerate(parts) if part[:1] in b"KMJ"] or [at]
            length = rng.choice(LENGTHS)
            parts[rng.choice(numbers)] = b"\x8a\x09" + length.to_bytes(9, "little")
        if not parts:
            return b""
    return b"".join(parts)
