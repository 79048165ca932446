"""Keep everybody from writing to a database, and know it, until the instant at which it steps aside.

A session of ours holds a SHARE lock on every table: who reads goes on, who writes waits. PostgreSQL makes a writer's
commit visible before it gives its locks up, so that a snapshot taken after our locks were granted sees everything that
was ever acknowledged, and nothing can be written after it. The locks belong to the session: whatever ends it (our
death, a cut line, the server's) gives them up; nothing is closed that somebody would have to open again.

What a lock on tables does not hold up is told by comparing, at the very end, with a *mark* made after the locks:

- new tables, functions, grants and other definitions: by the catalogs' row versions (`catalogs`).
- large objects: whoever reads one takes the same lock on ``pg_largeobject`` as who writes one, so that dumps would wait
  for ours. A superuser therefore locks it only at the end (`hold_large_objects`), when all has been dumped, and then
  compares its row versions. Another role may not: it compares the content, and if that takes too long for the last
  check, then once before, and after that what the server counted. That is exact from PostgreSQL 15 on, as a session
  that was ended has given it up; up to 14 what was counted last may be late or lost.
- sequences are not told: a value drawn without a row written is no data.

Our session asks for no parallel workers: they would have to log in, and a login waits while the databases are swapped.
"""

from __future__ import annotations

import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg import errors, sql

from merge.errors import PromotionRefused
from merge.language import counted, text
from sandbox.promotion import catalogs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sandbox.promotion.production import Connection, Production

_BATCH = 200
_ATTEMPTS = 5
_CONTENT_SECONDS = 0.25
"""So long may the comparison of large objects take at the end, when logins wait."""
_CHECK_MILLISECONDS = 1000
_SHOWN = 20
_PG_LARGEOBJECT = 2613

_OWN = "^pg_(toast|temp|toast_temp)|^(pg_catalog|information_schema)$"

_TABLES = f"""
SELECT c.oid::bigint, n.nspname::text, c.relname::text,
    pg_catalog.has_schema_privilege(n.oid, 'USAGE')
        AND pg_catalog.has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname !~ '{_OWN}'
ORDER BY 1
"""  # noqa: S608

_HELD = """
SELECT count(DISTINCT relation) FROM pg_catalog.pg_locks
WHERE pid = pg_catalog.pg_backend_pid() AND locktype = 'relation' AND granted AND mode = 'ShareLock'
"""

_ROOM = """
SELECT (SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'max_locks_per_transaction')
    * (SELECT sum(setting::integer) FROM pg_catalog.pg_settings
       WHERE name IN ('max_connections', 'max_prepared_transactions')),
    (SELECT count(*) FROM pg_catalog.pg_locks WHERE NOT fastpath)
"""

_MAY_READ = """
SELECT coalesce(bool_and(pg_catalog.pg_has_role(lomowner, 'USAGE')), true) FROM pg_catalog.pg_largeobject_metadata
"""

_CONTENT = """
SELECT count(*), pg_catalog.md5(pg_catalog.string_agg(pg_catalog.md5(pg_catalog.lo_get(oid)), '' ORDER BY oid))
FROM pg_catalog.pg_largeobject_metadata
"""

_VERSIONS = """
SELECT count(*), coalesce(sum((pageno + 1)::bigint
    * pg_catalog.hashint8((loid::bigint << 32) | xmin::text::bigint)), 0)::text
FROM pg_catalog.pg_largeobject
"""

_COUNTED = f"""
SELECT pg_catalog.pg_stat_get_tuples_inserted({_PG_LARGEOBJECT}),
    pg_catalog.pg_stat_get_tuples_updated({_PG_LARGEOBJECT}), pg_catalog.pg_stat_get_tuples_deleted({_PG_LARGEOBJECT}),
    (SELECT stats_reset::text FROM pg_catalog.pg_stat_database WHERE datname = pg_catalog.current_database())
"""  # noqa: S608

