"""What a database holds, in a form small enough to keep and exact enough to tell any other content from it.

Every row is hashed by the server as its text, and the hashes of a table are added up: the order of rows does not
matter, a row that is there twice does. The text is made by the output functions of types only; no cast, function or
operator that the database itself brings is called. It tells accidents and writes, not someone who makes collisions of
MD5 on purpose; the file that goes to production is signed by SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import psycopg
from psycopg import sql

from merge.errors import BlockedError
from merge.language import text
from merge.proof_objects import OURS, portable_definitions
from merge.proof_objects import sequences as read_sequences
from merge.proof_session import run_all, session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from merge.proof_session import Connection

    Connect = Callable[[], Connection]
    Progress = Callable[[int, int], None]

_SETTINGS = {
    # Beside those of `merge.proof_session`: what else changes how a value or a definition is written.
    "search_path": "pg_catalog, pg_temp",
    "lc_monetary": "C",
    "xmlbinary": "base64",
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
    "row_security": "off",  # rows that a policy hides are an error
    "enable_nestloop": "on",
    "join_collapse_limit": "8",
    "from_collapse_limit": "8",
    "work_mem": "32MB",
    "statement_timeout": "0",
    "lock_timeout": "120s",
    "idle_in_transaction_session_timeout": "0",
}

_PART_BLOCKS = 16384
"""Blocks of a table (128 MB) that one session reads at a time, from PostgreSQL 14 on, which can begin anywhere."""

_MODULUS = 1 << 64


@dataclass(frozen=True)
class Content:
    """The rows of one table or materialised view.

    :param kind: ``table`` or ``materialised view``; None of its rows is known if that is not filled.
    :param digest: 128 bits in hexadecimal: the sums of both halves of all rows' MD5.
    :param columns: digest of names and types of the columns, in their order.
    :param unlogged: its rows are lost in a crash, and PEC's backups have none of them.
    """

    kind: Literal["table", "materialised view"]
    rows: int
    digest: str
    columns: str
    filled: bool = True
    unlogged: bool = False


@dataclass(frozen=True)
class SequenceState:
    """Where a sequence is, and what it is."""

    last: int
    called: bool
    definition: str


@dataclass(frozen=True)
class Object:
    """Digests of one object's definition, see `merge.proof_objects.portable_definitions`."""

    digest: str
    likeness: str


