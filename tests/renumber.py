"""Gives what a merge inserted other keys, at random: the same content, as another program might have put it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import sql

from merge import catalog as catalogs
from merge.plan import ColumnKind

if TYPE_CHECKING:
    import psycopg

    from merge.plan import Domain, Plan


def renumber(conn: psycopg.Connection[tuple[Any, ...]], plan: Plan, seed: float, first: int = 100_000) -> int:
    """Renumber all that the merged database names and the baseline did not; return how many things that were.

    :param conn: a superuser's connection.
    :param first: beyond all keys that there are; the new ones are from here on, in random order and with gaps.
    """
    conn.execute("SET session_replication_role = replica")
    conn.execute("SELECT setseed(%s)", [seed])
    conn.execute("CREATE TEMP TABLE renumbered (domain text, old bigint, new bigint, PRIMARY KEY (domain, old))")
    count = 0
    for domain in (d for d in plan.domains.values() if not d.fixed):
        count += conn.execute(
            sql.SQL(
                "INSERT INTO renumbered SELECT {}, v, {} + 3 * row_number() OVER (ORDER BY random())"
                " FROM (({}) EXCEPT ({})) x (v)"
            ).format(
                sql.Literal(domain.name),
                sql.Literal(first),
                _values(domain, plan.schema),
                _values(domain, "homolog_base"),
            )
        ).rowcount
    conn.execute("ANALYZE renumbered")
    for table in plan:
        moving = [
            c for c in table.columns if c.kind is ColumnKind.KEY and c.domain and not plan.domains[c.domain].fixed
        ]
        if not moving:
            continue
        mapped = [
            sql.SQL("{0} = coalesce((SELECT new FROM renumbered WHERE domain = {1} AND old = {0}), {0})").format(
                sql.Identifier(c.name), sql.Literal(c.domain)
            )
            for c in moving
        ]
        conn.execute(
            sql.SQL("UPDATE {} SET {}").format(sql.Identifier(plan.schema, table.name), sql.SQL(", ").join(mapped))
        )
    conn.execute("DROP TABLE renumbered")
    found = catalogs.read(conn, plan.schema)
    ahead = first + 10 * count + 1000
    for name, sequence in found.sequences.items():
        if sequence.increment > 0 and sequence.last_value < ahead:
            conn.execute("SELECT setval(%s::regclass, %s)", [f'{plan.schema}."{name}"', ahead])
    for view in found.matviews:
        conn.execute(sql.SQL("REFRESH MATERIALIZED VIEW {}").format(sql.Identifier(plan.schema, view)))
    return count


def _values(domain: Domain, schema: str) -> sql.Composed:
    return sql.SQL(" UNION ").join(
        sql.SQL("SELECT {0}::bigint FROM {1} WHERE {0} IS NOT NULL").format(
            sql.Identifier(column), sql.Identifier(schema, table)
        )
        for table, column in domain.members
    )


def forget(conn: psycopg.Connection[tuple[Any, ...]]) -> None:
    """Remove all that the engine noted of its merges, but for what is known of the sources' large objects."""
    noted = [
        name
        for (name,) in conn.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'homolog'::regnamespace AND relkind = 'r'"
            " AND relname !~ '^(base_|large_object_)'"
        )
    ]
    for name in noted:
        conn.execute(sql.SQL("DROP TABLE homolog.{}").format(sql.Identifier(name)))
    for (name,) in conn.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'homolog'::regnamespace AND relkind = 'r'"
        " AND relname ~ '^large_object_'"
    ).fetchall():
        conn.execute(sql.SQL("ALTER TABLE homolog.{} DROP COLUMN dst").format(sql.Identifier(name)))
