"""Finds the source rows that are already in the central, one to one, and notes in what they differ.

A table whose key moves by an offset gets a map table; in all others (fixed codes, link tables, shared primary keys) a
row is already there if its mapped key is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import sql

from merge.plan import CENTRAL_OWNS, KEEP_CENTRAL, Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from merge.crosswalk import Crosswalk, Mapped
    from merge.plan import Plan, TablePlan


def match(conn: psycopg.Connection[tuple[Any, ...]], plan: Plan, table: TablePlan, crosswalk: Crosswalk) -> None:
    """Fill the map of a table's own domain; adds it to the crosswalk if any row was matched.

    Tried in order, each only for rows not matched before: the declared keys, where exactly one row on either side
    has the same values (a NULL is like nothing, but in catalogs); then, within parents that were matched, the whole
    content, rows of equal content in key order.
    """
    domain = plan.own_domain(table)
    if domain is None or not (table.match or table.within):
        return
    name = f"map_{crosswalk.source}_{table.name}"
    map_table = sql.Identifier("homolog", name)
    conn.execute(sql.SQL("CREATE TABLE {} (src bigint PRIMARY KEY, dst bigint NOT NULL UNIQUE)").format(map_table))
    queries = [_by_key(plan, table, crosswalk, columns, map_table) for columns in table.match]
    if table.within:
        queries += _by_content(plan, table, crosswalk, table.within)
    found = 0
    for query in queries:
        found += conn.execute(sql.SQL("INSERT INTO {} (src, dst) {}").format(map_table, query)).rowcount
    if found:
        conn.execute(sql.SQL("ANALYZE {}").format(map_table))
        crosswalk.add_map(domain.name, name)
    else:
        conn.execute(sql.SQL("DROP TABLE {}").format(map_table))


def _by_key(
    plan: Plan, table: TablePlan, crosswalk: Crosswalk, columns: tuple[str, ...], map_table: sql.Identifier
) -> sql.Composed:
    """Pairs (src, dst) of rows that alone have the same values in `columns`.

    Only keys that one source row has are joined, so that a key that all rows share cannot make pairs of all with all.
    """
    key = sql.Identifier(table.key[0])
    mapped = crosswalk.mapped(table)
    left: list[sql.Composable] = []
    right: list[sql.Composable] = []
    on: list[tuple[sql.Composable, sql.Composable]] = []
    for position, column in enumerate(columns):
        other, _, name = column.rpartition(".")
        if not other:
            on.append((mapped.value(name), sql.Identifier("p", name)))
        else:  # a column of a table that shares the primary key
            child = plan.table(other)
            alias = sql.Identifier(f"v{position}")
            values = crosswalk.mapped(child)
            left.append(
                sql.SQL(" JOIN (SELECT s.{} AS shared, {} AS value FROM {}) {} ON {}.shared = s.{}").format(
                    sql.Identifier(child.key[0]), values.value(name), values.source(), alias, alias, key
                )
            )
            right.append(
                sql.SQL(" JOIN {} {} ON {}.{} = p.{}").format(
                    sql.Identifier(plan.schema, other), alias, alias, sql.Identifier(child.key[0]), key
                )
            )
            on.append((sql.SQL("{}.value").format(alias), sql.SQL("{}.{}").format(alias, sql.Identifier(name))))
    if table.role is Role.CATALOG:  # where NULL is a value like others
        on = [(_digest([ours for ours, _ in on]), _digest([theirs for _, theirs in on]))]
    names = [sql.Identifier(f"k{position}") for position in range(len(on))]
    return sql.SQL(
        "SELECT src, dst FROM ("
        " SELECT src, dst, count(*) OVER (PARTITION BY src) AS n FROM"
        " (SELECT *, count(*) OVER (PARTITION BY {names}) AS m"
        "    FROM (SELECT s.{key} AS src, {ours} FROM {source}{left}) o"
        "   WHERE NOT EXISTS (SELECT 1 FROM {map} x WHERE x.src = o.src)) a JOIN"
        " (SELECT p.{key} AS dst, {theirs} FROM {merged} p{right}) b USING ({names})"
        " WHERE m = 1 AND NOT EXISTS (SELECT 1 FROM {map} x WHERE x.dst = b.dst)"
        ") pair WHERE n = 1"
    ).format(
        key=key,
        ours=_named((ours for ours, _ in on), names),
        theirs=_named((theirs for _, theirs in on), names),
        source=mapped.source(),
        left=sql.SQL("").join(left),
        right=sql.SQL("").join(right),
        merged=sql.Identifier(plan.schema, table.name),
        names=sql.SQL(", ").join(names),
        map=map_table,
    )


def _by_content(plan: Plan, table: TablePlan, crosswalk: Crosswalk, within: str) -> list[sql.Composed]:
    """Pairs (src, dst) of rows of matched parents whose other columns are all the same."""
    mapped = crosswalk.mapped(table)
    if within not in mapped.aliases:
        return []
    parent = crosswalk.keys[table.column(within).domain or ""].map or ""
    key = sql.Identifier(table.key[0])
    content = [name for name, _ in mapped.columns if name != table.key[0]]
    return [
        sql.SQL(
            "SELECT a.src, b.dst FROM"
            " (SELECT s.{key} AS src, {ours} AS content, row_number() OVER (PARTITION BY {ours} ORDER BY s.{key}) AS n"
            "    FROM {source} WHERE {parent_matched}) a JOIN"
            " (SELECT p.{key} AS dst, {theirs} AS content,"
            "         row_number() OVER (PARTITION BY {theirs} ORDER BY p.{key}) AS n"
            "    FROM {merged} p WHERE p.{within} IN (SELECT dst FROM {map})) b USING (content, n)"
        ).format(
            key=key,
            ours=_digest([mapped.value(name) for name in content]),
            theirs=_digest([sql.Identifier("p", name) for name in content]),
            source=mapped.source(),
            parent_matched=mapped.is_matched(within),
            merged=sql.Identifier(plan.schema, table.name),
            within=sql.Identifier(within),
            map=sql.Identifier("homolog", parent),
        )
    ]


def _digest(values: Sequence[sql.Composable]) -> sql.Composed:
    return sql.SQL("md5(ROW({})::text)").format(sql.SQL(", ").join(values))


def _named(values: Any, names: list[sql.Identifier]) -> sql.Composed:
    return sql.SQL(", ").join(
        sql.SQL("{} AS {}").format(value, name) for value, name in zip(values, names, strict=True)
    )


def can_be_there(plan: Plan, table: TablePlan, crosswalk: Crosswalk) -> bool:
    """False if no row of the table can be in the central already: some column of its key is new in every row."""
    if not table.key:
        return False
    keys = [crosswalk.keys[c.domain] for c in table.columns if c.name in table.key and c.domain]
    return not any(key.offset and key.map is None for key in keys)


def there(plan: Plan, table: TablePlan, mapped: Mapped, alias: str = "p") -> sql.Composed:
    """The condition that `alias` is the row of the merged table with the mapped key of the source's row."""
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(alias, column), mapped.value(column)) for column in table.key
    )


