"""The set-based merge of one source into the central, in one transaction."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from merge import catalog as catalogs
from merge import collisions, crosswalk, matching, selection, sequences
from merge.errors import HomologationError, MergeError
from merge.language import text
from merge.ledger import Added, Ledger, LedgerLine
from merge.plan import CENTRAL_OWNS, KEEP_CENTRAL, SET, Action, Disposition, Role

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Mapping

    from merge.catalog import Catalog
    from merge.crosswalk import Crosswalk
    from merge.plan import Plan, TablePlan

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True)
class Merged:
    """What a merge did: the ledger, how long each phase took in seconds, and which sequences moved."""

    ledger: Ledger
    seconds: Mapping[str, float]
    sequences: Mapping[str, int] = field(default_factory=dict)


def create_schema(conn: Connection) -> None:
    """Make schema `homolog` and the tables that a merge writes, if they are not there."""
    with conn.transaction():
        conn.execute("CREATE SCHEMA IF NOT EXISTS homolog")
        conn.execute(crosswalk.SCHEMA.encode())


def prepare(conn: Connection, plan: Plan, catalog: Catalog, ranges: Mapping[tuple[str, str], tuple[int, int]]) -> None:
    """Once, on the restored central: note the greatest value of every key domain, sequences included.

    :param ranges: least and greatest value by (table, column) of the central.
    """
    tops: dict[str, int] = {}
    domain_of = {member: d.name for d in plan.domains.values() for member in d.members}
    for name, member in sequences.owners(catalog).items():
        if member in domain_of:
            domain = domain_of[member]
            tops[domain] = max(tops.get(domain, 0), catalog.sequences[name].last_value)
    for member, (_, high) in ranges.items():
        if member in domain_of:
            domain = domain_of[member]
            tops[domain] = max(tops.get(domain, 0), high)
    with conn.transaction():
        conn.execute("TRUNCATE homolog.domain_top")
        _save_tops(conn, tops)


def is_merged(conn: Connection, source: int) -> bool:
    """True if the merge of this source was committed."""
    if conn.execute("SELECT to_regclass('homolog.source')").fetchone() == (None,):
        return False
    return conn.execute("SELECT 1 FROM homolog.source WHERE source = %s", [source]).fetchone() is not None


def merge_source(
    conn: Connection,
    plan: Plan,
    catalog: Catalog,
    source: int,
    name: str,
    rows: Mapping[str, int],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    before_load: Callable[[Connection, Crosswalk], None] = lambda conn, crosswalk: None,
) -> Merged:
    """Merge the rows of ``src_<source>`` into the central; on any error nothing has happened.

    :param conn: a connection for which triggers do not fire (``session_replication_role = replica``), autocommit.
    :param rows: rows of every table of the source.
    :param on_progress: called with rows done and rows in all.
    :param before_load: called inside of the transaction when every key is mapped and no row was written yet; what it
        raises stops the merge.
    :raises CollisionError: before anything is written.
    :raises MergeError: if the database refused something; it was rolled back.
    """
    if conn.execute("SHOW session_replication_role").fetchone() != ("replica",):
        raise MergeError(
            text(
                pt="Os gatilhos do central disparariam durante a unificação; nada foi gravado.",
                en="The central's triggers would fire during the merge; nothing was written.",
            )
        )
    try:
        with conn.transaction():
            merge = Merge(conn, plan, catalog, source, name, rows, on_progress)
            merge.narrow()
            merge.find_matches()
            merge.foresee_collisions()
            before_load(conn, merge.crosswalk)
            merge.load()
            merge.finish()
    except psycopg.Error as ex:
        raise _refused(ex) from None  # the original message may quote a row
    moved = set_sequences(conn, plan, catalog)
    return Merged(read_ledger(conn, source), merge.seconds, moved)


def read_ledger(conn: Connection, source: int) -> Ledger:
    """The ledger of a merged source, as it was written with its rows."""
    lines = conn.execute(
        "SELECT table_name, disposition, reason, rows FROM homolog.ledger WHERE source = %s ORDER BY 1, 2, 3", [source]
    ).fetchall()
    added = conn.execute(
        "SELECT table_name, reason, rows FROM homolog.added WHERE source = %s ORDER BY 1, 2", [source]
    ).fetchall()
    return Ledger(
        tuple(LedgerLine(t, Disposition(d), reason, rows) for t, d, reason, rows in lines),
        tuple(Added(*line) for line in added),
    )


def read_differences(conn: Connection, source: int) -> Mapping[str, Mapping[str, int]]:
    """By table and column, the reconciled rows of a merged source that differ there from the row already there."""
    differing: dict[str, dict[str, int]] = {}
    for table, column, rows in conn.execute(
        "SELECT table_name, c, count(*) FROM homolog.exception, unnest(columns) c"
        " WHERE source = %s AND disposition = 'reconciled' GROUP BY 1, 2 ORDER BY 1, 3 DESC, 2",
        [source],
    ).fetchall():
        differing.setdefault(table, {})[column] = rows
    return differing


def set_sequences(conn: Connection, plan: Plan, catalog: Catalog) -> Mapping[str, int]:
    """Set the sequences ahead of the merged data; also after a kill between commit and here."""
    tops = {d: int(t) for d, t in conn.execute("SELECT domain, top FROM homolog.domain_top").fetchall()}
    current = catalogs.read(conn, catalog.schema)
    return sequences.advance(conn, plan, current, tops)


def _refused(ex: psycopg.Error) -> HomologationError:
    diag = ex.diag
    where = (diag.table_name, diag.column_name, diag.constraint_name)
    cause = " ".join(part for part in (diag.sqlstate, type(ex).__name__, *where) if part)
    return MergeError(
        text(
            pt=f"O banco recusou a unificação ({cause}); tudo foi desfeito.",
            en=f"The database refused the merge ({cause}); all of it was rolled back.",
        ),
        next_step=text(
            pt="Não tente de novo sem entender a causa: envie o pacote de suporte.",
            en="Do not retry without knowing the cause: send the support bundle.",
        ),
    )


class Merge:
    """One merge under way, inside of its transaction."""

    def __init__(
        self,
        conn: Connection,
        plan: Plan,
        catalog: Catalog,
        source: int,
        name: str,
        rows: Mapping[str, int],
        on_progress: Callable[[int, int], None],
    ) -> None:
        self.conn = conn
        self.plan = plan
        self.catalog = catalog
        self.source = source
        self.rows = rows
        self.on_progress = on_progress
        self.tables = [t for t in plan.merged() if rows.get(t.name)]
        self.ledger: list[LedgerLine] = []
        self.reconciled: dict[str, int] = {}
        self.whole: set[str] = set()  # of which every row is there already
        self.excluded: dict[str, int] = {}
        self.left_out: dict[str, Counter[str]] = {}
        self.added: Mapping[tuple[str, str], int] = {}
        self.seconds: dict[str, float] = {}
        self._clock = time.monotonic()
        conn.execute("SELECT pg_advisory_xact_lock(hashtext('homolog.merge'))")
        conn.execute("INSERT INTO homolog.source (source, name) VALUES (%s, %s)", [source, name])
        self.crosswalk = self._offsets()

    def _offsets(self) -> Crosswalk:
        filled = [name for name, count in self.rows.items() if count]
        central = {d: int(t) for d, t in self.conn.execute("SELECT domain, top FROM homolog.domain_top").fetchall()}
        tops = crosswalk.tops(self.conn, f"src_{self.source}", self.plan, filled)
        keys = crosswalk.offsets(self.plan, self.catalog, central, tops)
        self.tops = {
            domain: max(central.get(domain, 0), high + keys[domain].offset) for domain, (_, high) in tops.items()
        }
        return crosswalk.Crosswalk(self.source, keys)

    def _lap(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[phase], self._clock = now - self._clock, now

    def narrow(self) -> None:
        """Which rows the scope leaves out."""
        self.left_out = selection.note_left_out(self.conn, self.plan, self.crosswalk, self.tables)
        self._lap("scope")

    def find_matches(self) -> None:
        """Which rows are there already, and in what they differ; then the crosswalk is complete."""
        for table in self.tables:
            matching.match(self.conn, self.plan, table, self.crosswalk)
        for table in self.tables:
            self.reconciled[table.name] = self._reconcile(table)
            self.excluded[table.name] = matching.note_exclusions(self.conn, self.plan, table, self.crosswalk)
        self._lap("match")

    def _reconcile(self, table: TablePlan) -> int:
        """Note the rows that differ from those already there. A catalog is mostly there as a whole, and the same."""
        if table.role is Role.CATALOG and matching.can_be_there(self.plan, table, self.crosswalk):
            there, differing = matching.count_there(self.conn, self.plan, table, self.crosswalk)
            if there == self.rows[table.name]:
                self.whole.add(table.name)
            if not differing:
                return 0
        return matching.note_differences(self.conn, self.plan, table, self.crosswalk)

    def foresee_collisions(self) -> None:
        """Stop, with all of them, if rows would collide with unique keys."""
        found: list[collisions.Collision] = []
        for table in self.tables:
            found += collisions.foresee(self.conn, self.plan, table, self.crosswalk, self.catalog)
        collisions.check(found)
        self._lap("collisions")

    def load(self) -> None:
        """Insert the rows that are not there yet, and account for all."""
        total = sum(self.rows.values())
        done = 0
        for table in self.plan:
            count = self.rows.get(table.name, 0)
            if count == 0:
                continue
            if table.action is Action.EXCLUDE:
                self._account(table, Disposition.EXCLUDED, table.reason, count)
            else:
                self._account_merged(table, self._insert(table), count)
            done += count
            self.on_progress(done, total)
        self.added = selection.insert_additions(self.conn, self.plan, self.crosswalk)
        self._lap("load")

    def _insert(self, table: TablePlan) -> int:
        if table.name in self.whole:
            return 0
        mapped = self.crosswalk.mapped(table)
        overriding = "OVERRIDING SYSTEM VALUE" if self.conn.info.server_version >= 100000 else ""
        return self.conn.execute(
            sql.SQL("INSERT INTO {} ({}) {} SELECT {} FROM {} WHERE {}").format(
                sql.Identifier(self.plan.schema, table.name),
                mapped.names,
                sql.SQL(overriding),
                mapped.values(),
                mapped.source(),
                matching.is_new(self.plan, table, self.crosswalk, mapped),
            )
        ).rowcount

    def _account_merged(self, table: TablePlan, inserted: int, count: int) -> None:
        reconciled, excluded = self.reconciled[table.name], self.excluded[table.name]
        left_out: Mapping[str, int] = self.left_out.get(table.name, {})
        matched = count - inserted - reconciled - excluded - sum(left_out.values())
        self._account(table, Disposition.INSERTED, SET if table.constants else "", inserted)
        self._account(table, Disposition.RECONCILED, KEEP_CENTRAL, reconciled)
        self._account(table, Disposition.EXCLUDED, CENTRAL_OWNS, excluded)
        for reason, rows in left_out.items():
            self._account(table, Disposition.EXCLUDED, reason, rows)
        self._account(table, Disposition.MATCHED, _why(table), matched)

    def _account(self, table: TablePlan, disposition: Disposition, reason: str, rows: int) -> None:
        if rows < 0:
            raise MergeError(f"{table.name}: {disposition} {rows}")
        if rows:
            self.ledger.append(LedgerLine(table.name, disposition, reason, rows))

    def finish(self) -> None:
        """Write crosswalk and ledger, refresh the materialised views."""
        with self.conn.cursor() as cur:
            cur.executemany(
                "INSERT INTO homolog.key_domain (source, domain, key_offset, map) VALUES (%s, %s, %s, %s)",
                [(self.source, d, k.offset, k.map) for d, k in self.crosswalk.keys.items()],
            )
            cur.executemany(
                "INSERT INTO homolog.ledger (source, table_name, disposition, reason, rows)"
                " VALUES (%s, %s, %s, %s, %s)",
                [(self.source, line.table, line.disposition, line.reason, line.rows) for line in self.ledger],
            )
            cur.executemany(
                "INSERT INTO homolog.added (source, table_name, reason, rows) VALUES (%s, %s, %s, %s)",
                [(self.source, *place, rows) for place, rows in self.added.items() if rows],
            )
        _save_tops(self.conn, self.tops)
        populated = {
            name
            for (name,) in self.conn.execute(
                "SELECT relname FROM pg_class"
                " WHERE relkind = 'm' AND relispopulated AND relnamespace = %s::regnamespace",
                [self.plan.schema],
            ).fetchall()
        }
        for view in self.catalog.matviews:
            if view in populated:
                self.conn.execute(
                    sql.SQL("REFRESH MATERIALIZED VIEW {}").format(sql.Identifier(self.plan.schema, view))
                )
        self._lap("finish")


def _why(table: TablePlan) -> str:
    keys = " | ".join(" + ".join(columns) for columns in table.match) or " + ".join(table.key)
    content = text(pt=f"conteúdo dentro de {table.within}", en=f"content within {table.within}")
    return f"{keys} | {content}" if table.within else keys


def _save_tops(conn: Connection, tops: Mapping[str, int]) -> None:
    with conn.cursor() as cur:
        cur.executemany(
            "INSERT INTO homolog.domain_top (domain, top) VALUES (%s, %s)"
            " ON CONFLICT (domain) DO UPDATE SET top = excluded.top",
            list(tops.items()),
        )
