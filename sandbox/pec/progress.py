"""How far the vendor's unification has got, as far as the database tells: PEC shows no progress of its own.

Everything here is cheap, read-only, and says nothing of a person: counts, sizes, and of the tables with the state of a
unification only states, kinds and dates. What their columns are called was never seen, so they are read from the
catalog.
"""

from __future__ import annotations

import re
import shutil
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from merge.profile import Watch

    Connection = psycopg.Connection[tuple[Any, ...]]

_KEPT = 2000
_STATES = 20
_NUMBERS = ("boolean", "smallint", "integer", "bigint", "numeric")
_MOMENTS = ("date", "timestamp without time zone", "timestamp with time zone")
_TEXTS = ("text", "character varying", "character")
_STATE_NAME = re.compile(r"(?:st|tp|in)_\w+")
_MOMENT_NAME = re.compile(r"(?:dt|hr)_(?!nasc)\w+")
_PERSONAL = re.compile(r"cpf|cns|nascimento|obito|nome|documento|telefone|email|senha|login|usuario")


@dataclass(frozen=True)
class StatusLine:
    """Rows of a status table that are in the same state.

    :param state: by column; texts that do not look like the name of a state are ``?``.
    :param first: first and
    :param last: last date of any kind in these rows, ISO 8601; None if there is none.
    """

    table: str
    state: Mapping[str, str | None]
    rows: int
    first: str | None = None
    last: str | None = None


@dataclass(frozen=True)
class Sample:
    """How things stand at one time.

    :param at: ISO 8601, UTC.
    :param seconds: of a clock that only goes forward.
    :param rows: by watched table, as the server's statistics have it: committed rows, an estimate.
    :param bytes: by watched table, its size on disk, which also grows by what is not committed yet.
    :param free: bytes free on the server's disk, None if nobody said where that is.
    """

    at: str
    seconds: float
    rows: Mapping[str, int]
    bytes: Mapping[str, int]
    database_bytes: int
    free: int | None = None
    status: tuple[StatusLine, ...] = ()


