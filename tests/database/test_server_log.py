"""What a real server's log tells after errors: that they were, and nothing of any row."""

from __future__ import annotations

import os
import signal
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from merge.errors import MergeError
from sandbox.embedded import EmbeddedServer
from sandbox.events import Events, support_bundle
from tests.database.test_engine import SOURCE, _fill, _profile
from tests.database.test_engine import central as central

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.server import Server
    from tests.fix_merge import Bench

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the log is filtered on Linux only")

NAME, CPF = "MARIA DA SILVA", "12345678909"
TOLD = (NAME, "MARIA", "SILVA", CPF, CPF[:9])
STATEMENTS = {
    "22P02": f"SELECT '{NAME}'::integer",
    "22003": f"SELECT '{CPF}'::integer",
    "22007": f"SELECT '{NAME} {CPF}'::date",
    "23505": f"INSERT INTO t VALUES ('{NAME}'), ('{NAME}')",
    "23514": f"INSERT INTO t VALUES ('{CPF}')",
    "P0001": f"DO $$BEGIN RAISE '{NAME} {CPF}'; END$$",
    "42P01": f'SELECT * FROM "{NAME}"',
    "42703": f'SELECT "{CPF}" FROM t',
    "42601": f"SELECT 1 {NAME}",
    "22004": f"DO $$BEGIN RAISE E'\\nFATAL:  {NAME}\\n2026-11-25 19:45:03.123 UTC,1,00000,FATAL:  {NAME}'"
    f" USING ERRCODE = '22004', DETAIL = '{CPF}', HINT = '{NAME}'; END$$",
    "22011": f"DO $$BEGIN RAISE '%', repeat('{NAME}' || chr(10), 3000) USING ERRCODE = '22011'; END$$",
}
WORKER = "SET {} = on; SET max_parallel_workers_per_gather = 2; SELECT (b || '')::integer FROM t2"


def settled(server: Server, wanted: str) -> str:
    """The log, as soon as a line of it is there: the filter is a process of its own."""
    deadline = time.monotonic() + 20
    while True:
        said = "".join(path.read_text() for path in server.logs())
        if wanted in said or time.monotonic() > deadline:
            return said
        time.sleep(0.05)


def test_errors_are_logged_without_a_word_of_them(server: Server, database: str) -> None:
    with server.connect(database, "homolog_test") as conn:
        conn.execute(f"CREATE TABLE t (a text PRIMARY KEY CHECK (a <> '{CPF}'))")
        conn.execute(f"CREATE TABLE t2 AS SELECT '{NAME}'::text AS b FROM generate_series(1, 5)")
        for code, statement in STATEMENTS.items():
            with pytest.raises(psycopg.Error) as caught:
                conn.execute(statement.encode())
            assert caught.value.sqlstate == code
        with pytest.raises(psycopg.Error), conn.cursor().copy("COPY t FROM STDIN") as copy:
            copy.write(f"{NAME}\t{CPF}\n")
        conn.execute(f"DO $$BEGIN RAISE LOG 'database system {NAME}'; RAISE WARNING '{NAME}'; END$$")
        setting = "debug_parallel_query" if server.major >= 16 else "force_parallel_mode"
        with pytest.raises(psycopg.errors.InvalidTextRepresentation) as worker:
            conn.execute(WORKER.format(setting).encode())
        assert "parallel worker" in (worker.value.diag.context or "")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.conninfo(database, "homolog_test"), user=NAME, password=CPF)
    with server.connect(database) as conn, pytest.raises(psycopg.errors.DivisionByZero):
        conn.execute("SELECT 1/0")
    said = settled(server, ",22012,")
    for code in STATEMENTS:
        assert f",{code},homolog_test,{database},ERROR:  ***" in said
    assert ",22P04," in said  # of COPY
    assert "database system is ready to accept connections" in said
    assert not [word for word in TOLD if word in said]
    assert not [word for word in ("SELECT", "INSERT", "COPY", "STATEMENT") if word in said]


def test_the_bundle_of_a_failed_merge(central: Bench, tmp_path: Path) -> None:
    """It tells with which SQLSTATE the server refused the merge, and nothing of the row."""
    plan, found = central.prepare(_profile())
    broken = SOURCE + f"UPDATE person SET name = '{NAME} {CPF}' WHERE id = 1;"
    central.load(1, found, lambda conn, schema: _fill(conn, schema, broken))
    with central.owner() as conn:
        conn.execute(f"ALTER TABLE person ADD CHECK (name <> '{NAME} {CPF}')")
    with pytest.raises(MergeError):
        central.merge(plan, found, 1)
    line = f",23514,homolog_test_merge,{central.database},ERROR:  ***"
    assert line in settled(central.server, line)
    Events(tmp_path / "events.jsonl").add("run", "stopped")
    with zipfile.ZipFile(support_bundle(tmp_path, logs=central.server.logs())) as bundle:
        everything = {name: bundle.read(name).decode() for name in bundle.namelist()}
    assert line in everything["server-0.log"]
    assert not [word for word in TOLD if any(word in content for content in everything.values())]


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path / "run" / "server", memory=2**28)
    yield server
    server.destroy()


def _filters(server: EmbeddedServer) -> list[int]:
    """Processes that write the log of a server."""
    found = []
    for place in Path("/proc").glob("[0-9]*/fd/1"):
        try:
            if place.readlink() == server._log:
                found.append(int(place.parts[2]))
        except OSError:
            continue
    return found


def test_the_filter_ends_with_its_server_however_that_ends(fresh: EmbeddedServer) -> None:
    for end in (fresh.stop, lambda: [os.kill(pid, signal.SIGKILL) for pid in fresh._processes()]):
        fresh.start()
        assert len(_filters(fresh)) == 1
        end()
        deadline = time.monotonic() + 20
        while _filters(fresh) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert _filters(fresh) == []
    fresh.start()  # a crash is told, by the server's own processes
    assert "database system was not properly shut down" in settled(fresh, "properly")
    assert {path.name for path in fresh._home.iterdir()} <= {"data", "log", "run-folder"}  # no pipe
    for path in fresh.logs():
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_killed_filter_does_not_stop_the_server(fresh: EmbeddedServer) -> None:
    fresh.start()
    for pid in _filters(fresh):
        os.kill(pid, signal.SIGKILL)
    with fresh.connect("postgres") as conn:
        for _ in range(3):
            with pytest.raises(psycopg.errors.DivisionByZero):
                conn.execute("SELECT 1/0")
        assert conn.execute("SELECT 1").fetchone() == (1,)
    with fresh.connect("postgres") as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
