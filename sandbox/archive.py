"""The table of contents of a pg_dump archive: custom (``PGDMP``), directory (``toc.dat``) or tar.

Read here, not by `pg_restore -l`, so that a file can be judged before any server or program is there, and to know how
many bytes each table takes. What is in the data is for `sandbox.archive_data`. The layout is that of ReadHead() and
ReadToc() of PostgreSQL, versions 1.12 (PostgreSQL 9.0) to 1.16 (PostgreSQL 17 and 18).
"""

from __future__ import annotations

import io
import re
import tarfile
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING

from merge.errors import BackupError
from merge.language import text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

MAGIC = b"PGDMP"
_FORMAT_AT = 10
OLDEST, NEWEST = (1, 12), (1, 16)

_CUSTOM, _TAR, _DIRECTORY = 1, 3, 5
_COMPRESSIONS = {0: "none", 1: "gzip", 2: "lz4", 3: "zstd"}
_SECTIONS = {1: "none", 2: "pre-data", 3: "data", 4: "post-data"}
_BLOCK_DATA, _BLOCK_BLOBS = 1, 3
_LONGEST_STRING = _LONGEST_TOC = 1 << 30
_MOST_ENTRIES = 10_000_000
_SUFFIXES = ("", ".gz", ".lz4", ".zst")
_PIECE = 1 << 18

LARGE_OBJECTS = frozenset({"BLOB", "BLOBS", "BLOB METADATA", "BLOB COMMENTS"})
"""What entries of large objects are called; BLOBS holds their content."""


@dataclass(frozen=True)
class Entry:
    """One entry of the table of contents.

    :param desc: kind of object, e.g. ``TABLE DATA``.
    :param section: ``pre-data``, ``data``, ``post-data`` or ``none``.
    :param definition: the SQL that makes it.
    :param copy: the COPY statement before its data, "" if its rows are INSERTs.
    :param has_data: True if it has data in the archive.
    :param file: name of its data file in a directory or tar archive.
    :param size: bytes of its data as they are in the archive.
    """

    dump_id: int
    tag: str
    desc: str
    section: str
    namespace: str
    owner: str
    definition: str
    copy: str
    has_data: bool
    offset: int | None = None
    file: str = ""
    size: int = 0

    @property
    def is_table_data(self) -> bool:
        """True for the rows of a table."""
        return self.desc == "TABLE DATA" and self.has_data

    @property
    def is_large_object(self) -> bool:
        """True for large objects, their content, and what is said about them."""
        return self.desc in LARGE_OBJECTS or (
            self.desc in ("ACL", "COMMENT", "SECURITY LABEL") and self.tag.startswith("LARGE OBJECT")
        )


@dataclass(frozen=True)
class Archive:
    """A whole archive whose data were found to be there; `created` is ISO text without a zone."""

    format: str
    version: tuple[int, int]
    compression: str
    dumped_from: str
    dumped_by: str
    database: str
    created: str
    encoding: str
    entries: tuple[Entry, ...]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    @property
    def tells_offsets(self) -> bool:
        """False for a custom file that was written to a pipe: it does not tell where in it the data are."""
        return self.format != "custom" or all(entry.offset is not None for entry in self if entry.has_data)


def read(path: Path) -> Archive:
    """Read the table of contents and check that all data it tells of are there, to the last byte; they are passed over.

    :param path: a custom or tar file, or a directory.
    :raises BackupError: truncated, of another form, or of a version that no known pg_restore reads.
    """
    if path.is_dir():
        toc = path / "toc.dat"
        with toc.open("rb") as file:
            archive = read_toc(Reader(file, toc.stat().st_size), "directory")
        return with_sizes(archive, {e.file: find_file(path, e.file).stat().st_size for e in archive if e.file})
    with path.open("rb") as file:
        reader = Reader(file, path.stat().st_size)
        custom = file.read(len(MAGIC)) == MAGIC
        file.seek(0)
        if not custom:
            return _read_tar(reader)
        return walk_blocks(reader, read_toc(reader, "custom"), lambda _: _skip_chunks(reader))


def is_custom(head: bytes) -> bool:
    """True if a file that begins with `head` (a pg_dump header) has its data behind the table of contents.

    False for a ``toc.dat``, which is the same in a directory and in a tar file.
    """
    return len(head) <= _FORMAT_AT or head[_FORMAT_AT] == _CUSTOM


