"""While a database is guarded nobody writes to it; what no lock holds up is found at the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from merge.errors import PromotionRefused
from sandbox.promotion.guard import LargeObjects, WriteGuard
from tests.fix_production import OWNER, READER, SUPERUSER, production_server
from tests.pairs import Pair, make_pair

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fix_production import ProductionServer


@pytest.fixture(params=[16, 18], scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[ProductionServer]:
    yield from production_server(request.param)


@pytest.fixture
def pair(server: ProductionServer, tmp_path: Path) -> Pair:
    return make_pair(server, tmp_path)


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMOLOG_LANG", "en")


@pytest.mark.parametrize("role", [SUPERUSER, OWNER])
def test_readers_go_on_and_writers_wait(pair: Pair, role: str) -> None:
    """And write after all, once the guard has left."""
    with pair.production(role) as production, pair.server.connect(pair.name, OWNER) as conn:
        with WriteGuard(production) as guard:
            assert guard.tables == 2
            conn.execute("SET lock_timeout = '100ms'")
            assert pair.content() == "old"
            for write in (
                "INSERT INTO which (x) VALUES ('late')",
                "UPDATE ledger SET id = 1",
                "DELETE FROM which",
                "TRUNCATE ledger",
                "ALTER TABLE which ADD y int",
                "DROP TABLE ledger",
                "COPY ledger FROM STDIN",
                "VACUUM which",
            ):
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    conn.execute(write)
            guard.check()
        conn.execute("INSERT INTO ledger VALUES (1)")


@pytest.mark.parametrize("role", [SUPERUSER, OWNER])
def test_the_snapshot_sees_all_that_was_acknowledged(pair: Pair, role: str) -> None:
    """Whoever uses it sees the same."""
    with pair.server.connect(pair.name, OWNER) as writer:
        writer.execute("INSERT INTO ledger SELECT generate_series(1, 1000)")
        with pair.production(role) as production, WriteGuard(production) as guard, guard.snapshot() as snapshot:
            assert production.tool("pg_dump", "-Fc", f"--snapshot={snapshot}").run().stdout.startswith(b"PGDMP")
            with production.connect() as conn:
                conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                conn.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")  # type: ignore[arg-type]
                assert conn.execute("SELECT count(*) FROM public.ledger").fetchone() == (1000,)
            guard.check()


def test_whoever_is_writing_is_named(pair: Pair) -> None:
    """With session, role, program and table; nothing stays locked."""
    with pair.production() as production, pair.server.connect(pair.name, OWNER, application_name="PEC") as conn:
        with conn.transaction():
            conn.execute("INSERT INTO ledger VALUES (1)")
            with pytest.raises(PromotionRefused) as refused, WriteGuard(production, patience=1.2):
                pass
            assert refused.value.details == (
                f"session {conn.info.backend_pid}, role {OWNER}, program PEC, idle in transaction: ledger",
            )
        conn.execute("INSERT INTO ledger VALUES (2)")
        with WriteGuard(production):
            pass


def test_who_waits_is_told(pair: Pair) -> None:
    """So that the operator may know what is held up."""
    with pair.production() as production, WriteGuard(production) as guard:
        assert guard.waiting() == ()
        with pair.server.connect(pair.name, OWNER, application_name="late") as conn:
            conn.pgconn.send_query(b"INSERT INTO ledger VALUES (1)")
            while not (waiting := guard.waiting()):
                pass
            assert waiting == (f"session {conn.info.backend_pid}, role {OWNER}, program late, active: ledger",)
            conn.cancel_safe()
            while conn.pgconn.get_result() is not None:
                pass


CHANGES = (
    "CREATE TABLE more (x int)",
    "CREATE UNLOGGED TABLE more AS SELECT 1 AS x",
    "CREATE SCHEMA more",
    "CREATE FUNCTION more() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE INDEX ON which (x)",
    "CREATE VIEW more AS SELECT 1",
    "CREATE SEQUENCE more",
    "CREATE TYPE more AS ENUM ('a')",
    "CREATE MATERIALIZED VIEW more AS SELECT 1",
    "DROP MATERIALIZED VIEW summary",
    "ALTER SEQUENCE which_id_seq RESTART 5",
    f"GRANT SELECT ON which TO {READER}",
    f"GRANT SELECT (x) ON which TO {READER}",
    f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {READER}",
    "ALTER DATABASE {} SET work_mem = '8MB'",
    f"GRANT CONNECT ON DATABASE {{}} TO {READER}",
    "COMMENT ON FUNCTION there() IS 'changed'",
    "CREATE OR REPLACE FUNCTION there() RETURNS int LANGUAGE sql AS 'SELECT 3'",
)
"""What locks on tables let pass, and a promotion would lose."""


def test_changes_that_no_lock_holds_up_are_found(pair: Pair) -> None:
    """Each of them; undone by hand they leave a trace too, so that a new guard is asked each time."""
    with pair.server.connect(pair.name, OWNER) as conn, pair.production() as production:
        conn.execute("CREATE FUNCTION there() RETURNS int LANGUAGE sql AS 'SELECT 2'")
        for change in CHANGES:
            with WriteGuard(production) as guard:
                guard.check()
                conn.execute(change.format(f'"{pair.name}"'))  # type: ignore[arg-type]
                with pytest.raises(PromotionRefused) as refused:
                    guard.check()
                assert refused.value.details, change
            if "TABLE more" in change:
                conn.execute("DROP TABLE more")
            for kind in ("VIEW", "SEQUENCE", "TYPE", "MATERIALIZED VIEW"):
                if f"{kind} more" in change and not (kind == "VIEW" and "MATERIALIZED" in change):
                    conn.execute(f"DROP {kind} more")  # type: ignore[arg-type]


def test_what_changes_no_data_is_no_change(pair: Pair) -> None:
    """Reading, a session's own tables, drawing a number, statistics of other tables, what is computed."""
    with (
        pair.server.connect(pair.name, OWNER) as conn,
        pair.production() as production,
        WriteGuard(production) as guard,
    ):
        for harmless in (
            "SELECT * FROM which",
            "CREATE TEMP TABLE mine (id serial PRIMARY KEY, x text DEFAULT 'a' CHECK (x <> 'b'))",
            "INSERT INTO mine SELECT FROM generate_series(1, 10)",
            "CREATE INDEX ON mine (x)",
            "CREATE TEMP VIEW seen AS SELECT * FROM mine",
            "SELECT nextval('which_id_seq')",
            "REFRESH MATERIALIZED VIEW summary",
            "ANALYZE mine",
        ):
            conn.execute(harmless)  # type: ignore[arg-type]
        with pair.server.connect(pair.name) as superuser:
            superuser.execute("VACUUM pg_class")
            superuser.execute("VACUUM FREEZE pg_attribute")
            superuser.execute("ANALYZE pg_proc")
        guard.check()


