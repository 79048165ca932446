"""Proof of what the scope says: exactly the declared rows do not come, and exactly the declared rows were added.

Which rows must not come is worked out again from the source alone: those that a declared condition names, and round by
round those that refer to a row of the round before. Which rows a condition of the profile means, the profile says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from merge.masking import shown_key
from merge.plan import BELONGS, CENTRAL_OWNS, Action
from merge.proof import SHOWN, Difference, Findings, Kind
from merge.proof_rows import TRUE, Comparison, found_rows, image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from merge.catalog import Catalog, Table
    from merge.plan import Addition, Follow, Plan, TablePlan
    from merge.proof_rows import Image, Move
    from merge.proof_session import Connection

_WORK = "CREATE TEMP TABLE homolog_left_out (table_name text, src_row tid, reason text, round int) ON COMMIT DROP"

_WRONG = {
    "stays IS NULL": "excluded, but no declared condition names it, nor does it refer to a row that does not come",
    "claimed IS NULL": "must not come by the scope, but the ledger does not exclude it",
    "stays <> claimed": "excluded for another reason than the declared one",
}


def check_left_out(
    conn: Connection, *, plan: Plan, catalog: Catalog, source: int, filled: Mapping[str, int], secret: str,
    findings: Findings,
) -> None:  # fmt: skip
    """Compare the rows of a source that the ledger excludes by the scope with those that must not come.

    :param conn: a connection that only reads; what is worked out here is in a temporary table.
    :param filled: bytes of each of the source's tables.
    """
    tables = [t for t in plan.merged() if filled.get(t.name) and t.name in catalog.tables]
    with conn.transaction():
        conn.execute("SET TRANSACTION READ WRITE")
        find_left_out(conn, source, tables)
        for table, condition, count in _compare(conn, source, tables):
            described = catalog.tables[table.name]
            findings.extend(_examples(conn, source, table, described, condition, secret), count)
        _check_ledger(conn, plan, source, findings)


def find_left_out(conn: Connection, source: int, tables: list[TablePlan]) -> None:
    """In a transaction: make the temporary table ``homolog_left_out`` of a source's rows that must not come."""
    conn.execute(_WORK)
    schema = f"src_{source}"
    found: set[str] = set()
    for table in tables:
        for leave in table.leave_out:
            conn.execute("SELECT set_config('search_path', %s, true)", [schema])
            rows = conn.execute(
                sql.SQL(
                    "INSERT INTO pg_temp.homolog_left_out SELECT {}, s.ctid, {}, 0 FROM {} s WHERE ({}) AND {}"
                ).format(
                    sql.Literal(table.name),
                    sql.Literal(leave.name),
                    sql.Identifier(schema, table.name),
                    sql.SQL(leave.where),
                    _not_yet(table),
                )
            ).rowcount
            conn.execute("SELECT set_config('search_path', 'pg_catalog', true)")
            if rows:
                found.add(table.name)
    number = 0
    while found:
        conn.execute("ANALYZE pg_temp.homolog_left_out")
        before, found, number = found, set(), number + 1
        for table in tables:
            for link in table.follows:
                if link.table in before and conn.execute(_round(schema, table, link, number)).rowcount:
                    found.add(table.name)


def _not_yet(table: TablePlan) -> sql.Composed:
    return sql.SQL(
        "NOT EXISTS (SELECT 1 FROM pg_temp.homolog_left_out o WHERE o.table_name = {} AND o.src_row = s.ctid)"
    ).format(sql.Literal(table.name))


