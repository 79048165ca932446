"""Names of the databases that a promotion makes or keeps, and the comment by which they are known to be ours.

A database is ours only by its comment, never by its name: a name can be guessed, or given by somebody else. The
comment names the run and says whether the database may be dropped (a candidate) or never (one that is kept).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandbox.promotion.production import Connection

LONGEST = 63
"""Bytes of the longest name that PostgreSQL keeps whole."""

_COMMENT = re.compile(r"pec-homolog (\S+) (candidate|kept)")


class Kind(StrEnum):
    """What a database of ours is: a `CANDIDATE` that was never live, or one that was live and is `KEPT`."""

    CANDIDATE = "candidate"
    KEPT = "kept"


@dataclass(frozen=True)
class Ours:
    """A database that a promotion made or keeps; `size` in bytes, None if the role may not ask."""

    oid: int
    name: str
    run_id: str
    kind: Kind
    size: int | None


def candidate_name(database: str, run_id: str) -> str:
    """The name of a candidate beside `database`, e.g. ``esus_novo_20261126-0243-d5xq``."""
    return _named(database, "novo", run_id)


def kept_name(database: str, run_id: str) -> str:
    """The name that the old database gets, e.g. ``esus_antes_20261126-0243-d5xq``."""
    return _named(database, "antes", run_id)


def undone_name(database: str, run_id: str) -> str:
    """The name that a promoted database gets when it is rolled back, e.g. ``esus_desfeito_20261126-0243-d5xq``."""
    return _named(database, "desfeito", run_id)


def doomed_name(run_id: str) -> str:
    """The name that a database gets in the instant before it is dropped."""
    return f"homolog_apagar_{run_id}"


def aside_name(oid: int) -> str:
    """The name of a candidate within the transaction that swaps it, seen by nobody else."""
    return f"homolog_troca_{oid}"


def free_name(conn: Connection, wanted: str) -> str:
    """The name, or the next like it that no database of the server has."""
    taken = {row[0] for row in conn.execute("SELECT datname::text FROM pg_catalog.pg_database")}
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = _ending(wanted, f"_{number}")
    return name


def mark(run_id: str, kind: Kind) -> str:
    """The comment of a database of ours."""
    return f"pec-homolog {run_id} {kind}"


def marked(comment: str | None) -> tuple[str, Kind] | None:
    """The run and the kind that a database's comment tells, if it is one of ours."""
    found = _COMMENT.fullmatch(comment or "")
    return (found[1], Kind(found[2])) if found else None


def ours(conn: Connection) -> tuple[Ours, ...]:
    """All databases of the server that promotions made or keep, in the order in which they were made."""
    rows = conn.execute(
        "SELECT oid::bigint, datname::text, pg_catalog.shobj_description(oid, 'pg_database'),"
        " CASE WHEN pg_catalog.has_database_privilege(oid, 'CONNECT') THEN pg_catalog.pg_database_size(oid) END"
        " FROM pg_catalog.pg_database WHERE pg_catalog.shobj_description(oid, 'pg_database') LIKE 'pec-homolog %'"
        " ORDER BY oid"
    ).fetchall()
    return tuple(
        Ours(oid, name, *found, size) for oid, name, comment, size in rows if (found := marked(comment)) is not None
    )


def _named(database: str, what: str, run_id: str) -> str:
    return _ending(database, f"_{what}_{run_id}")


def _ending(name: str, ending: str) -> str:
    """The name with this end, shortened between characters as far as the server would cut it within one."""
    room = LONGEST - len(ending.encode())
    return name.encode()[:room].decode(errors="ignore") + ending