@dataclass
class Growth:
    """Samples a database from time to time.

    :param connect: opens a connection that may read it.
    :param place: a folder on the disk where the server's data are.
    :param clock: seconds, for tests.
    """

    connect: Callable[[], Connection]
    watch: Watch
    place: Path | None = None
    schema: str = "public"
    clock: Callable[[], float] = time.monotonic
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=_KEPT))
    _changed: float | None = None

    def sample(self) -> Sample:
        """Take one sample.

        :raises psycopg.OperationalError: the server does not answer.
        """
        with self.connect() as conn, conn.transaction(force_rollback=True):
            conn.execute("SET TRANSACTION READ ONLY")
            conn.execute("SET LOCAL statement_timeout = '30s'")
            conn.execute("SET LOCAL lock_timeout = '2s'")
            conn.execute("SET LOCAL datestyle = 'ISO, YMD'")
            conn.execute("SELECT set_config('search_path', 'pg_catalog', true)")
            rows = conn.execute(
                "SELECT relname, n_live_tup, pg_table_size(relid) FROM pg_stat_user_tables"
                " WHERE schemaname = %s AND relname = ANY (%s)",
                [self.schema, list(self.watch.growing)],
            ).fetchall()
            size = conn.execute("SELECT pg_database_size(current_database())").fetchone()
            status = tuple(line for table in self._status_tables(conn) for line in self._status(conn, table))
        taken = Sample(
            datetime.now(UTC).isoformat(timespec="seconds"),
            self.clock(),
            {table: count for table, count, _ in rows},
            {table: length for table, _, length in rows},
            int(size[0]) if size is not None else 0,
            shutil.disk_usage(self.place).free if self.place is not None else None,
            status,
        )
        last = self.samples[-1] if self.samples else None
        if last is None or _stand(last) != _stand(taken):
            self._changed = taken.seconds
        self.samples.append(taken)
        return taken

    def rates(self, seconds: float = 600) -> Mapping[str, float]:
        """Rows per minute of each watched table over the last `seconds`; 0 before there are two samples."""
        rates = dict.fromkeys(self.watch.growing, 0.0)
        if len(self.samples) < 2:
            return rates
        last = self.samples[-1]
        first = next(s for s in self.samples if last.seconds - s.seconds <= seconds)
        if first is last:
            first = self.samples[-2]
        minutes = (last.seconds - first.seconds) / 60
        if minutes > 0:
            rates |= {t: (last.rows[t] - first.rows[t]) / minutes for t in last.rows.keys() & first.rows.keys()}
        return rates

    def stalled(self, minutes: float) -> bool:
        """True if nothing changed for so long: neither rows nor sizes nor states. To warn of, never to end anything."""
        return self._changed is not None and self.samples[-1].seconds - self._changed >= minutes * 60

    def _status_tables(self, conn: Connection) -> list[str]:
        names = conn.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = %s AND c.relkind IN ('r', 'p') ORDER BY 1",
            [self.schema],
        ).fetchall()
        return [name for (name,) in names if any(fnmatchcase(name, pattern) for pattern in self.watch.status)]

    def _status(self, conn: Connection, table: str) -> list[StatusLine]:
        """The states in a table, by how many rows are in each; nothing if somebody has locked it."""
        columns = conn.execute(
            "SELECT column_name::text, data_type::text FROM information_schema.columns"
            " WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
            [self.schema, table],
        ).fetchall()
        states = [(name, kind) for name, kind in columns if _is_state(name, kind)]
        moments = [name for name, kind in columns if _is_moment(name, kind)]
        first, last = (_extreme(function, moments) for function in ("least", "greatest"))
        query = sql.SQL("SELECT count(*), min({})::text, max({})::text{} FROM {}{} ORDER BY 1 DESC LIMIT {}").format(
            first,
            last,
            sql.SQL("").join(sql.SQL(", {}").format(_state(name, kind)) for name, kind in states),
            sql.Identifier(self.schema, table),
            sql.SQL(" GROUP BY {}").format(sql.SQL(", ").join(sql.SQL(str(n + 4)) for n in range(len(states))))
            if states
            else sql.SQL(""),
            sql.Literal(_STATES),
        )
        try:
            with conn.transaction():
                found = conn.execute(query).fetchall()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled, psycopg.errors.InsufficientPrivilege):
            return []
        return [
            StatusLine(table, dict(zip([name for name, _ in states], values, strict=True)), count, begin, end)
            for count, begin, end, *values in found
            if count
        ]


def _stand(sample: Sample) -> tuple[object, ...]:
    return (sample.rows, sample.bytes, sample.database_bytes, sample.status)


def _is_state(name: str, kind: str) -> bool:
    return _STATE_NAME.fullmatch(name) is not None and kind in (*_NUMBERS, *_TEXTS) and not _PERSONAL.search(name)


def _is_moment(name: str, kind: str) -> bool:
    return _MOMENT_NAME.fullmatch(name) is not None and kind in _MOMENTS and not _PERSONAL.search(name)


def _state(name: str, kind: str) -> sql.Composable:
    column = sql.Identifier(name)
    if kind not in _TEXTS:
        return sql.SQL("{}::text").format(column)
    # The name of a state; whatever else somebody may have written there stays there.
    return sql.SQL("CASE WHEN {} ~ '^[A-Z][A-Z_]{{0,39}}$' OR {} IS NULL THEN {}::text ELSE '?' END").format(
        column, column, column
    )


def _extreme(function: str, moments: list[str]) -> sql.Composable:
    if not moments:
        return sql.SQL("NULL::timestamp")
    columns = sql.SQL(", ").join(sql.SQL("{}::timestamp").format(sql.Identifier(name)) for name in moments)
    return sql.SQL("{}({})").format(sql.SQL(function), columns)
