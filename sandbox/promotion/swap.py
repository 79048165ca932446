"""Two databases exchange a name in one instant: the only step of a promotion that can hurt.

Three sessions of ours take part. *A* and *B* are in another database of the server; the *guard* (`WriteGuard`) is
inside the live one, and everybody's writes wait for it.

1.  A begins a transaction and renames the candidate, to a third name that nobody else will see. Whoever is in the
    candidate is ended. From here on nobody may enter it, so that what was proved of it stays true (since when it was
    proved: `candidate_guard`). Logins to production do not wait for any of this.
2.  A sends ``ALTER DATABASE live RENAME TO kept`` and does not wait. The server locks the database for A: new logins
    wait from here on. Then it waits for the sessions inside.
3.  B sees that A has the lock, and ends the sessions inside until only the guard is left. A session appears in
    ``pg_stat_activity`` before it gives up the lock that its login took, so that none is missed.
4.  The guard makes the last write check, and leaves: its locks go with it, but nobody else is inside, or may come in.
5.  A's rename returns. A renames the candidate to the live name, exchanges the comments by which our databases are
    known, and commits: one message, one transaction, one record in the server's log.

Nothing is committed before step 5, whose message is sent only after the check: whatever dies before it (this process,
the line, a session, the server), the server rolls back, and production is as it was. A is ended by the server itself if
it is kept waiting: ``statement_timeout`` for what it does, ``idle_in_transaction_session_timeout`` for when we are not
heard of. Their sum is below 2 seconds, whatever the size of the database. Only the commit's own flush to disk cannot be
interrupted: so all that is dirty is written before (``CHECKPOINT``, if we may), and a standby is not waited for.

If the answer to the commit is lost, `standing` looks, by OID, at what has the live name, as soon as no session holds it
any more. A login that waited is told ``database "…" does not exist`` (3D000, "just been dropped or renamed") after a
swap, since its name is another database's now, and gets in when it tries again; after a roll back it gets in at once.
"""

from __future__ import annotations

import select
import time
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from merge.errors import ConfigError, HomologationError, PromotionRefused, PromotionRolledBack
from merge.language import text
from sandbox.events import now
from sandbox.promotion import names

if TYPE_CHECKING:
    from sandbox.promotion.guard import WriteGuard
    from sandbox.promotion.production import Connection, Production


MAY_END = """
(SELECT rolsuper OR EXISTS (SELECT 1 FROM pg_catalog.pg_roles theirs
        WHERE theirs.oid = a.usesysid AND NOT theirs.rolsuper
        AND (pg_catalog.pg_has_role(theirs.oid, 'USAGE') OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE')))
    FROM pg_catalog.pg_roles WHERE rolname = current_user)
"""
"""SQL: whether our role may end the session `a` of ``pg_stat_activity``."""


@dataclass(frozen=True)
class Limits:
    """How long the server lets A go on, in milliseconds. Logins wait for `rename`, `idle` and `finish` at most."""

    candidate: int = 5000
    rename: int = 1000
    idle: int = 500
    finish: int = 400
    answer: int = 30_000
    """For the commit's answer, and for the server to come back, before it is said that nobody knows."""


@dataclass(frozen=True)
class Swapped:
    """A swap that was committed.

    :ivar login_wait: seconds from before A asked for the lock to the commit's answer: no login waited longer for it.
    :ivar ended: sessions in the live database that were ended.
    :ivar answered: False if the commit's answer was lost, and what stands was found out after.
    """

    live_name: str
    kept_name: str
    live_oid: int
    kept_oid: int
    login_wait: float
    ended: int
    at: str
    answered: bool


class Standing(StrEnum):
    """Which database has the live name: the `OLD`, the `NEW`, or `NEITHER`."""

    OLD = "old"
    NEW = "new"
    NEITHER = "neither"


_IS_LOCKED = """
SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_locks WHERE locktype = 'object' AND granted AND mode = 'AccessExclusiveLock'
    AND classid = 'pg_catalog.pg_database'::pg_catalog.regclass AND objid = %(oid)s AND pid = %(a)s)
"""

_END_OTHERS = f"""
WITH others AS (
    SELECT pid, CASE WHEN {MAY_END} THEN pg_catalog.pg_terminate_backend(pid) ELSE false END AS ended
    FROM pg_catalog.pg_stat_activity a WHERE datid = %(oid)s AND pid <> %(guard)s)
SELECT count(*), pg_catalog.array_agg(pid) FILTER (WHERE ended) FROM others
"""  # noqa: S608


