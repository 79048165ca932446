"""How long a login waits while databases of any size are swapped: ``python -m tests.bench.login_wait 2.5``.

Prints, for a small and a large database, the seconds of the swap as a whole, what the swap itself says of the login's
wait, and the longest time in which somebody who logs in again and again did not get in. The large one has dirty pages
everywhere, as many tables as PEC, and is being read until it is swapped.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psycopg

from sandbox.promotion import beside, candidate, names
from sandbox.promotion.guard import WriteGuard
from sandbox.promotion.production import Production
from sandbox.promotion.swap import swap
from tests.fix_production import DATABASE, OWNER, READER, ProductionServer, production_server

RUN = "20260101-0000-abcd"
TABLES = 1115
_ROW = 1024


class Logins(threading.Thread):
    """Logs in again and again: the moments at which it got in, and how often it was refused."""

    def __init__(self, server: ProductionServer) -> None:
        super().__init__(daemon=True)
        self.server, self.over = server, threading.Event()
        self.times = [time.monotonic()]
        self.longest = 0.0
        self.refused = 0

    def run(self) -> None:
        """Until it is over."""
        while not self.over.is_set():
            began = time.monotonic()
            try:
                self.server.connect(DATABASE, OWNER).close()
                self.times.append(time.monotonic())
            except psycopg.OperationalError:
                self.refused += 1
            self.longest = max(self.longest, time.monotonic() - began)

    @property
    def gap(self) -> float:
        """Seconds of the longest time in which it did not get in."""
        return max(b - a for a, b in zip(self.times, self.times[1:], strict=False))


def fill(server: ProductionServer, database: str, size: int) -> None:
    """Make all tables, and fill some of them with so many bytes; then touch a row of every page."""
    with server.connect(database, OWNER) as conn:
        for number in range(TABLES):
            conn.execute(f"CREATE TABLE t{number} (id bigint PRIMARY KEY, x text)")
        rows = size // _ROW // 10
        for number in range(10):
            conn.execute(
                f"INSERT INTO t{number} SELECT i, repeat(md5(i::text), {_ROW // 32 - 2})"
                f" FROM generate_series(1, {rows}) i"
            )
            conn.execute(f"UPDATE t{number} SET id = -id WHERE id % 7 = 0")


def measure(gigabytes: float, folder: Path) -> None:
    """Swap a database of this size for another."""
    for server in production_server(settings={"max_wal_size": "8GB", "shared_buffers": "1GB"}):
        fill(server, DATABASE, int(gigabytes * 1e9))
        with Production(server.dsn(), folder) as production:
            name = names.candidate_name(DATABASE, RUN)
            new = beside.create_beside(production, name, run_id=RUN)
            fill(server, name, int(gigabytes * 1e9 / 4))
            with server.connect("postgres") as conn:
                conn.execute("CHECKPOINT")
                old = candidate.oid_of(conn, DATABASE)
                size = conn.execute("SELECT pg_database_size(%s)", [DATABASE]).fetchone()
            with server.connect(DATABASE, OWNER) as conn:
                conn.execute("UPDATE t0 SET x = x || 'y'; UPDATE t1 SET x = x || 'y'")
            reader = threading.Thread(target=_read, args=(server,), daemon=True)
            reader.start()
            logins = Logins(server)
            logins.start()
            time.sleep(1)
            began = time.monotonic()
            with WriteGuard(production) as guard, WriteGuard(production, name) as candidate_guard:
                done = swap(
                    production, guard, old, new, names.kept_name(DATABASE, RUN), run_id=RUN,
                    candidate_guard=candidate_guard,
                )  # fmt: skip
            whole = time.monotonic() - began
            time.sleep(1)
            logins.over.set()
            logins.join()
            assert size is not None
            print(  # noqa: T201
                f"{size[0] / 1e9:.2f} GB, {TABLES} tables: swap {whole:.2f} s, login wait {done.login_wait:.3f} s,"
                f" longest login {logins.longest:.3f} s, longest without one {logins.gap:.3f} s,"
                f" refused {logins.refused}, ended {done.ended}"
            )


def _read(server: ProductionServer) -> None:
    with suppress(psycopg.Error), server.connect(DATABASE, READER) as conn:
        while True:
            conn.execute("SELECT count(*) FROM pg_class, pg_attribute")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for wanted in (0.05, float(sys.argv[1])):
            measure(wanted, Path(scratch))
