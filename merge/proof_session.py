"""Connections that only read, and many of them at once."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Connection = psycopg.Connection[tuple[Any, ...]]

_SETTINGS = {
    # Text forms are compared, and shown hashed: they must not depend on the server's configuration, and be exact.
    "extra_float_digits": "3",
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    # Only the server's own operators and functions are meant, never those of a restored database.
    "search_path": "pg_catalog",
    # There are no statistics here: joins are written in the order and shape in which they must be made.
    "join_collapse_limit": "1",
    "from_collapse_limit": "1",
    "enable_nestloop": "off",
    "random_page_cost": "1.1",
    "work_mem": "128MB",
}

_SILENCE = {"log_statement": "none", "log_min_error_statement": "panic", "log_min_duration_statement": "-1"}
"""Nothing that fails, or is slow, may be written to the server's log with a value of a row; superuser only."""


@contextmanager
def session(connect: Callable[[], Connection], *, read_only: bool = True) -> Iterator[Connection]:
    """Open a connection with settings that make comparison exact, and close it at the end."""
    with connect() as conn:
        conn.autocommit = True
        settings = {**_SETTINGS, "default_transaction_read_only": "on" if read_only else "off"}
        if conn.info.parameter_status("is_superuser") == "on":
            settings |= _SILENCE
        if conn.info.server_version >= 110000:
            settings["jit"] = "off"
        calls = ", ".join(["set_config(%s, %s, false)"] * len(settings))
        conn.execute(f"SELECT {calls}".encode(), [text for pair in settings.items() for text in pair])
        yield conn


def run_all(
    connect: Callable[[], Connection],
    tasks: Sequence[Callable[[Connection], None]],
    jobs: int,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    read_only: bool = True,
) -> None:
    """Run the tasks in their order on `jobs` connections; the first error stops all and is raised.

    :param on_progress: called with the tasks done and the tasks in all.
    """
    crew = _Crew(tasks, on_progress)

    def work() -> None:
        try:
            with session(connect, read_only=read_only) as conn:
                crew.work(conn)
        except BaseException as ex:
            crew.errors.append(ex)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(max(jobs, 1), len(tasks)))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException as ex:
        crew.stop(ex)
        for thread in threads:
            thread.join()
        raise
    if crew.errors:
        raise crew.errors[0]


class _Crew:
    def __init__(
        self, tasks: Sequence[Callable[[Connection], None]], on_progress: Callable[[int, int], None] | None
    ) -> None:
        self.errors: list[BaseException] = []
        self._waiting = iter(tasks)
        self._total = len(tasks)
        self._done = 0
        self._on_progress = on_progress
        self._connections: list[Connection] = []
        self._lock = threading.Lock()

    def work(self, conn: Connection) -> None:
        self._connections.append(conn)
        while (task := self._next()) is not None:
            task(conn)
            with self._lock:
                self._done += 1
                if self._on_progress is not None:
                    self._on_progress(self._done, self._total)

    def _next(self) -> Callable[[Connection], None] | None:
        with self._lock:
            return None if self.errors else next(self._waiting, None)

    def stop(self, ex: BaseException) -> None:
        """Interrupted: end what runs, so that no session stays behind."""
        self.errors.append(ex)
        for conn in self._connections:
            conn.cancel()


def table_sizes(conn: Connection, schema: str) -> dict[str, int]:
    """Bytes of every table of a schema, 0 for an empty one."""
    return dict(
        conn.execute(
            "SELECT c.relname, pg_relation_size(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = %s AND c.relkind = 'r'",
            [schema],
        ).fetchall()
    )


def unlike_tables(conn: Connection, schema: str, other: str) -> set[str]:
    """Tables that are in both schemas but have other columns: their rows cannot be compared."""
    query = """
        SELECT relname FROM (
            SELECT c.relname, array_agg(a.attname || ' ' || a.atttypid ORDER BY a.attname) AS columns
              FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             WHERE c.relkind = 'r' AND n.nspname IN (%s, %s) GROUP BY c.oid, c.relname) t
         GROUP BY relname HAVING count(DISTINCT columns) > 1
    """
    return {name for (name,) in conn.execute(query, [schema, other])}