class StandingUnknown(HomologationError):
    """The server does not answer after a commit was asked for: it is either done or not."""


def swap(
    production: Production,
    guard: WriteGuard,
    live_oid: int,
    candidate_oid: int,
    kept_name: str,
    *,
    run_id: str,
    candidate_guard: WriteGuard | None = None,
    limits: Limits = Limits(),
) -> Swapped:
    """Give the candidate production's name, and what had it the name `kept_name`. The way back is the same call.

    The guards leave at the end. If this raises before they did, it may be called again with the same guards.

    :param live_oid: what has the live name now, and `guard` is in.
    :param candidate_guard: keeps the candidate from being written since it was proved.
    :raises PromotionRefused: the two are not what they are said to be; nothing was tried.
    :raises PromotionRolledBack: it was tried, and production is as it was.
    :raises StandingUnknown: the server went away at the instant of the commit. `standing` tells once it is back.
    """
    if guard.oid != live_oid or (candidate_guard is not None and candidate_guard.oid != candidate_oid):
        raise _not_these()
    with closing(production.connect_outside()) as a, closing(production.connect_outside()) as b:
        for each in (candidate_guard, guard):
            if each is not None:
                each.hold_large_objects()
        _checkpoint(b)
        turn = _Turn(a, b, limits)
        names_now = turn.begin(live_oid, candidate_oid, kept_name, production.database, run_id)
        try:
            return turn.carry_out(names_now, guard, candidate_guard, run_id)
        except _Unanswered as ex:
            with suppress(psycopg.Error):
                a.close()
            return _found_out(production, names_now, ex.swapped, limits)
        except BaseException as ex:
            turn.give_up()
            if isinstance(ex, psycopg.Error):
                raise _rolled_back(_reason(ex)) from None
            if isinstance(ex, PromotionRefused):
                raise _rolled_back(ex.what, *ex.details, next_step=ex.next_step) from None
            raise


