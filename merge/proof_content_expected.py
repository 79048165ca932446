"""Which rows the sources must bring, worked out from the sources, the baseline and the plan alone.

Matched rows are found by the declared rules as the plan states them, without the code of the engine and without
looking at the merged database: each source is matched with the baseline and with what the sources before it must bring.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from psycopg import sql

from merge import proof_scope
from merge.plan import Role
from merge.proof_content_rows import SCRATCH, Domains, Expected, shown
from merge.proof_crosswalk import base_ranges
from merge.proof_rows import NEVER, Move

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from merge.catalog import Catalog
    from merge.plan import Plan, TablePlan
    from merge.proof_crosswalk import Ranges
    from merge.proof_session import Connection


def expect(
    conn: Connection, plan: Plan, catalog: Catalog, sources: Sequence[int], ranges: Mapping[int, Ranges],
    rows: Mapping[int, Mapping[str, int]],
) -> tuple[Expected, Counter[str]]:  # fmt: skip
    """Work out the rows expected; also how many rows of the sources were there before, by table and rule.

    :param conn: a connection that may write to `SCRATCH`.
    :param ranges: of every source, measured.
    :param rows: by source, the tables that have rows, and how many.
    """
    ends = base_ranges(conn, plan)
    expected = Expected(plan, catalog, sources, Domains(plan, ends))
    next_number = {d.name: max(ends.get(d.name, (0, 0))[1], 0) + 1 for d in plan.domains.values() if not d.fixed}
    for source in sources:
        expected.filled[source] = dict(rows[source])
        expected.moves[source] = {}
        for name in next_number:
            found = ranges[source].of(plan.domains[name])
            if found is not None:
                expected.moves[source][name] = Move(next_number[name] - found[0])
                next_number[name] += found[1] - found[0] + 1
    _leave_out(conn, expected)
    _add(conn, expected)
    matched: Counter[str] = Counter()
    for source in sources:
        for table in plan.merged():
            if rows[source].get(table.name) and (table.match or table.within):
                matched.update(_match(conn, expected, table, source))
    return expected, matched


def _leave_out(conn: Connection, expected: Expected) -> None:
    into = sql.Identifier(SCRATCH, "left_out")
    conn.execute(sql.SQL("CREATE UNLOGGED TABLE {} (source int, table_name text, src_row tid)").format(into))
    for source in expected.sources:
        tables = [t for t in expected.plan.merged() if expected.filled[source].get(t.name)]
        if not any(t.leave_out for t in tables):
            continue
        with conn.transaction():
            proof_scope.find_left_out(conn, source, tables)
            conn.execute(
                sql.SQL("INSERT INTO {} SELECT {}, table_name, src_row FROM pg_temp.homolog_left_out").format(
                    into, sql.Literal(source)
                )
            )
            names = conn.execute("SELECT DISTINCT table_name FROM pg_temp.homolog_left_out").fetchall()
        expected.narrowed[source] = {name for (name,) in names}
    conn.execute(sql.SQL("ANALYZE {}").format(into))


def _add(conn: Connection, expected: Expected) -> None:
    for number, add in enumerate(expected.plan.additions):
        for source in expected.sources if add.table in expected.catalog.tables else ():
            name = f"added_{number}_{source}"
            with conn.transaction():
                proof_scope.added_in(conn, source)
                conn.execute(
                    sql.SQL("CREATE UNLOGGED TABLE {} AS SELECT q.* FROM ({}) q").format(
                        sql.Identifier(SCRATCH, name), sql.SQL(add.query)
                    )
                )
            expected.added[add.table].append((source, name, add.of))


def _match(conn: Connection, expected: Expected, table: TablePlan, source: int) -> Counter[str]:
    """Find the source's rows of a table that were there before; return how many, by rule.

    The declared keys are tried in order, each for rows not matched before and where one row alone on either side has
    the values; then, within parents that were matched, rows of the same content, in key order.
    """
    domain = expected.plan.own_domain(table)
    if domain is None:
        return Counter()
    name = f"match_{source}_{expected.domains[domain.name].number}"
    into = sql.Identifier(SCRATCH, name)
    conn.execute(sql.SQL("CREATE UNLOGGED TABLE {} (src bigint PRIMARY KEY, dst bigint UNIQUE)").format(into))
    found: Counter[str] = Counter()
    for columns in table.match:
        rule = f"{table.name} ({', '.join(columns)})"
        found[rule] += conn.execute(_by_key(expected, table, source, columns, into)).rowcount
    if table.within and (query := _by_content(expected, table, source, table.within)) is not None:
        rule = f"{table.name} ({table.within} …)"
        found[rule] += conn.execute(sql.SQL("INSERT INTO {} {}").format(into, query)).rowcount
    if +found:
        conn.execute(sql.SQL("ANALYZE {}").format(into))
        move = expected.moves[source].get(domain.name, Move())
        expected.moves[source][domain.name] = Move(move.offset, name)
    return +found


def _before(expected: Expected, table: TablePlan, source: int) -> sql.Composed:
    """The rows of a table that are there when a source comes: the baseline's, and those of the sources before."""
    earlier = [expected.rows(table, n) for n in expected.sources if n < source and expected.filled[n].get(table.name)]
    return sql.SQL(" UNION ALL ").join([expected.merged_rows(table, "homolog_base"), *earlier])