@dataclass(frozen=True)
class Fingerprint:
    """All that a database holds, but for owners, rights and settings.

    :param version: the server's ``server_version_num``: text forms may differ between major versions.
    :param encoding: of the database.
    :param tables: by quoted name with schema.
    :param large_objects: how many there are, and `large_object_digest` as that of rows.
    :param objects: by kind and name; empty if they were not asked for.
    """

    version: int
    encoding: str
    tables: Mapping[str, Content]
    sequences: Mapping[str, SequenceState]
    large_objects: int
    large_object_digest: str
    objects: Mapping[str, Object]

    @property
    def rows(self) -> int:
        """Rows of all tables together; those of materialised views are not counted."""
        return sum(content.rows for content in self.tables.values() if content.kind == "table")

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, in hexadecimal; not of the server's version."""
        kept = {name: value for name, value in asdict(self).items() if name != "version"}
        return hashlib.sha256(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Fingerprint:
        """The same again, from what JSON kept of it."""
        parts: dict[str, type] = {"tables": Content, "sequences": SequenceState, "objects": Object}
        values: dict[str, Any] = {
            name: {key: parts[name](**item) for key, item in value.items()} if name in parts else value
            for name, value in kept.items()
        }
        return cls(**values)


@dataclass(frozen=True)
class Unlike:
    """One difference between two fingerprints.

    :param kind: ``table``, ``materialised view``, ``sequence``, ``large objects``, ``object`` or ``database``.
    :param expected: and `found`: in words; "" where there is none.
    """

    kind: str
    name: str
    expected: str
    found: str

    def __str__(self) -> str:
        none = text(pt="nada", en="none")
        what = f"{self.kind} {self.name}".strip()
        return text(
            pt=f"{what}: esperado {self.expected or none}, encontrado {self.found or none}",
            en=f"{what}: expected {self.expected or none}, found {self.found or none}",
        )


# Taking one


def take(
    connect: Connect,
    jobs: int = 2,
    on_progress: Progress | None = None,
    *,
    snapshot: str | None = None,
    objects: bool = True,
) -> Fingerprint:
    """Read the whole database and say what it holds, all of it at one instant.

    :param connect: opens an autocommit session of a role that may read everything there.
    :param jobs: sessions that read at once; one more waits beside them.
    :param on_progress: called with bytes of tables done and in all.
    :param snapshot: an exported snapshot, whose instant is meant; it must be held until the end. Sequences are as
        they are now: PostgreSQL keeps no older state of them.
    :param objects: also definitions of all objects.
    :raises BlockedError: the role may not read something, a policy hides rows from it, a table stays locked, or a
        value is beyond what the server makes text of.
    """
    with _told(), session(connect) as first, _settled(first, snapshot) as shared:
        version = first.info.server_version
        check_rights(first)
        parts = _parts(first, version)
        reader = _Reader(shared, on_progress, sum(part.size for part in parts))
        run_all(connect, [partial(reader.read, part) for part in parts], jobs)
        row = first.execute(
            "SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()"
        ).fetchone()
        assert row is not None
        count, *sums = reader.sums[_LARGE_OBJECTS]
        return Fingerprint(
            version=version,
            encoding=row[0],
            tables={name: reader.content(shape) for name, shape in _shapes(parts).items()},
            sequences=sequence_states(first),
            large_objects=count,
            large_object_digest=_hex(*sums),
            objects=_objects(first, version) if objects else {},
        )


_LARGE_OBJECTS = "pg_largeobject"


@dataclass(frozen=True)
class _Shape:
    """A table before its rows are read."""

    schema: str
    table: str
    name: str
    kind: Literal["table", "materialised view"]
    columns: str
    filled: bool
    unlogged: bool


@dataclass(frozen=True)
class _Part:
    """What is read at once: a table or some of its blocks, or all large objects.

    :param first: block to begin with, and `last` the one before which to end, if any.
    :param size: bytes.
    """

    shape: _Shape | None
    size: int
    first: int | None = None
    last: int | None = None


_TABLES = """
    SELECT n.nspname, c.relname, quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.relkind = 'm',
           md5(coalesce((SELECT string_agg(quote_ident(attname) || ' ' || format_type(atttypid, atttypmod), ','
                                           ORDER BY attnum)
                           FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped), '')),
           c.relispopulated, c.relpersistence = 'u', pg_table_size(c.oid),
           pg_relation_size(c.oid) / current_setting('block_size')::integer, coalesce(am.amname, 'heap') = 'heap'
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am am ON am.oid = c.relam
     WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND NOT {ours}
"""

_SUMS = """
    SELECT count(*), sum(('x' || left(h, 16))::bit(64)::bigint), sum(('x' || right(h, 16))::bit(64)::bigint)
      FROM (SELECT md5(format({values})) AS h FROM {rows} OFFSET 0) hashed
"""
"""OFFSET 0 keeps the hash from being made twice. format() calls the output function of the row's type, and no cast."""

_ROWS = _SUMS.format(values="'%s', r.*", rows="ONLY {table} r {blocks}")
_LARGE = _SUMS.format(values="'%s:%s', m.oid, md5(lo_get(m.oid))", rows="pg_largeobject_metadata m")


def _parts(conn: Connection, version: int) -> list[_Part]:
    """What there is to read, the largest first."""
    parts = []
    for schema, table, name, is_view, columns, filled, unlogged, size, blocks, is_heap in conn.execute(
        sql.SQL(_TABLES).format(ours=sql.SQL(OURS))
    ).fetchall():
        kind: Literal["table", "materialised view"] = "materialised view" if is_view else "table"
        shape = _Shape(schema, table, name, kind, columns, filled, unlogged)
        starts = list(range(0, blocks, _PART_BLOCKS)) if version >= 140000 and is_heap else []
        if len(starts) < 2:
            parts.append(_Part(shape, size))
            continue
        for first, last in zip(starts, [*starts[1:], None], strict=True):  # the end may have moved since
            parts.append(_Part(shape, size // len(starts), first, last))
    row = conn.execute("SELECT pg_table_size('pg_largeobject')").fetchone()
    assert row is not None
    return sorted([*parts, _Part(None, row[0])], key=lambda part: -part.size)


def _shapes(parts: Sequence[_Part]) -> dict[str, _Shape]:
    return dict(sorted((part.shape.name, part.shape) for part in parts if part.shape is not None))


class _Reader:
    """Adds up what many sessions read."""

    def __init__(self, snapshot: str, on_progress: Progress | None, total: int) -> None:
        self.sums: dict[str, tuple[int, int, int]] = {}
        self._snapshot, self._on_progress = snapshot, on_progress
        self._done, self._total = 0, total
        self._lock = threading.Lock()

    def read(self, part: _Part, conn: Connection) -> None:
        with _settled(conn, self._snapshot):
            if part.shape is None:
                self._add(_LARGE_OBJECTS, conn.execute(_LARGE).fetchone(), part.size)
            elif part.shape.filled:
                query = sql.SQL(_ROWS).format(
                    table=sql.Identifier(part.shape.schema, part.shape.table), blocks=_blocks(part)
                )
                self._add(part.shape.name, conn.execute(query).fetchone(), part.size)

    def content(self, shape: _Shape) -> Content:
        rows, *sums = self.sums.get(shape.name, (0, 0, 0))
        return Content(shape.kind, rows, _hex(*sums), shape.columns, shape.filled, shape.unlogged)

    def _add(self, name: str, row: tuple[Any, ...] | None, size: int) -> None:
        assert row is not None
        with self._lock:
            before = self.sums.get(name, (0, 0, 0))
            self.sums[name] = (before[0] + row[0], before[1] + int(row[1] or 0), before[2] + int(row[2] or 0))
            self._done += size
            if self._on_progress is not None:
                self._on_progress(self._done, self._total)


def _blocks(part: _Part) -> sql.Composable:
    if part.first is None:
        return sql.SQL("")
    start = sql.SQL("WHERE r.ctid >= {}::tid").format(sql.Literal(f"({part.first},0)"))
    if part.last is None:
        return start
    return sql.SQL("{} AND r.ctid < {}::tid").format(start, sql.Literal(f"({part.last},0)"))


def _hex(first: int, second: int) -> str:
    return f"{first % _MODULUS:016x}{second % _MODULUS:016x}"


def sequence_states(conn: Connection) -> dict[str, SequenceState]:
    """Where every sequence is now, by quoted name with schema; no snapshot holds them."""
    names = conn.execute(
        sql.SQL(
            "SELECT n.nspname, c.relname, quote_ident(n.nspname) || '.' || quote_ident(c.relname)"
            " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND NOT {}"
        ).format(sql.SQL(OURS))
    ).fetchall()
    quoted = {(schema, name): full for schema, name, full in names}
    found = {
        quoted[schema, name]: SequenceState(last, called, definition)
        for schema in {schema for schema, _ in quoted}
        for name, last, called, definition in read_sequences(conn, schema)
    }
    return dict(sorted(found.items()))


def _objects(conn: Connection, version: int) -> dict[str, Object]:
    rows = conn.execute(portable_definitions(version)).fetchall()
    return {f"{kind} {name}": Object(digest, likeness) for kind, name, digest, likeness in sorted(rows)}


@contextmanager
def _settled(conn: Connection, snapshot: str | None) -> Iterator[str]:
    """A transaction that sees one instant, and the snapshot that others share it by."""
    begin = ["BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"]
    begin += [f"SET TRANSACTION SNAPSHOT {_literal(snapshot)}"] if snapshot is not None else []
    settings = (f"set_config({_literal(name)}, {_literal(value)}, true)" for name, value in _SETTINGS.items())
    conn.execute("; ".join([*begin, f"SELECT {', '.join(settings)}"]).encode())
    try:
        if snapshot is None:
            row = conn.execute("SELECT pg_export_snapshot()").fetchone()
            assert row is not None
            snapshot = row[0]
        assert snapshot is not None
        yield snapshot
    finally:
        with suppress(psycopg.OperationalError):  # what ended the session is told by what it ended
            conn.execute("ROLLBACK")


def _literal(value: str) -> str:
    return sql.Literal(value).as_string(None)


_CLOSED = """
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.relkind::text
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'm', 'S') AND c.relpersistence <> 't' AND NOT {ours}
       AND NOT (has_schema_privilege(n.oid, 'USAGE') AND CASE WHEN c.relkind = 'S'
                THEN has_sequence_privilege(c.oid, 'SELECT') ELSE has_table_privilege(c.oid, 'SELECT') END)
     ORDER BY 1
"""


def check_rights(conn: Connection) -> None:
    """Look whether the role may read every table, view, sequence and large object.

    :raises BlockedError: with what it may not.
    """
    closed = [name for name, _ in conn.execute(sql.SQL(_CLOSED).format(ours=sql.SQL(OURS))).fetchall()]
    row = conn.execute(
        "SELECT count(*) FROM pg_largeobject_metadata WHERE lomacl IS NULL AND NOT pg_has_role(lomowner, 'USAGE')"
    ).fetchone()
    if row is not None and row[0]:
        closed.append(f"pg_largeobject ({row[0]})")
    if closed:
        raise _unreadable(conn.info.user, closed)


def _unreadable(role: str, details: Sequence[str]) -> BlockedError:
    return BlockedError(
        text(
            pt=f"O papel {role} não pode ler tudo o que está no banco.",
            en=f"Role {role} may not read everything that is in the database.",
        ),
        details=details[:20],
        next_step=text(
            pt="Entre como o dono das tabelas ou como superusuário.",
            en="Connect as the owner of the tables, or as superuser.",
        ),
    )


@contextmanager
def _told() -> Iterator[None]:
    """Say what PostgreSQL does not let be read; its own words may quote a row."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as ex:
        raise _unreadable("", [ex.diag.table_name or f"SQLSTATE {ex.sqlstate}"]) from None
    except psycopg.errors.LockNotAvailable:
        raise BlockedError(
            text(pt="Uma tabela ficou bloqueada por outra sessão.", en="A table stayed locked by another session."),
            next_step=text(pt="Espere que ela termine, e repita.", en="Wait for it to end, and try again."),
        ) from None
    except (psycopg.errors.ProgramLimitExceeded, psycopg.errors.OutOfMemory, psycopg.errors.InternalError_) as ex:
        raise BlockedError(
            text(
                pt="O banco tem uma linha ou um objeto grande que não cabe em 1 GB de texto, ou está danificado.",
                en="The database has a row or a large object beyond 1 GB of text, or it is damaged.",
            ),
            details=[f"SQLSTATE {ex.sqlstate}"],
        ) from None


# Comparing two


def differences(
    expected: Fingerprint, found: Fingerprint, *, sequences: bool = True, objects: bool = True, restored: bool = False
) -> tuple[Unlike, ...]:
    """What differs between two fingerprints; nothing if they are equal.

    :param sequences: also where sequences are. What was done and rolled back moves them too.
    :param objects: also definitions, where both fingerprints have them.
    :param restored: only one of both has been through a backup. Then rows of materialised views, which a restore
        makes anew, and of unlogged tables, which PEC's backups leave out, are not compared; nor, in expressions, are
        casts, parentheses and blanks, which PostgreSQL itself writes otherwise then.
    """
    unlike = [*_tables_unlike(expected, found, restored)]
    if expected.encoding != found.encoding:
        unlike.append(Unlike("database", "encoding", expected.encoding, found.encoding))
    if sequences:
        unlike += _sequences_unlike(expected, found)
    if (expected.large_objects, expected.large_object_digest) != (found.large_objects, found.large_object_digest):
        unlike.append(Unlike("large objects", "", _large_words(expected), _large_words(found)))
    if objects and expected.objects and found.objects:
        unlike += _objects_unlike(expected, found, restored)
    return tuple(unlike)


def _tables_unlike(expected: Fingerprint, found: Fingerprint, restored: bool) -> Iterator[Unlike]:
    for name in sorted({*expected.tables, *found.tables}):
        a, b = expected.tables.get(name), found.tables.get(name)
        if a == b or (restored and _remade(a, b)):
            continue
        words, kind = (_content_words(a), _content_words(b)), (a or b or _NOTHING).kind
        if words[0] == words[1]:
            words = f"{words[0]} ({_short(a)})", f"{words[1]} ({_short(b)})"
        yield Unlike(kind, name, *words)


def _remade(a: Content | None, b: Content | None) -> bool:
    """True if the two are the same but for rows that a restore makes anew or leaves out."""
    if a is None or b is None or (a.kind, a.columns, a.unlogged) != (b.kind, b.columns, b.unlogged):
        return False
    return a.unlogged or a.kind == "materialised view"


_NOTHING = Content("table", 0, "", "")


def _content_words(content: Content | None) -> str:
    if content is None:
        return ""
    if not content.filled:
        return text(pt="vazia", en="not filled")
    return text(pt=f"{content.rows} linhas", en=f"{content.rows} rows")


def _short(content: Content | None) -> str:
    """The beginnings of what tells one content from another."""
    if content is None:
        return ""
    return f"{content.digest[:8]}, {content.columns[:8]}{', unlogged' if content.unlogged else ''}"


def _sequences_unlike(expected: Fingerprint, found: Fingerprint) -> Iterator[Unlike]:
    for name in sorted({*expected.sequences, *found.sequences}):
        a, b = expected.sequences.get(name), found.sequences.get(name)
        if a != b:
            yield Unlike("sequence", name, _sequence_words(a), _sequence_words(b))


def _sequence_words(state: SequenceState | None) -> str:
    return "" if state is None else f"{state.last}{'+' if state.called else ''} ({state.definition})"


def _objects_unlike(expected: Fingerprint, found: Fingerprint, restored: bool) -> Iterator[Unlike]:
    for name in sorted({*expected.objects, *found.objects}):
        a, b = expected.objects.get(name), found.objects.get(name)
        if a == b or (restored and a is not None and b is not None and a.likeness == b.likeness):
            continue
        yield Unlike("object", name, "" if a is None else a.digest[:8], "" if b is None else b.digest[:8])


def _large_words(fingerprint: Fingerprint) -> str:
    return f"{fingerprint.large_objects} ({fingerprint.large_object_digest[:8]})"
