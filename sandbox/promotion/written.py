"""What was written to the promoted database since it became production: counted, and dumped row by row."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from sandbox.promotion.production import Connection

    OnProgress = Callable[[int, int], None]

_TABLES = """
    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
     ORDER BY 1, 2
"""
_COLUMNS = """
    SELECT attname FROM pg_attribute
     WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped {not_generated} ORDER BY attnum
"""
# The swap wrote the rows of both databases in pg_database; one of them is still as it was, unless both were altered
# since. Every transaction that wrote to the new one came after that.
_SINCE = sql.SQL(
    "age(t.xmin) < (SELECT max(age(d.xmin)) FROM pg_database d WHERE d.oid = {} OR d.datname = current_database())"
)


def dump(conn: Connection, renamed: int, path: Path, on_progress: OnProgress) -> Mapping[str, int]:
    """Write the rows that were inserted or changed since the swap, as a script of COPYs; return rows by table.

    Rows that were deleted since are not in it: they are in the database that was production before, or never were in
    any other. There is no file if nothing was written.

    :param conn: a session in the promoted database, which nobody writes to now.
    :param renamed: OID of the database that the swap renamed away.
    :param path: of the file, for its owner only: it holds data of patients.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    tables = conn.execute(_TABLES.encode()).fetchall()
    found: dict[str, int] = {}
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file, conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        for done, (schema, table) in enumerate(tables):
            for block in _changed(conn, schema, table, renamed, found):
                file.write(block)
            on_progress(done + 1, len(tables))
        file.flush()
        os.fsync(file.fileno())
    if not found:
        path.unlink()
    return found


def _changed(conn: Connection, schema: str, table: str, renamed: int, found: dict[str, int]) -> Iterator[bytes]:
    """The rows of one table as a block of a script; nothing if there are none."""
    name = sql.Identifier(schema, table)
    generated = "AND attgenerated = ''" if conn.info.server_version >= 120000 else ""
    query = _COLUMNS.replace("{not_generated}", generated)
    columns = sql.SQL(", ").join(
        [sql.Identifier(c) for (c,) in conn.execute(query.encode(), [name.as_string(conn)]).fetchall()]
    )
    since = _SINCE.format(sql.Literal(renamed))
    with conn.cursor() as cursor:
        copy = sql.SQL("COPY (SELECT {} FROM ONLY {} t WHERE {}) TO STDOUT").format(columns, name, since)
        with cursor.copy(copy) as blocks:
            begun = False
            for block in blocks:
                if not begun:
                    yield sql.SQL("COPY {} ({}) FROM stdin;\n").format(name, columns).as_bytes(conn)
                    begun = True
                yield bytes(block)
        if begun:
            yield b"\\.\n\n"
            found[f"{schema}.{table}"] = cursor.rowcount
