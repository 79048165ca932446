"""Make the schema of a synthetic PEC installation and fill it, set by set, in SQL."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from sandbox.sample.complete import Completion
from sandbox.sample.overlap import FICHAS, SENT, shares

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sandbox.sample.overlap import Installation

    Progress = Callable[[str], None]

FULL_SCALE = 30_000
"""Citizens of the central at which the catalogs have their real sizes."""

_STATEMENTS = 40
"""Statements sent at once: one transaction holds a lock on every table that it makes."""


_WORTH_ANALYZING = 1000
"""Rows of an INSERT from which the planner must know about them: nothing else tells it here."""


_REMEMBER = sql.SQL("INSERT INTO sample.catalog VALUES ({}, {})")
_DIRECTIVE = re.compile(r"-- (fill \w+.*|rows|mirror|audit)$")
_SEQUENCE = re.compile(r"^CREATE SEQUENCE (\w+); -- (\w+)\.(\w+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One block of an SQL file: its first line, if that is a directive, and the statement."""

    directive: tuple[str, ...]
    text: str


def create_schema(conn: psycopg.Connection[tuple[Any, ...]]) -> None:
    """Make all tables, sequences, keys, triggers and views of PEC in the empty database of `conn` (autocommit)."""
    statements = _resource("schema.sql").split("\n\n")
    for first in range(0, len(statements), _STATEMENTS):
        conn.execute("\n".join(statements[first : first + _STATEMENTS]).encode())


def fill(
    conn: psycopg.Connection[tuple[Any, ...]],
    installation: Installation,
    world: Sequence[Installation],
    on_progress: Progress = lambda _: None,
) -> None:
    """Fill an installation whose schema is made.

    :param conn: autocommit, superuser (rows are loaded without triggers).
    :param world: all installations, the central first; they decide what overlaps.
    """
    conn.execute("SET TimeZone = 'UTC'")
    conn.execute("SET session_replication_role = replica")
    _describe_world(conn, installation, world)
    completion = Completion(conn)
    size = min(1.0, max(0.0, (world[0].citizens - 800) / (FULL_SCALE - 800)))
    for name in sorted(p.name for p in files(__package__).joinpath("sql").iterdir() if p.name.endswith(".sql")):
        on_progress(f"{installation.name}: {name}")
        if name.startswith("99"):
            _measure_sequences(conn)
        for block in _blocks(_resource("sql/" + name)):
            for statement in _statements(block, completion, size):
                try:
                    done = conn.execute(statement)
                except psycopg.Error as error:
                    error.add_note(f"{name}: {block.directive} {block.text[:500]}")
                    raise
                if block.directive[:1] == ("fill",) and done.rowcount > _WORTH_ANALYZING:
                    conn.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(block.directive[1])))
    conn.execute("DROP SCHEMA sample CASCADE")
    conn.execute("RESET session_replication_role")


