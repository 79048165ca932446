"""One backup of production by pg_dump: whole, private and on the disk, or not there at all."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from merge.errors import ConfigError, ServerError
from merge.language import text
from sandbox import words
from sandbox.command import CommandFailed
from sandbox.sample.make import DUMP_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import psycopg

    from sandbox.promotion.production import Production

    Connection = psycopg.Connection[tuple[Any, ...]]
    Progress = Callable[[int, int], None]

_MAKING = ".making"
_KEPT_FREE = 256 << 20
_LOCK_MILLISECONDS = 120_000
"""How long pg_dump waits for a table that someone has locked."""
_IMPATIENT = f"SET lock_timeout = {_LOCK_MILLISECONDS}"
"""Asking for the size of a table waits for its lock, too."""
_LEFT_SECONDS = 600
"""A file that pg_dump writes to changes all the time; one that has not for so long is of one that was killed."""


@dataclass(frozen=True)
class Dumped:
    """A backup that pg_dump has made whole, and that is on the disk.

    :param seconds: that pg_dump took.
    """

    path: Path
    sha256: str
    size: int
    seconds: float


def dump(
    production: Production,
    path: Path,
    *,
    snapshot: str | None = None,
    options: Sequence[str] = DUMP_OPTIONS,
    on_progress: Progress | None = None,
) -> Dumped:
    """Make a backup of the production database; the file is there whole, 0600 and on the disk, or it is not there.

    :param snapshot: the exported snapshot that it shows.
    :param options: of pg_dump; the format must be one of a single file.
    :param on_progress: called with bytes of tables begun and in all.
    :raises ConfigError: something may not be read, the disk is full, a table stays locked, or production is lost.
    """
    _sweep(path.parent)
    making = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_MAKING}")
    os.close(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    args = [*options, f"--file={production.path(making)}", f"--lock-wait-timeout={_LOCK_MILLISECONDS}", "--verbose"]
    if snapshot is not None:
        args.append(f"--snapshot={snapshot}")
    began = time.monotonic()
    try:
        production.tool("pg_dump", *args).run(on_line=_Progress(production, on_progress))
        seconds = time.monotonic() - began
        with making.open("rb+") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
        making.replace(path)
    except CommandFailed as ex:
        raise _failed(ex, production) from None
    finally:
        making.unlink(missing_ok=True)
    return Dumped(path, digest, size, seconds)


_BEGUN = re.compile(r'dumping contents of table "(.+)"$')

_SIZES = """
    SELECT n.nspname || '.' || c.relname, pg_table_size(c.oid)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""


class _Progress:
    """Tells from what pg_dump says how far it is; its lines name tables and no rows."""

    def __init__(self, production: Production, on_progress: Progress | None) -> None:
        self._on_progress = on_progress
        self._done = 0
        self._sizes: dict[str, int] = {}
        if on_progress is not None:
            with production.connect() as conn:
                conn.execute(_IMPATIENT)
                self._sizes = dict(conn.execute(_SIZES).fetchall())
        self._total = sum(self._sizes.values())

    def __call__(self, line: str) -> None:
        if self._on_progress is not None and (found := _BEGUN.search(line)):
            self._on_progress(self._done, self._total)
            self._done += self._sizes.get(found[1].replace('"', ""), 0)


_DENIED = re.compile(r"permission denied for \w+(?: object)? ([\w.\"]+)")
_SAID = {
    "No space left on device": (
        "O disco encheu.",
        "The disk is full.",
    ),
    "statement timeout": (  # of --lock-wait-timeout
        "Uma tabela ficou bloqueada por outra sessão.",
        "A table stayed locked by another session.",
    ),
    "server version mismatch": (
        "O pg_dump não é da versão do servidor.",
        "pg_dump is not of the server's version.",
    ),
    "server closed the connection": (
        "A conexão com a produção caiu.",
        "The connection to production was lost.",
    ),
    "terminating connection": (
        "A produção encerrou a conexão.",
        "Production ended the connection.",
    ),
    "row-level security": (
        "Uma política de segurança de linhas esconde linhas deste papel.",
        "A row security policy hides rows from this role.",
    ),
}


def _failed(ex: CommandFailed, production: Production) -> ConfigError:
    """The error for a pg_dump that failed; what the server said might quote anything."""
    details = [text(pt=pt, en=en) for said, (pt, en) in _SAID.items() if said in ex.stderr]
    denied = _DENIED.findall(ex.stderr)
    if denied:
        details.append(
            text(pt=f"{production.role} não pode ler {denied[0]}.", en=f"{production.role} may not read {denied[0]}.")
        )
    return ServerError(
        text(pt="O pg_dump não terminou o backup.", en="pg_dump did not finish the backup."),
        details=details or [text(pt=f"código {ex.code}", en=f"code {ex.code}")],
        next_step=text(
            pt="Nada ficou no disco. Corrija e repita; entre como superusuário ou como o dono das tabelas.",
            en="Nothing was left on the disk. Put it right and try again; connect as superuser or the tables' owner.",
        ),
    )


_ROOM = """
    SELECT coalesce(sum(pg_relation_size(c.oid) / 3 + pg_table_size(c.oid) - pg_relation_size(c.oid)), 0)::bigint
           + pg_relation_size('pg_catalog.pg_largeobject')
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""
"""A backup compresses rows to a third or less; what is compressed already, not at all."""


def check_room(conn: Connection, folder: Path) -> int:
    """Bytes that a backup of the database may take at most, for which there is room.

    :raises ConfigError: there is none.
    """
    conn.execute(_IMPATIENT)
    row = conn.execute(_ROOM).fetchone()
    conn.execute("SET lock_timeout = 0")
    assert row is not None
    needed, free = row[0] + _KEPT_FREE, shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigError(
            text(
                pt=f"Não há espaço para o backup em {folder}: pode precisar de {words.size(needed)}; "
                f"há {words.size(free)}.",
                en=f"There is no room for the backup in {folder}: it may take {words.size(needed)}; "
                f"{words.size(free)} are free.",
            ),
            next_step=text(pt="Indique outra pasta com --folder.", en="Name another folder by --folder."),
        )
    return int(row[0])


def _sweep(folder: Path) -> None:
    """Remove what a process that was killed has left."""
    for path in folder.glob(f".*{_MAKING}"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _LEFT_SECONDS:
                path.unlink()
