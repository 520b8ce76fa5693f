"""Unpacking takes what was asked for and nothing that would leave its folder."""

import io
import tarfile

import pytest

from devtools.errors import DevError
from devtools.unpack import source_digest, unpack_folder


def write_tar(path, members):
    """A .tar.gz of (name, content); content is bytes, None for a folder, or a TarInfo to take as it is."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
            data = content if isinstance(content, bytes) else b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def link(name, target, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return name, info


GOOD = [
    ("top/vendor/App", None),
    ("top/vendor/App/main.py", b"1"),
    ("top/vendor/App/a/b.py", b"2"),
    ("top/x", b"3"),
]


def test_only_the_wanted_folder_is_written(tmp_path):
    archive = write_tar(tmp_path / "a.tar.gz", GOOD)
    assert unpack_folder(archive, "vendor/App", tmp_path / "out") == 2
    files = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert files == {"main.py", "a/b.py"}
    assert (tmp_path / "out/a/b.py").read_bytes() == b"2"


def test_an_empty_folder_name_takes_all(tmp_path):
    assert unpack_folder(write_tar(tmp_path / "a.tar.gz", GOOD), "", tmp_path / "out") == 3
    assert (tmp_path / "out/x").exists()


@pytest.mark.parametrize(
    "bad",
    [
        ("top/vendor/App/../../../evil.py", b"x"),
        ("/top/vendor/App/evil.py", b"x"),
        ("../evil.py", b"x"),
        ("top/vendor/App/..\\..\\evil.py", b"x"),
        ("top/vendor/App/C:evil.py", b"x"),
        link("top/vendor/App/evil.py", "/etc/passwd", tarfile.SYMTYPE),
        link("top/vendor/App/evil.py", "../../../evil.py", tarfile.LNKTYPE),
        link("top/vendor/App/evil", "", tarfile.FIFOTYPE),
        link("top/vendor/App/evil", "", tarfile.CHRTYPE),
    ],
    ids=lambda member: (
        member[0] + ("" if isinstance(member[1], bytes) else f" type {member[1].type.decode()}")
    ),
)
def test_what_leaves_the_folder_is_refused(tmp_path, bad):
    archive = write_tar(tmp_path / "a.tar.gz", [*GOOD, bad])
    with pytest.raises(DevError, match="refused"):
        unpack_folder(archive, "vendor/App", tmp_path / "deep" / "er" / "out")
    assert not list(tmp_path.rglob("*evil*"))


def test_a_link_cannot_be_written_through(tmp_path):
    """A folder that is a link first, and a file below it second."""
    through = [
        link("top/vendor/App/dir", str(tmp_path), tarfile.SYMTYPE),
        ("top/vendor/App/dir/evil.py", b"x"),
    ]
    archive = write_tar(tmp_path / "a.tar.gz", [*GOOD, *through])
    with pytest.raises(DevError, match="refused"):
        unpack_folder(archive, "vendor/App", tmp_path / "out")
    assert not (tmp_path / "evil.py").exists()


def test_the_same_file_twice_is_refused(tmp_path):
    archive = write_tar(tmp_path / "a.tar.gz", [*GOOD, ("top/vendor/App/main.py", b"other")])
    with pytest.raises(DevError, match="damaged"):
        unpack_folder(archive, "vendor/App", tmp_path / "out")


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.95])
def test_a_truncated_archive_is_refused(tmp_path, keep):
    members = [*GOOD, ("top/vendor/App/big.bin", bytes(range(256)) * 4000)]
    archive = write_tar(tmp_path / "a.tar.gz", members)
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(DevError, match="damaged"):
        unpack_folder(archive, "vendor/App", tmp_path / "out")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DevError, match="vendor/Other"):
        unpack_folder(write_tar(tmp_path / "a.tar.gz", GOOD), "vendor/Other", tmp_path / "out")


def test_the_source_digest_sees_names_and_contents_of_python_files(tmp_path):
    unpack_folder(write_tar(tmp_path / "a.tar.gz", GOOD), "vendor/App", tmp_path / "out")
    first = source_digest(tmp_path / "out")
    for name in ("readme.md", ".github/x.py", "tests/x.py", "tests-unit/x.py"):
        (tmp_path / "out" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_text("not counted")
    assert source_digest(tmp_path / "out") == first
    (tmp_path / "out/main.py").rename(tmp_path / "out/main2.py")
    renamed = source_digest(tmp_path / "out")
    (tmp_path / "out/main2.py").write_text("changed")
    assert len({first, renamed, source_digest(tmp_path / "out")}) == 3
