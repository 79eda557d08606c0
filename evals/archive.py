"""Zip and tar archives read in place: an index of their members, and one member at a time.

A member is named by a path that leads through its archive, `root/videos.zip/videos/a.mp4`; `local`
turns that path into a file. Parts of a split tar (`x.tar.part.aa`, `.ab`, ...) are read as one.
Refused: members that would leave the folder, links, devices, names that occur twice, encryption,
and zip bombs.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

from evals.errors import BadInput, EnvironmentFault, Undecodable

#: Unpacked members are kept up to this many bytes (chosen); the oldest go first.
BUDGET = 20 * 2**30
#: What an archive may claim (chosen): files, bytes in all, and how far a large member may expand.
MOST_FILES, MOST_BYTES, MOST_RATIO, SMALL = 2_000_000, 20 * 2**40, 200, 2**20
_PART = re.compile(r"(?P<whole>.+\.tar)\.part[._]?(?P<part>[a-z]{2}|\d+)")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Member:
    """One file inside an archive: its name, unpacked size in bytes, CRC-32 (zip only), offset in
    the archive (tar only).
    """

    name: str
    size: int
    crc: int | None = None
    offset: int | None = None


def kind(path: Path) -> Literal["zip", "tar"] | None:
    """What a file's name says it is; of a split tar only the first part stands for the whole."""
    if path.suffix == ".zip":
        return "zip"
    if path.suffix == ".tar" or _PART.fullmatch(path.name):
        return "tar"
    return None