def count_there(
    conn: psycopg.Connection[tuple[Any, ...]], plan: Plan, table: TablePlan, crosswalk: Crosswalk
) -> tuple[int, int]:
    """How many rows are there already, and how many of these differ: a query that several processes can answer."""
    mapped = crosswalk.mapped(table)
    found = conn.execute(
        sql.SQL("SELECT count(*), count(*) FILTER (WHERE NOT ({} *= {})) FROM {} JOIN {} p ON {}").format(
            mapped.row(),
            mapped.merged_row("p"),
            mapped.source(),
            sql.Identifier(plan.schema, table.name),
            there(plan, table, mapped),
        )
    ).fetchone()
    return found or (0, 0)


def note_differences(
    conn: psycopg.Connection[tuple[Any, ...]], plan: Plan, table: TablePlan, crosswalk: Crosswalk
) -> int:
    """Write an exception for every matched row that differs from the one already there; return how many."""
    if not can_be_there(plan, table, crosswalk):
        return 0
    mapped = crosswalk.mapped(table)
    differing = sql.SQL(", ").join(
        sql.SQL("CASE WHEN NOT (ROW({})::record *= ROW({})::record) THEN {} END").format(
            value, sql.Identifier("p", name), sql.Literal(name)
        )
        for name, value in mapped.columns
    )
    return conn.execute(
        sql.SQL(
            "INSERT INTO homolog.exception (source, table_name, src_row, disposition, columns, reason)"
            " SELECT {source}, {table}, s.ctid, 'reconciled', array_remove(ARRAY[{differing}]::text[], NULL), {reason}"
            " FROM {rows} JOIN {merged} p ON {there} WHERE NOT ({ours} *= {theirs})"
        ).format(
            source=crosswalk.source,
            table=table.name,
            differing=differing,
            reason=KEEP_CENTRAL,
            rows=mapped.source(),
            merged=sql.Identifier(plan.schema, table.name),
            there=there(plan, table, mapped),
            ours=mapped.row(),
            theirs=mapped.merged_row("p"),
        )
    ).rowcount


def note_exclusions(
    conn: psycopg.Connection[tuple[Any, ...]], plan: Plan, table: TablePlan, crosswalk: Crosswalk
) -> int:
    """Write an exception for every row that a matched parent of the central does not take; return how many."""
    mapped = crosswalk.mapped(table)
    if table.central_owns not in mapped.aliases:
        return 0
    return conn.execute(
        sql.SQL(
            "INSERT INTO homolog.exception (source, table_name, src_row, disposition, reason)"
            " SELECT {}, {}, s.ctid, 'excluded', {} FROM {} WHERE {} AND {}"
        ).format(
            crosswalk.source,
            table.name,
            CENTRAL_OWNS,
            mapped.source(),
            _is_absent(plan, table, crosswalk, mapped),
            mapped.is_matched(table.central_owns or ""),
        )
    ).rowcount


def is_new(plan: Plan, table: TablePlan, crosswalk: Crosswalk, mapped: Mapped) -> sql.Composable:
    """The condition that the source's row is to be inserted."""
    absent = _is_absent(plan, table, crosswalk, mapped)
    if table.central_owns not in mapped.aliases:
        return absent
    return sql.SQL("{} AND {}").format(absent, mapped.is_matched(table.central_owns or "", matched=False))


def _is_absent(plan: Plan, table: TablePlan, crosswalk: Crosswalk, mapped: Mapped) -> sql.Composable:
    if not can_be_there(plan, table, crosswalk):
        return sql.SQL("true")
    if plan.own_domain(table) is not None:
        return mapped.is_matched(table.key[0], matched=False)
    return sql.SQL("NOT EXISTS (SELECT 1 FROM {} p WHERE {})").format(
        sql.Identifier(plan.schema, table.name), there(plan, table, mapped)
    )
