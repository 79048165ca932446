"""What a stand-in for the vendor's unification executes: the rows that a merge has added, as a script for JDBC."""

from __future__ import annotations

import re
from graphlib import CycleError, TopologicalSorter
from importlib.resources import files
from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from merge.catalog import Catalog

_AT_ONCE = 200
_NUMBERS = re.compile(r"CREATE SEQUENCE (\w+); -- (\w+)\.(\w+)")
_STEPS = 5
_SWITCH = ("DISABLE", "ENABLE")
"""The rows of the triggers' history are among those that are added."""
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
    audited = [table for table in catalog.tables if catalog.tables[table].triggers]
    silent, loud = ([f'ALTER TABLE public."{table}" {word} TRIGGER USER' for table in audited] for word in _SWITCH)
    statements = [*silent, *_rows(conn, catalog), *loud, *_sequences()]
    size = -(-len(statements) // _STEPS)
    steps = [statements[start : start + size] for start in range(0, len(statements), size)]
    return "".join("".join(f"{statement};\n" for statement in step) + "COMMIT;\n" for step in steps)


def _rows(conn: psycopg.Connection[tuple[object, ...]], catalog: Catalog) -> Iterator[str]:
    for group in _groups(catalog):
        parts = [part for table in group for part in _inserts(conn, table)]
        if len(group) == 1:
            yield from parts
        elif parts:  # foreign keys are checked at the end of a statement
            named = ", ".join(f"part_{number} AS ({part})" for number, part in enumerate(parts))
            yield f"WITH {named} SELECT 1"


def _inserts(conn: psycopg.Connection[tuple[object, ...]], table: str) -> Iterator[str]:
    added = conn.execute(sql.SQL(_ADDED).format(table=sql.Identifier(table))).fetchall()
    for start in range(0, len(added), _AT_ONCE):
        part = added[start : start + _AT_ONCE]
        values = sql.SQL(", ").join(sql.SQL("({})").format(sql.Literal(row)) for (row,) in part)
        yield (
            sql.SQL("INSERT INTO public.{0} SELECT (v.x::public.{0}).* FROM (VALUES {1}) v (x)")
            .format(sql.Identifier(table), values)
            .as_string(conn)
        )


def _groups(catalog: Catalog) -> Iterator[tuple[str, ...]]:
    """The tables, those first to which others refer; those of a cycle together."""
    group = {name: (name,) for name in catalog.tables}
    while True:
        graph: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
        for name, table in catalog.tables.items():
            known = {group[key.ref_table] for key in table.foreign_keys if key.ref_table in group}
            graph.setdefault(group[name], set()).update(known - {group[name]})
        try:
            yield from list(TopologicalSorter(graph).static_order())
        except CycleError as ex:
            joined = tuple(sorted({name for part in ex.args[1] for name in part}))
            group |= dict.fromkeys(joined, joined)
        else:
            return


def _sequences() -> Iterator[str]:
    """Each sequence, ahead of the keys of its own table and no others, as whoever asks it for keys leaves it."""
    schema = files("sandbox.sample").joinpath("schema.sql").read_text(encoding="utf-8")
    for sequence, table, column in _NUMBERS.findall(schema):
        yield (
            f"SELECT setval('public.{sequence}', m.top) FROM (SELECT max({column}) AS top FROM public.{table}) m"
            f" WHERE m.top >= (SELECT last_value FROM public.{sequence})"
        )
