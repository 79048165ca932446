"""What a stand-in for the vendor's unification executes: the rows that a merge has added, as a script for JDBC."""

from __future__ import annotations

from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from merge.catalog import Catalog

_AT_ONCE = 200
_STEPS = 5
_ADDED = """
    SELECT x FROM (SELECT t::text AS x, row_number() OVER (PARTITION BY t::text) AS n FROM public.{table} t
                   EXCEPT SELECT b::text, row_number() OVER (PARTITION BY b::text) FROM homolog_base.{table} b) d
    ORDER BY n, x
"""


def script(conn: psycopg.Connection[tuple[object, ...]], catalog: Catalog) -> str:
    """The statements that add to the central what `conn`'s merged database has more than its baseline, in five steps.

    Rows are written as composite values, whose text gives every type back as it was.
    """
    conn.execute("SET search_path = public; SET extra_float_digits = 3")
    statements = [*_rows(conn, catalog), *_sequences(conn)]
    size = -(-len(statements) // _STEPS)
    steps = [statements[start : start + size] for start in range(0, len(statements), size)]
    return "".join("".join(f"{statement};\n" for statement in step) + "COMMIT;\n" for step in steps)


def _rows(conn: psycopg.Connection[tuple[object, ...]], catalog: Catalog) -> Iterator[str]:
    graph = {
        name: {fk.ref_table for fk in table.foreign_keys} - {name} & set(catalog.tables)
        for name, table in catalog.tables.items()
    }
    for table in TopologicalSorter(graph).static_order():
        added = conn.execute(sql.SQL(_ADDED).format(table=sql.Identifier(table))).fetchall()
        for start in range(0, len(added), _AT_ONCE):
            part = added[start : start + _AT_ONCE]
            values = sql.SQL(", ").join(sql.SQL("({})").format(sql.Literal(row)) for (row,) in part)
            yield (
                sql.SQL("INSERT INTO public.{0} SELECT (v.x::public.{0}).* FROM (VALUES {1}) v (x)")
                .format(sql.Identifier(table), values)
                .as_string(conn)
            )


def _sequences(conn: psycopg.Connection[tuple[object, ...]]) -> Iterator[str]:
    listed = "SELECT relname::text FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace"
    for (name,) in conn.execute(listed).fetchall():
        sequence = sql.Identifier("public", str(name))
        query = sql.SQL("SELECT last_value, is_called FROM {}").format(sequence)
        for last, called in conn.execute(query).fetchall():
            yield f"SELECT setval('{sequence.as_string(conn)}', {last}, {called})"
