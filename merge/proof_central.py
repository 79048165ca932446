"""The proof of the central: everything that was in it is still there, unchanged, and nothing came but from a source."""

from __future__ import annotations

import time
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

from psycopg import sql

from merge import proof_crosswalk, proof_large_objects, proof_scope, proof_sequences
from merge.masking import shown_key
from merge.plan import Action
from merge.proof import SHOWN, Difference, Findings, Kind
from merge.proof_baseline import BaselineProof
from merge.proof_rows import content, image, read_moves
from merge.proof_session import run_all, session, table_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from merge.plan import Plan, TablePlan
    from merge.proof import Proof
    from merge.proof_rows import Cell, Image
    from merge.proof_session import Connection


def prove_central(
    connect: Callable[[], Connection],
    plan: Plan,
    sources: Sequence[int],
    jobs: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
    connect_owner: Callable[[], Connection] | None = None,
) -> Proof:
    """Prove the central's part of the merged database, and the merged database as a whole.

    :param connect: opens a connection to the merged database, of a role that reads all there; it only reads.
    :param sources: the merged sources.
    :param on_progress: called with steps done and steps in all.
    :param connect_owner: opens a connection of the role that owns the restored objects. The queries of materialised
        views may call functions of the restored database, which only their owner should run. Without it, materialised
        views are not compared with their queries.
    :raises ProofFailed: if there is no baseline.
    """
    start = time.monotonic()
    with session(connect) as conn:
        prover = _Prover(conn, plan, sources)
        tasks = prover.tasks(conn)
    run_all(connect, tasks, jobs, on_progress)
    with session(connect) as conn:
        tasks = prover.reference_tasks(conn)
    run_all(connect, tasks, jobs, on_progress)
    with session(connect) as conn:
        prover.conclude(conn)
    if connect_owner is not None:
        with session(connect_owner) as conn:
            prover.check_views(conn)
    return prover.findings.proof(prover.tables, time.monotonic() - start)


