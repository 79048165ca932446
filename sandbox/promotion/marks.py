"""What later tells whether production was written since: marks of a server and a database at one instant, compared.

Nothing here reads a row of a table. Three things are asked, the surest first:

* The ids of transactions. Whatever writes a row takes one, in the whole server. If none was taken since, and none that
  was under way then has ended, no row was written anywhere. Reading, VACUUM and checkpoints take none; ANALYZE does,
  and so does whatever is done in other databases.
* The counters of rows inserted, updated and deleted of every table, and a digest of the rows of the catalogs, in which
  every change of a definition shows, and TRUNCATE, which no counter counts. They tell of one database, but not whether
  what was written was rolled back; and they are lost in a crash.
* Where sequences are: those that are asked for a number while they have some in reserve take no id.

A session that is still connected may not have reported its counts yet. Up to version 14 counts are sent by UDP, which
may lose them. So equal counters are believed only where nobody else is connected; and the last word is that of the
content, see `merge.fingerprint`.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import psycopg
from psycopg import sql

from merge.language import counted, text
from merge.proof_objects import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Connection = psycopg.Connection[tuple[Any, ...]]

State = Literal["unwritten", "written", "unknown"]

_LAG_SECONDS = 0.2
"""How long a session that has just ended may take to report; the collector that versions up to 14 have takes 0.5 s."""
_COLLECTOR_SECONDS = 1.0

_SHOWN = 10


@dataclass(frozen=True)
class Marks:
    """One database of a server at one instant.

    :param taken: the server's time, ISO 8601 in UTC.
    :param system: the cluster's ``system_identifier``, "" if the role may not see it; `timeline` likewise 0.
    :param started: when the server was started.
    :param next_xid: the next transaction id, with its epoch, and `running` those then under way.
    :param wal: position of the write-ahead log in bytes.
    :param tables: rows inserted, updated and deleted of every table that has any, by schema and name; large objects
        are in ``pg_catalog.pg_largeobject``.
    :param activity: what only grows until counters are reset: transactions ended, and blocks and rows read.
    :param stats_reset: when they were, "" if never.
    :param counted: false if the server does not count.
    :param catalog: digest of the rows of all definitions; `sequences` of where sequences are.
    :param sessions: others that were connected to the database.
    """

    version: int
    taken: str
    system: str
    timeline: int
    started: str
    database: str
    oid: int
    next_xid: int
    running: tuple[int, ...]
    wal: int
    tables: Mapping[str, tuple[int, int, int]]
    activity: tuple[int, ...]
    stats_reset: str
    counted: bool
    catalog: str
    sequences: str
    sessions: int

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Marks:
        """The same again, from what JSON kept of it."""
        tables = {name: tuple(counts) for name, counts in kept["tables"].items()}
        changed = {"tables": tables, "running": tuple(kept["running"]), "activity": tuple(kept["activity"])}
        return cls(**{**kept, **changed})


@dataclass(frozen=True)
class Verdict:
    """Whether a database was written between two marks, and how it is known.

    :param other: it is not the same database at all.
    """

    state: State
    how: tuple[str, ...]
    other: bool = False


def take(conn: Connection, *, wait: bool = True) -> Marks:
    """Mark the present.

    :param conn: an autocommit session in the database, of any role that may read its sequences.
    :param wait: give other sessions time to report what they did.
    """
    early = _early(conn, wait=wait)
    return Marks(**early, **_exact(conn))


@contextmanager
def held(conn: Connection) -> Iterator[tuple[Marks, str]]:
    """Open a transaction that sees one instant; give the marks of that instant and the snapshot others share it by.

    What cannot be had of the very instant is of a moment before: a write between both looks like one that came after,
    and none that came after is missed.

    :param conn: an autocommit session, which cannot be used otherwise as long as the context lasts.
    """
    early = _early(conn, wait=True)
    conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        row = conn.execute("SELECT pg_catalog.pg_export_snapshot()").fetchone()
        assert row is not None
        yield Marks(**early, **_exact(conn)), row[0]
    finally:
        if not conn.closed:
            conn.execute("ROLLBACK")


_SERVER = """
    SELECT current_setting('server_version_num')::integer, {utc_now}, {utc_started},
           current_database()::text, d.oid::bigint, {wal}, current_setting('track_counts')::boolean, {utc_reset},
           ARRAY[s.xact_commit + s.xact_rollback, s.blks_read + s.blks_hit, s.tup_returned, s.tup_fetched],
           (SELECT count(*) FROM pg_stat_activity a WHERE a.datname = d.datname AND a.pid <> pg_backend_pid() {clients})
      FROM pg_database d JOIN pg_stat_database s ON s.datid = d.oid WHERE d.datname = current_database()