def _round(schema: str, table: TablePlan, link: Follow, number: int) -> sql.Composed:
    """The rows that refer to one found in the round before."""
    pairs = zip(link.columns, link.ref_columns, strict=True)
    same = [sql.SQL("p.{} = s.{}").format(sql.Identifier(r), sql.Identifier(c)) for c, r in pairs]
    return sql.SQL(
        "INSERT INTO pg_temp.homolog_left_out SELECT {name}, s.ctid, {reason}, {number} FROM {child} s WHERE EXISTS"
        " (SELECT 1 FROM {parent} p JOIN pg_temp.homolog_left_out o ON o.src_row = p.ctid"
        " WHERE o.table_name = {of} AND o.round = {number} - 1 AND {same}) AND {fresh}"
    ).format(
        name=sql.Literal(table.name),
        reason=sql.Literal(BELONGS),
        number=sql.Literal(number),
        child=sql.Identifier(schema, table.name),
        parent=sql.Identifier(schema, link.table),
        of=sql.Literal(link.table),
        same=sql.SQL(" AND ").join(same),
        fresh=_not_yet(table),
    )


def _compare(conn: Connection, source: int, tables: list[TablePlan]) -> list[tuple[TablePlan, str, int]]:
    """Rows that are excluded and must not be, or the other way round, by table and condition of `_WRONG`."""
    # Whether those may be excluded that the central owns is for the comparison of the rows to say.
    owners = [t.name for t in tables if t.central_owns]
    conn.execute(
        sql.SQL(
            "CREATE TEMP TABLE homolog_unlike ON COMMIT DROP AS"
            " SELECT coalesce(o.table_name, e.table_name) AS table_name, coalesce(o.src_row, e.src_row) AS src_row,"
            " o.reason AS stays, e.reason AS claimed"
            " FROM pg_temp.homolog_left_out o FULL JOIN (SELECT * FROM homolog.exception WHERE source = {source}"
            " AND disposition = 'excluded' AND NOT (reason = {owned} AND table_name = ANY ({owners}::text[]))) e"
            " ON e.table_name = o.table_name AND e.src_row = o.src_row WHERE o.reason IS DISTINCT FROM e.reason"
        ).format(source=sql.Literal(source), owned=sql.Literal(CENTRAL_OWNS), owners=sql.Literal(owners))
    )
    planned = {t.name: t for t in tables}
    found = []
    for condition in _WRONG:
        rows = conn.execute(
            sql.SQL("SELECT table_name, count(*) FROM pg_temp.homolog_unlike WHERE {} GROUP BY 1 ORDER BY 1").format(
                sql.SQL(condition)
            )
        ).fetchall()
        found += [(planned[name], condition, count) for name, count in rows if name in planned]
    return found


def _examples(
    conn: Connection, source: int, table: TablePlan, described: Table, condition: str, secret: str
) -> list[Difference]:
    types = {c.name: c.type for c in described.columns}
    key = shown_key({name: (sql.Identifier("s", name), types[name]) for name in table.key}, secret)
    shown = conn.execute(
        sql.SQL(
            "SELECT {} FROM pg_temp.homolog_unlike u LEFT JOIN {} s ON s.ctid = u.src_row"
            " WHERE table_name = {} AND {} LIMIT {}"
        ).format(
            key,
            sql.Identifier(f"src_{source}", table.name),
            sql.Literal(table.name),
            sql.SQL(condition),
            sql.Literal(SHOWN),
        )
    ).fetchall()
    reason = _WRONG[condition]
    return [Difference(Kind.LEDGER.value, table.name, k, source=source, reason=reason) for (k,) in shown]


def _check_ledger(conn: Connection, plan: Plan, source: int, findings: Findings) -> None:
    """The ledger excludes rows for the reasons that their exceptions have."""
    coming = [t.name for t in plan.merged()]
    for table, reason, rows, written in conn.execute(
        "SELECT coalesce(e.table_name, l.table_name), coalesce(e.reason, l.reason), coalesce(e.rows, 0),"
        " coalesce(l.rows, 0) FROM (SELECT table_name, reason, count(*) AS rows FROM homolog.exception"
        " WHERE source = %(source)s AND disposition = 'excluded' GROUP BY 1, 2) e"
        " FULL JOIN (SELECT table_name, reason, rows FROM homolog.ledger WHERE source = %(source)s"
        " AND disposition = 'excluded' AND table_name = ANY (%(coming)s)) l"
        " ON l.table_name = e.table_name AND l.reason = e.reason WHERE e.rows IS DISTINCT FROM l.rows",
        {"source": source, "coming": coming},
    ).fetchall():
        findings.add(Kind.LEDGER, table, key=reason, expected=f"{rows} rows", found=f"{written} rows")


