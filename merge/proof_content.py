"""The proof of method `content`: the merged database holds the baseline and the sources' rows, whatever keys they got.

It needs no crosswalk and no ledger, so it also proves a merge that someone else made. What must be there is worked out
from the sources, the baseline and the plan (`merge.proof_content_expected`). Then it is found out which merged row is
which expected one (`merge.proof_content_pairs`, `merge.proof_content_alike`), and these are compared bit by bit. So:

- every row of the baseline is found at its key, bit by bit equal;
- every row expected is found once, bit by bit equal, and refers to rows that are found to be those it must refer to;
- there are no other rows;
- rows that content cannot tell apart are as many of each kind as there must be; they are counted (`Proof.alike`).

Rows without a key are counted by their content; that two that are the same were swapped changes nothing.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from psycopg import sql

from merge import proof_content_expected, proof_crosswalk, proof_large_objects, proof_scope, proof_sequences
from merge.masking import shown_key
from merge.plan import Action
from merge.proof import SHOWN, Difference, Findings, Kind
from merge.proof_baseline import BaselineProof
from merge.proof_content_alike import Alike
from merge.proof_content_pairs import Pairing
from merge.proof_content_rows import EXPECTED, FOUND, SCRATCH, digest
from merge.proof_rows import TRUE, Cell, Comparison
from merge.proof_session import run_all, session, table_sizes, unlike_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from merge.plan import Plan, TablePlan
    from merge.proof import Proof
    from merge.proof_content_rows import Expected
    from merge.proof_session import Connection


def prove_content(
    connect: Callable[[], Connection],
    plan: Plan,
    sources: Sequence[int],
    jobs: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
    connect_owner: Callable[[], Connection] | None = None,
    declared: Mapping[str, Collection[Kind]] | None = None,
) -> Proof:
    """Prove the merged database by content.

    :param connect: opens a connection to the merged database, of a role that reads all there and may make schema
        `homolog_content`, which is dropped again; all else is only read.
    :param sources: numbers of the merged sources, in the order in which they were merged; their rows are in
        ``src_<n>``.
    :param on_progress: called with steps done and steps in all.
    :param connect_owner: see `merge.proof_central.prove_central`.
    :param declared: by table, the kinds of differences that are expected, as the application ran on the database and
        has merged; None if it has not.
    :raises ProofFailed: if there is no baseline.
    """
    start = time.monotonic()
    with _scratch(connect), session(connect, read_only=False) as conn:
        prover = _Prover(conn, plan, sources, declared)
        prover.run(connect, conn, jobs, on_progress or (lambda done, total: None))
        prover.conclude(conn)
        if connect_owner is not None:
            with session(connect_owner) as owner:
                prover.check_views(owner)
    return prover.findings.proof(prover.tables, time.monotonic() - start)


@contextmanager
def _scratch(connect: Callable[[], Connection]) -> Iterator[None]:
    """The schema of what the proof writes, for as long as it is made."""
    drop = sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(SCRATCH))
    with session(connect, read_only=False) as conn:
        conn.execute("SET client_min_messages = warning")  # not every table that goes with it
        conn.execute(drop)
        conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCRATCH)))
        try:
            yield
        finally:
            conn.execute(drop)


class _Prover(BaselineProof):
    expected: Expected

    def __init__(
        self, conn: Connection, plan: Plan, sources: Sequence[int], declared: Mapping[str, Collection[Kind]] | None
    ) -> None:
        super().__init__(conn, plan, Findings(None, "content", declared))
        self.sources = list(sources)
        self.by_application = declared is not None
        self.rows: dict[int, dict[str, int]] = defaultdict(dict)
        self.ranges = {n: proof_crosswalk.Ranges() for n in self.sources}
        self.new: dict[str, int] = {}  # merged rows that are none of the baseline's
        self.new_rows: dict[str, sql.Composable] = {}
        self.lowest: dict[str, int] = {}
        self.found: Counter[str] = Counter()

    def run(
        self, connect: Callable[[], Connection], conn: Connection, jobs: int, on_progress: Callable[[int, int], None]
    ) -> None:
        """Prove the rows and what they refer to."""
        proof_crosswalk.check_plan(self.plan, self.catalog, self.findings)
        proof_scope.check_follows(self.plan, self.catalog, self.findings)
        tasks = self._first(conn)
        steps = 2 * len(tasks)
        run_all(connect, tasks, jobs, lambda done, _: on_progress(done, steps), read_only=False)
        self.expected, self.findings.matched = proof_content_expected.expect(
            conn, self.plan, self.catalog, self.sources, self.ranges, self.rows
        )
        tables = [t for t in self.plan if t.name in self.new and (self.new[t.name] or self.expected.places(t))]
        numbered = [
            t for t in tables if self.plan.own_domain(t) is not None and (self.new[t.name] or self.expected.all_rows(t))
        ]
        Pairing(self.expected, self.new_rows, self.lowest).run(connect, jobs, numbered)
        alike = Alike(self.expected, [t for t in tables if any(map(self.expected.domain_of, self.expected.columns(t)))])
        alike.refine(connect, conn, jobs, self.secret, self.findings)
        self.findings.alike.update(alike.rows)
        self.found.update(alike.found)
        tasks = [partial(self._prove, table=t) for t in tables]
        run_all(connect, tasks, jobs, lambda done, total: on_progress(steps - total + done, steps))
        weighed = self.references(conn, lambda table: bool(self.new.get(table)))
        run_all(connect, [task for _, task in sorted(weighed, key=lambda pair: -pair[0])], jobs)
        on_progress(steps, steps)

    def conclude(self, conn: Connection) -> None:
        """Prove what is not in tables."""
        proof_large_objects.check_content(conn, sources=self.sources, findings=self.findings)
        proof_sequences.check(conn, self.plan, self.catalog, self.findings, by_application=self.by_application)
        self.check_objects(conn)

    # The baseline, and what the sources hold

    def _first(self, conn: Connection) -> list[Callable[[Connection], None]]:
        weighed: list[tuple[int, Callable[[Connection], None]]] = [
            (size, partial(self._compare_baseline, table=table)) for size, table in self.filled(conn)
        ]
        # Where there are no rows on either side, all that are expected are lost.
        merged, base = table_sizes(conn, self.plan.schema), table_sizes(conn, "homolog_base")
        unlike = unlike_tables(conn, self.plan.schema, "homolog_base")
        empty = {name for name, size in merged.items() if size == base.get(name) == 0}
        self.new = dict.fromkeys(empty - unlike, 0)
        for source in self.sources:
            sizes = table_sizes(conn, f"src_{source}")
            unlike = unlike_tables(conn, self.plan.schema, f"src_{source}")
            for table in self.plan:
                if table.name not in sizes:
                    self.findings.add(Kind.LOST, table.name, source=source, reason="the source's copy of it is gone")
                elif table.name in unlike:
                    reason = "has not the columns that the source's rows have"
                    self.findings.add(Kind.OBJECT, table.name, source=source, reason=reason)
                elif sizes[table.name] and table.action is Action.MERGE and table.name in self.catalog.tables:
                    weighed.append((sizes[table.name] // 2, partial(self._measure, table=table, source=source)))
        weighed.sort(key=lambda pair: -pair[0])
        return [proof_large_objects.keep_contents, *(task for _, task in weighed)]

    def _measure(self, conn: Connection, *, table: TablePlan, source: int) -> None:
        rows = self.ranges[source].measure(conn, self.plan, table, source)
        if rows:
            self.rows[source][table.name] = rows

    def _compare_baseline(self, conn: Connection, *, table: TablePlan) -> None:
        """Compare the baseline's rows, and find out by what the others are told from them."""
        self.findings.compared(table.name, self.base_rows.get(table.name, 0))
        found = self.compare(conn, table) if table.key else self.base_rows.get(table.name, 0)
        own = self.plan.own_domain(table)
        high = self.base_high.get(table.name) if own is not None else None
        beyond = TRUE if high is None else sql.SQL("g.{} > {}").format(sql.Identifier(table.key[0]), sql.Literal(high))
        row = conn.execute(
            sql.SQL("SELECT count(*), count(*) FILTER (WHERE {beyond}), {least} FROM {merged} g").format(
                beyond=beyond,
                least=sql.SQL("NULL")
                if own is None
                else sql.SQL("min(g.{}) FILTER (WHERE {})").format(sql.Identifier(table.key[0]), beyond),
                merged=sql.Identifier(self.plan.schema, table.name),
            )
        ).fetchone()
        assert row is not None
        self.new[table.name] = row[0] - found
        if own is not None:
            self.new_rows[table.name] = beyond if row[1] == row[0] - found else self._unlike_baseline(table)
            if row[1] == row[0] - found and row[2] is not None:
                self.lowest[table.name] = int(row[2])

    def _unlike_baseline(self, table: TablePlan) -> sql.Composed:
        same = [sql.SQL("b.{0} = g.{0}").format(sql.Identifier(name)) for name in table.key]
        return sql.SQL("NOT EXISTS (SELECT 1 FROM {} b WHERE {})").format(
            sql.Identifier("homolog_base", table.name), sql.SQL(" AND ").join(same)
        )

    # Rows

    def _prove(self, conn: Connection, *, table: TablePlan) -> None:
        if not table.key:
            self._count_contents(conn, table)
            return
        merged = self.expected.merged_rows(table, self.plan.schema, self.new_rows.get(table.name, TRUE))
        found = self.expected.identified(table, FOUND, merged)
        cells = self.expected.cells(table)
        key = [next(c for c in cells if c.name == name) for name in table.key]
        told = [
            sql.SQL("NOT {}").format(o)
            for name in table.key
            if (o := self.expected.is_open(table.column(name), "s")) is not None
        ]
        same = sql.SQL(" AND ").join([sql.SQL("{} = {}").format(c.found, c.expected) for c in key])
        ours, theirs = self.expected.key_values(table, "s"), self.expected.key_values(table, "g")
        shown = [Cell(name, type_, value, theirs[name][0]) for name, (value, type_) in ours.items()]
        indexes = self.catalog.tables[table.name].uniques
        unique = any(index.plain and set(index.columns) <= set(table.key) for index in indexes)
        for source in dict.fromkeys(n for n, *_ in self.expected.places(table)):
            rows = self.expected.identified(table, EXPECTED, self.expected.rows(table, source))
            comparison = Comparison(
                table.name,
                sql.SQL("({}) s LEFT JOIN ({}) g ON {}").format(rows, found, same),
                sql.SQL(" AND ").join([TRUE, *told]),
                shown,
                cells,
                source,
                self.secret,
            )
            pairs, lost, changed = comparison.count(conn)
            if lost:
                self.findings.extend(comparison.lost(conn), lost)
            if changed:
                for number, examples in comparison.changed(conn):
                    self.findings.extend(examples, number)
            if not unique:
                self._doubled(conn, table, source, rows, told, pairs)
            self.found[table.name] += pairs - lost
            self.findings.compared(table.name, pairs)
        self._nothing_else(conn, table, found, same)

    def _doubled(
        self, conn: Connection, table: TablePlan, source: int, rows: sql.Composed, told: Sequence[sql.Composable],
        pairs: int,
    ) -> None:  # fmt: skip
        """Where no index forbids it, no expected row is found twice."""
        row = conn.execute(
            sql.SQL("SELECT count(*) FROM ({}) s WHERE {}").format(rows, sql.SQL(" AND ").join([TRUE, *told]))
        ).fetchone()
        if row is not None and row[0] != pairs:
            found = f"{pairs} rows"
            self.findings.add(Kind.DOUBLED, table.name, source=source, expected=f"{row[0]} rows", found=found)

    def _nothing_else(self, conn: Connection, table: TablePlan, found: sql.Composed, same: sql.Composed) -> None:
        """As many merged rows as the baseline's and those found; if not, name those that nobody brought."""
        extra = self.new[table.name] - self.found[table.name]
        if not extra:
            return
        known = [
            sql.SQL("NOT EXISTS (SELECT 1 FROM ({}) s WHERE {})").format(
                self.expected.identified(table, EXPECTED, rows), same
            )
            for rows in self.expected.all_rows(table)
        ]
        told = [
            sql.SQL("NOT {}").format(o)
            for name in table.key
            if (o := self.expected.is_open(table.column(name), "g")) is not None
        ]
        base = [sql.SQL("b.{} = {}").format(sql.Identifier(k), value) for k, (value, _) in
                self.expected.key_values(table, "g").items()]  # fmt: skip
        unlike = sql.SQL("NOT EXISTS (SELECT 1 FROM {} b WHERE {})").format(
            sql.Identifier("homolog_base", table.name), sql.SQL(" AND ").join(base)
        )
        rows = conn.execute(
            sql.SQL("SELECT {}, count(*) OVER () FROM ({}) g WHERE {} LIMIT {}").format(
                shown_key(self.expected.key_values(table, "g"), self.secret),
                found,
                sql.SQL(" AND ").join([unlike, *told, *known]),
                sql.Literal(SHOWN),
            )
        ).fetchall()
        if rows:
            self.findings.extend([Difference(Kind.INVENTED.value, table.name, k) for k, _ in rows], rows[0][1])
        elif extra > 0:
            self.findings.add(Kind.DOUBLED, table.name, expected=f"{self.found[table.name]} rows",
                              found=f"{self.new[table.name]} rows")  # fmt: skip

    def _count_contents(self, conn: Connection, table: TablePlan) -> None:
        """Rows without a key: the baseline's and those expected are the merged rows, each as many times."""
        names = [c.name for c in self.expected.columns(table)]
        hashes = sql.SQL("SELECT {} FROM ({}) r")
        base = self.expected.merged_rows(table, "homolog_base")
        sides = [self.expected.identified(table, FOUND, base)]
        sides += [self.expected.identified(table, EXPECTED, rows) for rows in self.expected.all_rows(table)]
        merged = self.expected.identified(table, FOUND, self.expected.merged_rows(table, self.plan.schema))
        self.same_multiset(
            conn,
            table,
            [hashes.format(digest(names, "r"), rows) for rows in sides],
            hashes.format(digest(names, "r"), merged),
        )
        self.findings.compared(table.name, max(self.new[table.name], 0))