def standing(conn: Connection, live_name: str, old_oid: int, new_oid: int, *, patience: float = 10.0) -> Standing:
    """Which of two databases has the live name, once no session is exchanging them any more.

    :param conn: an autocommit session in another database than these.
    :raises StandingUnknown: somebody still is, after `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while True:
        row = conn.execute(
            "SELECT (SELECT count(*) FROM pg_catalog.pg_locks WHERE locktype = 'object'"
            " AND classid = 'pg_catalog.pg_database'::pg_catalog.regclass AND objid = ANY (%(both)s::oid[])"
            " AND mode = 'AccessExclusiveLock' AND pid <> pg_catalog.pg_backend_pid())",
            {"both": [old_oid, new_oid]},
        ).fetchone()
        assert row is not None
        if row[0] == 0:
            break
        if time.monotonic() > deadline:
            raise _unknown(live_name)
        time.sleep(0.05)
    found = conn.execute("SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = %s", [live_name]).fetchone()
    return {old_oid: Standing.OLD, new_oid: Standing.NEW}.get(found[0] if found else 0, Standing.NEITHER)


@dataclass(frozen=True)
class _Names:
    live: str
    live_oid: int
    live_comment: str | None
    candidate: str
    candidate_oid: int
    aside: str
    """What the candidate is called while its own name is not yet the live one; nobody else ever sees it."""
    kept: str


class _Unanswered(Exception):
    """The message with the commit was sent, and no answer came."""

    def __init__(self, swapped: Swapped) -> None:
        super().__init__()
        self.swapped = swapped


class _Turn:
    """One attempt to swap: A and B, and who was ended."""

    def __init__(self, a: Connection, b: Connection, limits: Limits) -> None:
        self._a, self._b = a, b
        self._pid = a.info.backend_pid
        self._limits = limits
        self._ended: set[int] = set()

    def begin(self, live_oid: int, candidate_oid: int, kept: str, live: str, run_id: str) -> _Names:
        """Set A's time limits, and make sure that names and OIDs belong together."""
        a = self._a
        for name, value in (
            ("lock_timeout", "0"),
            ("idle_in_transaction_session_timeout", self._limits.idle),
            ("synchronous_commit", "local"),
        ):
            a.execute(sql.SQL("SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))
        self._b.execute(sql.SQL("SET statement_timeout = {}").format(sql.Literal(self._limits.rename)))
        rows = {
            oid: (name, comment)
            for oid, name, comment in a.execute(
                "SELECT oid::bigint, datname::text, pg_catalog.shobj_description(oid, 'pg_database')"
                " FROM pg_catalog.pg_database"
            )
        }
        if live_oid not in rows or candidate_oid not in rows or rows[live_oid][0] != live:
            raise _not_these()
        if (names.marked(rows[candidate_oid][1]) or ("",))[0] != run_id:  # whatever its OID is, it is not ours
            raise _not_these()
        if kept in {names.aside_name(candidate_oid), *(name for name, _ in rows.values())}:
            raise _not_these()
        candidate = rows[candidate_oid][0]
        aside = names.free_name(a, names.aside_name(candidate_oid))
        return _Names(live, live_oid, rows[live_oid][1], candidate, candidate_oid, aside, kept)

    def carry_out(self, these: _Names, guard: WriteGuard, candidate_guard: WriteGuard | None, run_id: str) -> Swapped:
        """Steps 1 to 5."""
        limits = self._limits
        self._a.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        self._take(these.candidate_oid, these.candidate, these.aside, candidate_guard, limits.candidate, limits.rename)
        self._ended.clear()
        start = time.monotonic()
        self._take(these.live_oid, these.live, these.kept, guard, limits.rename, limits.finish)
        swapped = Swapped(
            these.live, these.kept, these.candidate_oid, these.live_oid,
            round(time.monotonic() - start, 3), len(self._ended), now(), answered=False,
        )  # fmt: skip
        problem: psycopg.Error | KeyboardInterrupt | None = None
        try:
            self._send(
                _rename(these.aside, these.live),
                _comment(these.live, these.live_comment),
                _comment(these.kept, names.mark(run_id, names.Kind.KEPT)),
                sql.SQL("COMMIT"),
            )
            self._result(time.monotonic() + limits.answer / 1000)
        except (psycopg.Error, KeyboardInterrupt) as ex:  # it is done or not, and the operator has to be told which
            problem = ex
        status = self._a.pgconn.transaction_status
        if problem is not None and status == psycopg.pq.TransactionStatus.INERROR:
            raise problem  # the server says that it did not
        if problem is not None or status != psycopg.pq.TransactionStatus.IDLE:
            raise _Unanswered(swapped)
        return replace(swapped, login_wait=round(time.monotonic() - start, 3), at=now(), answered=True)

    def give_up(self) -> None:
        """Have A roll back at once, also if it is waiting: it does not notice by itself that we are gone."""
        with suppress(psycopg.Error):
            self._b.execute("SELECT pg_catalog.pg_terminate_backend(%s)", [self._pid])
        with suppress(psycopg.Error):
            self._a.close()

    # Taking one database

    def _take(self, oid: int, old: str, new: str, guard: WriteGuard | None, limit: int, next_limit: int) -> None:
        """Rename a database once nobody is in it but the guard, which checks and leaves."""
        self._a.execute(_set_local("statement_timeout", limit))
        deadline = time.monotonic() + limit / 1000 + 1
        self._send(_rename(old, new), _set_local("statement_timeout", next_limit))
        locked = False
        while True:
            if self._answered():  # there is nobody to wait for, or it failed
                self._result(deadline)
                if guard is not None:
                    raise _rolled_back(
                        text(
                            pt="A sessão que guarda o banco foi encerrada.",
                            en="The session that guards the database was ended.",
                        )
                    )
                return
            locked = locked or self._is_locked(oid)
            if locked and self._others(oid, guard) == 0:  # asked in this order: what was inside before A had it is seen
                break
            if time.monotonic() > deadline:
                raise _rolled_back(
                    text(pt="O servidor não respondeu a tempo.", en="The server did not answer in time.")
                )
            time.sleep(0.005)
        if guard is not None:
            guard.check()
            guard.leave()
        self._result(deadline)

    def _is_locked(self, oid: int) -> bool:
        """Whether A has the database, so that nobody comes in any more."""
        row = self._b.execute(_IS_LOCKED, {"oid": oid, "a": self._pid}).fetchone()
        return bool(row and row[0])

    def _others(self, oid: int, guard: WriteGuard | None) -> int:
        """How many are inside beside the guard; those that we may end are ended."""
        row = self._b.execute(_END_OTHERS, {"oid": oid, "guard": guard.pid if guard else 0}).fetchone()
        assert row is not None
        self._ended.update(row[1] or ())
        return int(row[0])

    # A without waiting

    def _send(self, *statements: sql.Composable) -> None:
        self._a.pgconn.send_query(sql.SQL("; ").join(statements).as_bytes(self._a))

    def _answered(self) -> bool:
        """Whether the whole answer to what was sent has come."""
        pgconn = self._a.pgconn
        pgconn.flush()
        pgconn.consume_input()
        return not pgconn.is_busy()

    def _result(self, deadline: float) -> None:
        """Wait for the answer to all that was sent.

        :raises psycopg.Error: one of the statements failed, or there is no answer.
        """
        pgconn = self._a.pgconn
        failed: psycopg.Error | None = None
        while True:
            while not self._answered():
                rest = deadline - time.monotonic()
                if rest <= 0:
                    raise psycopg.OperationalError("no answer")
                select.select([pgconn.socket], [], [], min(rest, 0.1))
            result = pgconn.get_result()
            if result is None:
                break
            if result.status == psycopg.pq.ExecStatus.FATAL_ERROR and failed is None:
                state = (result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) or b"").decode()
                failed = psycopg.errors.lookup(state)() if state else psycopg.OperationalError("no answer")
        if failed is not None:
            raise failed
        if pgconn.status != psycopg.pq.ConnStatus.OK:
            raise psycopg.OperationalError("no answer")


def _rename(old: str, new: str) -> sql.Composed:
    return sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(old), sql.Identifier(new))


