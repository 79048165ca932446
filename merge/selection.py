"""Notes which rows of a source do not come by the plan's scope, and inserts the rows that the scope adds.

What does not come is decided by the source alone, before anything is matched: the rows that a declared condition
names, and whatever refers to them, until nothing more does. In a plan without such conditions nothing is read.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from merge.errors import ConfigError
from merge.language import text
from merge.plan import BELONGS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from merge.crosswalk import Crosswalk
    from merge.plan import Addition, Follow, LeaveOut, Plan, TablePlan

Connection = psycopg.Connection[tuple[Any, ...]]


def check_declared(conn: Connection, plan: Plan, schema: str) -> None:
    """Check that what the scope declares in SQL can be executed on the tables of `schema`; nothing is executed.

    :raises ConfigError: listing every condition and query that cannot.
    """
    problems = []
    declared = [(leave.name, _rows(schema, t.name, leave)) for t in plan for leave in t.leave_out]
    declared += [(add.name, _added_rows(plan, add)) for add in plan.additions]
    for name, query in declared:
        try:
            with conn.transaction(force_rollback=True), _tables_of(conn, schema):
                conn.execute(sql.SQL("EXPLAIN {}").format(query))
        except psycopg.Error as ex:
            problems.append(f"{name}: {ex.diag.message_primary or type(ex).__name__}")
    if problems:
        raise ConfigError(
            text(
                pt=f"O escopo {plan.scope} do perfil não pode ser aplicado a estas tabelas.",
                en=f"The profile's scope {plan.scope} cannot be applied to these tables.",
            ),
            details=problems,
            next_step=text(pt="Corrija o perfil.", en="Correct the profile."),
        )


def note_left_out(
    conn: Connection, plan: Plan, crosswalk: Crosswalk, tables: Sequence[TablePlan]
) -> dict[str, Counter[str]]:
    """Write an exception for every row of `tables` that the scope leaves out; return rows by table and reason.

    From then on the crosswalk gives the other rows of these tables only.
    """
    found: dict[str, Counter[str]] = defaultdict(Counter)
    waiting: deque[str] = deque()

    def note(table: TablePlan, reason: str, query: sql.Composable) -> None:
        rows = conn.execute(_note(crosswalk, table, reason, query)).rowcount
        if rows:
            found[table.name][reason] += rows
            conn.execute("ANALYZE homolog.exception")  # it is joined at once, and must not be taken for empty
            if table.name not in waiting:
                waiting.append(table.name)

    for table in tables:
        for leave in table.leave_out:
            with _tables_of(conn, crosswalk.schema):
                note(table, leave.name, _rows(crosswalk.schema, table.name, leave))
    children = [(table, link) for table in tables for link in table.follows]
    while waiting:
        parent = waiting.popleft()
        for table, link in children:
            if link.table == parent:
                note(table, BELONGS, _followers(crosswalk, table, link))
    crosswalk.narrowed |= found.keys()
    return found


def insert_additions(conn: Connection, plan: Plan, crosswalk: Crosswalk) -> Mapping[tuple[str, str], int]:
    """Insert the rows that the scope adds; return how many by table and name of the addition."""
    added = {}
    for add in plan.additions:
        table = plan.table(add.table)
        mapped = crosswalk.mapped(table, sql.SQL("({})").format(_added_rows(plan, add)))
        with _tables_of(conn, crosswalk.schema):
            added[add.table, add.name] = conn.execute(
                sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} WHERE {}").format(
                    sql.Identifier(plan.schema, table.name),
                    mapped.names,
                    mapped.values(),
                    mapped.source(),
                    mapped.is_matched(add.of, matched=False),
                )
            ).rowcount
    return added


@contextmanager
def _tables_of(conn: Connection, schema: str) -> Iterator[None]:
    """In a transaction: names of tables without a schema are those of `schema`; an error ends the transaction."""
    before = conn.execute("SELECT current_setting('search_path')").fetchone() or ("",)
    conn.execute("SELECT set_config('search_path', quote_ident(%s), true)", [schema])
    yield
    conn.execute("SELECT set_config('search_path', %s, true)", before)


def _rows(schema: str, table: str, leave: LeaveOut) -> sql.Composed:
    return sql.SQL("SELECT s.ctid AS src_row FROM {} s WHERE ({})").format(
        sql.Identifier(schema, table), _declared(leave.where)
    )


def _added_rows(plan: Plan, add: Addition) -> sql.Composed:
    columns = sql.SQL(", ").join(sql.Identifier("q", c.name) for c in plan.table(add.table).columns)
    return sql.SQL("SELECT {} FROM ({}) q").format(columns, _declared(add.query))


def _declared(text_: str) -> sql.SQL:
    """SQL of the profile, which is as trusted as this code."""
    return sql.SQL(text_)


def _followers(crosswalk: Crosswalk, table: TablePlan, link: Follow) -> sql.Composed:
    """The rows that refer to rows left out of the link's table."""

    def columns(alias: str, names: Sequence[str]) -> sql.Composed:
        return sql.SQL(", ").join(sql.Identifier(alias, name) for name in names)

    return sql.SQL(
        "SELECT s.ctid AS src_row FROM {child} s WHERE ({ours}) IN (SELECT {theirs} FROM {parent} p"
        " JOIN homolog.exception e ON e.src_row = p.ctid"
        " WHERE e.source = {source} AND e.table_name = {name} AND e.disposition = 'excluded')"
    ).format(
        child=sql.Identifier(crosswalk.schema, table.name),
        ours=columns("s", link.columns),
        theirs=columns("p", link.ref_columns),
        parent=sql.Identifier(crosswalk.schema, link.table),
        source=sql.Literal(crosswalk.source),
        name=sql.Literal(link.table),
    )


def _note(crosswalk: Crosswalk, table: TablePlan, reason: str, query: sql.Composable) -> sql.Composed:
    return sql.SQL(
        "INSERT INTO homolog.exception (source, table_name, src_row, disposition, reason)"
        " SELECT {source}, {table}, q.src_row, 'excluded', {reason} FROM ({query}) q WHERE NOT EXISTS"
        " (SELECT 1 FROM homolog.exception e"
        " WHERE e.source = {source} AND e.table_name = {table} AND e.src_row = q.src_row)"
    ).format(
        source=sql.Literal(crosswalk.source),
        table=sql.Literal(table.name),
        reason=sql.Literal(reason),
        query=query,
    )
