"""Inspection of a backup file before anything is restored: what it is, whether it is whole, which server can take it.

The format is told by content, never by name. Nothing of the file is executed, and nothing is left behind when the
file is refused.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge.errors import BackupError
from merge.language import text
from sandbox import archive as archives
from sandbox import unwrap
from sandbox.script import CopyBlock, scan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.archive import Archive

_CHUNK = 1 << 20
_MAX_WRAPPERS = 2
_READ_FROM = {(1, 12): 9, (1, 13): 9, (1, 14): 12, (1, 15): 16, (1, 16): 17}
"""The oldest major version whose pg_restore reads an archive version."""

_DUMPED_FROM = re.compile(rb"^-- Dumped from database version (.+?)\r?$", re.M)
_DUMPED_BY = re.compile(rb"^-- Dumped by pg_dump version (.+?)\r?$", re.M)
_COMPLETE = b"-- PostgreSQL database dump complete"
_ENCODING = re.compile(rb"set\s+client_encoding\s*(?:=|to)\s*'([^']*)'", re.IGNORECASE)
_NAME = rb'(?:"(?:[^"]|"")+"|[^\s."(]+)'
_INSERT = re.compile(rb"insert\s+into\s+(%(n)s(?:\.%(n)s)?)" % {b"n": _NAME}, re.IGNORECASE)
_EXTENSION = re.compile(
    r'create\s+extension\s+(?:if\s+not\s+exists\s+)?("(?:[^"]|"")+"|[\w-]+)'
    r'(?:\s+with)?(?:\s+schema\s+("(?:[^"]|"")+"|\w+))?',
    re.IGNORECASE,
)
_LARGE_OBJECT = re.compile(rb"select\s+(?:pg_catalog\.)?(?:lo_create|lo_open|lowrite)\b", re.IGNORECASE)
_CREATES_TABLE = re.compile(rb"create\s+(?:unlogged\s+)?table\b", re.IGNORECASE)


@dataclass(frozen=True)
class Backup:
    """A backup that was found to be whole.

    :param path: the file or folder as delivered; `sha256` is of it (of a folder: of the list of its files' hashes).
    :param size: bytes as delivered.
    :param format: ``custom``, ``directory``, ``tar`` or ``plain``; `wrapper` is ``none``, ``gzip`` or ``zip``.
    :param dumped_from: version of the server it was taken from; None if it does not tell.
    :param archive_version: e.g. ``1.14``; None for a plain script.
    :param entries: entries of the table of contents; statements and COPY blocks of a plain script.
    :param tables: tables whose rows it holds (also if there are none); a name with a dot is not in schema ``public``.
    :param extensions: name and schema of the extensions it wants.
    :param inserts: True if rows are INSERT statements, not COPY.
    :param readable: what a tool can read, after unwrapping.
    :param work: private folder for files that go with it.
    """

    path: Path
    name: str
    sha256: str
    size: int
    format: str
    wrapper: str
    dumped_from: str | None
    dumped_major: int | None
    dumped_by: str | None
    archive_version: str | None
    encoding: str
    entries: int
    tables: tuple[str, ...]
    extensions: tuple[tuple[str, str], ...]
    large_objects: bool
    inserts: bool
    readable: Path
    work: Path


def inspect(path: Path, *, work: Path) -> Backup:
    """Say what a backup is.

    :param work: folder that is made for what is taken out of a gzip or zip file; it must live as long as the backup.
    :raises BackupError: empty, foreign, truncated, corrupt, encrypted, or not in UTF8.
    """
    made = not work.exists()
    folder = work / _folder_name(path)
    try:
        if not path.exists():
            raise BackupError(text(pt=f"O arquivo {path} não existe.", en=f"The file {path} does not exist."))
        work.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)  # of an interrupted inspection
        folder.mkdir(mode=0o700)
        return _inspect(path, folder)
    except BaseException as ex:
        shutil.rmtree(work if made else folder, ignore_errors=True)
        if isinstance(ex, BackupError) and ex.evidence is None:
            ex.evidence = str(path)
        if isinstance(ex, OSError):
            raise BackupError(
                text(pt=f"O arquivo não pode ser lido: {ex.strerror}.", en=f"The file cannot be read: {ex.strerror}."),
                evidence=path,
            ) from None
        raise


def check_server(backup: Backup, major: int) -> None:
    """Refuse a backup that a server of this major version (9 for 9.6) cannot take.

    :raises BackupError: it was taken from a newer server, or by a pg_dump whose archives its tools cannot read.
    """
    use = text(
        pt=f"Use um servidor PostgreSQL {backup.dumped_major or major} ou mais novo.",
        en=f"Use a PostgreSQL server of version {backup.dumped_major or major} or later.",
    )
    if backup.dumped_major is not None and backup.dumped_major > major:
        raise BackupError(
            text(
                pt=f"O backup é do PostgreSQL {backup.dumped_from}, mais novo que o servidor ({major}).",
                en=f"The backup is from PostgreSQL {backup.dumped_from}, which is newer than the server ({major}).",
            ),
            evidence=backup.path,
            next_step=use,
        )
    if backup.archive_version is None:
        return
    first, second = backup.archive_version.split(".")
    needed = _READ_FROM[int(first), int(second)]
    if needed > major:
        raise BackupError(
            text(
                pt=f"O backup foi feito pelo pg_dump {backup.dumped_by}; o pg_restore do servidor ({major}) não o lê.",
                en=f"The backup was made by pg_dump {backup.dumped_by}; the server's tools ({major}) cannot read it.",
            ),
            evidence=backup.path,
            next_step=text(
                pt=f"Use um servidor {needed} ou mais novo, ou faça o backup com o pg_dump do próprio servidor.",
                en=f"Use a server of version {needed} or later, or take the backup with the server's own pg_dump.",
            ),
        )


def read_chunks(path: Path) -> Iterator[bytes]:
    """A file's content."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def major_of(version: str) -> int | None:
    """The major version in a version text: 16 in ``16.4 (Debian ...)``, 9 in ``9.6.13``."""
    found = re.match(r"(\d+)", version)
    return int(found[1]) if found else None


def _inspect(path: Path, folder: Path) -> Backup:
    readable, wrapper = path, "none"
    for level in range(_MAX_WRAPPERS + 1):
        kind = _kind(readable)
        inside = folder / str(level)
        if kind == "tar":
            taken = unwrap.unwrap(readable, kind, inside)
            if taken == readable:
                break
        elif kind in ("gzip", "zip"):
            if level == _MAX_WRAPPERS:
                raise unwrap.refuse_foreign(kind)
            taken = unwrap.unwrap(readable, kind, inside)
            wrapper = kind if wrapper == "none" else wrapper
        else:
            break
        if readable != path:
            readable.unlink()
        readable = taken
    sha256, size = _digest(path)
    delivered = _Delivered(path, sha256, size, wrapper, readable, folder)
    backup = _of_script(delivered) if kind == "plain" else _of_archive(delivered)
    if backup.encoding.upper() not in ("UTF8", "UTF-8", "UNICODE"):
        raise BackupError(
            text(pt=f"O backup não está em UTF8: {backup.encoding}.", en=f"The backup is not UTF8: {backup.encoding}."),
            next_step=text(
                pt="Faça o backup de novo com pg_dump --encoding=UTF8.", en="Take it again by pg_dump --encoding=UTF8."
            ),
        )
    return backup


@dataclass(frozen=True)
class _Delivered:
    path: Path
    sha256: str
    size: int
    wrapper: str
    readable: Path
    work: Path


def _kind(path: Path) -> str:
    if path.is_dir():
        if (path / "toc.dat").is_file():
            return "directory"
        if (path / "PG_VERSION").exists():
            raise unwrap.refuse_data_directory()
        raise unwrap.refuse_foreign(None)
    with path.open("rb") as file:
        return unwrap.kind_of(file.read(unwrap.HEAD))


def _of_archive(delivered: _Delivered) -> Backup:
    found: Archive = archives.read(delivered.readable)
    data = [e for e in found if e.is_table_data]
    return Backup(
        path=delivered.path,
        name=delivered.path.name.split(".")[0],
        sha256=delivered.sha256,
        size=delivered.size,
        format=found.format,
        wrapper=delivered.wrapper,
        dumped_from=found.dumped_from or None,
        dumped_major=major_of(found.dumped_from),
        dumped_by=found.dumped_by or None,
        archive_version="{}.{}".format(*found.version),
        encoding=found.encoding,
        entries=len(found.entries),
        tables=tuple(table_name(e.namespace, e.tag) for e in data),
        extensions=tuple(extension(e.definition) or (e.tag, "public") for e in found if e.desc == "EXTENSION"),
        large_objects=any(e.desc in archives.LARGE_OBJECTS for e in found),
        inserts=any(not e.copy for e in data),
        readable=delivered.readable,
        work=delivered.work,
    )


def _of_script(delivered: _Delivered) -> Backup:
    path = delivered.readable
    with path.open("rb") as file:
        head = file.read(4096)
        file.seek(max(path.stat().st_size - 4096, 0))
        complete = _COMPLETE in file.read()
    entries = 0
    encoding = ""
    tables: dict[str, None] = {}
    extensions: list[tuple[str, str]] = []
    large_objects = inserts = False
    for part in scan(read_chunks(path)):
        entries += 1
        if isinstance(part, CopyBlock):
            tables[table_name(part.schema or "public", part.table)] = None
        elif found := _INSERT.match(part.sql):
            inserts = True
            tables[table_name(*qualified(found[1].decode()))] = None
        elif wanted := extension(part.sql[:1000].decode(errors="replace")):
            extensions.append(wanted)
        elif not encoding and (said := _ENCODING.match(part.sql)):
            encoding = said[1].decode("ascii", errors="replace")
        else:
            large_objects = large_objects or _LARGE_OBJECT.match(part.sql) is not None
    if not complete:
        raise archives.truncated()
    dumped_from, dumped_by = _DUMPED_FROM.search(head), _DUMPED_BY.search(head)
    version = dumped_from[1].decode(errors="replace") if dumped_from else None
    return Backup(
        path=delivered.path,
        name=delivered.path.name.split(".")[0],
        sha256=delivered.sha256,
        size=delivered.size,
        format="plain",
        wrapper=delivered.wrapper,
        dumped_from=version,
        dumped_major=major_of(version) if version else None,
        dumped_by=dumped_by[1].decode(errors="replace") if dumped_by else None,
        archive_version=None,
        encoding=encoding,
        entries=entries,
        tables=tuple(tables),
        extensions=tuple(extensions),
        large_objects=large_objects,
        inserts=inserts,
        readable=path,
        work=delivered.work,
    )


def table_name(schema: str, table: str) -> str:
    """How `Backup.tables` calls a table."""
    return table if schema == "public" else f"{schema}.{table}"


def qualified(name: str) -> tuple[str, str]:
    """Take ``schema.table``, each perhaps quoted, apart; the schema is ``public`` if none is named."""
    parts = [
        quoted[1:-1].replace('""', '"') if quoted.startswith('"') else quoted.lower()
        for quoted in re.findall(r'"(?:[^"]|"")+"|[^."]+', name)
    ]
    return (parts[0], parts[1]) if len(parts) == 2 else ("public", parts[0])


def extension(statement: str) -> tuple[str, str] | None:
    """Name and schema of the extension that a statement creates; None for any other statement."""
    found = _EXTENSION.match(statement)
    if found is None:
        return None
    return found[1].strip('"'), (found[2] or "public").strip('"')


def _folder_name(path: Path) -> str:
    return hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:12]


def _digest(path: Path) -> tuple[str, int]:
    """SHA-256 and size of a file; of a folder, those of the list of its files' hashes, and of its files."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size
    files = sorted(p for p in path.rglob("*") if p.is_file())
    digests = [(p.relative_to(path).as_posix(), *_digest(p)) for p in files]
    manifest = "".join(f"{digest}  {name}\n" for name, digest, _ in digests)
    return hashlib.sha256(manifest.encode()).hexdigest(), sum(size for *_, size in digests)
