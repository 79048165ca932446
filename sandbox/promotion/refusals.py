"""Everything that forbids a promotion and can be known before anything is done, all of it together."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from merge.errors import PromotionRefused
from merge.language import counted, text
from sandbox import words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from merge.profile import Profile
    from sandbox.promotion.probing import Probed
    from sandbox.promotion.production import Connection, Production
    from sandbox.promotion.rights import Session
    from sandbox.runs import Run

SPARE = 1.2
"""Room for a restored database, in sizes of the database: its indexes are built beside their sorted runs."""


def of_server(production: Production, major: int) -> Iterator[str]:
    """That production is of another PostgreSQL.

    :param major: PostgreSQL's major version that the candidate was made with.
    """
    if production.major != major:
        yield text(
            pt=f"a produção é do PostgreSQL {production.version} e o resultado foi feito no {major}",
            en=f"production is PostgreSQL {production.version} and the result was made on {major}",
        )


def of_version(conn: Connection, profile: Profile, owner: str, expected: str | None) -> Iterator[str]:
    """That production is not of the application's version that was merged.

    :param owner: as whom the tables are read: nobody's code runs with the operator's rights.
    :param expected: the version of the central's backup.
    """
    query = profile.application.version
    if query is None or expected is None:
        return
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(owner)))
            conn.execute("SELECT set_config('search_path', quote_ident(%s), true)", [profile.application.schema_])
            row = conn.execute(query.encode()).fetchone()
    except psycopg.Error as ex:
        yield text(
            pt=f"a versão da aplicação na produção não pôde ser lida ({ex.sqlstate})",
            en=f"the application's version in production could not be read ({ex.sqlstate})",
        )
        return
    found = None if row is None else str(row[0])
    if found != expected:
        yield text(
            pt=f"a produção é da versão {found} e o resultado da versão {expected}",
            en=f"production is of version {found} and the result of version {expected}",
        )


def of_sessions(found: Sequence[Session], owner: str, pec: Sequence[Probed]) -> Iterator[str]:
    """That PEC still runs, which holds ids in memory and would send again what is restored; or that somebody stays.

    :param owner: the role that owns production's tables, which is PEC's.
    :param pec: what the addresses answered at which it must not answer.
    """
    for session in found:
        if session.is_pec or session.role == owner:
            yield text(
                pt=f"o PEC está conectado à produção ({session}): pare o serviço",
                en=f"PEC is connected to production ({session}): stop its service",
            )
        elif not session.may_be_ended:
            yield text(pt=f"não podemos encerrar a {session}", en=f"we may not end {session}")
    for probed in pec:
        if not probed.is_off:
            yield text(pt=f"o PEC ainda está no ar: {probed}", en=f"PEC is still up: {probed}")


@dataclass(frozen=True)
class Room:
    """Bytes that a promotion needs, and that are free, at one place; `free` is None where that cannot be seen."""

    place: str
    needed: int
    free: int | None


def rooms(
    conn: Connection, production: Production, run: Run, candidate_bytes: int, told: int | None, copies: int = 1
) -> list[Room]:
    """The room that is needed: the candidate beside production; the safety backup, and once restored, in the sandbox.

    :param told: bytes that are free on the production server, if somebody said so.
    :param copies: how many databases of the candidate's size will stand beside production at once.
    """
    size = int(_one(conn, "SELECT pg_database_size(current_database())"))
    free = told if told is not None else _free_on(conn, production)
    here = shutil.disk_usage(run.folder).free
    return [
        Room(production.shown, int(copies * SPARE * candidate_bytes), free),
        Room(str(run.folder), int(size + SPARE * size), here),
    ]


def of_disk(found: Sequence[Room]) -> Iterator[str]:
    """That there is not enough room, or that it cannot be seen whether there is."""
    for room in found:
        needed = words.size(room.needed)
        if room.free is None:
            yield text(
                pt=f"não se vê o espaço livre em {room.place}, e são precisos {needed}: veja lá e diga --disk-free GB",
                en=f"the free space at {room.place} cannot be seen, and {needed} are needed: look, and say "
                "--disk-free GB",
            )
        elif room.free < room.needed:
            yield text(
                pt=f"falta espaço em {room.place}: são precisos {needed} e há {words.size(room.free)}",
                en=f"there is no room at {room.place}: {needed} are needed and {words.size(room.free)} are free",
            )


def _free_on(conn: Connection, production: Production) -> int | None:
    """Free bytes where the server's data are, if the server is on this machine and lets us know where that is."""
    if production.host not in ("localhost", "127.0.0.1", "::1") and not production.host.startswith("/"):
        return None
    try:
        folder = Path(str(_one(conn, "SELECT current_setting('data_directory')")))
        return shutil.disk_usage(folder).free
    except (psycopg.Error, OSError):
        return None


def _one(conn: Connection, query: str) -> Any:
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def refused(reasons: Sequence[str], next_step: str | None = None) -> PromotionRefused:
    """The refusal of a promotion, with all its reasons."""
    many = len(reasons)
    return PromotionRefused(
        text(
            pt=f"A promoção foi recusada: {counted(many, 'motivo', 'motivos')}.",
            en=f"The promotion is refused: {counted(many, 'reason', 'reasons')}.",
        ),
        details=reasons,
        next_step=next_step
        or text(pt="Nada foi feito. Resolva todos e repita.", en="Nothing was done. Solve all of them and repeat."),
    )