def _comment(name: str, comment: str | None) -> sql.Composed:
    return sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(comment))


def _set_local(name: str, milliseconds: int) -> sql.Composed:
    return sql.SQL("SET LOCAL {} = {}").format(sql.Identifier(name), sql.Literal(milliseconds))


def _checkpoint(conn: Connection) -> None:
    """Have the server write now what is dirty, if we may, rather than while logins wait for the commit."""
    row = conn.execute(
        "SELECT rolsuper OR EXISTS (SELECT 1 FROM pg_catalog.pg_roles m WHERE m.rolname = 'pg_checkpoint'"
        " AND pg_catalog.pg_has_role(m.oid, 'USAGE')) FROM pg_catalog.pg_roles WHERE rolname = current_user"
    ).fetchone()
    if row and row[0]:
        conn.execute("CHECKPOINT")


def _found_out(production: Production, these: _Names, swapped: Swapped, limits: Limits) -> Swapped:
    """What became of a commit whose answer was lost."""
    deadline = time.monotonic() + limits.answer / 1000
    while True:
        try:
            with closing(production.connect_outside()) as conn:
                found = standing(conn, these.live, these.live_oid, these.candidate_oid)
            break
        except (psycopg.OperationalError, ConfigError):
            if time.monotonic() > deadline:
                raise _unknown(these.live) from None
            time.sleep(0.2)
    if found is Standing.NEW:
        return swapped
    if found is Standing.OLD:
        raise _rolled_back(text(pt="A ligação com o servidor caiu.", en="The connection to the server was lost."))
    raise _unknown(these.live)


def _reason(ex: psycopg.Error) -> str:
    """What kept us from swapping, by the server's code: its message may quote what is nobody's business."""
    state = ex.sqlstate
    if state in ("57014", "25P03", "55P03", "55006"):
        return text(
            pt="Alguém ficou no banco, ou ocupou o servidor, além do tempo permitido.",
            en="Somebody stayed in the database, or kept the server busy, beyond the time allowed.",
        )
    if state == "42501":
        return text(pt="Falta permissão para renomear o banco.", en="The right to rename the database is missing.")
    if state is None or state[:2] in ("08", "57"):
        return text(pt="A ligação com o servidor caiu.", en="The connection to the server was lost.")
    return f"SQLSTATE {state}"


def _rolled_back(*details: str, next_step: str | None = None) -> PromotionRolledBack:
    return PromotionRolledBack(
        text(
            pt="A troca dos bancos foi desfeita: a produção está como estava.",
            en="The swap of the databases was rolled back: production is as it was.",
        ),
        details=details,
        next_step=next_step
        or text(pt="Encerre os programas ligados ao banco e repita.", en="End the programs that use it, and repeat."),
    )


def _not_these() -> PromotionRefused:
    return PromotionRefused(
        text(
            pt="Os bancos da produção não são mais os que eram no começo da promoção.",
            en="The databases of production are not those any more that they were when the promotion began.",
        ),
        next_step=text(
            pt="Veja com invoke promotions o que está no lugar.", en="See with invoke promotions what is in place."
        ),
    )


def _unknown(live: str) -> StandingUnknown:
    return StandingUnknown(
        text(
            pt=f"O servidor calou no instante da troca: {live} é o banco antigo inteiro, ou o novo inteiro.",
            en=f"The server fell silent at the instant of the swap: {live} is all of the old database, or of the new.",
        ),
        next_step=text(
            pt="Quando ele voltar, repita o comando: ele vê o que vale e segue dali.",
            en="When it is back, repeat the command: it sees what holds, and goes on from there.",
        ),
    )