_WRITERS = """
SELECT l.pid, a.usename::text, a.application_name, a.state,
    pg_catalog.string_agg(DISTINCT c.relname::text, ', ' ORDER BY c.relname::text)
FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_class c ON c.oid = l.relation AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
    AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
    AND l.mode IN ('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
        'AccessExclusiveLock')
    AND (c.oid >= 16384 OR c.oid = 2613)
GROUP BY 1, 2, 3, 4 ORDER BY 1
"""

_WAITING = """
SELECT w.pid, a.usename::text, a.application_name, a.state,
    pg_catalog.string_agg(DISTINCT c.relname::text, ', ' ORDER BY c.relname::text)
FROM pg_catalog.pg_locks w
JOIN pg_catalog.pg_class c ON c.oid = w.relation
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = w.pid
WHERE NOT w.granted AND w.locktype = 'relation'
    AND w.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
GROUP BY 1, 2, 3, 4 ORDER BY 1
"""


class LargeObjects(StrEnum):
    """How the last check tells a write to a large object: the first two are certain, `COUNTERS` from 15 on."""

    LOCKED = "locked"
    CONTENT = "content"
    COUNTERS = "counters"


@dataclass(frozen=True)
class Mark:
    """What a write that no lock holds up would change.

    :ivar catalogs: rows of each, and a sum over them.
    :ivar content: large objects and a digest over them, None if the role may not read them.
    :ivar counted: what the server counted of them, where the content is not looked at every time.
    """

    catalogs: tuple[tuple[str, int, str], ...]
    content: tuple[Any, ...] | None
    counted: tuple[Any, ...] | None