def test_large_objects_of_a_superuser_are_locked_at_the_end(pair: Pair) -> None:
    """They can be read and dumped until then; and not be made or removed, from the start."""
    with pair.server.connect(pair.name, OWNER) as conn, pair.production() as production:
        conn.execute("SELECT lo_from_bytea(70000, 'before')")
        with WriteGuard(production) as guard:
            assert guard.large_objects is LargeObjects.LOCKED
            conn.execute("SET lock_timeout = '100ms'")
            for write in ("SELECT lo_create(0)", "SELECT lo_unlink(70000)"):
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    conn.execute(write)  # type: ignore[arg-type]
            assert conn.execute("SELECT lo_get(70000)").fetchone() == (b"before",)
            with guard.snapshot() as snapshot:
                dump = production.tool("pg_dump", "-Fp", f"--snapshot={snapshot}").run().stdout
                assert b"before".hex().encode() in dump
            guard.hold_large_objects()
            with pytest.raises(psycopg.errors.LockNotAvailable):
                conn.execute("SELECT lo_put(70000, 0, 'after')")
            guard.check()


def test_whoever_has_a_large_object_open_is_named(pair: Pair) -> None:
    """At the end, when they are locked."""
    with pair.server.connect(pair.name, OWNER) as conn, pair.production() as production:
        conn.execute("SELECT lo_from_bytea(70000, 'before')")
        with WriteGuard(production, patience=1.2) as guard, conn.transaction():
            conn.execute("SELECT lo_get(70000)")
            with pytest.raises(PromotionRefused) as refused:
                guard.hold_large_objects()
            assert str(conn.info.backend_pid) in refused.value.details[0]


