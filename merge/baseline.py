"""The baseline: all of the central as restored, kept in the same database before anything is merged.

Schema `homolog_base` holds a copy of every table; schema `homolog` holds what is not in tables:

- ``base_table(table_name, rows)``: written with the copy, so that an interrupted baseline can be gone on with;
- ``base_range(table_name, column_name, low, high)``: least and greatest value of every key and reference;
- ``base_sequence(name, last_value, is_called, definition)``;
- ``base_large_object(loid, md5, size)``;
- ``base_object(kind, name, table_name, digest)``: the definition of every object outside our own schemas.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from psycopg import sql

from merge import proof_objects
from merge.errors import MergeError
from merge.language import text
from merge.plan import Action, ColumnKind
from merge.proof_session import run_all, session, table_sizes

if TYPE_CHECKING:
    from collections.abc import Callable

    from merge.plan import Plan, TablePlan
    from merge.proof_session import Connection

_SCHEMA = """
    CREATE SCHEMA IF NOT EXISTS homolog;
    CREATE SCHEMA IF NOT EXISTS homolog_base;
    CREATE TABLE IF NOT EXISTS homolog.base_table (table_name text PRIMARY KEY, rows bigint NOT NULL);
    CREATE TABLE IF NOT EXISTS homolog.base_range (
        table_name text, column_name text, low numeric, high numeric, PRIMARY KEY (table_name, column_name));
    CREATE TABLE IF NOT EXISTS homolog.base_sequence (
        name text PRIMARY KEY, last_value bigint NOT NULL, is_called boolean NOT NULL, definition text NOT NULL);
    CREATE TABLE IF NOT EXISTS homolog.base_large_object (
        loid oid PRIMARY KEY, md5 text NOT NULL, size bigint NOT NULL);
    CREATE TABLE IF NOT EXISTS homolog.base_object (
        kind text, name text, table_name text NOT NULL, digest text NOT NULL, PRIMARY KEY (kind, name));
    CREATE TABLE IF NOT EXISTS homolog.base_unfilled_view (name text PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS homolog.base_done (at timestamptz NOT NULL DEFAULT now());
"""


@dataclass(frozen=True)
class Baseline:
    """What was kept."""

    tables: int
    rows: int
    large_objects: int
    objects: int
    seconds: float


def make_baseline(
    connect: Callable[[], Connection],
    plan: Plan,
    jobs: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> Baseline:
    """Keep the baseline. Done already, it does nothing; interrupted, it goes on.

    :param connect: opens a connection to the central's database, of a role that reads all and may make schemas.
    :raises MergeError: if a source was merged before the baseline was whole.
    """
    start = time.monotonic()
    with session(connect, read_only=False) as conn:
        conn.execute(_SCHEMA.encode())
        if conn.execute("SELECT 1 FROM homolog.base_done").fetchone() is None:
            if _anything_merged(conn):
                raise MergeError(
                    text(
                        pt="Uma origem foi unificada antes de haver a cópia de referência do central.",
                        en="A source was merged before the baseline of the central was kept.",
                    )
                )
            done = {name for (name,) in conn.execute("SELECT table_name FROM homolog.base_table")}
            sizes = table_sizes(conn, plan.schema)
            todo = sorted((t for t in plan if t.name not in done), key=lambda t: -sizes.get(t.name, 0))
            tasks = [partial(_keep_table, plan=plan, table=t) for t in todo]
            run_all(connect, [_keep_large_objects, *tasks], jobs, on_progress, read_only=False)
            _keep_definitions(conn, plan.schema)
        row = conn.execute(
            "SELECT (SELECT count(*) FROM homolog.base_table), (SELECT sum(rows) FROM homolog.base_table),"
            " (SELECT count(*) FROM homolog.base_large_object), (SELECT count(*) FROM homolog.base_object)"
        ).fetchone()
        assert row is not None
    return Baseline(row[0], int(row[1] or 0), row[2], row[3], round(time.monotonic() - start, 3))


def _anything_merged(conn: Connection) -> bool:
    if conn.execute("SELECT to_regclass('homolog.source')").fetchone() == (None,):
        return False
    return conn.execute("SELECT 1 FROM homolog.source").fetchone() is not None


def _keep_table(conn: Connection, *, plan: Plan, table: TablePlan) -> None:
    original, copy = sql.Identifier(plan.schema, table.name), sql.Identifier("homolog_base", table.name)
    with conn.transaction():
        # Created and filled in one transaction, so that nothing of it goes to the WAL.
        conn.execute(sql.SQL("CREATE TABLE {} AS SELECT * FROM {}").format(copy, original))
        if table.key and table.action is Action.MERGE and plan.own_domain(table) is None:
            # Only such a row can be one that the central had already without being in a map: it will be looked up.
            names = sql.SQL(", ").join(map(sql.Identifier, table.key))
            conn.execute(sql.SQL("CREATE INDEX ON {} ({})").format(copy, names))
        keys = [c.name for c in table.columns if c.kind is ColumnKind.KEY]
        ends = [sql.SQL("min({0})::numeric, max({0})::numeric").format(sql.Identifier(name)) for name in keys]
        row = conn.execute(
            sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join([sql.SQL("count(*)"), *ends]), copy)
        ).fetchone()
        assert row is not None
        conn.execute("INSERT INTO homolog.base_table VALUES (%s, %s)", [table.name, row[0]])
        for position, name in enumerate(keys):
            low, high = row[1 + 2 * position : 3 + 2 * position]
            if low is not None:
                conn.execute("INSERT INTO homolog.base_range VALUES (%s, %s, %s, %s)", [table.name, name, low, high])


def _keep_large_objects(conn: Connection) -> None:
    conn.execute(
        "INSERT INTO homolog.base_large_object"
        " SELECT m.oid, md5(d.content), length(d.content) FROM pg_largeobject_metadata m, LATERAL (SELECT lo_get(m.oid)"
        " AS content OFFSET 0) d ON CONFLICT DO NOTHING"
    )


def _keep_definitions(conn: Connection, schema: str) -> None:
    with conn.transaction():
        conn.execute("DELETE FROM homolog.base_sequence")
        conn.execute("DELETE FROM homolog.base_object")
        conn.execute("DELETE FROM homolog.base_unfilled_view")
        conn.execute(
            "INSERT INTO homolog.base_unfilled_view SELECT relname FROM pg_class"
            " WHERE relkind = 'm' AND NOT relispopulated AND relnamespace = %s::regnamespace",
            [schema],
        )
        for name, last, called, definition in proof_objects.sequences(conn, schema):
            conn.execute("INSERT INTO homolog.base_sequence VALUES (%s, %s, %s, %s)", [name, last, called, definition])
        conn.execute(
            sql.SQL("INSERT INTO homolog.base_object (kind, name, table_name, digest) {}").format(
                proof_objects.definitions(conn.info.server_version)
            )
        )
        conn.execute("INSERT INTO homolog.base_done DEFAULT VALUES")


def allow_reading(conn: Connection, role: str) -> None:
    """Let a role that is not superuser read the baseline.

    :param conn: of the role that made the baseline, to the central's database.
    """
    name = sql.Identifier(role)
    conn.execute(sql.SQL("GRANT USAGE ON SCHEMA homolog, homolog_base TO {}").format(name))
    conn.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA homolog, homolog_base TO {}").format(name))


def ranges(conn: Connection) -> dict[tuple[str, str], tuple[int, int]]:
    """Least and greatest value of every key and reference of the central, by (table, column)."""
    found = conn.execute("SELECT table_name, column_name, low, high FROM homolog.base_range").fetchall()
    return {(table, column): (int(low), int(high)) for table, column, low, high in found}