class WriteGuard:
    """Locks on all tables of a database, for as long as the context lasts, or until `leave`.

    :ivar oid: the database, whatever it is called by now.
    :ivar pid: our session in it.
    :ivar tables: how many tables are locked.
    :ivar large_objects: how writes to large objects are told.
    """

    oid: int
    pid: int
    tables: int
    large_objects: LargeObjects

    def __init__(self, production: Production, database: str | None = None, *, patience: float = 4.0) -> None:
        """Nothing is locked yet.

        :param database: another database of the server than production's.
        :param patience: seconds to wait for a writer. More than ``deadlock_timeout``, by which the server takes its own
            vacuum out of our way.
        """
        self._production = production
        self.database = database or production.database
        self._patience = patience
        self._conn: Connection | None = None
        self._mark: Mark | None = None
        self._may_read = False

    def __enter__(self) -> Self:
        """Lock all tables.

        :raises PromotionRefused: somebody is writing, or we may not lock.
        """
        self._conn = conn = self._production.connect(self.database)
        try:
            self._settle(conn)
            self._lock_all(conn)
        except BaseException:
            self.leave()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """End our session, and with it the locks."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    @property
    def mark(self) -> Mark:
        """What was there when all was locked."""
        assert self._mark is not None
        return self._mark

    @contextmanager
    def snapshot(self) -> Iterator[str]:
        """The id of an exported snapshot that sees all that was ever acknowledged; valid within the context."""
        self._held()
        with closing(self._production.connect(self.database)) as conn:
            conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            row = conn.execute(
                "SELECT pg_catalog.pg_export_snapshot(), oid::bigint FROM pg_catalog.pg_database"
                " WHERE datname = pg_catalog.current_database()"
            ).fetchone()
            assert row is not None
            if row[1] != self.oid:
                raise _gone()
            yield str(row[0])

    def waiting(self) -> tuple[str, ...]:
        """The sessions that wait for a table, for people; who waits for all of a table keeps readers waiting too."""
        return tuple(_sessions(self._held().execute(_WAITING)))

    def check(self) -> None:
        """Make sure that nothing was written since the locks were granted, up to now. Meant to take no time.

        :raises PromotionRefused: it was, or the locks are lost.
        """
        conn = self._held()
        try:
            conn.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(sql.Literal(_CHECK_MILLISECONDS)))
            found = self._look(conn)
            held = conn.execute(_HELD).fetchone()
            conn.execute("SET LOCAL statement_timeout = 0")
        except psycopg.Error as ex:
            raise _gone(ex.sqlstate) from None
        if held is None or held[0] < self.tables:
            raise _gone()
        if found != self._expected:
            before = set(self.mark.catalogs)
            changed = [line[0] for line in found.catalogs if line not in before]
            raise self._changed(changed or ["pg_largeobject"])

    def hold_large_objects(self) -> None:
        """Make sure that no large object was written, and keep it so; who reads them waits from here on.

        Takes as long as reading them all does.

        :raises PromotionRefused: one was, or somebody has one open.
        """
        conn = self._held()
        try:
            if self.large_objects is LargeObjects.LOCKED:
                conn.execute("LOCK TABLE pg_catalog.pg_largeobject IN SHARE MODE")
            found = self._content(conn)
        except errors.LockNotAvailable:
            raise self._written(conn) from None
        except psycopg.Error as ex:
            raise _gone(ex.sqlstate) from None
        if found != self.mark.content:
            raise self._changed(["pg_largeobject"])

    def _changed(self, what: Sequence[str]) -> PromotionRefused:
        return PromotionRefused(
            text(
                pt=f"O banco {self.database} foi alterado durante a promoção.",
                en=f"The database {self.database} was changed during the promotion.",
            ),
            details=what,
            next_step=text(
                pt="Veja quem criou ou alterou tabelas, funções, permissões ou objetos grandes, e recomece com um "
                "backup novo.",
                en="Find out who made or changed tables, functions, grants or large objects, and start again from a "
                "new backup.",
            ),
        )

    # Locking

    def _settle(self, conn: Connection) -> None:
        row = conn.execute(
            "SELECT pg_catalog.pg_backend_pid(), oid::bigint FROM pg_catalog.pg_database"
            " WHERE datname = pg_catalog.current_database()"
        ).fetchone()
        assert row is not None
        self.pid, self.oid = row
        conn.execute("SET max_parallel_workers_per_gather = 0")
        conn.execute(sql.SQL("SET lock_timeout = {}").format(sql.Literal(int(self._patience * 1000))))

    def _lock_all(self, conn: Connection) -> None:
        locked: set[int] = set()
        conn.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        try:
            if self._production.is_superuser:
                conn.execute("LOCK TABLE pg_catalog.pg_largeobject_metadata IN SHARE MODE")
            for _ in range(_ATTEMPTS):  # until no table was made while others were being locked
                tables = self._lockable(conn, locked)
                for start in range(0, len(tables), _BATCH):
                    self._lock(conn, tables[start : start + _BATCH])
                locked.update(oid for oid, *_ in tables)
                self.tables = len(locked)
                self._mark = self._first_look(conn)
                if {row[0] for row in conn.execute(_TABLES)} == locked:
                    break
            else:
                raise self._written(conn)
        except (errors.LockNotAvailable, errors.DeadlockDetected, errors.UndefinedTable):
            raise self._written(conn) from None
        except errors.OutOfMemory:
            conn.execute("ROLLBACK")
            raise _no_room(self.tables) from None
        self.check()

    def _lockable(self, conn: Connection, locked: set[int]) -> list[tuple[int, str, str]]:
        rows = [row for row in conn.execute(_TABLES).fetchall() if row[0] not in locked]
        room = conn.execute(_ROOM).fetchone()
        assert room is not None
        self.tables = len(rows) + len(locked)
        if room[1] + len(rows) > room[0]:  # before others are left without any
            raise _no_room(self.tables)
        if closed := [f"{schema}.{table}" for _, schema, table, allowed in rows if not allowed]:
            raise PromotionRefused(
                text(
                    pt=f"{self._production.role} não pode bloquear {counted(len(closed), 'tabela', 'tabelas')}.",
                    en=f"{self._production.role} may not lock {counted(len(closed), 'table', 'tables')}.",
                ),
                details=_some(closed),
                next_step=text(
                    pt="Entre como o dono dessas tabelas, ou torne-se membro dele (GRANT dono TO papel).",
                    en="Connect as the owner of these tables, or become its member (GRANT owner TO role).",
                ),
            )
        return [(oid, schema, table) for oid, schema, table, _ in rows]

    @staticmethod
    def _lock(conn: Connection, tables: Sequence[tuple[int, str, str]]) -> None:
        names = sql.SQL(", ").join(sql.SQL("ONLY ") + sql.Identifier(schema, table) for _, schema, table in tables)
        conn.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(names))

    def _written(self, conn: Connection) -> PromotionRefused:
        conn.execute("ROLLBACK")
        return PromotionRefused(
            text(
                pt=f"Alguém está gravando no banco {self.database}.",
                en=f"Somebody is writing to the database {self.database}.",
            ),
            details=_some(_sessions(conn.execute(_WRITERS))),
            next_step=text(
                pt="Pare o PEC e tudo o mais que grava, espere que terminem, e repita.",
                en="Stop PEC and whatever else writes, let it end, and repeat.",
            ),
        )

    def _held(self) -> Connection:
        if self._conn is None or self._conn.closed:
            raise _gone()
        return self._conn

    # Looking

    def _first_look(self, conn: Connection) -> Mark:
        content, self.large_objects = None, LargeObjects.LOCKED
        if self._production.is_superuser:
            content = self._content(conn)
        else:
            row = conn.execute(_MAY_READ).fetchone()
            self._may_read = bool(row and row[0])
            start = time.monotonic()
            content = self._content(conn)
            fast = self._may_read and time.monotonic() - start < _CONTENT_SECONDS
            self.large_objects = LargeObjects.CONTENT if fast else LargeObjects.COUNTERS
        self._expected = self._look(conn)
        return Mark(self._expected.catalogs, content, self._expected.counted)

    def _look(self, conn: Connection) -> Mark:
        """The part that is looked at every time."""
        content = self._content(conn) if self.large_objects is LargeObjects.CONTENT else None
        counted = None
        if self.large_objects is LargeObjects.COUNTERS:
            conn.execute("SELECT pg_catalog.pg_stat_clear_snapshot()")
            counted = conn.execute(_COUNTED).fetchone()
        return Mark(tuple(conn.execute(catalogs.sums(conn.info.server_version)).fetchall()), content, counted)

    def _content(self, conn: Connection) -> tuple[Any, ...] | None:
        """What tells one state of all large objects from another."""
        if self._production.is_superuser:
            return conn.execute(_VERSIONS).fetchone()
        return conn.execute(_CONTENT).fetchone() if self._may_read else None


# For people


def _sessions(rows: Any) -> list[str]:
    return [
        text(
            pt=f"sessão {pid}, papel {role or '?'}, programa {program or '?'}, {state or '?'}: {tables}",
            en=f"session {pid}, role {role or '?'}, program {program or '?'}, {state or '?'}: {tables}",
        )
        if pid is not None
        else text(pt=f"transação preparada: {tables}", en=f"prepared transaction: {tables}")
        for pid, role, program, state, tables in rows
    ]


def _some(lines: Sequence[str]) -> list[str]:
    more = len(lines) - _SHOWN
    return [*lines[:_SHOWN], *([text(pt=f"… e mais {more}", en=f"… and {more} more")] if more > 0 else [])]


def _gone(sqlstate: str | None = None) -> PromotionRefused:
    return PromotionRefused(
        text(
            pt="O bloqueio que impede gravações no banco se perdeu.",
            en="The lock that keeps writes off the database is lost.",
        ),
        details=[f"SQLSTATE {sqlstate}"] if sqlstate else [],
        next_step=text(
            pt="Não se sabe se algo foi gravado desde então: repita.",
            en="It is not known whether something was written since: repeat.",
        ),
    )


def _no_room(tables: int) -> PromotionRefused:
    return PromotionRefused(
        text(
            pt=f"O servidor não tem lugar para bloquear {tables} tabelas de uma vez.",
            en=f"The server has no room to lock {tables} tables at once.",
        ),
        next_step=text(
            pt="Aumente max_locks_per_transaction (para 256, por exemplo) e reinicie o servidor.",
            en="Raise max_locks_per_transaction (to 256, for example) and restart the server.",
        ),
    )