class Reader:
    """Numbers and strings as pg_dump writes them, from a file of `end` bytes that is read in its own order.

    :raises BackupError: from every method, if the file ends before or holds something else.
    """

    def __init__(self, file: IO[bytes], end: int) -> None:
        self.file = file
        self.end = end
        self.position = 0
        self.int_size = 4
        self.offset_size = 8

    def read(self, count: int) -> bytes:
        """So many bytes."""
        got = self.file.read(count)
        if len(got) != count:
            raise truncated()
        self.position += count
        return got

    def byte(self) -> int:
        """One byte as a number."""
        return self.read(1)[0]

    def number(self) -> int:
        """A number with its sign."""
        raw = self.read(1 + self.int_size)
        if raw[0] > 1:
            raise corrupt(text(pt="sumário", en="table of contents"))
        value = int.from_bytes(raw[1:], "little")
        return -value if raw[0] else value

    def string(self) -> str | None:
        """A string; None is not the empty one."""
        length = self.number()
        if length < 0:
            return None
        if length > _LONGEST_STRING:
            raise corrupt(text(pt="sumário", en="table of contents"))
        if self.position + length > self.end:
            raise truncated()
        return self.read(length).decode("utf-8", errors="replace")

    def pieces(self, count: int) -> Iterator[bytes]:
        """So many bytes, a part at a time."""
        for start in range(0, count, _PIECE):
            yield self.read(min(_PIECE, count - start))

    def skip(self, count: int) -> None:
        """Pass over so many bytes."""
        if self.position + count > self.end:
            raise truncated()
        if self.file.seekable():
            self.position = self.file.seek(self.position + count)
        else:
            for _ in self.pieces(count):
                pass


def read_toc(reader: Reader, wanted: str) -> Archive:
    """Read the table of contents of a ``custom``, ``directory`` or ``tar`` archive."""
    if reader.read(len(MAGIC)) != MAGIC:
        raise corrupt("toc.dat")
    major, minor, _ = reader.read(3)
    version = (major, minor)
    if not OLDEST <= version <= NEWEST:
        raise BackupError(
            text(
                pt=f"O backup tem o formato {major}.{minor} do pg_dump; são lidos os formatos 1.12 a 1.16.",
                en=f"The backup has pg_dump's archive version {major}.{minor}; versions 1.12 to 1.16 can be read.",
            ),
            next_step=text(
                pt="Faça o backup de novo com o pg_dump da versão do próprio servidor PostgreSQL.",
                en="Take the backup again with the pg_dump of the PostgreSQL server's own version.",
            ),
        )
    reader.int_size, reader.offset_size = reader.read(2)
    formats = (_CUSTOM,) if wanted == "custom" else (_TAR, _DIRECTORY)
    if reader.int_size not in (4, 8) or reader.offset_size not in (4, 8) or reader.byte() not in formats:
        raise corrupt(text(pt="cabeçalho", en="header"))
    if version >= (1, 15):
        compression = _COMPRESSIONS.get(reader.byte(), "?")
    else:
        compression = "none" if reader.number() == 0 else "gzip"
    second, minute, hour, day, month, year, _ = (reader.number() for _ in range(7))
    database, dumped_from, dumped_by = (reader.string() or "" for _ in range(3))
    count = reader.number()
    if not 0 <= count <= _MOST_ENTRIES:
        raise corrupt(text(pt="sumário", en="table of contents"))
    entries = tuple(_read_entry(reader, version, wanted) for _ in range(count))
    if len({e.dump_id for e in entries}) != count:
        raise corrupt(text(pt="sumário", en="table of contents"))
    return Archive(
        format=wanted,
        version=version,
        compression=compression,
        dumped_from=dumped_from,
        dumped_by=dumped_by,
        database=database,
        created=f"{year + 1900:04}-{month + 1:02}-{day:02}T{hour:02}:{minute:02}:{second:02}",
        encoding=_encoding(entries),
        entries=entries,
    )


def _read_entry(reader: Reader, version: tuple[int, int], wanted: str) -> Entry:
    dump_id = reader.number()
    has_data = reader.number() != 0
    reader.string(), reader.string()  # object's table and OID
    tag, desc = reader.string() or "", reader.string() or ""
    section = reader.number()
    if dump_id <= 0 or section not in _SECTIONS:
        raise corrupt(text(pt="sumário", en="table of contents"))
    definition, _drop, copy, namespace, _tablespace = (reader.string() or "" for _ in range(5))
    if version >= (1, 14):
        reader.string()  # access method
    if version >= (1, 16):
        reader.number()  # kind of relation
    owner = reader.string() or ""
    reader.string()  # WITH OIDS
    while reader.string() is not None:
        pass  # dependencies
    offset, file = None, ""
    if wanted == "custom":
        state = reader.byte()
        place = int.from_bytes(reader.read(reader.offset_size), "little")
        offset = place if state == 2 else None
    else:
        file = reader.string() or ""
        if file and not re.fullmatch(r"[\w.]+", file):
            raise corrupt(text(pt="sumário", en="table of contents"))
    return Entry(
        dump_id, tag, desc, _SECTIONS[section], namespace, owner, definition, copy, has_data, offset, file
    )  # fmt: skip


def _encoding(entries: tuple[Entry, ...]) -> str:
    for entry in entries:
        if entry.desc == "ENCODING":
            found = re.search(r"client_encoding = '([^']*)'", entry.definition)
            return found[1] if found else ""
    return ""


# Data


