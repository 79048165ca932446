"""What went wrong in a restore, without a word of any row.

The messages of PostgreSQL quote values (``invalid input syntax for type integer: "..."``), and their details and
contexts quote whole rows. So nothing of them is passed on but the kind of error and names of the catalog.
"""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
from psycopg.errors import NotNullViolation

from merge.errors import BackupError, BlockedError, PreflightBlocked
from merge.language import counted, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from merge.errors import HomologationError
    from sandbox.command import CommandFailed
    from sandbox.intake import Backup

# Its warning about a COPY that is broken off quotes the row.
logging.getLogger("psycopg").setLevel(logging.CRITICAL)

_ENTRY = re.compile(r"from TOC entry \d+; \d+ \d+ (.+)$|COPY failed for table (\"[^\"\n]+\"):", re.M)
_MESSAGE = re.compile(r"^pg_restore: (?:\[[^\]]*\] )?(?:error|fatal): (.*(?:\n.*ERROR: .*)?)", re.M | re.IGNORECASE)
_CONTEXT = re.compile(r"COPY (\w+), line (\d+)(?:, column (\w+))?")
_CORRUPT = (
    "could not uncompress data",
    "could not decompress data",
    "could not read from input file",
    "unexpected end of file",
    "corrupt",
    "unexpected data offset",
    "did not find magic string",
    "found unexpected block ID",
    "missing data for column",
    "extra data after last expected column",
    "invalid byte sequence for encoding",
)
_KINDS = (
    *_CORRUPT,
    "invalid input syntax for type",
    "invalid input value for enum",
    "value too long for type",
    "out of range",
    "violates unique constraint",
    "violates foreign key constraint",
    "violates check constraint",
    "violates not-null constraint",
    "could not create unique index",
    "permission denied",
    "must be owner",
    "must be superuser",
    "superuser",
    "is not available",
    "could not access file",
    "does not exist",
    "already exists",
    "syntax error",
    "unrecognized configuration parameter",
    "No space left on device",
    "could not extend file",
    "out of memory",
    "terminating connection",
    "server closed the connection",
    "connection to server",
    "canceling statement",
    "stack depth limit exceeded",
    "infinite recursion",
    "unsupported version",
    "not support",
)


@contextmanager
def evidence_is(backup: Backup) -> Iterator[None]:
    """Let every error about a backup that comes out of here name its file, also what the server says unasked."""
    try:
        yield
    except (BackupError, BlockedError) as ex:
        ex.evidence = ex.evidence or str(backup.path)
        raise
    except psycopg.Error as ex:
        error = of_statement(ex, backup.name)
        error.evidence = str(backup.path)
        raise error from None


def of_tool(failure: CommandFailed, action: str) -> BackupError:
    """The error of a pg_restore that failed.

    :param action: what was being done, e.g. the name of the table or database.
    """
    messages = [m for m in _MESSAGE.findall(failure.stderr) if "worker process died" not in m] or [failure.stderr]
    kinds: dict[str, int] = {}
    for message in messages:
        kind = next((kind for kind in _KINDS if kind in message), "pg_restore")
        kinds[kind] = kinds.get(kind, 0) + 1
    entries = list(dict.fromkeys(entry or table for entry, table in _ENTRY.findall(failure.stderr)))
    details = [f"{count} × {kind}" for kind, count in kinds.items()] + entries[:20]
    return _error(action, len(messages), details, corrupt=any(kind in _CORRUPT for kind in kinds))


def of_statement(error: psycopg.Error, action: str) -> HomologationError:
    """The error of a statement or COPY of a backup that the server refused."""
    if isinstance(error, NotNullViolation):  # the backup is sound; its schema lets be what the central's does not
        return PreflightBlocked(
            text(
                pt=f"{action}: há linhas sem um valor que o central exige; nada foi gravado.",
                en=f"{action}: rows lack a value that the central demands; nothing was written.",
            ),
            details=[describe(error)],
            next_step=text(
                pt="Corrija os dados na origem e faça um novo backup.",
                en="Correct the data at the source and take a new backup.",
            ),
        )
    return _error(action, 1, [describe(error)], corrupt=False)


def describe(error: psycopg.Error) -> str:
    """Kind and place of a server's error: its class, SQLSTATE, and names of table, column, constraint and line."""
    diag = error.diag
    parts = [type(error).__name__, error.sqlstate or ""]
    parts += [name for name in (diag.table_name, diag.column_name, diag.constraint_name) if name]
    if found := _CONTEXT.search(diag.context or ""):
        parts += [found[1], text(pt=f"linha {found[2]}", en=f"line {found[2]}"), found[3] or ""]
    return " ".join(part for part in parts if part)


def _error(action: str, count: int, details: list[str], *, corrupt: bool) -> BackupError:
    return BackupError(
        text(
            pt=f"A restauração de {action} parou com {counted(count, 'erro', 'erros')}.",
            en=f"Restoring {action} stopped with {counted(count, 'error', 'errors')}.",
        ),
        details=details,
        next_step=text(
            pt="O arquivo parece corrompido: copie-o de novo da origem, ou faça o backup outra vez.",
            en="The file seems to be corrupt: copy it again from where it was made, or take the backup again.",
        )
        if corrupt
        else text(
            pt="Confira se o backup vem de um banco são e da mesma versão, e faça-o outra vez.",
            en="See that the backup comes from a sound database of the same version, and take it again.",
        ),
    )