@pytest.mark.parametrize("role", [SUPERUSER, OWNER])
def test_a_written_large_object_is_found_at_the_end(pair: Pair, role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the full comparison, also if there are too many of them to compare in the last check."""
    monkeypatch.setattr("sandbox.promotion.guard._CONTENT_SECONDS", 0.0)
    with pair.server.connect(pair.name, OWNER) as conn, pair.production(role) as production:
        conn.execute("SELECT lo_from_bytea(70000, 'before')")
        with WriteGuard(production) as guard:
            guard.hold_large_objects()
        with WriteGuard(production) as guard:
            assert guard.large_objects is (LargeObjects.LOCKED if role == SUPERUSER else LargeObjects.COUNTERS)
            conn.execute("SELECT lo_put(70000, 0, 'B')")
            with pytest.raises(PromotionRefused) as refused:
                guard.hold_large_objects()
            assert refused.value.details == ("pg_largeobject",)


WRITES = ("SELECT lo_put(70000, 0, 'B')", "SELECT lo_create(0)", "SELECT lo_unlink(70000)")


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("how", [LargeObjects.CONTENT, LargeObjects.COUNTERS])
def test_writes_to_large_objects_are_found_without_a_lock(pair: Pair, how: LargeObjects, write: str) -> None:
    """By their content if the role may read them all; or else by what was counted, once the session has ended."""
    with pair.server.connect(pair.name) as conn:
        conn.execute("SELECT lo_from_bytea(70000, 'before')")
        conn.execute(f"ALTER LARGE OBJECT 70000 OWNER TO {OWNER}")  # type: ignore[arg-type]
        if how is LargeObjects.COUNTERS:
            conn.execute("SELECT lo_create(70001)")  # not the owner's
    with pair.production(OWNER) as production, WriteGuard(production) as guard:
        assert guard.large_objects is how
        guard.hold_large_objects()
        guard.check()
        with pair.server.connect(pair.name, OWNER) as conn:
            conn.execute(write)  # type: ignore[arg-type]
        deadline = time.monotonic() + 10
        while pair.sessions() > 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(PromotionRefused) as refused:
            guard.check()
        assert {"pg_largeobject", "pg_largeobject_metadata"} & set(refused.value.details)


def test_a_lost_lock_is_noticed(pair: Pair) -> None:
    """Whoever ends our session."""
    with pair.production() as production, WriteGuard(production) as guard:
        with pair.server.connect("postgres") as conn:
            conn.execute("SELECT pg_terminate_backend(%s)", [guard.pid])
        with pytest.raises(PromotionRefused, match="lost"):
            guard.check()
        with pytest.raises(PromotionRefused, match="lost"), guard.snapshot():
            pass
    with pair.server.connect(pair.name, OWNER) as conn:
        conn.execute("INSERT INTO ledger VALUES (1)")
    assert pair.content() == "old"


def test_tables_that_may_not_be_locked_are_named(pair: Pair) -> None:
    """Before anything is locked."""
    with pair.server.connect(pair.name) as conn:
        conn.execute("CREATE TABLE private (x int); CREATE SCHEMA hidden; CREATE TABLE hidden.other (x int)")
    with pair.production(OWNER) as production, pytest.raises(PromotionRefused) as refused, WriteGuard(production):
        pass
    assert refused.value.details == ("public.private", "hidden.other")


def test_names_may_be_anything(pair: Pair) -> None:
    """Mixed case, quotes, blanks, and a child that is locked by itself; a partition is a table too."""
    with pair.server.connect(pair.name, OWNER) as conn:
        conn.execute('CREATE SCHEMA "S ""ã"; CREATE TABLE "S ""ã"."T %s {}" (x int)')
        conn.execute('CREATE TABLE child () INHERITS ("S ""ã"."T %s {}")')
        conn.execute("CREATE TABLE parts (x int) PARTITION BY LIST (x)")
        conn.execute("CREATE TABLE part PARTITION OF parts FOR VALUES IN (1)")
        with pair.production(OWNER) as production, WriteGuard(production) as guard:
            assert guard.tables == 6
            conn.execute("SET lock_timeout = '100ms'")
            for table in ("child", "parts", "part", '"S ""ã"."T %s {}"'):
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    conn.execute(f"INSERT INTO {table} VALUES (1)".encode())


def test_a_server_without_room_for_the_locks_says_so(tmp_path: Path) -> None:
    """Before others are left without any."""
    for server in production_server(16, {"max_locks_per_transaction": "10", "max_connections": "20"}):
        pair = make_pair(server, tmp_path)
        with server.connect(pair.name, OWNER) as conn:
            for number in range(210):
                conn.execute(f"CREATE TABLE t{number} (x int)")  # type: ignore[arg-type]
        with pair.production() as production, pytest.raises(PromotionRefused) as refused, WriteGuard(production):
            pass
        assert "max_locks_per_transaction" in (refused.value.next_step or "")
        assert pair.content() == "old"