"""

_COUNTERS = """
    SELECT quote_ident(schemaname) || '.' || quote_ident(s.relname), n_tup_ins, n_tup_upd, n_tup_del
      FROM pg_stat_all_tables s JOIN pg_namespace n ON n.nspname = s.schemaname JOIN pg_class c ON c.oid = s.relid
     WHERE (NOT {ours} AND c.relkind <> 'm' AND c.relpersistence <> 't'
            OR schemaname = 'pg_catalog' AND s.relname IN ('pg_largeobject', 'pg_largeobject_metadata'))
       AND n_tup_ins + n_tup_upd + n_tup_del > 0
"""
"""Refreshing a materialised view writes none that a person wrote."""

_CATALOG = """
    WITH space AS (SELECT oid FROM pg_namespace WHERE NOT {ours}),
    relation AS (SELECT c.oid, c.relkind, c.xmin FROM pg_class c JOIN space n ON n.oid = c.relnamespace
                  WHERE c.relpersistence <> 't'),
    stored AS (SELECT oid FROM relation WHERE relkind <> 'm'),
    item (catalog, oid, sub, changed) AS (
    SELECT 'pg_namespace', oid, 0, xmin::text FROM pg_namespace WHERE NOT {ours}
     UNION ALL SELECT 'pg_class', oid, 0, CASE
           -- Whoever refreshes a view gives it, and its indexes, another file.
           WHEN relkind = 'm' OR oid IN (SELECT indexrelid FROM pg_index JOIN pg_class v ON v.oid = indrelid
                                          WHERE v.relkind = 'm') THEN '' ELSE xmin::text END FROM relation
     UNION ALL SELECT 'pg_attribute', attrelid, attnum, a.xmin::text FROM pg_attribute a
                 JOIN stored s ON s.oid = attrelid
     UNION ALL SELECT 'pg_attrdef', d.oid, 0, d.xmin::text FROM pg_attrdef d JOIN relation s ON s.oid = adrelid
     UNION ALL SELECT 'pg_constraint', k.oid, 0, k.xmin::text FROM pg_constraint k JOIN space n ON n.oid = connamespace
     UNION ALL SELECT 'pg_index', indexrelid, 0, i.xmin::text FROM pg_index i JOIN stored s ON s.oid = indrelid
     UNION ALL SELECT 'pg_trigger', t.oid, 0, t.xmin::text FROM pg_trigger t JOIN relation s ON s.oid = tgrelid
     UNION ALL SELECT 'pg_rewrite', r.oid, 0, r.xmin::text FROM pg_rewrite r JOIN relation s ON s.oid = ev_class
     UNION ALL SELECT 'pg_policy', p.oid, 0, p.xmin::text FROM pg_policy p JOIN relation s ON s.oid = polrelid
     UNION ALL SELECT 'pg_inherits', inhrelid, inhseqno, i.xmin::text FROM pg_inherits i
                 JOIN relation s ON s.oid = inhrelid
     UNION ALL SELECT 'pg_proc', p.oid, 0, p.xmin::text FROM pg_proc p JOIN space n ON n.oid = pronamespace
     UNION ALL SELECT 'pg_type', y.oid, 0, y.xmin::text FROM pg_type y JOIN space n ON n.oid = typnamespace
     UNION ALL SELECT 'pg_enum', e.oid, 0, e.xmin::text FROM pg_enum e
     UNION ALL SELECT 'pg_operator', o.oid, 0, o.xmin::text FROM pg_operator o JOIN space n ON n.oid = oprnamespace
     UNION ALL SELECT 'pg_cast', c.oid, 0, c.xmin::text FROM pg_cast c WHERE c.oid >= 16384
     UNION ALL SELECT 'pg_extension', oid, 0, xmin::text FROM pg_extension
     UNION ALL SELECT 'pg_event_trigger', oid, 0, xmin::text FROM pg_event_trigger
     UNION ALL SELECT 'pg_default_acl', oid, 0, xmin::text FROM pg_default_acl
     UNION ALL SELECT 'pg_largeobject_metadata', oid, 0, xmin::text FROM pg_largeobject_metadata
     {sequence})
    SELECT md5(coalesce(string_agg(catalog || ':' || oid || ':' || sub || ':' || changed, ','
                                   ORDER BY catalog, oid::bigint, sub, changed), '')) FROM item