def members(path: Path) -> Mapping[str, Member]:
    """Name -> member of every file in the archive, directories left out.

    Raises BadInput for an archive that is damaged or unsafe; the message names archive and member.
    """
    stat = path.stat()
    return _members(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _members(path: Path, size: int, changed: int) -> Mapping[str, Member]:
    found: dict[str, Member] = {}
    total = 0
    for member in _zip_members(path) if kind(path) == "zip" else _tar_members(path):
        _check_name(member.name, path)
        if member.name in found:
            raise BadInput(f"{path} holds {member.name!r} twice; download it again")
        found[member.name] = member
        total += member.size
        if len(found) > MOST_FILES or total > MOST_BYTES:
            raise BadInput(f"{path} claims more than {MOST_FILES:,} files or {MOST_BYTES:,} bytes")
    return found


def _zip_members(path: Path) -> Iterator[Member]:
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.flag_bits & 1:
                    raise BadInput(f"{path}: {info.filename!r} is encrypted")
                if (info.external_attr >> 16) & 0o170000 == 0o120000:
                    raise BadInput(f"{path}: {info.filename!r} is a link; unpack it by hand")
                if info.file_size > max(SMALL, MOST_RATIO * info.compress_size):
                    raise BadInput(
                        f"{path}: {info.filename!r} would expand {MOST_RATIO} times: a bomb"
                    )
                if not info.is_dir():
                    yield Member(info.orig_filename, info.file_size, crc=info.CRC)
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise BadInput(f"{path} is cut short or no zip ({error}); download it again") from error


def _tar_members(path: Path) -> Iterator[Member]:
    try:
        with _bytes(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for info in archive:
                if not (info.isdir() or info.isreg()):
                    raise BadInput(f"{path}: {info.name!r} is a link or a device")
                if info.offset_data + info.size > _size(path):
                    raise BadInput(f"{path} is cut short inside {info.name!r}; download it again")
                if info.isreg():
                    yield Member(info.name, info.size, offset=info.offset_data)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise BadInput(f"{path} is cut short or no tar ({error}); download it again") from error


def _check_name(name: str, archive: Path) -> None:
    """A relative posix path without `..`, drive, backslash or control character."""
    pure = PurePosixPath(name)
    odd = "\\" in name or ":" in name.split("/")[0] or any(ord(c) < 32 for c in name)
    if not name or odd or pure.is_absolute() or ".." in pure.parts:
        raise BadInput(f"{archive}: member {name!r} would leave the folder it is unpacked to")


# --- a tar in parts ----------------------------------------------------------------------------


def parts(path: Path) -> list[Path]:
    """The files that make up an archive: itself, or every part of a split tar, in order."""
    match = _PART.fullmatch(path.name)
    if match is None:
        return [path]
    names = (p for p in path.parent.iterdir() if (m := _PART.fullmatch(p.name))
             and m["whole"] == match["whole"])  # fmt: skip
    return sorted(names, key=lambda p: p.name)


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in parts(path))


def _bytes(path: Path) -> IO[bytes]:
    files = parts(path)
    return path.open("rb") if len(files) == 1 else io.BufferedReader(_Chain(files))


class _Chain(io.RawIOBase):
    """Several files read as one."""

    def __init__(self, files: list[Path]):
        self.files = files
        self.starts = [0]
        for file in files:
            self.starts.append(self.starts[-1] + file.stat().st_size)
        self.place = 0
        self._open: tuple[int, IO[bytes]] | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self.place = offset + (0, self.place, self.starts[-1])[whence]
        return self.place

    def readinto(self, buffer: Any) -> int:
        if self.place >= self.starts[-1]:
            return 0
        number = bisect_right(self.starts, self.place) - 1
        if self._open is None or self._open[0] != number:
            self._shut()
            self._open = (number, self.files[number].open("rb"))
        file = self._open[1]
        file.seek(self.place - self.starts[number])
        data = file.read(min(len(buffer), self.starts[number + 1] - self.place))
        buffer[: len(data)] = data
        self.place += len(data)
        return len(data)

    def _shut(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def close(self) -> None:
        self._shut()
        super().close()


# --- one member --------------------------------------------------------------------------------


def split(path: Path) -> tuple[Path, str] | None:
    """`(archive, member name)` of a path that leads through an archive; None for any other."""
    for parent in path.parents:
        if kind(parent) and parent.is_file():
            return parent, path.relative_to(parent).as_posix()
    return None


def listing(folder: Path) -> list[Path]:
    """The files of a folder, on disk or in an archive, by name; none where there is no folder."""
    inside = split(folder)
    if inside is None:
        return sorted(p for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []
    archive, name = inside
    return sorted(archive / m for m in members(archive) if m.rpartition("/")[0] == name)


def local(path: Path, cache: Path | None = None) -> Path:
    """A file with the content of `path`: itself, or an unpacked copy of that one archive member.

    cache: by default `$REELPROOF_CACHE/members`, kept under BUDGET bytes. Raises Undecodable when
    the archive has no such member or its bytes are damaged.
    """
    inside = split(path)
    if inside is None:
        return path
    archive, name = inside
    member = members(archive).get(name)
    if member is None:
        raise Undecodable(f"{archive} holds no {name}")
    folder = cache or _default_cache()
    stat = archive.stat()
    said = f"{archive.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{name}"
    copy = folder / hashlib.sha256(said.encode()).hexdigest()[:24] / PurePosixPath(name).name
    if copy.exists():
        os.utime(copy.parent)  # used last
        return copy
    _unpack(archive, member, copy)
    _keep_within(folder, BUDGET, copy.parent)
    return copy


def read(path: Path) -> bytes:
    """The bytes of a file or an archive member."""
    if split(path) is None:
        return path.read_bytes()
    with tempfile.TemporaryDirectory(prefix="reelproof-") as folder:
        return local(path, Path(folder)).read_bytes()


def _default_cache() -> Path:
    home = Path.home() / ".cache" / "reelproof"
    return Path(os.environ.get("REELPROOF_CACHE", home)) / "members"


def _unpack(archive: Path, member: Member, target: Path) -> None:
    """Write one member by way of a temporary name, its size and CRC checked."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".", delete=False) as draft:
        try:
            size, crc = _copy(archive, member, draft)
            draft.close()
            if size != member.size or member.crc not in (None, crc):
                raise Undecodable(f"{archive}: {member.name} is damaged; download it again")
            os.replace(draft.name, target)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise Undecodable(f"{archive}: {member.name} is damaged ({error})") from error
        except OSError as error:
            raise EnvironmentFault(f"{member.name} cannot be unpacked: {error.strerror}") from error
        finally:
            Path(draft.name).unlink(missing_ok=True)


def _copy(archive: Path, member: Member, target: IO[bytes]) -> tuple[int, int]:
    """(bytes, CRC-32) copied, never more than the index promised."""
    size = crc = 0
    with _member_bytes(archive, member) as source:
        while size < member.size and (block := source.read(min(_BLOCK, member.size - size))):
            size, crc = size + len(block), zlib.crc32(block, crc)
            target.write(block)
    return size, crc


@contextmanager
def _member_bytes(archive: Path, member: Member) -> Iterator[IO[bytes]]:
    if kind(archive) == "zip":
        with zipfile.ZipFile(archive) as whole, whole.open(member.name) as file:
            yield file
    else:
        assert member.offset is not None
        with _bytes(archive) as file:
            file.seek(member.offset)
            yield file


def _keep_within(folder: Path, budget: int, keep: Path) -> None:
    """Delete the copies used longest ago until the rest fits."""
    copies = [(e.stat().st_mtime_ns, Path(e.path)) for e in os.scandir(folder) if e.is_dir()]
    sizes = {path: _content(path) for _, path in copies}
    total = sum(sizes.values())
    for _, path in sorted(copies):
        if total > budget and path != keep:
            total -= sizes[path]
            shutil.rmtree(path, ignore_errors=True)


def _content(folder: Path) -> int:
    try:
        return sum(f.stat().st_size for f in folder.iterdir())
    except FileNotFoundError:  # another process was faster
        return 0