class _Prover(BaselineProof):
    def __init__(self, conn: Connection, plan: Plan, sources: Sequence[int]) -> None:
        super().__init__(conn, plan, Findings(None))
        self.sources = sorted(sources)
        self.moves = {n: read_moves(conn, n) for n in self.sources}
        self.source_sizes = {n: table_sizes(conn, f"src_{n}") for n in self.sources}
        excepted = conn.execute("SELECT DISTINCT source, table_name FROM homolog.exception").fetchall()
        self.excepted: set[tuple[int, str]] = {(number, table) for number, table in excepted}
        # Rows inserted from sources, and rows that the scope added: the sources' proofs count them.
        self.inserted: dict[str, int] = dict(
            conn.execute(
                "SELECT table_name, sum(rows)::bigint FROM homolog.ledger"
                " WHERE disposition = 'inserted' AND source = ANY (%s) GROUP BY 1",
                [self.sources],
            ).fetchall()
        )
        for table, rows in conn.execute(
            "SELECT table_name, sum(rows)::bigint FROM homolog.added WHERE source = ANY (%s) GROUP BY 1", [self.sources]
        ):
            self.inserted[table] = self.inserted.get(table, 0) + rows
        self.ranges = {n: proof_crosswalk.Ranges() for n in self.sources}

    def tasks(self, conn: Connection) -> list[Callable[[Connection], None]]:
        proof_crosswalk.check_plan(self.plan, self.catalog, self.findings)
        weighed: list[tuple[int, Callable[[Connection], None]]] = [
            (size, partial(self._prove, table=table)) for size, table in self.filled(conn)
        ]
        for source in self.sources:
            for table in self.plan.merged():
                size = self.source_sizes[source].get(table.name)
                if size and len(self.sources) > 1:
                    weighed.append((size // 2, partial(self._measure, table=table, source=source)))
        weighed.sort(key=lambda pair: -pair[0])
        objects = partial(proof_large_objects.check_central, sources=self.sources, findings=self.findings)
        return [*(task for _, task in weighed), objects]

    def reference_tasks(self, conn: Connection) -> list[Callable[[Connection], None]]:
        """What looks at foreign keys, after the rows."""
        weighed = self.references(conn, lambda table: bool(self.inserted.get(table)))
        weighed.sort(key=lambda pair: -pair[0])
        return [task for _, task in weighed]

    def _measure(self, conn: Connection, *, table: TablePlan, source: int) -> None:
        self.ranges[source].measure(conn, self.plan, table, source)

    def conclude(self, conn: Connection) -> None:
        proof_crosswalk.check_sources(conn, self.plan, self.moves, self.ranges, self.findings)
        proof_sequences.check(conn, self.plan, self.catalog, self.findings)
        self.check_objects(conn)

    # Rows

    def _prove(self, conn: Connection, *, table: TablePlan) -> None:
        self.findings.compared(table.name, self.base_rows.get(table.name, 0))
        if not table.key:
            self._same_multiset(conn, table)
            return
        self.compare(conn, table)
        self._nothing_else(conn, table, [next(c for c in self.cells(table) if c.name == name) for name in table.key])

    def _nothing_else(self, conn: Connection, table: TablePlan, key: Sequence[Cell]) -> None:
        """As many merged rows as the baseline's and those inserted; if not, name those that nobody brought."""
        merged = sql.Identifier(self.plan.schema, table.name)
        row = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(merged)).fetchone()
        expected = self.base_rows.get(table.name, 0) + self.inserted.get(table.name, 0)
        if row is None or row[0] == expected:
            return
        known: list[sql.Composable] = [
            sql.SQL("SELECT {} FROM {} b").format(
                sql.SQL(", ").join([c.expected for c in key]), sql.Identifier("homolog_base", table.name)
            )
        ]
        for other in self._images(table):
            values = sql.SQL(", ").join([c.expected for c in other.key()])
            known.append(sql.SQL("SELECT {} FROM {} WHERE {}").format(values, other.rows, other.came))
        names = sql.SQL(", ").join([sql.Identifier(f"k{i}") for i in range(len(key))])
        same = sql.SQL(" AND ").join(
            [sql.SQL("k.{} = {}").format(sql.Identifier(f"k{i}"), c.found) for i, c in enumerate(key)]
        )
        known += self._added(conn, table)
        found = conn.execute(
            sql.SQL(
                "SELECT {shown}, count(*) OVER () FROM {merged} g LEFT JOIN"
                " (SELECT true AS known, u.* FROM ({known}) u ({names})) k ON {same}"
                " WHERE k.known IS NULL LIMIT {limit}"
            ).format(
                shown=shown_key({c.name: (c.found, c.type) for c in key}, self.secret),
                merged=merged,
                known=sql.SQL(" UNION ALL ").join(known),
                names=names,
                same=same,
                limit=sql.Literal(SHOWN),
            )
        ).fetchall()
        if found:
            self.findings.extend([Difference(Kind.INVENTED.value, table.name, k) for k, _ in found], found[0][1])
        else:
            # Fewer rows are named as lost by the proof of whoever lost them; the number is a difference of its own.
            kind = Kind.LEDGER if row[0] < expected else Kind.DOUBLED
            self.findings.add(
                kind, table.name, expected=f"{expected} rows", found=f"{row[0]} rows", reason="baseline + inserted"
            )

    def _added(self, conn: Connection, table: TablePlan) -> list[sql.Composable]:
        """The keys of the rows that the scope adds to this table, kept in a temporary table."""
        additions = [a for a in self.plan.additions if a.table == table.name]
        if not additions:
            return []
        with conn.transaction():
            conn.execute("SET TRANSACTION READ WRITE")
            conn.execute("DROP TABLE IF EXISTS pg_temp.homolog_added")
            begin = sql.SQL("CREATE TEMP TABLE homolog_added AS")
            for add, source in product(additions, self.sources):
                described = self.catalog.tables[table.name]
                rows = proof_scope.addition_image(self.plan, add, described, source, self.moves[source])
                keys = [sql.SQL("{} AS k{}").format(c.expected, sql.SQL(str(i))) for i, c in enumerate(rows.key())]
                proof_scope.added_in(conn, source)
                conn.execute(
                    sql.SQL("{} SELECT {} FROM {} WHERE {}").format(
                        begin, sql.SQL(", ").join(keys), rows.rows, proof_scope.brought(rows, add)
                    )
                )
                begin = sql.SQL("INSERT INTO pg_temp.homolog_added")
        return [sql.SQL("SELECT * FROM pg_temp.homolog_added")] if self.sources else []

    def _images(self, table: TablePlan) -> list[Image]:
        if table.action is Action.EXCLUDE:
            return []
        return [
            image(
                self.plan,
                table,
                self.catalog.tables[table.name],
                source,
                self.moves[source],
                excepted=(source, table.name) in self.excepted,
            )
            for source in self.sources
            if self.source_sizes[source].get(table.name)
        ]

    def _same_multiset(self, conn: Connection, table: TablePlan) -> None:
        """Rows without a key: the baseline's and all sources' together are the merged rows, each as many times."""
        cells = self.cells(table)
        expected: list[sql.Composable] = [
            sql.SQL("SELECT {} FROM {} b").format(
                content([c.expected for c in cells]), sql.Identifier("homolog_base", table.name)
            )
        ]
        for other in self._images(table):
            values = {c.name: c.expected for c in other.cells}
            mapped = content([values[c.name] for c in cells if c.name in values])
            expected.append(sql.SQL("SELECT {} FROM {} WHERE {}").format(mapped, other.rows, other.live))
        merged = sql.Identifier(self.plan.schema, table.name)
        found = sql.SQL("SELECT {} FROM {} g").format(content([c.found for c in cells]), merged)
        self.same_multiset(conn, table, expected, found)
