"""Reading a table of contents, without any server."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import pytest

from merge.errors import BackupError
from sandbox import archive, archive_data
from sandbox.reading import Reading

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = [(1, minor) for minor in range(12, 17)]


def number(value: int) -> bytes:
    return bytes([value < 0]) + struct.pack("<I", abs(value))


def string(value: str | None) -> bytes:
    return number(-1) if value is None else number(len(value.encode())) + value.encode()


def entry(
    version: tuple[int, int], dump_id: int, desc: str, tag: str, definition: str = "", copy: str | None = None
) -> bytes:
    has_data = desc in ("TABLE DATA", "BLOBS")
    parts = [number(dump_id), number(has_data), string("1259"), string("16384"), string(tag), string(desc)]
    parts += [
        number(3 if has_data else 2),
        string(definition),
        string(""),
        string(copy),
        string("público"),
        string(None),
    ]
    parts += [string("heap")] if version >= (1, 14) else []
    parts += [number(ord("r"))] if version >= (1, 16) else []
    parts += [string("postgres"), string("false"), string("1"), string(None)]
    parts += [bytes([2 if has_data else 3]), struct.pack("<Q", 99)]
    return b"".join(parts)


def chunked(packed: bytes) -> bytes:
    """Data as pg_dump writes them, in chunks."""
    return b"".join(number(len(p)) + p for p in (packed[:3], packed[3:7], packed[7:])) + number(0)


ROWS = b"1\n22\n"


END = b"\\.\n\n\n"
PACKED = chunked(zlib.compress(ROWS + END))


def make(version: tuple[int, int], table: bytes = PACKED, large_object: bytes = chunked(zlib.compress(b"xy"))) -> bytes:
    """A custom archive as pg_dump writes it, with one table and one large object."""
    head = b"PGDMP" + bytes([*version, 0, 4, 8, 1])
    head += bytes([1]) if version >= (1, 15) else number(-1)
    head += b"".join(number(n) for n in (56, 34, 12, 3, 1, 126, 0))
    head += string("esus") + string("9.6.13") + string("18.1")
    entries = [
        entry(version, 1, "ENCODING", "ENCODING", "SET client_encoding = 'UTF8';\n"),
        entry(version, 7, "TABLE", "tb ção", "CREATE TABLE ..."),
        entry(version, 8, "TABLE DATA", "tb ção", "", 'COPY "tb ção" (a) FROM stdin;\n'),
        entry(version, 9, "BLOBS", "BLOBS"),
    ]
    table = bytes([1]) + number(8) + table
    blobs = bytes([3]) + number(9) + number(70001) + large_object + number(70002) + number(0) + number(0)
    return head + number(len(entries)) + b"".join(entries) + table + blobs


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version(tmp_path: Path, version: tuple[int, int]) -> None:
    path = tmp_path / "a"
    path.write_bytes(make(version))
    found = archive.read(path)
    assert (found.format, found.version, found.compression) == ("custom", version, "gzip")
    assert (found.database, found.dumped_from, found.dumped_by) == ("esus", "9.6.13", "18.1")
    assert (found.encoding, found.created) == ("UTF8", "2026-02-03T12:34:56")
    assert [e.desc for e in found] == ["ENCODING", "TABLE", "TABLE DATA", "BLOBS"]
    data = found.entries[2]
    assert (data.tag, data.namespace, data.owner, data.section) == ("tb ção", "público", "postgres", "data")
    assert (data.copy, data.is_table_data) == ('COPY "tb ção" (a) FROM stdin;\n', True)
    assert data.size == 6 + len(PACKED)
    assert found.entries[3].is_large_object


def verify(path: Path) -> archive_data.Measures:
    return archive_data.verify(path, Reading(path, path, None))[1]


def test_data_are_measured(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for rows, counted in ((ROWS, (5, 2)), (b"", (0, 0)), (b"\n\n", (2, 2)), (b"x" * 10**6 + b"\n", (10**6 + 1, 1))):
        path.write_bytes(make((1, 14), chunked(zlib.compress(rows + END))))
        (found,) = verify(path).values()
        assert (found.size, found.rows) == counted


@pytest.mark.parametrize("data", [ROWS, b"1\n2", b"1" + END, b"", b"\\.\n\n1\n"])
def test_copy_data_without_their_end(tmp_path: Path, data: bytes) -> None:
    """The compressed stream is sound, what is in it is not: the file was not made by pg_dump alone."""
    path = tmp_path / "a"
    path.write_bytes(make((1, 14), chunked(zlib.compress(data))))
    archive.read(path)
    with pytest.raises(BackupError) as caught:
        verify(path)
    assert caught.value.details == ("tb ção",)


def test_every_byte_of_the_data_counts(tmp_path: Path) -> None:
    """Whichever is flipped, of a table or of a large object, of the data or of what tells their length."""
    whole = make((1, 14))
    path = tmp_path / "a"
    start = whole.index(bytes([1]) + number(8) + PACKED)
    oids = {whole.index(number(oid)) + n for oid in (70001, 70002) for n in range(1, 5)}  # these nothing proves
    for place in sorted(set(range(start, len(whole))) - oids):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with pytest.raises(BackupError):
            verify(path)


def test_bytes_behind_a_compressed_stream(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for more in (b"abc", zlib.compress(b"more")):
        path.write_bytes(make((1, 14), chunked(zlib.compress(ROWS + END) + more)))
        with pytest.raises(BackupError, match="tb ção"):
            verify(path)


@pytest.mark.parametrize("version", VERSIONS)
def test_cut_anywhere(tmp_path: Path, version: tuple[int, int]) -> None:
    whole = make(version)
    path = tmp_path / "a"
    for length in range(5, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(BackupError):
            archive.read(path)


def test_bytes_behind_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(make((1, 14)) + b"\x07garbage")
    with pytest.raises(BackupError):
        archive.read(path)


@pytest.mark.parametrize("version", [(1, 11), (1, 17), (2, 0)])
def test_unknown_versions(tmp_path: Path, version: tuple[int, int]) -> None:
    path = tmp_path / "a"
    path.write_bytes(make(version))
    with pytest.raises(BackupError, match=f"{version[0]}.{version[1]}"):
        archive.read(path)


@pytest.mark.parametrize("place", [8, 9, 10, 11, 60, 100])
def test_garbage_in_the_header_is_no_crash(tmp_path: Path, place: int) -> None:
    whole = make((1, 14))
    path = tmp_path / "a"
    for byte in (0, 3, 0x7F, 0xFF):
        path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
        try:
            archive.read(path)
        except BackupError:
            continue
