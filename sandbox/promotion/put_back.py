"""Give a candidate the owners, privileges and settings that production's database has (`belongings`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from merge.errors import PromotionRefused
from merge.language import text
from sandbox.promotion import grants
from sandbox.promotion.belongings import Belongings, Properties, Thing, capture, differences, setting_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sandbox.promotion.production import Connection

_BATCH = 200
_SHOWN = 20


def put_back(conn: Connection, wanted: Belongings) -> int:
    """Make the owners, privileges, default privileges and settings of a database those that were captured.

    All of it in one transaction. Nothing that exists on one side only is made or dropped.

    :param conn: an autocommit session in the candidate, of a role that may act for all the owners.
    :return: how many statements it took.
    :raises PromotionRefused: something could not be put back, or is not alike after.
    """
    problems: list[str] = []
    count = 0
    with conn.transaction():
        for work in (
            _owners,
            _owners,
            _privileges,
            _settings,
        ):  # an owner brings others with it: those of its sequences
            found = capture(conn)
            count += _carry_out(conn, list(work(conn, wanted, found)), problems)
        problems += differences(wanted, capture(conn))
        if problems:
            raise PromotionRefused(
                text(
                    pt="Donos, permissões ou configurações da produção não puderam ser repostos no candidato.",
                    en="Owners, privileges or settings of production could not be put back in the candidate.",
                ),
                details=[*problems[:_SHOWN], *([f"… {len(problems) - _SHOWN}"] if len(problems) > _SHOWN else [])],
                next_step=text(
                    pt="Entre como superusuário, ou dê ao papel os direitos que faltam.",
                    en="Connect as a superuser, or give the role the rights that are missing.",
                ),
            )
    return count


def database_grants(name: str, wanted: Properties, found: Properties) -> Iterator[sql.Composed]:
    """What gives a database the privileges of another of the same owner."""
    if wanted.grants != found.grants:
        target = sql.SQL("DATABASE {}").format(sql.Identifier(name))
        yield from grants.statements(target, "database", wanted.owner, wanted.grants, found.grants)


_Statements = tuple[str, tuple[sql.Composed, ...]]
"""What belongs together, and what it is for, in words."""


def _owners(conn: Connection, wanted: Belongings, found: Belongings) -> Iterator[_Statements]:
    if wanted.database.owner != found.database.owner:
        name, owner = sql.Identifier(_database(conn)), grants.role(wanted.database.owner)
        yield "database, owner", (sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, owner),)
    mine, theirs = _both(found, wanted)
    led = {row[0] for row in conn.execute(_LED)}
    for thing in sorted(theirs.values(), key=lambda thing: thing.kind != "schema"):
        same = mine.get(_key(thing))
        if same is None or thing.column is not None or thing.system or same.owner == thing.owner:
            continue
        if thing.kind == "sequence" and thing.identity in led:
            continue
        query = sql.SQL("ALTER {} OWNER TO {}").format(_target(thing, owner=True), grants.role(thing.owner))
        yield f"{thing.kind} {thing.identity}, owner", (query,)


def _privileges(conn: Connection, wanted: Belongings, found: Belongings) -> Iterator[_Statements]:
    yield "database, grants", tuple(database_grants(_database(conn), wanted.database, found.database))
    mine, theirs = _both(found, wanted)
    for key in sorted(
        {**theirs, **mine}, key=lambda key: key[2] is not None
    ):  # what is taken from a table, its columns lose
        thing = theirs.get(key) or mine[key]
        before, after = mine.get(key), theirs.get(key)
        if before is None and not thing.system and thing.column is None:
            continue  # it is not there: told by the comparison
        if after is None and (thing.column is None or thing.system):
            continue
        had, gets = before.grants if before else None, after.grants if after else None
        if had != gets:
            shown = " ".join(filter(None, (thing.kind, thing.identity, thing.column)))
            yield (
                f"{shown}, grants",
                tuple(grants.statements(_target(thing), thing.kind, thing.owner, gets, had, thing.column)),
            )
    old = {(line.role, line.schema, line.kind): line.grants for line in found.defaults}
    new = {(line.role, line.schema, line.kind): line.grants for line in wanted.defaults}
    for where in {**old, **new}:
        if old.get(where) != new.get(where):
            yield (
                " ".join(("default privileges", *where)),
                tuple(grants.default_statements(*where, new.get(where, ()), old.get(where, ()), back=where not in new)),
            )


def _settings(conn: Connection, wanted: Belongings, found: Belongings) -> Iterator[_Statements]:
    name = sql.Identifier(_database(conn))
    if wanted.database.connection_limit != found.database.connection_limit:
        limit = sql.Literal(wanted.database.connection_limit)
        yield "connection limit", (sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(name, limit),)
    for setting in {*found.settings, *wanted.settings}:
        if setting in found.settings and setting in wanted.settings:
            continue
        whose = (
            sql.SQL("ALTER ROLE {} IN DATABASE {}").format(grants.role(setting.role), name)
            if setting.role
            else sql.SQL("ALTER DATABASE {}").format(name)
        )
        parameter = sql.SQL(".").join(map(sql.Identifier, setting.name.split(".")))
        if setting in wanted.settings:
            values = sql.SQL(", ").join(map(sql.Literal, setting_values(setting)))
            query = sql.SQL("{} SET {} TO {}").format(whose, parameter, values)
        elif any((s.role, s.name) == (setting.role, setting.name) for s in wanted.settings):
            continue  # it gets another value
        else:
            query = sql.SQL("{} RESET {}").format(whose, parameter)
        yield f"setting {setting.role} {setting.name}", (query,)


def _carry_out(conn: Connection, work: Sequence[_Statements], problems: list[str]) -> int:
    """Many at once; where one fails, one by one, to tell which."""
    for start in range(0, len(work), _BATCH):
        batch = work[start : start + _BATCH]
        try:
            _execute(conn, (query for _, queries in batch for query in queries))
        except psycopg.Error:
            for what, queries in batch:
                try:
                    _execute(conn, queries)
                except psycopg.Error as ex:
                    problems.append(f"{what}: SQLSTATE {ex.sqlstate}")
    return sum(len(queries) for _, queries in work)


def _execute(conn: Connection, queries: Iterable[sql.Composed]) -> None:
    together = sql.SQL("; ").join(queries)
    if together.as_string(conn):
        with conn.transaction():
            conn.execute(together)


_LED = """
SELECT i.identity FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind = 'S',
    pg_catalog.pg_identify_object(d.classid, d.objid, 0) i
WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = d.classid
    AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
"""
"""Sequences that belong to a column, and to whom the table belongs."""


def _both(*sides: Belongings) -> tuple[dict[_Key, Thing], ...]:
    """What each side has, by key; a large object that only one side tells of is on the other as most of them are."""
    large = {_key(thing) for side in sides for thing in side.things if thing.kind == "large object"}
    return tuple(
        {
            **{(kind, oid, column): Thing(kind, oid, column, side.database.owner, None, False)
               for kind, oid, column in large},
            **{_key(thing): thing for thing in side.things},
        }
        for side in sides
    )  # fmt: skip


_Key = tuple[str, str, str | None]


def _key(thing: Thing) -> _Key:
    return thing.kind, thing.identity, thing.column


_WORDS = {"foreign-data wrapper": "FOREIGN DATA WRAPPER", "server": "SERVER", "statistics object": "STATISTICS"}
_GRANTED_AS = {
    "view": "TABLE",
    "materialized view": "TABLE",
    "foreign table": "TABLE",
    "server": "FOREIGN SERVER",
    "aggregate": "FUNCTION",
    "window function": "FUNCTION",
    "domain": "TYPE",
    "composite type": "TYPE",
}


def _target(thing: Thing, *, owner: bool = False) -> sql.Composed:
    """The object in a statement; its identity is quoted by the server where it has to be."""
    word = _WORDS.get(thing.kind, thing.kind.upper())
    if not owner:
        word = _GRANTED_AS.get(thing.kind, word)
    return sql.SQL("{} {}").format(sql.SQL(word), sql.SQL(thing.identity))


def _database(conn: Connection) -> str:
    row = conn.execute("SELECT pg_catalog.current_database()::text").fetchone()
    assert row is not None
    return str(row[0])
