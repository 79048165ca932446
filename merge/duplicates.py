"""People who are in the merged database more than once: listed for the health teams, by internal ids only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

if TYPE_CHECKING:
    import psycopg

    from merge.plan import Plan
    from merge.profile import Person


@dataclass(frozen=True)
class DuplicateGroup:
    """Rows of the same person: they share the value of `key`; `ids` are primary keys of the merged database."""

    key: str
    ids: tuple[int, ...]


def find_duplicates(
    conn: psycopg.Connection[tuple[Any, ...]], plan: Plan, person: Person, source: int
) -> tuple[DuplicateGroup, ...]:
    """Groups of people of the merged database that hold at least one person of the source."""
    groups = []
    for key in person.keys:
        query = sql.SQL(
            "SELECT array_agg(p.{id} ORDER BY p.{id}) FROM (SELECT {id}, {key} FROM {merged} WHERE {where}) p"
            " JOIN (SELECT DISTINCT {key} FROM {source} WHERE {where}) s USING ({key})"
            " GROUP BY {key} HAVING count(*) > 1 ORDER BY 1"
        ).format(
            id=sql.Identifier(plan.table(person.table).key[0]),
            key=sql.Identifier(key),
            merged=sql.Identifier(plan.schema, person.table),
            source=sql.Identifier(f"src_{source}", person.table),
            where=sql.SQL(person.where),
        )
        groups += [DuplicateGroup(key, tuple(ids)) for (ids,) in conn.execute(query).fetchall()]
    return tuple(groups)