# Additions


def addition_image(plan: Plan, add: Addition, described: Table, source: int, moves: Mapping[str, Move]) -> Image:
    """The rows that an addition declares, as those of a source that must be in the merged database.

    Its query names the source's tables without a schema: see `added_in`.
    """
    table = plan.table(add.table)
    names = sql.SQL(", ").join([sql.Identifier("q", c.name) for c in described.columns if not c.generated])
    rows = sql.SQL("(SELECT {} FROM ({}) q)").format(names, sql.SQL(add.query))
    return image(plan, table, described, source, moves, excepted=False, relation=rows)


def brought(rows_image: Image, add: Addition) -> sql.Composable:
    """The condition that such a row must be there: what it belongs to was inserted."""
    matched = rows_image.matched.get(add.of)
    return TRUE if matched is None else sql.SQL("NOT ({})").format(matched)


def added_in(conn: Connection, source: int) -> None:
    """From here to the end of the transaction, names of tables without a schema are those of the source."""
    conn.execute("SELECT set_config('search_path', %s, true)", [f"src_{source}"])


def check_addition(
    conn: Connection, *, plan: Plan, add: Addition, described: Table, source: int, moves: Mapping[str, Move],
    secret: str, findings: Findings,
) -> None:  # fmt: skip
    """Every row that the scope declares for this source is there, and as many are in the ledger.

    That there is no other is part of the central's proof.
    """
    rows_image = addition_image(plan, add, described, source, moves)
    merged = sql.Identifier(plan.schema, add.table)
    joined = found_rows(merged, rows_image.key(), lookup=False)
    with conn.transaction():
        added_in(conn, source)
        comparison = Comparison(
            add.table,
            sql.SQL("{}{}").format(rows_image.rows, joined),
            brought(rows_image, add),
            rows_image.key(),
            rows_image.cells,
            source,
            secret,
        )
        pairs, lost, changed = comparison.count(conn)
        if lost:
            findings.extend(comparison.lost(conn, "declared by the scope"), lost)
        if changed:
            for number, examples in comparison.changed(conn, "declared by the scope"):
                findings.extend(examples, number)
    findings.compared(add.table, pairs)
    row = conn.execute(
        "SELECT coalesce(sum(rows), 0)::bigint FROM homolog.added"
        " WHERE source = %s AND table_name = %s AND reason = %s",
        [source, add.table, add.name],
    ).fetchone()
    assert row is not None
    if row[0] != pairs:
        findings.add(Kind.LEDGER, add.table, key=add.name, expected=f"{pairs} rows", found=f"{row[0]} rows")


def check_follows(plan: Plan, catalog: Catalog, findings: Findings) -> None:
    """Every foreign key to a table of which rows are left out is followed."""
    narrowed = {t.name for t in plan if t.leave_out or t.follows}
    for table in plan.merged():
        described = catalog.tables.get(table.name)
        for foreign in described.foreign_keys if described is not None else ():
            known = any((f.table, f.columns) == (foreign.ref_table, foreign.columns) for f in table.follows)
            if foreign.ref_table in narrowed and not known:
                columns = ", ".join(foreign.columns)
                findings.add(Kind.PLAN, table.name, column=columns, reason=f"does not follow {foreign.ref_table}")
    for add in plan.additions:
        if plan.table(add.table).action is not Action.EXCLUDE:
            findings.add(Kind.PLAN, add.table, reason=f"{add.name} adds to a table that comes itself")