def walk_blocks(reader: Reader, archive: Archive, take: Callable[[Entry], None]) -> Archive:
    """Go through the data of a custom archive, and return it with the sizes of its entries.

    :param reader: behind the table of contents.
    :param take: reads the `chunks` of one table, or of one large object, to their end.
    """
    entries = {entry.dump_id: entry for entry in archive}
    sizes: dict[int, int] = {}
    while (start := reader.position) != reader.end:
        kind, dump_id = reader.byte(), reader.number()
        if kind not in (_BLOCK_DATA, _BLOCK_BLOBS) or dump_id not in entries:
            raise corrupt(text(pt="dados", en="data"))
        if kind == _BLOCK_DATA:
            take(entries[dump_id])
        else:
            while reader.number() != 0:
                take(entries[dump_id])
        sizes[dump_id] = reader.position - start
    if any(e.has_data and e.dump_id not in sizes for e in archive):
        raise truncated()
    return replace(
        archive, entries=tuple(replace(e, size=sizes[e.dump_id]) if e.has_data else e for e in archive)
    )  # fmt: skip


def chunks(reader: Reader) -> Iterator[bytes]:
    """The data of one table or large object as they are in a custom archive; many of its chunks at once."""
    gathered: list[bytes] = []
    size = 0
    while (length := reader.number()) != 0:
        if length < 0:
            raise corrupt(text(pt="dados", en="data"))
        for piece in reader.pieces(length):
            gathered.append(piece)
            size += len(piece)
            if size >= _PIECE:
                yield b"".join(gathered)
                gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)


def _skip_chunks(reader: Reader) -> None:
    while (length := reader.number()) != 0:
        if length < 0:
            raise corrupt(text(pt="dados", en="data"))
        reader.skip(length)


def _read_tar(reader: Reader) -> Archive:
    toc = None
    sizes: dict[str, int] = {}
    for name, size in walk_tar(reader):
        sizes[name] = size
        if name == "toc.dat":
            toc = tar_toc(reader, size)
    return read_tar_toc(toc, sizes)


def walk_tar(reader: Reader) -> Iterator[tuple[str, int]]:
    """The members of a tar file, each with its bytes; what of them is not read is passed over."""
    while (block := reader.read(tarfile.BLOCKSIZE)).strip(b"\0"):
        try:
            member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            raise corrupt("tar") from None
        start = reader.position
        if member.size < 0:  # would lead back to where it was read before
            raise corrupt("tar")
        if start + member.size > reader.end:
            raise truncated()
        yield member.name, member.size
        reader.skip(start + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE - reader.position)
    reader.read(tarfile.BLOCKSIZE)  # there are two blocks of zeros


def tar_toc(reader: Reader, size: int) -> bytes:
    """The content of a tar file's ``toc.dat``, which is held in memory."""
    if size > _LONGEST_TOC:
        raise corrupt("toc.dat")
    return reader.read(size)


def read_tar_toc(toc: bytes | None, sizes: Mapping[str, int]) -> Archive:
    """The table of contents that a tar file has in ``toc.dat``, for members of these sizes."""
    if toc is None:
        raise corrupt("toc.dat")
    archive = read_toc(Reader(io.BytesIO(toc), len(toc)), "tar")
    found = dict(sizes)
    for entry in archive:
        if entry.desc == "BLOBS":  # names a file that is not there: its list has a name of its own
            listed = found.get(f"blobs_{entry.dump_id}.toc", found.get("blobs.toc"))
            if listed is not None:
                found[entry.file] = listed
    return with_sizes(archive, found)


def with_sizes(archive: Archive, sizes: Mapping[str, int]) -> Archive:
    """The archive with the sizes of its data files, all of which must be there."""
    missing = [e.file for e in archive if e.has_data and e.file not in sizes]
    if missing:
        raise truncated(missing)
    return replace(
        archive, entries=tuple(replace(e, size=sizes[e.file]) if e.has_data else e for e in archive)
    )  # fmt: skip


def find_file(folder: Path, name: str) -> Path:
    """A data file of a directory archive, however it is compressed."""
    for suffix in _SUFFIXES:
        path = folder / (name + suffix)
        if path.is_file():
            return path
    raise truncated([name])


def truncated(details: list[str] | None = None) -> BackupError:
    """The refusal of a file that ends before its data do."""
    return BackupError(
        text(
            pt="O backup está incompleto: o arquivo termina antes do fim dos dados.",
            en="The backup is incomplete: the file ends before its data do.",
        ),
        next_step=text(
            pt="Copie o arquivo de novo da origem, ou faça o backup outra vez.",
            en="Copy the file again from where it was made, or take the backup again.",
        ),
        details=(details or [])[:20],
    )


def corrupt(place: str) -> BackupError:
    """The refusal of a file whose content is not what pg_dump writes."""
    return BackupError(
        text(pt=f"O backup está corrompido ({place}).", en=f"The backup is corrupt ({place})."),
        next_step=text(
            pt="Copie o arquivo de novo da origem e compare o sha256, ou faça o backup outra vez.",
            en="Copy the file again from where it was made and compare the sha256, or take the backup again.",
        ),
    )
