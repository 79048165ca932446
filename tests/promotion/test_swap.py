"""The swap: seen from outside it is one instant, and nothing that was acknowledged is lost, whatever is cut off."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from merge.errors import HomologationError, PromotionRefused, PromotionRolledBack
from sandbox.promotion import names
from sandbox.promotion.guard import WriteGuard
from sandbox.promotion.swap import Limits, Standing, StandingUnknown, standing, swap
from tests.fix_production import OWNER, READER, SUPERUSER, production_server
from tests.pairs import RUN, Pair, make_pair
from tests.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fix_production import ProductionServer

SECONDS = 2.0
"""The longest that a login may have to wait."""


@pytest.fixture(params=[16, 18], scope="module")
def both(request: pytest.FixtureRequest) -> Iterator[ProductionServer]:
    yield from production_server(request.param)


@pytest.fixture
def pair(production: ProductionServer, tmp_path: Path) -> Pair:
    return make_pair(production, tmp_path)


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMOLOG_LANG", "en")


def comments(pair: Pair) -> dict[int, str | None]:
    """Of the live database and what is beside it, by OID."""
    with pair.server.connect("postgres") as conn:
        rows = conn.execute(
            "SELECT oid::bigint, shobj_description(oid, 'pg_database') FROM pg_database WHERE oid = ANY (%s)",
            [[pair.old, pair.new]],
        )
        return dict(rows.fetchall())


@pytest.mark.parametrize("role", [SUPERUSER, OWNER])
def test_there_and_back(both: ProductionServer, tmp_path: Path, role: str) -> None:
    """Names and comments are exchanged, databases stay what they are; what is kept is known to be ours."""
    pair = make_pair(both, tmp_path)
    with both.connect("postgres") as conn:
        conn.execute(f"COMMENT ON DATABASE \"{pair.name}\" IS 'é dos ''outros'' %s {{}}'".encode())
    with pair.production(role) as production:
        with WriteGuard(production) as guard:
            swapped = pair.swap(production, guard, both=True)
        assert pair.content() == "new"
        assert pair.content(OWNER) == "new"
        assert (swapped.live_oid, swapped.kept_oid, swapped.answered) == (pair.new, pair.old, True)
        assert swapped.login_wait < SECONDS
        assert comments(pair) == {pair.old: f"pec-homolog {RUN} kept", pair.new: "é dos 'outros' %s {}"}
        with closing(production.connect_outside()) as conn:
            assert standing(conn, pair.name, pair.old, pair.new) is Standing.NEW
            assert (pair.old, swapped.kept_name) in {(one.oid, one.name) for one in names.ours(conn)}
        with WriteGuard(production) as guard:
            back = pair.swap(production, guard)
        assert pair.content() == "old"
        assert back.login_wait < SECONDS
        assert comments(pair) == {pair.new: f"pec-homolog {RUN} kept", pair.old: "é dos 'outros' %s {}"}
        with closing(production.connect_outside()) as conn:
            assert standing(conn, pair.name, pair.old, pair.new) is Standing.OLD
            assert standing(conn, "nowhere", pair.old, pair.new) is Standing.NEITHER


def test_whoever_is_inside_is_ended(pair: Pair) -> None:
    """Idle, reading, waiting to write, or in the candidate."""
    with (
        pair.server.connect(pair.name, OWNER) as idle,
        pair.server.connect(pair.name, READER) as reading,
        pair.server.connect(pair.name, OWNER) as waiting,
        pair.server.connect(names.candidate_name(pair.name, RUN), OWNER) as curious,
        pair.production() as production,
        WriteGuard(production) as guard,
    ):
        reading.pgconn.send_query(b"SELECT pg_sleep(60)")
        waiting.pgconn.send_query(b"INSERT INTO ledger VALUES (1)")
        while not guard.waiting():
            time.sleep(0.01)
        swapped = pair.swap(production, guard)
        assert swapped.ended == 3
        assert swapped.login_wait < SECONDS
        for conn in (idle, curious):
            with pytest.raises(psycopg.OperationalError):
                conn.execute("SELECT 1")
        for conn in (reading, waiting):
            answer = conn.pgconn.get_result()
            assert answer is not None
            assert answer.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"57P01"
            conn.close()
    assert pair.content() == "new"


def test_sessions_that_cannot_be_ended_undo_it(pair: Pair) -> None:
    """An owner may not end a superuser's session: production is as it was within the time, and so is the session."""
    with pair.production(OWNER) as production, WriteGuard(production) as guard:
        with pair.server.connect(pair.name) as superuser:
            start = time.monotonic()
            with Prober(pair) as prober, pytest.raises(PromotionRolledBack):
                pair.swap(production, guard)
            assert time.monotonic() - start < 4
            assert prober.longest < SECONDS
            assert set(prober.seen) == {"old"}
            assert superuser.execute("SELECT count(*) FROM ledger").fetchone() == (0,)
        guard.check()  # the guard has not left: it may be tried again
        pair.swap(production, guard)
    assert pair.content() == "new"


