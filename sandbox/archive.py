"""The table of contents of a pg_dump archive: custom (``PGDMP``), directory (``toc.dat``) or tar.

Read here, not by `pg_restore -l`, so that a file can be judged before any server or program is there, and to know how
many bytes each table takes. The layout is that of ReadHead() and ReadToc() of PostgreSQL, versions 1.12 (PostgreSQL
9.0) to 1.16 (PostgreSQL 17 and 18).
"""

from __future__ import annotations

import io
import re
import tarfile
import zlib
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING

from merge.errors import BackupError
from merge.language import text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MAGIC = b"PGDMP"
_FORMAT_AT = 10
OLDEST, NEWEST = (1, 12), (1, 16)

_CUSTOM, _TAR, _DIRECTORY = 1, 3, 5
_COMPRESSIONS = {0: "none", 1: "gzip", 2: "lz4", 3: "zstd"}
_SECTIONS = {1: "none", 2: "pre-data", 3: "data", 4: "post-data"}
_BLOCK_DATA, _BLOCK_BLOBS = 1, 3
_LONGEST_STRING = 1 << 30
_MOST_ENTRIES = 10_000_000
_SUFFIXES = ("", ".gz", ".lz4", ".zst")
_BY_SUFFIX = {".gz": "gzip", ".lz4": "lz4", ".zst": "zstd"}
_PIECE, _LONGEST_PIECE = 1 << 18, 1 << 22

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


def read(path: Path, *, decompress: bool = True) -> Archive:
    """Read the table of contents and check that all data it tells of are there, to the last byte.

    Data are passed over, not decompressed; those of a directory are decompressed, because a file of its own does not
    tell where it should end.

    :param path: a custom or tar file, or a directory.
    :param decompress: False to take the files of a directory as they are.
    :raises BackupError: truncated, corrupt, or of a version that no known pg_restore reads.
    """
    if path.is_dir():
        with (path / "toc.dat").open("rb") as file:
            archive = _read_toc(_Reader(file, (path / "toc.dat").stat().st_size), "directory")
        return _with_sizes(archive, {e.file: _check_file(path, e, decompress) for e in archive if e.file})
    with path.open("rb") as file:
        end = path.stat().st_size
        if file.read(len(MAGIC)) == MAGIC:
            file.seek(0)
            reader = _Reader(file, end)
            archive = _read_toc(reader, "custom")
            return _walk_blocks(reader, archive)
        members = dict(_walk_tar(file, end))
        if "toc.dat" not in members:
            raise corrupt("toc.dat")
        start, size = members["toc.dat"]
        file.seek(start)
        archive = _read_toc(_Reader(io.BytesIO(file.read(size)), size), "tar")
        sizes = {name: size for name, (_, size) in members.items()}
        for entry in archive:
            if entry.desc == "BLOBS":  # names a file that is not there: its list has a name of its own
                found = sizes.get(f"blobs_{entry.dump_id}.toc", sizes.get("blobs.toc"))
                if found is not None:
                    sizes[entry.file] = found
        return _with_sizes(archive, sizes)


def is_custom(head: bytes) -> bool:
    """True if a file that begins with `head` (a pg_dump header) has its data behind the table of contents.

    False for a ``toc.dat``, which is the same in a directory and in a tar file.
    """
    return len(head) <= _FORMAT_AT or head[_FORMAT_AT] == _CUSTOM


class _Reader:
    """Numbers and strings as pg_dump writes them."""

    def __init__(self, file: IO[bytes], end: int) -> None:
        self.file = file
        self.end = end
        self.int_size = 4
        self.offset_size = 8

    def bytes(self, count: int) -> bytes:
        got = self.file.read(count)
        if len(got) != count:
            raise truncated()
        return got

    def byte(self) -> int:
        return self.bytes(1)[0]

    def number(self) -> int:
        raw = self.bytes(1 + self.int_size)
        if raw[0] > 1:
            raise corrupt(text(pt="sumário", en="table of contents"))
        value = int.from_bytes(raw[1:], "little")
        return -value if raw[0] else value

    def string(self) -> str | None:
        length = self.number()
        if length < 0:
            return None
        if length > _LONGEST_STRING:
            raise corrupt(text(pt="sumário", en="table of contents"))
        return self.bytes(length).decode("utf-8", errors="replace")

    def skip(self, count: int) -> None:
        position = self.file.tell() + count
        if position > self.end:
            raise truncated()
        self.file.seek(position)


def _read_toc(reader: _Reader, wanted: str) -> Archive:
    if reader.bytes(len(MAGIC)) != MAGIC:
        raise corrupt("toc.dat")
    major, minor, _ = reader.bytes(3)
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
    reader.int_size, reader.offset_size = reader.bytes(2)
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


def _read_entry(reader: _Reader, version: tuple[int, int], wanted: str) -> Entry:
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
        place = int.from_bytes(reader.bytes(reader.offset_size), "little")
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


def _walk_blocks(reader: _Reader, archive: Archive) -> Archive:
    """Go through the data of a custom archive by the lengths of its chunks."""
    sizes: dict[int, int] = {}
    while True:
        start = reader.file.tell()
        if start == reader.end:
            break
        kind, dump_id = reader.byte(), reader.number()
        if kind == _BLOCK_DATA:
            _skip_chunks(reader)
        elif kind == _BLOCK_BLOBS:
            while reader.number() != 0:
                _skip_chunks(reader)
        else:
            raise corrupt(text(pt="dados", en="data"))
        sizes[dump_id] = reader.file.tell() - start
    missing = [e for e in archive if e.has_data and e.dump_id not in sizes]
    if missing:
        raise truncated()
    return replace(
        archive, entries=tuple(replace(e, size=sizes[e.dump_id]) if e.has_data else e for e in archive)
    )  # fmt: skip


