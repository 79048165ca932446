"""The first look at the new production: quick, as the roles that will use it, and nothing stays of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from merge.errors import cause
from merge.fingerprint import Fingerprint
from merge.language import text
from sandbox.promotion import candidate, refusals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from merge.profile import Profile
    from sandbox.promotion.journal import Journal
    from sandbox.promotion.production import Connection, Production
    from sandbox.runs import Run

OK = "ok"


@dataclass(frozen=True)
class Smoke:
    """What was looked at: `OK`, or what is wrong, by the name of the check."""

    checks: Mapping[str, str]

    @property
    def failed(self) -> tuple[str, ...]:
        """What is wrong."""
        return tuple(f"{name}: {said}" for name, said in self.checks.items() if said != OK)


def look(production: Production, profile: Profile, run: Run, journal: Journal, *, at_once: bool = True) -> Smoke:
    """Log in to production under its name, and look at it.

    :param at_once: nobody can have worked there yet.
    """
    try:
        with production.connect() as conn:
            return Smoke(dict(_checks(conn, profile, run, journal, at_once)))
    except psycopg.Error as ex:
        return Smoke({"login": cause(ex)})


def _checks(conn: Connection, profile: Profile, run: Run, journal: Journal, at_once: bool) -> Iterator[tuple[str, str]]:
    row = conn.execute("SELECT oid::bigint FROM pg_database WHERE datname = current_database()").fetchone()
    yield "login", OK if row == (journal.candidate_oid,) else text(pt="é outro banco", en="it is another database")
    owner = candidate.main_owner(conn)
    expected = run.load("run").get("versions", {}).get("central")
    yield "version", "; ".join(refusals.of_version(conn, profile, owner, expected)) or OK
    signed = Fingerprint.from_dict(run.load("candidate-fingerprint"))
    schema = profile.application.schema_
    for table in profile.application.essential:
        if (known := signed.tables.get(f"{schema}.{table}")) is not None:
            name = sql.Identifier(schema, table)
            row = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(name)).fetchone()
            found = row[0] if row is not None else 0
            alike = found == known.rows if at_once else found >= known.rows
            yield table, _may_write(conn, owner, name) if alike else f"{found} / {known.rows}"


def _may_write(conn: Connection, owner: str, table: sql.Identifier) -> str:
    """Whether the owner may write a table, and the server lets it."""
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(owner)))
            conn.execute(sql.SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE NOWAIT").format(table))
    except psycopg.Error as ex:
        return cause(ex)
    return OK