def test_a_client_that_hangs_is_not_waited_for(pair: Pair, tmp_path: Path) -> None:
    """Neither before the databases are renamed nor after: the server itself ends what keeps logins waiting."""
    with (
        pair.server.connect(pair.name),  # a superuser is inside: the owner's swap has to wait
        Prober(pair) as prober,
        subprocess.Popen(swapper(pair, tmp_path, "kept", OWNER), stdout=subprocess.PIPE, text=True) as process,
        pair.server.connect("postgres") as conn,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if line == "locked\n":
                break
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and not conn.execute(LOCKED, [pair.old]).fetchone():
            pass
        process.send_signal(signal.SIGSTOP)
        time.sleep(3)
        process.kill()
    assert prober.longest < SECONDS
    assert settled(pair) is Standing.OLD


def test_a_client_that_hangs_between_is_not_waited_for(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """With production renamed away, and the candidate not yet in its place."""

    def hang(*_: object) -> Any:
        time.sleep(3)
        return sql.SQL("SELECT 1")

    with pair.production() as production, WriteGuard(production) as guard, Prober(pair) as prober:
        monkeypatch.setattr("sandbox.promotion.swap._comment", hang)
        with pytest.raises(PromotionRolledBack):
            pair.swap(production, guard)
        monkeypatch.undo()
    assert prober.longest < SECONDS
    assert settled(pair) is Standing.OLD
    afterwards(pair)


LOCKED = """
SELECT 1 FROM pg_locks WHERE locktype = 'object' AND classid = 'pg_database'::regclass AND objid = %s AND granted
AND mode = 'AccessExclusiveLock'
"""


def test_a_prepared_transaction_undoes_it(tmp_path: Path) -> None:
    """It is in the database without any session, and cannot be ended."""
    for server in production_server(16, {"max_prepared_transactions": "5"}):
        pair = make_pair(server, tmp_path)
        with pair.production() as production:
            with WriteGuard(production) as guard:
                with server.connect(pair.name) as conn:
                    conn.execute("BEGIN; SELECT 1 FROM which; PREPARE TRANSACTION 'forgotten'")
                with Prober(pair) as prober, pytest.raises(PromotionRolledBack):
                    pair.swap(production, guard)
            assert prober.longest < SECONDS
            assert pair.content() == "old"
            with server.connect(pair.name) as conn:
                conn.execute("ROLLBACK PREPARED 'forgotten'")
            with WriteGuard(production) as guard:
                pair.swap(production, guard)
            assert pair.content() == "new"


@pytest.mark.parametrize("change", ["CREATE TABLE more (x int)", f"GRANT SELECT ON which TO {READER}"])
def test_a_change_at_the_last_moment_undoes_it(pair: Pair, change: str) -> None:
    """Of either of the two."""
    for database in (pair.name, names.candidate_name(pair.name, RUN)):
        with (
            pair.production() as production,
            WriteGuard(production) as guard,
            WriteGuard(production, names.candidate_name(pair.name, RUN)) as candidate_guard,
        ):
            with pair.server.connect(database, OWNER) as conn:
                conn.execute(change.encode())
            with pytest.raises(PromotionRolledBack) as undone:
                swap(production, guard, pair.old, pair.new, "kept", run_id=RUN, candidate_guard=candidate_guard)
            assert "changed" in undone.value.details[0]
        assert pair.content() == "old"


def test_a_guard_that_was_ended_undoes_it(pair: Pair) -> None:
    """Also if nobody is inside any more."""
    with pair.production() as production, WriteGuard(production) as guard:
        with pair.server.connect("postgres") as conn:
            conn.execute("SELECT pg_terminate_backend(%s)", [guard.pid])
        with pytest.raises(PromotionRefused, match="lost"):
            pair.swap(production, guard)
    assert pair.content() == "old"


def test_databases_that_are_not_these_are_refused(pair: Pair) -> None:
    """Names and OIDs have to belong together, and the new name has to be free."""
    with pair.production() as production, WriteGuard(production) as guard:
        for live, candidate, kept in (
            (pair.new, pair.old, "free"),
            (pair.old, 1, "free"),  # template1
            (pair.old, 2, "free"),
            (pair.old, pair.new, "postgres"),
            (pair.old, pair.new, names.candidate_name(pair.name, RUN)),
        ):
            with pytest.raises(PromotionRefused):
                swap(production, guard, live, candidate, kept, run_id=RUN)
        with pytest.raises(PromotionRefused):
            swap(production, guard, pair.old, pair.new, "free", run_id="another")
        assert pair.content() == "old"
        assert swap(production, guard, pair.old, pair.new, 'a "kept" one', run_id=RUN).kept_name == 'a "kept" one'


def test_a_role_without_the_right_undoes_it(pair: Pair) -> None:
    """A role that may rename databases needs CREATEDB, and own both."""
    with pair.server.connect("postgres") as conn:
        conn.execute(f"ALTER ROLE {OWNER} NOCREATEDB".encode())
    try:
        with (
            pair.production(OWNER) as production,
            WriteGuard(production) as guard,
            pytest.raises(PromotionRolledBack, match="as it was") as undone,
        ):
            pair.swap(production, guard)
        assert "right" in undone.value.details[0]
    finally:
        with pair.server.connect("postgres") as conn:
            conn.execute(f"ALTER ROLE {OWNER} CREATEDB".encode())
    assert pair.content() == "old"


# Seen from outside


class Prober:
    """Logs in again and again, as PEC would: what it found, how long it waited, and with which codes it was refused."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.seen: list[str] = []
        self.waits: list[float] = []
        self.refused: list[str] = []
        self.wrong: list[BaseException] = []

    def __enter__(self) -> Prober:
        self._thread.start()
        while not self.seen:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert not self.wrong

    @property
    def longest(self) -> float:
        """Seconds of the longest login."""
        return max(self.waits)

    def _run(self) -> None:
        while not self._stop.is_set():
            start = time.monotonic()
            try:
                with self._pair.server.connect(self._pair.name, OWNER) as conn:
                    self.waits.append(time.monotonic() - start)
                    rows = conn.execute("SELECT x, count(*) FROM which GROUP BY 1").fetchall()
                ((text, count),) = rows
                assert count == 500
                self.seen.append(text)
            except psycopg.Error as ex:
                self.waits.append(time.monotonic() - start)
                self.refused.append(str(ex))
            except BaseException as ex:
                self.wrong.append(ex)
                return


def test_logins_see_all_of_the_old_or_all_of_the_new(both: ProductionServer, tmp_path: Path) -> None:
    """Several at a time, over several swaps: none waits longer than 2 seconds, none fails twice for one swap."""
    pair = make_pair(both, tmp_path)
    probers = [Prober(pair) for _ in range(3)]
    with pair.production(OWNER) as production, probers[0], probers[1], probers[2]:
        for _ in range(6):
            with WriteGuard(production) as guard:
                assert pair.swap(production, guard).login_wait < SECONDS
            time.sleep(0.05)
    for prober in probers:
        assert prober.longest < SECONDS
        assert set(prober.seen) == {"old", "new"}
        for why in prober.refused:  # ended while inside, or at the door
            assert "terminating connection" in why or "does not exist" in why or "closed" in why, why


@dataclass
class Writer:
    """Writes numbers to whatever is live, and keeps those that were acknowledged."""

    pair: Pair
    first: int
    acknowledged: list[int] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Until it is stopped."""
        number = self.first
        while not self.stop.is_set():
            with suppress(psycopg.Error), self.pair.server.connect(self.pair.name, OWNER) as conn:
                while not self.stop.is_set():
                    number += 1
                    conn.execute("INSERT INTO ledger VALUES (%s)", [number])
                    self.acknowledged.append(number)


def test_no_acknowledged_write_is_lost(pair: Pair) -> None:
    """Writers write until the end, and after; what the snapshot holds goes over, as a promotion's candidate has it."""
    writers = [Writer(pair, first) for first in (0, 10_000_000, 20_000_000)]
    threads = [threading.Thread(target=writer.run, daemon=True) for writer in writers]
    for thread in threads:
        thread.start()
    counts = []
    with pair.production() as production:
        for _ in range(8):
            time.sleep(0.1)
            with WriteGuard(production) as guard, guard.snapshot() as snapshot:
                with pair.server.connect("postgres") as conn:
                    row = conn.execute(
                        "SELECT datname FROM pg_database WHERE oid = %s", [pair.old + pair.new - guard.oid]
                    ).fetchone()
                    assert row is not None
                with production.connect() as source, pair.server.connect(row[0]) as target:
                    source.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                    source.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'".encode())
                    target.execute("TRUNCATE ledger")
                    with (
                        source.cursor().copy("COPY public.ledger TO STDOUT") as read,
                        target.cursor().copy("COPY ledger FROM STDIN") as write,
                    ):
                        for block in read:
                            write.write(block)
                pair.swap(production, guard, both=True)
            counts.append(sum(len(writer.acknowledged) for writer in writers))
    for writer in writers:
        writer.stop.set()
    for thread in threads:
        thread.join()
    assert counts[0] > 0
    assert counts == sorted(set(counts))  # they wrote between all swaps
    with pair.server.connect(pair.name) as conn:
        found = {row[0] for row in conn.execute("SELECT id FROM ledger")}
    lost = {number for writer in writers for number in writer.acknowledged} - found
    assert not lost


# Cut off


def settled(pair: Pair) -> Standing:
    """What stands once all is over; the content says the same, and both databases are there."""
    with pair.server.connect("postgres") as conn:
        found = standing(conn, pair.name, pair.old, pair.new)
        rows = conn.execute("SELECT oid::bigint FROM pg_database WHERE oid = ANY (%s)", [[pair.old, pair.new]])
        assert len(rows.fetchall()) == 2
    assert found is not Standing.NEITHER
    assert pair.content() == found.value
    return found


def attempt(pair: Pair, port: int, started: Callable[[], object], *, both: bool) -> Standing | None:
    """Try to swap over a line; what we are told that stands, None if it is not known.

    :param started: called when all is locked and the swap begins.
    """
    live = pair.live()
    before, after = (Standing.OLD, Standing.NEW) if live == pair.old else (Standing.NEW, Standing.OLD)
    try:
        with pair.production(port=port) as production, WriteGuard(production) as guard:
            started()
            pair.swap(production, guard, both=both, limits=Limits(answer=8000))
    except StandingUnknown:
        return None
    except (HomologationError, psycopg.Error):
        return before
    return after


def afterwards(pair: Pair) -> None:
    """Whatever happened: a swap over a good line works."""
    before = settled(pair)
    with pair.production() as production:
        deadline = time.monotonic() + 10
        while True:
            try:
                with WriteGuard(production) as guard:
                    pair.swap(production, guard)
                    break
            except PromotionRefused:  # a session that the cut has left may hold locks until the server notices
                if time.monotonic() > deadline:
                    raise
    assert settled(pair) is not before


class Moment:
    """Does something in a thread a while after it was told to."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self._timers: list[threading.Timer] = []

    def __enter__(self) -> Moment:
        return self

    def __exit__(self, *_: object) -> None:
        for timer in self._timers:
            timer.join()

    def after(self, seconds: float) -> None:
        """From now on."""
        self._timers.append(threading.Timer(seconds, self._act))
        self._timers[-1].start()


def cut_at_random(pair: Pair, choice: random.Random, act: Callable[[], object], port: int, *, both: bool) -> Any:
    """An attempt with something that happens during it, mostly within the swap itself; what came of it."""
    with Moment(act) as moment:
        if choice.random() < 0.25:
            moment.after(choice.uniform(0, 0.3))
            said = attempt(pair, port, lambda: None, both=both)
        else:
            said = attempt(pair, port, lambda: moment.after(choice.uniform(0, 0.3)), both=both)
    found = settled(pair)
    assert said in (found, None)
    return said


@pytest.mark.parametrize("part", range(4))
def test_the_line_is_cut(pair: Pair, part: int) -> None:
    """Of all sessions, or of one, or it is held up for a while: what we say is so, and no login waits too long."""
    choice = random.Random(part)
    stands, changes = Standing.OLD, []
    with Prober(pair) as prober:
        for number in range(15):
            with Proxy(pair.server.port) as proxy:

                def hold_up(proxy: Proxy = proxy) -> None:
                    proxy.stall()
                    time.sleep(choice.uniform(0.05, 3))
                    proxy.resume()

                def cut_one(proxy: Proxy = proxy) -> None:
                    proxy.cut_one(choice)

                act = choice.choice([proxy.cut, cut_one, cut_one, hold_up])
                cut_at_random(pair, choice, act, proxy.port, both=number % 2 == 0)
            changes.append(settled(pair) is not stands)
            afterwards(pair)
            stands = settled(pair)
    assert prober.longest < SECONDS
    assert True in changes
    assert False in changes


def test_the_server_is_killed(tmp_path: Path) -> None:
    """All its processes at once, and it starts again: it stands as we say."""
    choice = random.Random(7)
    for server in production_server():
        pair = make_pair(server, tmp_path)

        def kill(server: ProductionServer = server) -> None:
            server.kill()
            server.start()

        for number in range(15):
            cut_at_random(pair, choice, kill, server.port, both=number % 2 == 0)
            afterwards(pair)


SWAPPER = """
import sys
from pathlib import Path
from sandbox.promotion.guard import WriteGuard
from sandbox.promotion.production import Production
from sandbox.promotion.swap import swap
dsn, folder, live, candidate, kept, run = sys.argv[1:]
print("ready", flush=True)
with Production(dsn, Path(folder)) as production, WriteGuard(production) as guard:
    print("locked", flush=True)
    swap(production, guard, int(live), int(candidate), kept, run_id=run)
print("swapped", flush=True)
"""


def swapper(pair: Pair, folder: Path, kept: str, role: str = SUPERUSER) -> list[str]:
    """A process that swaps, and says how far it is."""
    live = pair.live()
    return [sys.executable, "-c", SWAPPER, pair.server.dsn(pair.name, role), str(folder / "killed"), str(live),
            str(pair.old + pair.new - live), kept, RUN]  # fmt: skip


def test_the_process_is_killed(pair: Pair, tmp_path: Path) -> None:
    """Without a chance to do anything about it: what it had not committed is undone by the server alone."""
    choice = random.Random(11)
    stands, changes = Standing.OLD, []
    with Prober(pair) as prober:
        for number in range(25):
            argv = swapper(pair, tmp_path, f"kept{number}")
            with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    if line == ("ready\n" if number % 5 == 0 else "locked\n"):
                        break
                time.sleep(choice.uniform(0, 0.3))
                process.kill()
                said = process.stdout.read()
            found = settled(pair)
            changes.append(found is not stands)
            assert changes[-1] or "swapped" not in said
            afterwards(pair)
            stands = settled(pair)
    assert prober.longest < SECONDS
    assert True in changes
    assert False in changes