def _describe_world(
    conn: psycopg.Connection[tuple[Any, ...]], installation: Installation, world: Sequence[Installation]
) -> None:
    salt = int.from_bytes(hashlib.sha256(str(installation.seed).encode()).digest()[:7], "big")
    conn.execute("SET client_min_messages = warning")
    conn.execute("DROP SCHEMA IF EXISTS sample CASCADE")
    conn.execute("CREATE SCHEMA sample")
    for name, kind, value in (
        ("me", "integer", installation.number),
        ("salt", "bigint", salt),
        ("sent_one_in", "integer", SENT),
    ):
        conn.execute(
            sql.SQL("CREATE FUNCTION sample.{}() RETURNS {} LANGUAGE sql IMMUTABLE AS {}").format(
                sql.Identifier(name), sql.SQL(kind), sql.Literal(f"SELECT {value}::{kind}")
            )
        )
    conn.execute(
        "CREATE UNLOGGED TABLE sample.installation (number int, name text, citizens int, units int, teams int,"
        " professionals int, shared int)"
    )
    conn.execute("CREATE UNLOGGED TABLE sample.share (source int, kind text, first int, n int, central_first int)")
    conn.execute("CREATE UNLOGGED TABLE sample.kind (kind bigint, per_thousand int)")
    conn.execute("CREATE UNLOGGED TABLE sample.password (n int, hash text)")
    conn.execute("CREATE UNLOGGED TABLE sample.catalog (name text PRIMARY KEY, n bigint)")
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO sample.installation VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    w.number,
                    w.name,
                    w.citizens,
                    w.units,
                    w.teams,
                    w.professionals,
                    sum(s.count for s in shares(world) if s.source == w.number),
                )
                for w in world
            ],
        )
        cursor.executemany(
            "INSERT INTO sample.share VALUES (%s, %s, %s, %s, %s)",
            [(s.source, s.kind, s.first, s.count, s.central_first) for s in shares(world)],
        )
        cursor.executemany("INSERT INTO sample.kind VALUES (%s, %s)", list(FICHAS.items()))
        cursor.executemany("INSERT INTO sample.password VALUES (%s, %s)", list(enumerate(_passwords(installation))))


def _measure_sequences(conn: psycopg.Connection[tuple[Any, ...]]) -> None:
    """Write down the greatest value that each sequence has given."""
    conn.execute("CREATE UNLOGGED TABLE sample.sequence (sequence text PRIMARY KEY, top bigint)")
    for sequence, table, column in _SEQUENCE.findall(_resource("schema.sql")):
        conn.execute(
            sql.SQL("INSERT INTO sample.sequence SELECT {}, max({}) FROM {}").format(
                sql.Literal(sequence), sql.Identifier(column), sql.Identifier(table)
            )
        )


def _passwords(installation: Installation) -> Iterator[str]:
    """Hashes as PEC stores them, of a password that is no secret."""
    for number in range(6):
        salt = hashlib.sha256(f"{installation.seed}/{installation.number}/{number}".encode()).digest()[:24]
        digest = hashlib.pbkdf2_hmac("sha256", b"senha-sintetica", salt, 64_000, 32)
        yield f"sha256:64000:32:{b64encode(salt).decode()}:{b64encode(digest).decode()}"


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _blocks(text: str) -> Iterator[Block]:
    for part in text.split("\n\n"):
        lines = part.strip().splitlines()
        while lines and lines[0].startswith("--") and not _DIRECTIVE.match(lines[0]):
            lines.pop(0)
        if lines:
            directive = _DIRECTIVE.match(lines[0])
            yield Block(tuple(directive[1].split()) if directive else (), "\n".join(lines[1 if directive else 0 :]))


def _statements(block: Block, completion: Completion, size: float) -> Iterator[sql.Composed | bytes]:
    if not block.directive:
        yield block.text.encode()
    elif block.directive[0] == "fill":
        table, *options = block.directive[1:]
        count = _count(options, size)
        if count:
            yield _REMEMBER.format(sql.Literal(table), sql.Literal(count))
        select = block.text.replace("@rows@", str(count))
        yield completion.insert(table, select, bare="bare" in options, catalog=count > 0)
    else:
        for line in block.text.splitlines():
            table, *options = line.removeprefix("--").split()
            if block.directive[0] == "rows":
                count = _count(options, size)
                yield _REMEMBER.format(sql.Literal(table), sql.Literal(count))
                yield completion.insert(table, completion.rows(table, count, local="local" in options), catalog=True)
            else:
                yield completion.mirror(table, block.directive[0], int(options[0]) if options else 1)


def _count(options: Sequence[str], size: float) -> int:
    """The number of rows of a catalog, between its demo size and its real size; 0 if none is given."""
    sizes = [int(o) for o in options if o.isdigit()]
    return round(sizes[0] + (sizes[-1] - sizes[0]) * size) if sizes else 0