"""
_SEQUENCE_10 = """
     UNION ALL SELECT 'pg_sequence', seqrelid, 0, q.xmin::text FROM pg_sequence q JOIN relation s ON s.oid = seqrelid
"""

_SEQUENCES = """
    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND NOT {ours} ORDER BY c.oid
"""


def _early(conn: Connection, *, wait: bool) -> dict[str, Any]:
    """What counts before the instant that is meant, so that what is written in between is counted after it."""
    if wait:
        time.sleep(_LAG_SECONDS if conn.info.server_version >= 150000 else _COLLECTOR_SECONDS)
    modern = conn.info.server_version >= 100000
    wal = "pg_current_wal_insert_lsn()" if modern else "pg_current_xlog_insert_location()"
    query = sql.SQL(_SERVER).format(
        utc_now=_utc("now()"),
        utc_started=_utc("pg_postmaster_start_time()"),
        utc_reset=_utc("s.stats_reset"),
        wal=sql.SQL(f"({wal} - '0/0'::pg_lsn)::numeric"),
        clients=sql.SQL("AND a.backend_type = 'client backend'" if modern else ""),
    )
    row = conn.execute(query).fetchone()
    assert row is not None
    version, taken, started, database, oid, position, counted_, reset, activity, sessions = row
    system, timeline = control(conn)
    tables = conn.execute(sql.SQL(_COUNTERS).format(ours=sql.SQL(OURS))).fetchall()
    return {
        "version": version,
        "taken": taken,
        "system": system,
        "timeline": timeline,
        "started": started,
        "database": database,
        "oid": oid,
        "wal": int(position),
        "tables": {name: (added, changed, gone) for name, added, changed, gone in sorted(tables)},
        "activity": tuple(activity),
        "stats_reset": reset or "",
        "counted": counted_,
        "sequences": _sequences(conn),
        "sessions": sessions,
    }


def _exact(conn: Connection) -> dict[str, Any]:
    """What is of the instant that the session's snapshot sees."""
    row = conn.execute(
        "SELECT txid_snapshot_xmax(s), ARRAY(SELECT txid_snapshot_xip(s) ORDER BY 1)"
        " FROM pg_catalog.txid_current_snapshot() AS s"  # which takes no id itself
    ).fetchone()
    assert row is not None
    return {"next_xid": row[0], "running": tuple(row[1]), "catalog": catalog_digest(conn)}


def catalog_digest(conn: Connection) -> str:
    """A digest that is another after every change of a definition, a right or an owner, and after TRUNCATE.

    It is the same after reading, VACUUM, ANALYZE, writing rows, and refreshing materialised views.
    """
    sequence = _SEQUENCE_10 if conn.info.server_version >= 100000 else ""
    row = conn.execute(sql.SQL(_CATALOG).format(ours=sql.SQL(OURS), sequence=sql.SQL(sequence))).fetchone()
    assert row is not None
    return str(row[0])


