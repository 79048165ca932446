"""Collisions with unique keys of the central, foreseen before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

from merge.errors import CollisionError
from merge.language import counted, text
from merge.matching import is_new
from merge.plan import ColumnKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg

    from merge.catalog import Catalog, Index
    from merge.crosswalk import Crosswalk
    from merge.plan import Plan, TablePlan


@dataclass(frozen=True)
class Collision:
    """Rows to be inserted whose values in a unique index are there already; `examples` are keys of the source."""

    table: str
    index: str
    columns: tuple[str, ...]
    rows: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.table} ({', '.join(self.columns)}): {self.rows} [{self.index}; {', '.join(self.examples)}]"


def foresee(
    conn: psycopg.Connection[tuple[Any, ...]], plan: Plan, table: TablePlan, crosswalk: Crosswalk, catalog: Catalog
) -> Iterator[Collision]:
    """Find the collisions of one table: one query for each unique index that can collide."""
    for index in catalog.tables[table.name].uniques:
        if _can_collide(table, index, crosswalk):
            count, examples = conn.execute(_query(plan, table, index, crosswalk)).fetchone() or (0, None)
            if count:
                yield Collision(table.name, index.name, index.keys, count, tuple(examples or ()))


def check(collisions: Sequence[Collision]) -> None:
    """Raise `CollisionError` with all collisions in its details, if there are any."""
    if collisions:
        raise CollisionError(
            text(
                pt=f"Linhas da origem colidem em {counted(len(collisions), 'chave única', 'chaves únicas')} do "
                "central; nada foi gravado.",
                en=f"Rows of the source collide in {counted(len(collisions), 'unique key', 'unique keys')} of the "
                "central; nothing was written.",
            ),
            details=[str(c) for c in collisions],
            next_step=text(
                pt="Declare no perfil por qual chave essas linhas são as mesmas, ou corrija os dados na origem.",
                en="Declare in the profile by which key these rows are the same, or correct the data at the source.",
            ),
        )


def _can_collide(table: TablePlan, index: Index, crosswalk: Crosswalk) -> bool:
    if index.plain and set(index.columns) == set(table.key):
        return False  # rows whose key is there are matched, never inserted
    new = {c.name for c in table.columns if c.domain and (key := crosswalk.keys[c.domain]).offset and not key.map}
    return not new & set(index.columns)


def _query(plan: Plan, table: TablePlan, index: Index, crosswalk: Crosswalk) -> sql.Composed:
    mapped = crosswalk.mapped(table)
    # Only numbered keys are internal ids; a text key might be a document's number.
    internal = table.key and all(table.column(c).kind is ColumnKind.KEY for c in table.key)
    shown = [sql.Identifier("s", c) for c in (table.key if internal else ("ctid",))]
    key = sql.SQL("concat_ws('/', {})").format(sql.SQL(", ").join(shown))
    names = [sql.Identifier(f"k{n}") for n in range(len(index.keys))]
    keys = sql.SQL(", ").join(
        sql.SQL("({}) AS {}").format(sql.SQL(expression), name)
        for expression, name in zip(index.keys, names, strict=True)
    )
    equal = "IS NOT DISTINCT FROM" if "NULLS NOT DISTINCT" in index.definition else "="
    # The index's own expressions and predicate name bare columns, so both sides are subqueries with these names.
    return sql.SQL(
        "SELECT count(*), (array_agg(a.source_key))[1:5] FROM"
        " (SELECT source_key, {keys} FROM (SELECT {source_key} AS source_key, {values} FROM {source} WHERE {new}) t"
        "   WHERE {predicate}) a"
        " JOIN (SELECT {keys} FROM {merged} WHERE {predicate}) b ON {on}"
    ).format(
        keys=keys,
        source_key=key,
        values=mapped.values(),
        source=mapped.source(),
        new=is_new(plan, table, crosswalk, mapped),
        predicate=sql.SQL(index.predicate or "true"),
        merged=sql.Identifier(plan.schema, table.name),
        on=sql.SQL(" AND ").join(sql.SQL("a.{0} {1} b.{0}").format(name, sql.SQL(equal)) for name in names),
    )
