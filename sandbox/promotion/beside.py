"""The candidate's database beside production: made like it, known to be ours, and dropped only if it never was live."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
from psycopg import errors, sql

from merge.errors import PromotionRefused
from merge.language import text
from sandbox.promotion import belongings, names, put_back
from sandbox.promotion.swap import MAY_END

if TYPE_CHECKING:
    from sandbox.promotion.belongings import Properties
    from sandbox.promotion.production import Connection, Production

_PATIENCE = 10.0
_USER_OBJECTS = "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_class WHERE oid >= 16384)"


def create_beside(production: Production, name: str, *, run_id: str, like: str | None = None) -> int:
    """Make an empty database from ``template0`` with owner, encoding, locale, tablespace and grants of another.

    It may be entered by whom production lets in, from its first instant, and by nobody else: nothing is closed that
    would have to be opened. What is restored into it is the owner's, and without grants until they are put back.

    :param like: the database to take after; production's by default.
    :return: its OID.
    :raises PromotionRefused: a right is missing, or there is another database of this name.
    """
    with closing(production.connect_outside()) as conn:
        try:
            model = belongings.properties(conn, like or production.database)
        except LookupError:
            raise _no_such(like or production.database) from None
        if (oid := _left_empty(production, conn, name)) is None:
            bare = belongings.properties(conn, "template0")
            try:
                conn.execute(_create(name, model, bare, production.version_num))
            except errors.DuplicateDatabase:
                raise _taken(name) from None
            except psycopg.Error as ex:
                raise _not_made(name, ex) from None
            oid = _oid(conn, name)
        assert oid is not None
        with conn.transaction():
            conn.execute(
                sql.SQL("COMMENT ON DATABASE {} IS {}").format(
                    sql.Identifier(name), sql.Literal(names.mark(run_id, names.Kind.CANDIDATE))
                )
            )
            for statement in put_back.database_grants(name, model, belongings.properties(conn, name)):
                conn.execute(statement)
    return oid


def drop_unfinished(production: Production, oid: int, *, run_id: str) -> bool:
    """Drop a candidate of a run, whatever it is called; False if there is none with this OID.

    :raises PromotionRefused: the database is not a candidate of this run.
    """
    return _drop(production, oid, run_id, names.Kind.CANDIDATE)


def drop_kept(production: Production, oid: int, *, run_id: str) -> bool:
    """Drop a database that a promotion kept: only ever by an explicit, confirmed command of the operator.

    :raises PromotionRefused: the database is not one that this run kept.
    """
    return _drop(production, oid, run_id, names.Kind.KEPT)


def _drop(production: Production, oid: int, run_id: str, kind: names.Kind) -> bool:
    """Under a name that nobody else knows, so that what is dropped by name is what was looked at by OID."""
    with closing(production.connect_outside()) as conn:
        if (found := _known(conn, oid)) is None:
            return False
        name, comment = found
        if names.marked(comment) != (run_id, kind) or name == production.database:
            raise _not_ours(name)
        doomed = names.free_name(conn, names.doomed_name(run_id))
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                with conn.transaction():
                    conn.execute(_END_ALL, [oid])
                    conn.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(
                        sql.Identifier(name), sql.Identifier(doomed)
                    ))  # fmt: skip
                    if _known(conn, oid) != (doomed, comment):
                        raise _not_ours(name)
                conn.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(doomed)))
            except errors.ObjectInUse:
                name = (_known(conn, oid) or (name, None))[0]
                doomed = names.free_name(conn, doomed)
                if time.monotonic() > deadline:
                    raise PromotionRefused(
                        text(pt=f"O banco {name} está em uso.", en=f"The database {name} is in use."),
                        next_step=text(pt="Encerre as sessões e repita.", en="End the sessions and repeat."),
                    ) from None
            else:
                return True


_END_ALL = f"""
SELECT CASE WHEN {MAY_END} THEN pg_catalog.pg_terminate_backend(pid) END FROM pg_catalog.pg_stat_activity a
WHERE datid = %s AND pid <> pg_catalog.pg_backend_pid() AND usesysid IS NOT NULL
"""  # noqa: S608


def _known(conn: Connection, oid: int) -> tuple[str, str | None] | None:
    row = conn.execute(
        "SELECT datname::text, pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database"
        " WHERE oid = %s",
        [oid],
    ).fetchone()
    return (row[0], row[1]) if row else None


def _oid(conn: Connection, name: str) -> int | None:
    row = conn.execute("SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = %s", [name]).fetchone()
    return int(row[0]) if row else None


def _left_empty(production: Production, conn: Connection, name: str) -> int | None:
    """A database of this name that is as ``template0`` is: made by us, and the next instant, its mark, never came."""
    oid = _oid(conn, name)
    if oid is None:
        return None
    if _known(conn, oid) != (name, None):
        raise _taken(name)
    with closing(production.connect(name)) as inside:
        row = inside.execute(_USER_OBJECTS).fetchone()
    if row is None or row[0]:
        raise _taken(name)
    return oid


def _create(name: str, like: Properties, bare: Properties, version: int) -> sql.Composed:
    options: list[tuple[str, sql.Composable]] = [
        ("OWNER", sql.Identifier(like.owner)),
        ("TEMPLATE", sql.Identifier("template0")),
    ]
    values = [("ENCODING", like.encoding), ("LC_COLLATE", like.collate), ("LC_CTYPE", like.ctype)]
    if version >= 150000:
        provider = {"i": "icu", "b": "builtin"}.get(like.provider, "libc")
        options.append(("LOCALE_PROVIDER", sql.SQL(provider)))
        if like.locale is not None:
            values.append(("ICU_LOCALE" if provider == "icu" else "BUILTIN_LOCALE", like.locale))
        if like.rules is not None:
            values.append(("ICU_RULES", like.rules))
    options += [(option, sql.Literal(value)) for option, value in values]
    if like.tablespace != bare.tablespace:  # which needs a right of its own, also if it is where it would be anyhow
        options.append(("TABLESPACE", sql.Identifier(like.tablespace)))
    parts = [sql.SQL("{} = {}").format(sql.SQL(option), value) for option, value in options]
    return sql.SQL("CREATE DATABASE {} WITH {}").format(sql.Identifier(name), sql.SQL(" ").join(parts))


def _no_such(name: str) -> PromotionRefused:
    return PromotionRefused(text(pt=f"Não há o banco {name}.", en=f"There is no database {name}."))


def _taken(name: str) -> PromotionRefused:
    return PromotionRefused(
        text(
            pt=f"Já há um banco {name}, que não foi feito por esta promoção.",
            en=f"There already is a database {name}, which this promotion did not make.",
        ),
        next_step=text(pt="Mude o nome dele, e repita.", en="Rename it, and repeat."),
    )


def _not_ours(name: str) -> PromotionRefused:
    return PromotionRefused(
        text(
            pt=f"O banco {name} não é um que esta execução possa apagar.",
            en=f"The database {name} is not one that this run may drop.",
        ),
        next_step=text(pt="Nada foi apagado.", en="Nothing was dropped."),
    )


def _not_made(name: str, ex: psycopg.Error) -> PromotionRefused:
    return PromotionRefused(
        text(pt=f"O banco {name} não pôde ser criado.", en=f"The database {name} could not be made."),
        details=[f"SQLSTATE {ex.sqlstate}"],
        next_step=text(
            pt="Confira as permissões, o espaço em disco, e se alguém está ligado a template0.",
            en="Check the rights, the room on the disk, and whether somebody is connected to template0.",
        ),
    )
