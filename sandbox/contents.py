"""How much a backup holds: the rows of every table, and their bytes as text, without any server.

A file's size says little: the same rows take a quarter of the space compressed. So rows are counted and measured as
COPY writes them, which is the same in every format.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sandbox import archive as archives
from sandbox.intake import read_chunks, table_name
from sandbox.script import CopyBlock, scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sandbox.intake import Backup

_END = b"\\.\n"


@dataclass(frozen=True)
class Contents:
    """What a backup holds.

    :param unit: what `sizes` are: ``text``, bytes of the rows as COPY writes them; ``inserts``, bytes of INSERT
        statements; ``stored``, bytes as they are in the archive, where Python cannot decompress them.
    :param sizes: by table as `Backup.tables` calls it; tables without rows are left out, where that can be told.
    :param rows: rows by table, of ``text``; else None.
    """

    unit: Literal["text", "inserts", "stored"]
    sizes: Mapping[str, int]
    rows: Mapping[str, int] | None

    @property
    def size(self) -> int:
        """Bytes of all tables."""
        return sum(self.sizes.values())


def measure(backup: Backup, on_progress: Callable[[int, int], None] = lambda done, total: None) -> Contents:
    """Read a backup once and measure what it holds: about 200 MB of rows in a second.

    :param on_progress: called with tables done and tables in all.
    :raises BackupError: the data are corrupt.
    """
    if backup.format == "plain":
        return _of_script(backup, on_progress)
    archive = archives.read(backup.readable, decompress=False)
    if archive.compression in ("lz4", "zstd"):
        stored = {table_name(e.namespace, e.tag): e.size for e in archive if e.is_table_data}
        return Contents("stored", stored, None)
    sizes: dict[str, int] = {}
    rows: dict[str, int] = {}
    total = sum(e.is_table_data for e in archive)
    for done, (entry, data) in enumerate(archives.rows(backup.readable), 1):
        name = table_name(entry.namespace, entry.tag)
        size, lines = _measure(data)
        if size:
            sizes[name], rows[name] = size, lines
        on_progress(done, total)
    return Contents("inserts", sizes, None) if backup.inserts else Contents("text", sizes, rows)


def _of_script(backup: Backup, on_progress: Callable[[int, int], None]) -> Contents:
    if backup.inserts:
        return Contents("inserts", {"": backup.readable.stat().st_size}, None)
    sizes: dict[str, int] = {}
    rows: dict[str, int] = {}
    done = 0
    for part in scan(read_chunks(backup.readable)):
        if isinstance(part, CopyBlock):
            name = table_name(part.schema or "public", part.table)
            size, lines = _measure(part.data)
            if size:
                sizes[name], rows[name] = size, lines
            done += 1
            on_progress(done, len(backup.tables))
    return Contents("text", sizes, rows)


def _measure(data: Iterable[bytes]) -> tuple[int, int]:
    """Bytes and lines, without the mark at their end and what follows it."""
    size = lines = 0
    tail = b""
    for piece in data:
        size += len(piece)
        lines += piece.count(b"\n")
        tail = (tail + piece)[-16:]
    end = tail.rfind(_END)
    if end >= 0 and not tail[end:].strip(b"\\.\n") and (end == 0 or tail[end - 1 : end] == b"\n"):
        size -= len(tail) - end
        lines -= tail[end:].count(b"\n")
    return size, lines
