"""Whether production was written since, told by what PostgreSQL keeps of it; each situation on a real server."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest

from sandbox.promotion import marks
from sandbox.promotion.marks import Marks, Verdict, compare
from sandbox.promotion.production import Production
from tests.fix_production import DATABASE, OWNER, READER, production_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fix_production import ProductionServer

TABLES = """
    CREATE TABLE written (id integer PRIMARY KEY, v text);
    CREATE TABLE other (id integer);
    CREATE SEQUENCE numbers;
    INSERT INTO written SELECT g, 'v' FROM generate_series(1, 100) g;
    INSERT INTO other VALUES (1);
    SELECT nextval('numbers');
    SELECT lo_from_bytea(4711, 'bytes');
    CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM written;
    CREATE INDEX ON counted (n);
"""


class Watched:
    """A database that is marked, and asked what became of it."""

    def __init__(self, server: ProductionServer, folder: Path) -> None:
        self.server = server
        self.production = Production(server.dsn(), folder)
        self.before: Marks

    def take(self) -> Marks:
        with self.production.connect() as conn:
            return marks.take(conn, wait=False)

    def run(self, *statements: str, database: str = DATABASE) -> None:
        """Do something in a session that ends, and has told by then what it did."""
        with self.server.connect(database, OWNER) as conn:
            for statement in statements:
                conn.execute(statement.encode())

    def since(self, *statements: str, database: str = DATABASE) -> Verdict:
        """The verdict after something was done."""
        with self.production.connect() as conn:
            before = marks.take(conn)  # waits: what was done before is reported
        self.run(*statements, database=database)
        return self.verdict(before)

    def verdict(self, before: Marks) -> Verdict:
        with self.production.connect() as conn:
            return compare(before, marks.take(conn))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    yield from _watched(16, tmp_path_factory)


@pytest.fixture(scope="module")
def watched18(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    yield from _watched(18, tmp_path_factory)


def _watched(major: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    # Nothing but the test writes: autovacuum would take transaction ids of its own.
    for server in production_server(major, {"autovacuum": "off"}):
        server.make_database("neighbour")
        made = Watched(server, tmp_path_factory.mktemp("watched"))
        made.run(*TABLES.split(";"))
        made.run("CREATE TABLE theirs (id integer)", database="neighbour")
        yield made
        made.production.close()


UNWRITTEN = {
    "nothing": (),
    "reading": ("SELECT count(*) FROM written", "SELECT lo_get(4711)", "TABLE counted"),
    "vacuum": ("VACUUM written",),
    "a read-only transaction": ("BEGIN READ ONLY", "SELECT 1", "COMMIT"),
}
UNWRITTEN_HERE = {
    "analyze": ("ANALYZE",),
    "vacuum of all, frozen": ("VACUUM (FREEZE, ANALYZE)",),
    "a temporary table": ("CREATE TEMPORARY TABLE t AS SELECT 1 AS a", "INSERT INTO t VALUES (2)"),
    "a view refreshed": ("REFRESH MATERIALIZED VIEW counted",),
    "a lock on a row": ("SELECT * FROM written WHERE id = 1 FOR UPDATE",),
}
WRITTEN = {
    "a row inserted": ("INSERT INTO other VALUES (2)",),
    "a row deleted": ("DELETE FROM other WHERE id = 1",),
    "rolled back": ("BEGIN", "UPDATE written SET v = 'w' WHERE id = 7", "ROLLBACK"),
    "a table made": ("CREATE TABLE made (id integer)",),
    "a table gone": ("DROP TABLE made",),
    "a column more": ("ALTER TABLE written ADD COLUMN w integer",),
    "emptied": ("TRUNCATE other",),
    "emptied when it is empty": ("TRUNCATE other",),
    "a large object": ("SELECT lo_put(4711, 0, 'B')",),
    "an empty large object": ("SELECT lo_create(4712)",),
    "a large object gone": ("SELECT lo_unlink(4712)",),
    "a function": ("CREATE FUNCTION one() RETURNS integer LANGUAGE sql AS 'SELECT 1'",),
    "an index": ("CREATE INDEX ON written (v)",),
    "a right": (f"GRANT SELECT ON written TO {READER}",),
    "a trigger": (
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE TRIGGER t BEFORE INSERT ON other FOR EACH ROW EXECUTE PROCEDURE f()",
    ),
    "an unlogged table": ("CREATE UNLOGGED TABLE u (id integer)",),
    "an unlogged row": ("INSERT INTO u VALUES (1)",),
    "a number of a sequence": ("SELECT nextval('numbers')",),
    "a sequence set": ("SELECT setval('numbers', 1000)",),
}


@pytest.mark.parametrize("name", UNWRITTEN)
def test_nothing_in_the_whole_server(watched: Watched, name: str) -> None:
    verdict = watched.since(*UNWRITTEN[name])
    assert verdict.state == "unwritten", verdict
    assert "any database" in verdict.how[0] or "nenhum banco" in verdict.how[0]


@pytest.mark.parametrize("name", UNWRITTEN_HERE)
def test_nothing_in_this_database(watched: Watched, name: str) -> None:
    assert watched.since(*UNWRITTEN_HERE[name]).state == "unwritten"


def test_a_neighbour_writes(watched: Watched) -> None:
    verdict = watched.since("INSERT INTO theirs VALUES (1)", database="neighbour")
    assert verdict.state == "unwritten"
    assert len(verdict.how) >= 2, "it says that others were written"


def test_a_checkpoint(watched: Watched) -> None:
    before = watched.take()
    with watched.server.connect() as conn:
        conn.execute("CHECKPOINT")
    assert watched.verdict(before).state == "unwritten"


@pytest.mark.parametrize("name", WRITTEN)
def test_it_was_written(watched: Watched, name: str) -> None:
    assert watched.since(*WRITTEN[name]).state == "written"


def test_which_table_is_said(watched: Watched) -> None:
    verdict = watched.since("UPDATE written SET v = 'z' WHERE id < 4")
    assert any(line.startswith("public.written: ") and " 3," in line for line in verdict.how), verdict


def test_one_that_was_under_way_is_not_missed(watched: Watched) -> None:
    """A transaction that began before others ended takes no new id when it ends."""
    with watched.server.connect(role=OWNER) as slow:
        slow.execute("BEGIN")
        slow.execute("INSERT INTO written VALUES (5000, 'slow')")
        watched.run("INSERT INTO written VALUES (5001, 'quick')")
        before = watched.take()
        assert before.running
        assert watched.verdict(before).state == "unwritten"
        slow.execute("COMMIT")
        after = watched.take()
        assert after.next_xid == before.next_xid
    assert watched.verdict(before).state == "written"


def test_who_is_connected_may_not_have_told_yet(watched: Watched) -> None:
    before = watched.take()
    watched.run("INSERT INTO theirs VALUES (1)", database="neighbour")
    with watched.server.connect(role=OWNER):
        assert watched.verdict(before).state == "unknown"
    assert watched.verdict(before).state == "unwritten"


def test_a_write_after_the_snapshot_is_seen_also_if_it_is_marked_late(watched: Watched) -> None:
    with watched.production.connect() as conn, marks.held(conn) as (before, snapshot):
        watched.run("INSERT INTO written VALUES (6000, 'later')")
        with watched.production.connect() as reader:
            reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            reader.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'".encode())
            assert reader.execute("SELECT count(*) FROM public.written WHERE id = 6000").fetchone() == (0,)
    assert watched.verdict(before).state == "written"


def test_the_owner_and_the_superuser_see_the_same(watched: Watched, tmp_path: Path) -> None:
    with (
        Production(watched.server.dsn(role=OWNER), tmp_path) as production,
        production.connect() as theirs,
        watched.production.connect() as ours,
    ):
        before, now = marks.take(theirs, wait=False), marks.take(ours, wait=False)
    assert compare(before, now).state == "unwritten"
    assert before.catalog == now.catalog


def test_counters_reset(watched: Watched) -> None:
    before = watched.take()
    watched.run("INSERT INTO theirs VALUES (1)", database="neighbour")
    with watched.server.connect() as conn:
        conn.execute("SELECT pg_stat_reset()")
    assert watched.verdict(before).state == "unknown"


def test_not_counted(watched: Watched) -> None:
    before = watched.take()
    with watched.server.connect() as conn:
        conn.execute("ALTER SYSTEM SET track_counts = off")
        conn.execute("SELECT pg_reload_conf()")
    watched.run("INSERT INTO written VALUES (7000, 'uncounted')")
    try:
        assert watched.verdict(before).state == "unknown"
    finally:
        with watched.server.connect() as conn:
            conn.execute("ALTER SYSTEM RESET track_counts")
            conn.execute("SELECT pg_reload_conf()")


def test_a_restart_and_a_crash(watched: Watched) -> None:
    watched.run("INSERT INTO other VALUES (99)")
    before = watched.take()
    watched.server.stop()
    watched.server.start()
    assert watched.verdict(before).state == "unwritten"
    watched.run("INSERT INTO theirs VALUES (1)", database="neighbour")
    assert watched.verdict(before).state == "unwritten", "a clean stop keeps the counters"
    watched.server.kill()
    watched.server.start()
    watched.run("INSERT INTO theirs VALUES (1)", database="neighbour")
    assert watched.verdict(before).state == "unknown"


def test_another_database_and_another_server(watched: Watched, tmp_path: Path) -> None:
    before = watched.take()
    with watched.production.connect("neighbour") as conn:
        assert compare(before, marks.take(conn, wait=False)).other
    for server in production_server(16):
        with Production(server.dsn(), tmp_path) as other, other.connect() as conn:
            verdict = compare(before, marks.take(conn, wait=False))
    assert (verdict.other, verdict.state) == (True, "unknown")


def test_they_are_kept_as_json(watched: Watched) -> None:
    before = watched.take()
    assert Marks.from_dict(json.loads(json.dumps(dataclasses.asdict(before)))) == before


def test_the_same_on_18(watched18: Watched) -> None:
    assert watched18.since(*UNWRITTEN["reading"]).state == "unwritten"
    for name, statements in UNWRITTEN_HERE.items():
        assert watched18.since(*statements).state == "unwritten", name
    for name, statements in WRITTEN.items():
        assert watched18.since(*statements).state == "written", name
    test_a_neighbour_writes(watched18)
    test_one_that_was_under_way_is_not_missed(watched18)
    test_a_restart_and_a_crash(watched18)