def _theirs(expected: Expected, table: TablePlan, source: int) -> sql.Composed:
    """The rows of a table that a source has."""
    if expected.filled[source].get(table.name):
        return expected.rows(table, source, "all")
    return expected.merged_rows(table, "homolog_base", NEVER)


def _by_key(
    expected: Expected, table: TablePlan, source: int, columns: tuple[str, ...], into: sql.Identifier
) -> sql.Composed:
    sides = []
    for rows_of in (_theirs, _before):
        joins: list[sql.Composable] = []
        values: list[sql.Composable] = []
        for position, column in enumerate(columns):
            other, _, name = column.rpartition(".")
            alias = sql.Identifier(f"v{position}" if other else "r")
            values.append(sql.SQL("{}.{}").format(alias, sql.Identifier(name)))
            if other:  # a column of a table that shares the primary key
                child = expected.plan.table(other)
                joins.append(
                    sql.SQL(" JOIN ({}) {} ON {}.{} = r.{}").format(
                        rows_of(expected, child, source),
                        alias,
                        alias,
                        sql.Identifier(child.key[0]),
                        sql.Identifier(table.key[0]),
                    )
                )
        if table.role is Role.CATALOG:  # where NULL is a value like others
            values = [sql.SQL("md5(ROW({})::text)").format(sql.SQL(", ").join(values))]
        names = [sql.SQL("{} AS {}").format(v, sql.Identifier(f"k{i}")) for i, v in enumerate(values)]
        rows = sql.SQL("({}) r{}").format(rows_of(expected, table, source), sql.Composed(joins))
        sides.append((rows, sql.SQL(", ").join(names), len(names)))
    (ours, our_keys, count), (there, their_keys, _) = sides
    # The source's own key is as it was there: its rows are told by it, and so are those matched.
    return sql.SQL(
        "INSERT INTO {into} (src, dst) SELECT o.src, min(t.dst) FROM"
        " (SELECT min(src) AS src, {keys} FROM (SELECT r.{shown}::bigint AS src, {our_keys} FROM {ours}) a"
        "   WHERE NOT EXISTS (SELECT 1 FROM {into} x WHERE x.src = a.src) GROUP BY {keys} HAVING count(*) = 1) o"
        " JOIN (SELECT r.{key}::bigint AS dst, {their_keys} FROM {there}) t USING ({keys})"
        " WHERE NOT EXISTS (SELECT 1 FROM {into} x WHERE x.dst = t.dst)"
        " GROUP BY o.src HAVING count(*) = 1"
    ).format(
        into=into,
        keys=sql.SQL(", ").join([sql.Identifier(f"k{i}") for i in range(count)]),
        shown=shown(table, table.key[0]),
        our_keys=our_keys,
        ours=ours,
        key=sql.Identifier(table.key[0]),
        their_keys=their_keys,
        there=there,
    )


def _by_content(expected: Expected, table: TablePlan, source: int, within: str) -> sql.Composed | None:
    domain = expected.domain_of(table.column(within))
    move = expected.moves[source].get(domain.name) if domain is not None else None
    if move is None or move.map is None:
        return None
    content = [c.name for c in expected.columns(table) if c.name != table.key[0]]
    hashed = sql.SQL("md5(ROW({})::text)").format(sql.SQL(", ").join([sql.Identifier("r", name) for name in content]))
    # What was there of other parents than those matched has no part in it.
    ours, theirs = (
        sql.SQL(
            "(SELECT r.{key}::bigint AS value, {hashed} AS content,"
            " row_number() OVER (PARTITION BY {hashed} ORDER BY r.{key}) AS n FROM ({rows}) r"
            " WHERE r.{within} IN (SELECT dst FROM {map}))"
        ).format(
            key=key,
            hashed=hashed,
            rows=rows,
            within=sql.Identifier(within),
            map=sql.Identifier(SCRATCH, move.map),
        )
        for key, rows in (
            (shown(table, table.key[0]), expected.rows(table, source, "all")),
            (sql.Identifier(table.key[0]), _before(expected, table, source)),
        )
    )
    return sql.SQL("SELECT a.value, b.value FROM {} a JOIN {} b USING (content, n)").format(ours, theirs)
