"""The data of a pg_dump archive, read once from begin to end: decompressed, checked, and measured.

A byte that was changed is found where the data are compressed by gzip, as pg_dump does by default: each table and
large object carries a checksum. What is stored as it is has none, and what is compressed by lz4 or zstd this Python
cannot decompress: of these the structure is checked, and that the data begin, or end, as they should.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from merge.language import text
from sandbox import archive as archives

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from sandbox.archive import Archive, Entry
    from sandbox.reading import Reading

_PIECE, _LONGEST_PIECE = 1 << 18, 1 << 22
_TAIL = 8
_BY_SUFFIX = {".gz": "gzip", ".lz4": "lz4", ".zst": "zstd"}
_MAGIC = {"lz4": b"\x04\x22\x4d\x18", "zstd": b"\x28\xb5\x2f\xfd"}


@dataclass(frozen=True)
class Measure:
    """Bytes and lines of the rows of a table as text, without the mark at their end; `ended` is whether it is there."""

    size: int
    rows: int
    ended: bool


Measures = dict[int, Measure]
"""By dump id; tables that are compressed by lz4 or zstd are left out."""


def verify(path: Path, reading: Reading) -> tuple[Archive, Measures]:
    """Read a whole archive, check its data and measure its tables.

    :param path: a custom or tar file, or a directory, of which the files are opened that it tells of.
    :raises BackupError: truncated or corrupt, naming the table.
    """
    if path.is_dir():
        return _verify_directory(path, reading)
    with path.open("rb") as file:
        is_custom = file.read(len(archives.MAGIC)) == archives.MAGIC
    with reading.open(path) as file:
        reader = archives.Reader(file, path.stat().st_size)
        return _verify_custom(reader) if is_custom else _verify_tar(reader)


def measure(data: Iterable[bytes]) -> Measure:
    """Measure COPY data; what follows the mark at their end does not count."""
    size = lines = 0
    tail = b""
    for piece in data:
        size += len(piece)
        lines += piece.count(b"\n")
        tail = (tail + piece[-_TAIL:])[-_TAIL:]
    rows = tail.rstrip(b"\n").removesuffix(b"\\.")
    ended = len(rows) < len(tail.rstrip(b"\n")) and (not rows or rows.endswith(b"\n"))
    if ended:
        size -= len(tail) - len(rows)
        lines -= tail[len(rows) :].count(b"\n")
    return Measure(size, lines, ended)


def _verify_custom(reader: archives.Reader) -> tuple[Archive, Measures]:
    measures: Measures = {}
    toc = archives.read_toc(reader, "custom")
    return archives.walk_blocks(
        reader, toc, lambda entry: _check(entry, archives.chunks(reader), toc.compression, measures)
    ), measures


def _verify_tar(reader: archives.Reader) -> tuple[Archive, Measures]:
    toc = None
    sizes: dict[str, int] = {}
    found: dict[str, Measure] = {}
    for name, size in archives.walk_tar(reader):
        sizes[name] = size
        if name == "toc.dat":
            toc = archives.tar_toc(reader, size)
        else:
            found[name] = measure(reader.pieces(size))
    archive = archives.read_tar_toc(toc, sizes)
    measures = {e.dump_id: _whole(e, found[e.file]) for e in archive if e.is_table_data}
    return archive, measures


def _verify_directory(folder: Path, reading: Reading) -> tuple[Archive, Measures]:
    toc = folder / "toc.dat"
    with reading.open(toc) as file:
        archive = archives.read_toc(archives.Reader(file, toc.stat().st_size), "directory")
    measures: Measures = {}
    sizes: dict[str, int] = {}
    for entry in archive:
        if not entry.file:
            continue
        path = archives.find_file(folder, entry.file)
        sizes[entry.file] = path.stat().st_size
        if entry.desc != "BLOBS":
            _check_file(path, entry, reading, measures)
            continue
        with reading.open(path) as file:  # the list of its large objects
            listed = file.read()
        if not listed.endswith(b"\n"):
            raise archives.truncated([path.name])
        for line in listed.splitlines():
            name = line.partition(b" ")[2]
            if not re.fullmatch(rb"[\w.]+", name):
                raise archives.corrupt(path.name)
            path = archives.find_file(folder, name.decode())
            _check_file(path, entry, reading, measures)
            sizes[entry.file] += path.stat().st_size
    return archives.with_sizes(archive, sizes), measures


def _check_file(path: Path, entry: Entry, reading: Reading, measures: Measures) -> None:
    if path.suffix in _BY_SUFFIX and not path.stat().st_size:
        raise archives.truncated([path.name])
    with reading.open(path) as file:
        _check(entry, iter(partial(file.read, _PIECE), b""), _BY_SUFFIX.get(path.suffix, "none"), measures)


def _check(entry: Entry, data: Iterator[bytes], compression: str, measures: Measures) -> None:
    """Check the data of one table or large object, and measure the table."""
    place = text(pt=f"dados de {entry.tag}", en=f"data of {entry.tag}") if entry.is_table_data else entry.desc
    if compression == "gzip":
        data = _inflated(data, place)
    elif compression != "none":
        _check_frame(data, compression, place)
        return
    found = measure(data)
    if entry.is_table_data:
        measures[entry.dump_id] = _whole(entry, found)


def _whole(entry: Entry, found: Measure) -> Measure:
    """Refuse COPY data without the mark at their end; INSERTs have none."""
    if entry.copy and not found.ended:
        raise archives.truncated([entry.tag])
    return found


def _inflated(pieces: Iterator[bytes], place: str) -> Iterator[bytes]:
    """Decompressed: zlib in a custom archive, gzip in a directory. An empty large object may have no bytes at all."""
    inflate = zlib.decompressobj(47)
    some = False
    try:
        for piece in pieces:
            some, rest = True, piece
            if inflate.eof:
                raise archives.corrupt(place)
            while rest and not inflate.eof:
                yield inflate.decompress(rest, _LONGEST_PIECE)
                rest = inflate.unconsumed_tail
    except zlib.error:
        raise archives.corrupt(place) from None
    if inflate.unused_data:
        raise archives.corrupt(place)
    if some and not inflate.eof:
        raise archives.truncated([place])


def _check_frame(pieces: Iterator[bytes], compression: str, place: str) -> None:
    """Pass over what is not decompressed here; it must begin as it should."""
    head = b""
    for piece in pieces:
        head = head or piece[:4]
    if head not in (b"", _MAGIC.get(compression)):
        raise archives.corrupt(place)
