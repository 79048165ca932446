"""Which sequence numbers which key, and setting them ahead of the merged data.

Applications that number rows themselves own no sequence by a column, so names have to tell; a sequence that no name
explains is set to the greatest key of all, which is always safe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import psycopg

    from merge.catalog import Catalog, Sequence
    from merge.plan import Plan


def owners(catalog: Catalog) -> dict[str, tuple[str, str]]:
    """The key column (table, column) of every sequence that can be told, by ownership, default or name."""
    known = {name: s.owner for name, s in catalog.sequences.items() if s.owner is not None}
    tables = catalog.tables.values()
    keys = [(t.name, t.primary_key[0]) for t in tables if len(t.primary_key) == 1]
    columns = [(t.name, c.name) for t in tables for c in t.columns if c.integer]
    for members in (keys, columns):
        exact: dict[str, list[tuple[str, str]]] = {}
        for member in members:
            for name in _exact_names(*member):
                exact.setdefault(name, []).append(member)
        # Without underscores, as an abbreviated name has them.
        joined = [(column.replace("_", ""), member) for member in members for column in member[1:]]
        for name in catalog.sequences.keys() - known.keys():
            found = exact.get(name) or _abbreviated(name, joined)
            if len(found) == 1:
                known[name] = found[0]
    return known


def numbered(catalog: Catalog) -> dict[str, tuple[str, str]]:
    """Of the sequences that count upwards, those whose integer key column is told, and that column.

    More are told than by `owners`, since nothing is set by it: where several tables would do, the one that is
    named without abbreviation, and also tables named with their prefix.
    """
    known = owners(catalog)
    keys = [(t.name, t.primary_key[0]) for t in catalog.tables.values() if len(t.primary_key) == 1]
    for name in catalog.sequences.keys() - known.keys():
        _, _, rest = name.partition("_")
        entity, _, key = rest.partition("_")
        if len(key) > len("coseq"):
            likely = [
                (table, column)
                for table, column in keys
                if column.replace("_", "").startswith(key) and _abbreviates(entity, table)
            ]
            exact = [m for m in likely if entity in (m[0].replace("_", ""), m[0].partition("_")[2].replace("_", ""))]
            if len(exact or likely) == 1:
                known[name] = (exact or likely)[0]
    found = {}
    for name, (table, column) in known.items():
        described = catalog.tables[table].column(column) if table in catalog.tables else None
        if described is not None and described.integer and catalog.sequences[name].increment > 0:
            found[name] = (table, column)
    return found


def next_value(sequence: Sequence) -> int:
    """What nextval() will give."""
    return sequence.last_value + (sequence.increment if sequence.is_called else 0)


def _exact_names(table: str, column: str) -> tuple[str, ...]:
    stem = table.split("_", 1)[-1]
    return f"{table}_{column}_seq", f"seq_{table}", f"seq_{stem}", f"{table}_seq", f"{stem}_seq"


def _abbreviated(sequence: str, joined: Iterable[tuple[str, tuple[str, str]]]) -> list[tuple[str, str]]:
    """The keys that ``sq_<table>_<column>`` may mean: the table's name abbreviated, the column's cut off at its end."""
    prefix, _, rest = sequence.partition("_")
    entity, _, key = rest.partition("_")
    if prefix != "sq" or len(key) <= len("coseq"):
        return []
    return [m for column, m in joined if column.startswith(key) and _abbreviates(entity, m[0].split("_", 1)[-1])]


def _abbreviates(short: str, name: str) -> bool:
    letters = iter(name.replace("_", ""))
    return all(letter in letters for letter in short)


def advance(
    conn: psycopg.Connection[tuple[Any, ...]], plan: Plan, catalog: Catalog, tops: Mapping[str, int]
) -> dict[str, int]:
    """Set every sequence ahead of its keys; never back. Return the new values of those that moved.

    Repeating it changes nothing. It is done after the merge is committed, for setval() is not undone by a rollback.

    :param tops: greatest value of each domain in the merged database.
    """
    known = owners(catalog)
    domain_of = {member: d.name for d in plan.domains.values() for member in d.members}
    greatest = max(tops.values(), default=0)
    moved = {}
    for name in catalog.sequences:
        member = known.get(name)
        top = greatest if member is None else tops.get(domain_of.get(member, ""), 0)
        row = conn.execute(
            sql.SQL("SELECT setval({name}, {top}) FROM {sequence} WHERE last_value < {top}").format(
                name=sql.Literal(sql.Identifier(catalog.schema, name).as_string(conn)),
                top=sql.Literal(top),
                sequence=sql.Identifier(catalog.schema, name),
            )
        ).fetchone()
        if row is not None:
            moved[name] = int(row[0])
    return moved