def rows(path: Path) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    """The data of every table of an archive, decompressed, as `read` has found them to be there.

    :raises BackupError: compressed with what Python does not decompress (lz4, zstd), or corrupt.
    """
    if path.is_dir():
        return _rows_of_directory(path)
    with path.open("rb") as file:
        return _rows_of_custom(path) if file.read(len(MAGIC)) == MAGIC else _rows_of_tar(path)


def _rows_of_directory(path: Path) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    for entry in read(path, decompress=False):
        if entry.is_table_data:
            place = next(p for suffix in _SUFFIXES if (p := path / (entry.file + suffix)).is_file())
            with place.open("rb") as file:
                pieces = _read_part(file, 0, place.stat().st_size)
                yield entry, _decompressed(pieces, _BY_SUFFIX.get(place.suffix, "none"))


def _rows_of_tar(path: Path) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    with path.open("rb") as file:
        members = dict(_walk_tar(file, path.stat().st_size))
        for entry in read(path):
            if entry.is_table_data:
                yield entry, _read_part(file, *members[entry.file])


def _rows_of_custom(path: Path) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    with path.open("rb") as file:
        reader = _Reader(file, path.stat().st_size)
        archive = _read_toc(reader, "custom")
        tables = {entry.dump_id: entry for entry in archive if entry.is_table_data}
        while file.tell() < reader.end:
            kind, dump_id = reader.byte(), reader.number()
            if kind == _BLOCK_BLOBS:
                while reader.number() != 0:
                    _skip_chunks(reader)
            elif dump_id in tables:
                chunks = _read_chunks(reader)
                yield tables[dump_id], _decompressed(chunks, archive.compression)
                for _ in chunks:
                    pass  # whatever was not wanted
            else:
                _skip_chunks(reader)


def _read_chunks(reader: _Reader) -> Iterator[bytes]:
    while (length := reader.number()) != 0:
        if length < 0:
            raise corrupt(text(pt="dados", en="data"))
        for start in range(0, length, _PIECE):
            yield reader.bytes(min(_PIECE, length - start))


def _read_part(file: IO[bytes], start: int, size: int) -> Iterator[bytes]:
    file.seek(start)
    while size > 0 and (piece := file.read(min(_PIECE, size))):
        size -= len(piece)
        yield piece


def _decompressed(pieces: Iterator[bytes], compression: str) -> Iterator[bytes]:
    if compression == "none":
        yield from pieces
        return
    if compression != "gzip":
        raise BackupError(
            text(pt=f"Os dados estão comprimidos com {compression}.", en=f"The data are compressed by {compression}.")
        )
    inflate = zlib.decompressobj(47)  # zlib in a custom archive, gzip in a directory
    try:
        for piece in pieces:
            rest = piece
            while rest and not inflate.eof:
                yield inflate.decompress(rest, _LONGEST_PIECE)
                rest = inflate.unconsumed_tail
    except zlib.error:
        raise corrupt(text(pt="dados", en="data")) from None


def _skip_chunks(reader: _Reader) -> None:
    while (length := reader.number()) != 0:
        if length < 0:
            raise corrupt(text(pt="dados", en="data"))
        reader.skip(length)


def _walk_tar(file: IO[bytes], end: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """The members of a tar file, each with the place and length of its content."""
    position = 0
    while True:
        file.seek(position)
        block = file.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE:
            raise truncated()
        if not block.strip(b"\0"):
            if len(file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
                raise truncated()
            return
        try:
            member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            raise corrupt("tar") from None
        start = position + tarfile.BLOCKSIZE
        if start + member.size > end:
            raise truncated()
        yield member.name, (start, member.size)
        position = start + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _with_sizes(archive: Archive, sizes: Mapping[str, int]) -> Archive:
    missing = [e.file for e in archive if e.has_data and e.file not in sizes]
    if missing:
        raise truncated(missing)
    return replace(
        archive, entries=tuple(replace(e, size=sizes[e.file]) if e.has_data else e for e in archive)
    )  # fmt: skip


def _check_file(folder: Path, entry: Entry, decompress: bool) -> int:
    """Check one data file of a directory, and those that a list of large objects names; return its bytes."""
    for suffix in _SUFFIXES:
        path = folder / (entry.file + suffix)
        if path.is_file():
            break
    else:
        raise truncated([entry.file])
    size = path.stat().st_size
    if not decompress:
        return size
    if entry.desc == "BLOBS":
        listed = path.read_bytes()
        if not listed.endswith(b"\n"):
            raise truncated([path.name])
        size += sum(_check_large_object(folder, line.partition(b" ")[2]) for line in listed.splitlines())
    elif path.suffix == ".gz":
        _check_gzip(path)
    elif path.suffix == ".dat" and entry.copy:
        with path.open("rb") as file:
            file.seek(max(size - 6, 0))
            if b"\\.\n" not in file.read():
                raise truncated([entry.file])
    return size


def _check_large_object(folder: Path, name: bytes) -> int:
    if not re.fullmatch(rb"[\w.]+", name):
        raise corrupt("blobs.toc")
    for suffix in _SUFFIXES:
        path = folder / (name.decode() + suffix)
        if path.is_file():
            if suffix == ".gz":
                _check_gzip(path)
            return path.stat().st_size
    raise truncated([name.decode()])


def _check_gzip(path: Path) -> None:
    inflate = zlib.decompressobj(31)
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 18):
                while chunk and not inflate.eof:
                    inflate.decompress(chunk, 1 << 22)
                    chunk = inflate.unconsumed_tail
    except zlib.error:
        raise corrupt(path.name) from None
    if not inflate.eof:
        raise truncated([path.name])


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
