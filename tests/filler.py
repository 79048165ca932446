"""Fills any schema with rows that keep its foreign keys and unique keys; the same seed gives the same rows."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    from merge.catalog import Catalog, Column, ForeignKey, Table


def fill(
    conn: psycopg.Connection[tuple[Any, ...]],
    catalog: Catalog,
    schema: str,
    *,
    rows: int,
    name: str,
    shared: int = 0,
    first: int = 1,
) -> Mapping[str, int]:
    """Fill every table of `schema`, which has the catalog's tables; return how many rows each got.

    :param rows: rows of a table, if its keys allow as many.
    :param name: stands in all texts, so that installations differ.
    :param shared: the first rows of each table hold the same texts in every installation.
    :param first: the first key.
    """
    counts = {}
    for table in _ordered(catalog):
        counts[table.name] = conn.execute(_insert(catalog, table, schema, rows, name, shared, first)).rowcount
    return counts


def _ordered(catalog: Catalog) -> list[Table]:
    graph = {t.name: {k.ref_table for k in t.foreign_keys if _must(t, k)} - {t.name} for t in catalog.tables.values()}
    try:
        return [catalog.tables[name] for name in TopologicalSorter(graph).static_order()]
    except CycleError as ex:  # pragma: no cover (no schema of the tests is like that)
        raise AssertionError(f"references that cannot be left empty form a cycle: {ex.args[1]}") from ex


def _must(table: Table, key: ForeignKey) -> bool:
    columns = [table.column(name) for name in key.columns]
    return any(c is not None and c.not_null for c in columns)


def _insert(catalog: Catalog, table: Table, schema: str, rows: int, name: str, shared: int, first: int) -> sql.Composed:
    references = {key.columns[0]: key for key in table.foreign_keys if len(key.columns) == 1}
    unique = [i.columns for i in table.uniques if i.plain]
    parents: list[sql.Composable] = []
    values: list[sql.Composable] = []
    limits: list[sql.Composable] = []
    written = [c for c in table.columns if not c.generated]
    for position, column in enumerate(written):
        key = references.get(column.name)
        if key is None:
            values.append(_value(table, column, position, name, shared, first, unique))
            continue
        if key.ref_table == table.name or (not _must(table, key) and not _comes_before(catalog, key, table)):
            values.append(sql.SQL("NULL"))
            continue
        alias = sql.Identifier(f"p{position}")
        parents.append(
            sql.SQL(" CROSS JOIN (SELECT array_agg({0} ORDER BY {0}) AS keys FROM {1}) {2}").format(
                sql.Identifier(key.ref_columns[0]), sql.Identifier(schema, key.ref_table), alias
            )
        )
        values.append(_reference(table, column, alias, position, references, unique, limits))
    return sql.SQL(
        "INSERT INTO {} ({}) {} SELECT {} FROM generate_series(1, {}) g{} WHERE true{} ON CONFLICT DO NOTHING"
    ).format(
        sql.Identifier(schema, table.name),
        sql.SQL(", ").join(sql.Identifier(c.name) for c in written),
        sql.SQL("OVERRIDING SYSTEM VALUE"),
        sql.SQL(", ").join(values),
        sql.Literal(rows),
        sql.Composed(parents),
        sql.Composed(limits),
    )


def _comes_before(catalog: Catalog, key: ForeignKey, table: Table) -> bool:
    order = [t.name for t in _ordered(catalog)]
    return order.index(key.ref_table) < order.index(table.name)


def _reference(
    table: Table,
    column: Column,
    alias: sql.Identifier,
    position: int,
    references: Mapping[str, ForeignKey],
    unique: list[tuple[str, ...]],
    limits: list[sql.Composable],
) -> sql.Composable:
    """A parent's key: any, but where a unique key is made of references alone, all pairs are different."""
    size = sql.SQL("cardinality({}.keys)").format(alias)
    for columns in unique:
        if column.name in columns and all(c in references for c in columns):
            if len(columns) == 1:
                limits.append(sql.SQL(" AND g <= {}").format(size))
                return sql.SQL("{}.keys[g]").format(alias)
            if column.name == columns[0]:
                return sql.SQL("{}.keys[1 + (g - 1) % {}]").format(alias, size)
            return sql.SQL("{}.keys[1 + ((g - 1) / 3) % {}]").format(alias, size)
    picked = sql.SQL("{}.keys[1 + (g * {}) % {}]").format(alias, sql.Literal(7 + position), size)
    if column.not_null:
        return picked
    return sql.SQL("CASE WHEN g % 5 > 0 THEN {} END").format(picked)


def _value(
    table: Table, column: Column, position: int, name: str, shared: int, first: int, unique: list[tuple[str, ...]]
) -> sql.Composable:
    in_key = any(column.name in columns for columns in unique)
    number = (
        sql.SQL("(g + {})").format(sql.Literal(first - 1))
        if in_key
        else sql.SQL("(g * {} % 97)").format(sql.Literal(position + 3))
    )
    label = sql.SQL("(CASE WHEN g <= {} THEN 'x' ELSE {} END || {} || g)").format(
        sql.Literal(shared), sql.Literal(name), sql.Literal(f"-{column.name[:4]}é-")
    )
    base = column.base_type
    value: sql.Composable
    if base.startswith("character varying") or base.startswith("character(") or base == "text":
        digits = "".join(c for c in base if c.isdigit())
        if digits and int(digits) < 16:
            value = sql.SQL("left(lpad(to_hex(g + {}), 2, '0'), {})").format(
                sql.Literal(0 if in_key and table.primary_key == (column.name,) else position), sql.Literal(int(digits))
            )
        else:
            value = sql.SQL("left({}, {})").format(label, sql.Literal(int(digits) if digits else 1000))
    else:
        template = _BY_TYPE.get(base.split("(")[0], "NULL")
        value = sql.SQL("(" + template + ")").format(n=number, label=label)
    value = sql.SQL("CAST({} AS {})").format(value, sql.SQL(column.type))
    if column.not_null or in_key:
        return value
    return sql.SQL("CASE WHEN (g + {}) % 6 > 0 THEN {} END").format(sql.Literal(position), value)


_BY_TYPE = {
    "bigint": "{n}",
    "integer": "{n}",
    "smallint": "{n} % 30000",
    "numeric": "({n} % 90) + 0.50",
    "double precision": "CASE {n} % 4 WHEN 0 THEN '-0'::float8 WHEN 1 THEN 'NaN'::float8 ELSE {n} / 3.0 END",
    "boolean": "{n} % 2 = 0",
    "date": "date '2020-01-01' + {n}::int",
    "timestamp without time zone": "timestamp '2020-01-01 10:00' + {n} * interval '1 hour'",
    "timestamp with time zone": "timestamptz '2020-01-01 10:00 UTC' + {n} * interval '1.5 s'",
    "json": "('{{ \"a\":  ' || {n} || '}}')::json",
    "jsonb": "jsonb_build_object('k', {label}, 'n', {n})",
    "bytea": "decode(md5({label}), 'hex')",
    "uuid": "md5({label})::uuid",
    "inet": "('10.0.0.' || {n} % 250)::inet",
    "point": "point({n}, {n} / 7.0)",
    "text[]": "ARRAY[{label}, NULL, '']",
    "interval": "{n} * interval '1 day'",
}
