"""Inspection of a backup file before anything is restored: what it is, whether it is whole, which server can take it.

The format is told by content, never by name. Nothing of the file is executed, and nothing is left behind when the
file is refused.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from merge.errors import BackupError
from merge.language import text
from sandbox import archive as archives
from sandbox import archive_data, unwrap
from sandbox.reading import Reading
from sandbox.script import CopyBlock, Statement, scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from sandbox.reading import OnProgress

Unit = Literal["text", "inserts", "stored"]

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
    :param unit: what `sizes` of tables are: bytes of rows as ``text``, of INSERT statements (``inserts``), or as
        ``stored`` in the archive; `rows` are counted of ``text`` only. Tables without rows are in neither.
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
    unit: Unit = "text"
    sizes: tuple[tuple[str, int], ...] = ()
    rows: tuple[tuple[str, int], ...] = ()


def inspect(path: Path, *, work: Path, on_progress: OnProgress | None = None) -> Backup:
    """Say what a backup is: read it once, hash it, and check and measure its data.

    :param work: folder that is made for what is taken out of a gzip or zip file; it must live as long as the backup.
    :param on_progress: called with bytes read and bytes in all.
    :raises BackupError: empty, foreign, truncated, corrupt, encrypted, or not in UTF8.
    """
    made = not work.exists()
    folder = work / _folder_name(path)
    try:
        if not path.exists():
            raise BackupError(text(pt=f"O arquivo {path} não existe.", en=f"The file {path} does not exist."))
        if not (path.is_file() or path.is_dir()):
            raise unwrap.refuse_special()
        work.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)  # of an interrupted inspection
        folder.mkdir(mode=0o700)
        return _inspect(path, folder, on_progress)
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


def inspect_all(
    paths: Mapping[str, Path],
    *,
    work: Path,
    on_progress: OnProgress | None = None,
    on_found: Callable[[str, Backup], object] = lambda name, backup: None,
) -> dict[str, Backup]:
    """Inspect the backups of a run, by name. No two of them may have the same content.

    :param on_progress: called with bytes read and bytes in all.
    :param on_found: called with each good one, also if others are refused.
    :raises BackupError: with what is wrong with every one; what is wrong with only one is told as `inspect` does.
    """
    found: dict[str, Backup] = {}
    problems: list[tuple[str, BackupError]] = []
    whole = _Whole(on_progress, {name: _size(path) for name, path in paths.items()})
    for name, path in paths.items():
        try:
            found[name] = inspect(path, work=work, on_progress=partial(whole.tell, name))
        except BackupError as ex:
            problems.append((name if str(path) == name else f"{name} ({path})", ex))
        else:
            on_found(name, found[name])
    problems += _same(found)
    if len(problems) == 1:
        raise problems[0][1]
    if problems:
        raise BackupError(
            text(
                pt=f"{len(problems)} problemas impedem o uso dos backups.",
                en=f"{len(problems)} problems forbid the use of the backups.",
            ),
            evidence=", ".join(str(path) for path in paths.values()),
            details=[f"{name}: {line}" for name, ex in problems for line in (ex.what, *ex.details)],
            next_step=text(
                pt="Copie de novo, ou faça outra vez, cada backup da lista.",
                en="Copy again, or take again, each backup in the list.",
            ),
        )
    return found


def _same(found: Mapping[str, Backup]) -> list[tuple[str, BackupError]]:
    """The problem of every content that was given more than once."""
    problems = []
    for digest, count in Counter(backup.sha256 for backup in found.values()).items():
        if count > 1:
            same = {name: backup.path for name, backup in found.items() if backup.sha256 == digest}
            names = ", ".join(same)
            problem = BackupError(
                text(
                    pt=f"O mesmo backup foi indicado {count} vezes: {names} (sha256 {digest[:12]}…).",
                    en=f"The same backup was given {count} times: {names} (sha256 {digest[:12]}…).",
                ),
                evidence=", ".join(dict.fromkeys(map(str, same.values()))),
                next_step=text(
                    pt="Indique cada instalação uma vez, com o backup dela; o central não é uma das origens.",
                    en="Name each installation once, with its own backup; the central is none of the sources.",
                ),
            )
            problems.append((names, problem))
    return problems


@dataclass(frozen=True)
class _Whole:
    """The progress of several backups as one, each counting for its size."""

    on_progress: OnProgress | None
    sizes: Mapping[str, int]

    def tell(self, name: str, done: int, total: int) -> None:
        if self.on_progress is not None:
            names = list(self.sizes)
            before = sum(self.sizes[n] for n in names[: names.index(name)])
            self.on_progress(before + self.sizes[name] * done // max(total, 1), sum(self.sizes.values()))


def _size(path: Path) -> int:
    """Bytes of a file or folder; 0 of what cannot be looked at, which `inspect` will tell."""
    try:
        if path.is_dir():
            return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


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


def _inspect(path: Path, folder: Path, on_progress: OnProgress | None) -> Backup:
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
    delivered = _Delivered(path, Reading(path, readable, on_progress), wrapper, readable, folder)
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
    reading: Reading
    wrapper: str
    readable: Path
    work: Path


def _kind(path: Path) -> str:
    if path.is_dir():
        if (path / "toc.dat").is_file():
            if any(inner.is_symlink() or not (inner.is_file() or inner.is_dir()) for inner in path.rglob("*")):
                raise unwrap.refuse_link()
            return "directory"
        if (path / "PG_VERSION").exists():
            raise unwrap.refuse_data_directory()
        raise unwrap.refuse_foreign(None)
    with path.open("rb") as file:
        return unwrap.kind_of(file.read(unwrap.HEAD))


def _of_archive(delivered: _Delivered) -> Backup:
    found, measures = archive_data.verify(delivered.readable, delivered.reading)
    data = [e for e in found if e.is_table_data]
    names = {e.dump_id: table_name(e.namespace, e.tag) for e in data}
    inserts = any(not e.copy for e in data)
    unit: Unit = "stored" if len(measures) < len(data) else "inserts" if inserts else "text"
    return Backup(
        path=delivered.path,
        name=delivered.path.name.split(".")[0],
        sha256=delivered.reading.sha256(),
        size=delivered.reading.size,
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
        inserts=inserts,
        readable=delivered.readable,
        work=delivered.work,
        unit=unit,
        sizes=tuple((names[n], m.size) for n, m in measures.items() if m.size)
        if unit != "stored"
        else tuple((names[e.dump_id], e.size) for e in data),
        rows=tuple((names[n], m.rows) for n, m in measures.items() if m.size) if unit == "text" else (),
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
    measures: dict[str, archive_data.Measure] = {}
    for part in _read_script(delivered):
        entries += 1
        if isinstance(part, CopyBlock):
            name = table_name(part.schema or "public", part.table)
            tables[name] = None
            measures[name] = archive_data.measure(part.data)
        elif found := _INSERT.match(part.sql):
            inserts = True
            tables[table_name(*qualified(found[1].decode(errors="replace")))] = None
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
        sha256=delivered.reading.sha256(),
        size=delivered.reading.size,
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
        unit="inserts" if inserts else "text",
        sizes=(("", path.stat().st_size),) if inserts else tuple((n, m.size) for n, m in measures.items() if m.size),
        rows=() if inserts else tuple((n, m.rows) for n, m in measures.items() if m.size),
    )


def _read_script(delivered: _Delivered) -> Iterator[Statement | CopyBlock]:
    with delivered.reading.open(delivered.readable) as file:
        yield from scan(iter(partial(file.read, _CHUNK), b""))


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
