"""evals.archive: members are read where they lie, and nothing unsafe or damaged is taken."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals import archive
from evals.errors import BadInput, Undecodable

DATA = bytes(range(256)) * 40


def make_zip(path: Path, *names: str, how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", how) as out:
        for name in names:
            out.writestr(name, DATA)
    return path


def tar_bytes(*members: tarfile.TarInfo | str) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as out:
        for member in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(DATA) if info.isreg() else 0
            out.addfile(info, io.BytesIO(DATA))
    return whole.getvalue()


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_one_member_of_a_zip(tmp_path: Path, how: int) -> None:
    path = make_zip(tmp_path / "a.zip", "d/one.mp4", "d/two.mp4", how=how)
    assert set(archive.members(path)) == {"d/one.mp4", "d/two.mp4"}
    found = archive.local(path / "d" / "two.mp4", tmp_path / "cache")
    assert found.read_bytes() == DATA and found.name == "two.mp4"
    assert archive.local(path / "d" / "two.mp4", tmp_path / "cache") == found
    assert len(list((tmp_path / "cache").rglob("*.mp4"))) == 1  # not the other one
    assert archive.read(path / "d" / "one.mp4") == DATA


def test_one_member_of_a_tar_and_of_a_tar_in_parts(tmp_path: Path) -> None:
    whole = tar_bytes("v/one.mp4", "v/two.mp4", "v/three.mp4")
    (tmp_path / "a.tar").write_bytes(whole)
    for n, start in enumerate(range(0, len(whole), 7001)):
        (tmp_path / f"b.tar.part.a{chr(97 + n)}").write_bytes(whole[start : start + 7001])
    for path in (tmp_path / "a.tar", tmp_path / "b.tar.part.aa"):
        for name in archive.members(path):
            assert archive.local(path / name, tmp_path / "cache").read_bytes() == DATA


@given(cuts=st.lists(st.integers(0, 40_000), max_size=6))
def test_any_parts_read_like_the_whole(
    cuts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    whole = tar_bytes("one.mp4", "two.mp4")
    edges = [0, *sorted(min(c, len(whole)) for c in cuts), len(whole)]
    for n, (a, b) in enumerate(pairwise(edges)):
        (folder / f"x.tar.part.a{chr(97 + n)}").write_bytes(whole[a:b])
    assert archive.read(folder / "x.tar.part.aa" / "two.mp4") == DATA


def test_a_plain_file_is_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(DATA)
    assert archive.local(path) == path and archive.read(path) == DATA
    assert archive.local(tmp_path / "none.mp4") == tmp_path / "none.mp4"  # probing says so


@pytest.mark.parametrize(
    "name", ["../a.mp4", "/etc/a.mp4", "a/../../b.mp4", "C:/a.mp4", "a\\..\\b.mp4", "a\nb.mp4"]
)
def test_members_that_would_leave_the_folder(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as out:
        info = zipfile.ZipInfo("x")
        info.filename = name
        out.writestr(info, DATA)
    with pytest.raises(BadInput, match=r"a\.zip: member .* would leave the folder"):
        archive.members(path)
    if name not in ("C:/a.mp4", "a\nb.mp4"):
        (tmp_path / "a.tar").write_bytes(tar_bytes(name))
        with pytest.raises(BadInput, match=r"a\.tar: member .* would leave the folder"):
            archive.members(tmp_path / "a.tar")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("a.mp4")
    info.type, info.linkname = kind, "/etc/passwd"
    (tmp_path / "a.tar").write_bytes(tar_bytes(info))
    with pytest.raises(BadInput, match=r"a\.tar: 'a\.mp4' is a link or a device"):
        archive.members(tmp_path / "a.tar")


def test_links_in_a_zip(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("a.mp4")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.writestr(info, "/etc/passwd")
    with pytest.raises(BadInput, match=r"'a\.mp4' is a link"):
        archive.members(tmp_path / "a.zip")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_occur_twice(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", "one.mp4", "one.mp4")
    with pytest.raises(BadInput, match=r"holds 'one\.mp4' twice"):
        archive.members(path)


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_archives_cut_short(tmp_path: Path, keep: int) -> None:
    whole = make_zip(tmp_path / "whole.zip", "a.mp4").read_bytes()
    (tmp_path / "a.zip").write_bytes(whole[:keep])
    with pytest.raises(BadInput, match=r"a\.zip is cut short or no zip .*download it again"):
        archive.members(tmp_path / "a.zip")
    (tmp_path / "a.tar").write_bytes(tar_bytes("a.mp4")[: 512 + keep])
    with pytest.raises(BadInput, match=r"a\.tar is cut short"):
        archive.members(tmp_path / "a.tar")


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_is_undecodable_and_leaves_nothing(tmp_path: Path, how: int) -> None:
    path = make_zip(tmp_path / "a.zip", "a.mp4", how=how)
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(Undecodable, match=r"a\.zip: a\.mp4 is damaged"):
        archive.local(path / "a.mp4", tmp_path / "cache")
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def test_a_member_that_is_not_there(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", "a.mp4")
    with pytest.raises(Undecodable, match=r"a\.zip holds no b\.mp4"):
        archive.local(path / "b.mp4", tmp_path / "cache")


def test_a_changed_archive_is_read_again(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", "a.mp4")
    first = archive.local(path / "a.mp4", tmp_path / "cache")
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("a.mp4", b"new")
    os.utime(path, ns=(1, 1))
    second = archive.local(path / "a.mp4", tmp_path / "cache")
    assert second != first and second.read_bytes() == b"new"


def test_the_cache_keeps_within_its_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "BUDGET", 2 * len(DATA))
    path = make_zip(tmp_path / "a.zip", "1.mp4", "2.mp4", "3.mp4", "4.mp4")
    for n in (1, 2, 1, 3):
        found = archive.local(path / f"{n}.mp4", tmp_path / "cache")
        os.utime(found.parent, ns=(n, n))
    left = {p.name for p in (tmp_path / "cache").rglob("*.mp4")}
    assert left == {"2.mp4", "3.mp4"}


def test_a_bomb(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("a.mp4", bytes(50 * 2**20))
    with pytest.raises(BadInput, match=r"a\.zip: 'a\.mp4' would expand 200 times"):
        archive.members(tmp_path / "a.zip")


@pytest.mark.parametrize(("limit", "most"), [("MOST_FILES", 2), ("MOST_BYTES", 2 * len(DATA))])
def test_more_than_an_archive_may_claim(
    limit: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, limit, most)
    assert len(archive.members(make_zip(tmp_path / "a.zip", "1.mp4", "2.mp4"))) == 2
    with pytest.raises(BadInput, match="claims more than"):
        archive.members(make_zip(tmp_path / "b.zip", "1.mp4", "2.mp4", "3.mp4"))