def control(conn: Connection) -> tuple[str, int]:
    """The cluster's identifier and timeline, where the role may see them."""
    query = "SELECT system_identifier::text, timeline_id FROM pg_control_system(), pg_control_checkpoint()"
    try:
        row = conn.execute(query).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return "", 0
    assert row is not None
    return row[0], row[1]


def _sequences(conn: Connection) -> str:
    names = conn.execute(sql.SQL(_SEQUENCES).format(ours=sql.SQL(OURS))).fetchall()
    digests = []
    for start in range(0, len(names), 200):  # one query for each sequence would cost more than reading it
        parts = [
            sql.SQL("SELECT {}::integer AS n, last_value, is_called FROM {}").format(
                sql.Literal(number), sql.Identifier(*name)
            )
            for number, name in enumerate(names[start : start + 200])
        ]
        row = conn.execute(
            sql.SQL(
                "SELECT md5(string_agg(concat_ws(':', n, last_value, is_called), ',' ORDER BY n)) FROM ({}) s"
            ).format(sql.SQL(" UNION ALL ").join(parts))
        ).fetchone()
        assert row is not None
        digests.append(row[0])
    return "".join(digests) if len(digests) < 2 else _joined(conn, digests)


def _joined(conn: Connection, digests: list[str]) -> str:
    row = conn.execute("SELECT md5(%s::text)", ["".join(digests)]).fetchone()
    assert row is not None
    return str(row[0])


def _utc(expression: str) -> sql.SQL:
    return sql.SQL(f"to_char({expression} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")


# Comparing


def compare(before: Marks, now: Marks) -> Verdict:
    """Say whether the database was written between two marks, and how that is known."""
    if before.oid != now.oid or (before.system and now.system and before.system != now.system):
        return _other(before, now)
    if now.wal < before.wal or now.next_xid < before.next_xid or now.timeline != before.timeline:
        return Verdict("unknown", (
            text(
                pt="O servidor não é a continuação do que se viu: foi restaurado, ou é uma cópia ou uma réplica.",
                en="The server does not go on from what was seen: it was restored, or is a copy or a standby.",
            ),
        ))  # fmt: skip
    if now.sequences != before.sequences:
        return Verdict("written", (
            text(
                pt="Uma sequência andou: alguém pediu um número, ainda que nada tenha gravado.",
                en="A sequence moved: someone asked for a number, even if nothing was written.",
            ),
            *_counted_words(before, now),
        ))  # fmt: skip
    ended = [xid for xid in before.running if xid not in now.running]
    if now.next_xid == before.next_xid and not ended:
        return Verdict("unwritten", (
            text(
                pt="Desde então nenhuma transação gravou em nenhum banco do servidor: o número da próxima é o mesmo "
                f"({now.next_xid}).",
                en="No transaction has written in any database of the server since: the number of the next one is the "
                f"same ({now.next_xid}).",
            ),
        ))  # fmt: skip
    return _by_counters(before, now)


def _by_counters(before: Marks, now: Marks) -> Verdict:
    many = now.next_xid - before.next_xid
    moved = text(
        pt=f"No servidor, desde então: {counted(many, 'transação gravou', 'transações gravaram')}.",
        en=f"In the server since: {counted(many, 'transaction has written', 'transactions have written')}.",
    )
    if now.catalog != before.catalog:
        return Verdict("written", (
            moved,
            text(
                pt="O catálogo deste banco mudou: uma tabela foi criada, alterada ou esvaziada (TRUNCATE), ou um "
                "direito mudou.",
                en="The catalog of this database changed: a table was made, altered or emptied (TRUNCATE), or a right "
                "changed.",
            ),
            *_counted_words(before, now),
        ))  # fmt: skip
    if not (before.counted and now.counted):
        return Verdict("unknown", (
            moved,
            text(pt="O servidor não conta o que se grava (track_counts = off).",
                 en="The server does not count what is written (track_counts = off)."),
        ))  # fmt: skip
    if _counters_lost(before, now):
        return Verdict("unknown", (
            moved,
            text(
                pt="Os contadores deste banco recomeçaram, por uma queda do servidor ou porque alguém os zerou: não "
                "dizem o que se gravou antes.",
                en="The counters of this database began anew, by a crash of the server or because someone reset them: "
                "they do not tell what was written before.",
            ),
        ))  # fmt: skip
    if words := _counted_words(before, now):
        return Verdict("written", (moved, *words))
    if now.sessions:
        connected = counted(
            now.sessions,
            *text(
                pt="sessão está conectada|sessões estão conectadas", en="session is connected|sessions are connected"
            ).split("|"),
        )
        return Verdict("unknown", (
            moved,
            text(
                pt=f"Os contadores deste banco não mudaram, mas {connected} "
                "a ele, e o que se gravou por aí pode ainda não estar contado.",
                en=f"The counters of this database have not changed, but {connected} "
                "to it, and what was written there may not be counted yet.",
            ),
        ))  # fmt: skip
    return Verdict("unwritten", (
        moved,
        text(
            pt="Mas neste banco não: os contadores de linhas gravadas de todas as tabelas e o catálogo são os mesmos, "
            "e não foram zerados.",
            en="But not in this database: the counters of rows written of all tables and the catalog are the same, and "
            "were not reset.",
        ),
        *((text(
            pt="Até o PostgreSQL 14 uma contagem pode se perder: só a comparação do conteúdo dá certeza.",
            en="Up to PostgreSQL 14 a count may get lost: only comparing the content makes it certain.",
        ),) if now.version < 150000 else ()),
    ))  # fmt: skip


def _other(before: Marks, now: Marks) -> Verdict:
    return Verdict("unknown", (
        text(
            pt=f"Não é o mesmo banco: este é o {now.database} (oid {now.oid}) do sistema {now.system or '?'}; o "
            f"do instantâneo, o {before.database} (oid {before.oid}) do sistema {before.system or '?'}.",
            en=f"It is not the same database: this is {now.database} (oid {now.oid}) of system {now.system or '?'}; "
            f"that of the snapshot, {before.database} (oid {before.oid}) of system {before.system or '?'}.",
        ),
    ), other=True)  # fmt: skip


def _counters_lost(before: Marks, now: Marks) -> bool:
    """True if they do not count on from where they were."""
    if before.stats_reset != now.stats_reset or not before.tables:
        return True
    if any(then > later for then, later in zip(before.activity, now.activity, strict=True)):
        return True
    none = (0, 0, 0)
    # The catalog says that no table is gone.
    return any(
        then > later
        for name, counts in before.tables.items()
        for then, later in zip(counts, now.tables.get(name, none), strict=True)
    )


def _counted_words(before: Marks, now: Marks) -> list[str]:
    """What was written in which tables, as far as counters tell."""
    none = (0, 0, 0)
    grown = {}
    for name, counts in now.tables.items():
        more = [later - then for then, later in zip(before.tables.get(name, none), counts, strict=True)]
        if any(more) and min(more) >= 0:
            grown[name] = more
    words = [
        text(
            pt=f"{name}: linhas incluídas {added}, alteradas {changed}, excluídas {gone}, também se foram desfeitas",
            en=f"{name}: rows inserted {added}, updated {changed}, deleted {gone}, also if that was rolled back",
        )
        for name, (added, changed, gone) in sorted(grown.items(), key=lambda item: -sum(item[1]))
    ]
    if len(words) > _SHOWN:
        rest = len(words) - _SHOWN
        words[_SHOWN:] = [text(pt=f"… e mais {rest} tabelas", en=f"… and {rest} tables more")]
    return words
