"""The proof of the central: everything that was in it is still there, unchanged, and nothing came but from a source."""

from __future__ import annotations

import time
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

from psycopg import sql

from merge import catalog as catalogs
from merge import proof_crosswalk, proof_large_objects, proof_objects, proof_scope, proof_sequences
from merge.errors import ProofFailed
from merge.language import text
from merge.masking import masked, new_secret, shown_key
from merge.plan import Action
from merge.proof import SHOWN, Difference, Findings, Kind
from merge.proof_rows import TRUE, Cell, Comparison, content, found_rows, image, read_moves
from merge.proof_session import run_all, session, table_sizes, unlike_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from merge.catalog import ForeignKey
    from merge.plan import Plan, TablePlan
    from merge.proof import Proof
    from merge.proof_rows import Image
    from merge.proof_session import Connection

_TOGETHER = 4
"""Foreign keys of one table that are checked in one scan: each needs the parent's keys in memory."""


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
        tasks = prover.references(conn)
    run_all(connect, tasks, jobs, on_progress)
    with session(connect) as conn:
        prover.conclude(conn)
    if connect_owner is not None:
        with session(connect_owner) as conn:
            prover.check_views(conn)
    return prover.findings.proof(prover.tables, time.monotonic() - start)


class _Prover:
    def __init__(self, conn: Connection, plan: Plan, sources: Sequence[int]) -> None:
        if conn.execute("SELECT to_regclass('homolog.base_done')").fetchone() == (None,):
            raise ProofFailed(
                text(pt="Não há cópia de referência do central.", en="There is no baseline of the central.")
            )
        self.plan = plan
        self.sources = sorted(sources)
        self.secret = new_secret()
        self.findings = Findings(None)
        self.catalog = catalogs.read(conn, plan.schema)
        self.moves = {n: read_moves(conn, n) for n in self.sources}
        self.source_sizes = {n: table_sizes(conn, f"src_{n}") for n in self.sources}
        excepted = conn.execute("SELECT DISTINCT source, table_name FROM homolog.exception").fetchall()
        self.excepted: set[tuple[int, str]] = {(number, table) for number, table in excepted}
        self.base_rows: dict[str, int] = dict(
            conn.execute("SELECT table_name, rows FROM homolog.base_table").fetchall()
        )
        keys = {t.name: t.key[0] for t in plan if len(t.key) == 1}
        self.base_high = {
            table: int(high)
            for table, column, high in conn.execute("SELECT table_name, column_name, high FROM homolog.base_range")
            if keys.get(table) == column
        }
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
        self.tables = 0

    def tasks(self, conn: Connection) -> list[Callable[[Connection], None]]:
        proof_crosswalk.check_plan(self.plan, self.catalog, self.findings)
        sizes, base_sizes = table_sizes(conn, self.plan.schema), table_sizes(conn, "homolog_base")
        weighed: list[tuple[int, Callable[[Connection], None]]] = []
        unlike = unlike_tables(conn, self.plan.schema, "homolog_base")
        for table in self.plan:
            if table.name in unlike:
                self.findings.touched()
                self.findings.add(Kind.OBJECT, table.name, reason="has not the columns that it had")
            elif table.name not in sizes:
                self.findings.touched()
                self.findings.add(Kind.LOST, table.name, reason="the table is gone")
            elif table.name not in base_sizes:
                self.findings.add(Kind.LOST, table.name, reason="the table's copy in the baseline is gone")
            elif sizes[table.name] or base_sizes[table.name]:
                self.tables += 1
                weighed.append((sizes[table.name] + base_sizes[table.name], partial(self._prove, table=table)))
        for source in self.sources:
            for table in self.plan.merged():
                size = self.source_sizes[source].get(table.name)
                if size and len(self.sources) > 1:
                    weighed.append((size // 2, partial(self._measure, table=table, source=source)))
        weighed.sort(key=lambda pair: -pair[0])
        objects = partial(proof_large_objects.check_central, sources=self.sources, findings=self.findings)
        return [*(task for _, task in weighed), objects]

    def references(self, conn: Connection) -> list[Callable[[Connection], None]]:
        """What looks at foreign keys, after the rows: it follows from them where nothing of the central was touched."""
        weighed = []
        sizes = table_sizes(conn, self.plan.schema)
        for table in self.plan:
            if sizes.get(table.name):
                keys = [k for k in self.catalog.tables[table.name].foreign_keys if self._may_dangle(table, k)]
                for first in range(0, len(keys), _TOGETHER):
                    task = partial(self._references, table=table, keys=keys[first : first + _TOGETHER])
                    weighed.append((sizes[table.name], task))
        weighed.sort(key=lambda pair: -pair[0])
        return [task for _, task in weighed]

    def _measure(self, conn: Connection, *, table: TablePlan, source: int) -> None:
        self.ranges[source].measure(conn, self.plan, table, source)

    def conclude(self, conn: Connection) -> None:
        proof_crosswalk.check_sources(conn, self.plan, self.moves, self.ranges, self.findings)
        proof_sequences.check(conn, self.plan, self.catalog, self.findings)
        self._check_objects(conn)

    # Rows

    def _prove(self, conn: Connection, *, table: TablePlan) -> None:
        merged = sql.Identifier(self.plan.schema, table.name)
        base = sql.Identifier("homolog_base", table.name)
        described = self.catalog.tables[table.name]
        cells = [
            Cell(c.name, c.type, sql.Identifier("b", c.name), sql.Identifier("g", c.name)) for c in described.columns
        ]
        self.findings.compared(table.name, self.base_rows.get(table.name, 0))
        if not table.key:
            self._same_multiset(conn, table, cells)
            return
        key = [next(c for c in cells if c.name == name) for name in table.key]
        rows = sql.SQL("{} b{}").format(base, found_rows(merged, key, lookup=False))
        comparison = Comparison(table.name, rows, TRUE, key, cells, None, self.secret)
        pairs, lost, changed = comparison.count(conn)
        if lost or changed:
            self.findings.touched()
        if lost:
            self.findings.extend(comparison.lost(conn), lost)
        if changed:
            for number, examples in comparison.changed(conn):
                self.findings.extend(examples, number)
        base_rows = self.base_rows.get(table.name, 0)
        if pairs > base_rows:
            self.findings.touched()
            self.findings.add(Kind.DOUBLED, table.name, expected=f"{base_rows} rows", found=f"{pairs} rows")
        self._nothing_else(conn, table, key)

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

    def _same_multiset(self, conn: Connection, table: TablePlan, cells: Sequence[Cell]) -> None:
        """Rows without a key: the baseline's and all sources' together are the merged rows, each as many times."""
        expected = [
            sql.SQL("SELECT {} AS hash FROM {} b").format(
                content([c.expected for c in cells]), sql.Identifier("homolog_base", table.name)
            )
        ]
        for other in self._images(table):
            values = {c.name: c.expected for c in other.cells}
            mapped = content([values[c.name] for c in cells if c.name in values])
            expected.append(sql.SQL("SELECT {} FROM {} WHERE {}").format(mapped, other.rows, other.live))
        found = conn.execute(
            sql.SQL(
                "WITH e AS (SELECT hash, count(*) AS rows FROM ({}) x GROUP BY 1),"
                " g AS (SELECT {} AS hash, count(*) AS rows FROM {} g GROUP BY 1),"
                " d AS (SELECT coalesce(e.hash, g.hash) AS hash, coalesce(e.rows, 0) AS expected,"
                "              coalesce(g.rows, 0) AS found FROM e FULL JOIN g ON g.hash = e.hash"
                "        WHERE e.rows IS DISTINCT FROM g.rows)"
                " SELECT {}, expected, found, sum(abs(expected - found)) OVER (PARTITION BY expected > found) FROM d"
                " ORDER BY expected > found LIMIT {}"
            ).format(
                sql.SQL(" UNION ALL ").join(expected),
                content([c.found for c in cells]),
                sql.Identifier(self.plan.schema, table.name),
                masked(sql.SQL("hash"), "row", self.secret),
                sql.Literal(2 * SHOWN),
            )
        ).fetchall()
        if found:
            self.findings.touched()
        for kind, fewer in ((Kind.LOST, True), (Kind.INVENTED, False)):
            part = [row for row in found if (row[1] > row[2]) is fewer]
            if part:
                examples = [
                    Difference(kind.value, table.name, expected=f"{hashed} × {must}", found=f"× {has}")
                    for hashed, must, has, _ in part
                ]
                self.findings.extend(examples, int(part[0][3]))

    # References

    def _may_dangle(self, table: TablePlan, key: ForeignKey) -> bool:
        """False if all rows are the central's and untouched: PostgreSQL checked the key when it was restored."""
        return self.findings.central_touched or not key.validated or bool(self.inserted.get(table.name))

    def _new_rows(self, table: TablePlan, keys: Sequence[ForeignKey]) -> sql.Composable:
        """The condition that a row came from a source, if its key tells; true where the baseline may break a key."""
        high = self.base_high.get(table.name)
        doubtful = self.findings.central_touched or not all(key.validated for key in keys)
        if high is None or doubtful or self.plan.own_domain(table) is None:
            return TRUE
        return sql.SQL("g.{} > {}").format(sql.Identifier(table.key[0]), sql.Literal(high))

    def _references(self, conn: Connection, *, table: TablePlan, keys: Sequence[ForeignKey]) -> None:
        """Every reference names a row; but for those that named none in the baseline."""
        child = sql.Identifier(self.plan.schema, table.name)
        joins, counts = [], []
        for position, key in enumerate(keys):
            parent, condition = self._orphan(key, sql.Identifier(f"p{position}"))
            joins.append(parent)
            counts.append(sql.SQL("count(*) FILTER (WHERE {})").format(condition))
        row = conn.execute(
            sql.SQL("SELECT {} FROM {} g{} WHERE {}").format(
                sql.SQL(", ").join(counts), child, sql.Composed(joins), self._new_rows(table, keys)
            )
        ).fetchone()
        assert row is not None
        for number, key in zip(row, keys, strict=True):
            if number:
                self._orphans(conn, table, key, number)

    def _orphan(self, key: ForeignKey, alias: sql.Identifier) -> tuple[sql.Composed, sql.Composed]:
        """The join to the parent, and the condition that it is missing."""
        pairs = [(sql.Identifier("g", c), sql.Identifier(r)) for c, r in zip(key.columns, key.ref_columns, strict=True)]
        same = sql.SQL(" AND ").join([sql.SQL("{}.{} = {}").format(alias, ref, column) for column, ref in pairs])
        filled = sql.SQL(" AND ").join([sql.SQL("{} IS NOT NULL").format(column) for column, _ in pairs])
        parent = sql.Identifier(self.plan.schema, key.ref_table)
        join = sql.SQL(" LEFT JOIN {} {} ON {}").format(parent, alias, same)
        return join, sql.SQL("{} AND {}.{} IS NULL").format(filled, alias, pairs[0][1])

    def _orphans(self, conn: Connection, table: TablePlan, foreign: ForeignKey, number: int) -> None:
        described = self.catalog.tables[table.name]
        types = {c.name: c.type for c in described.columns}
        names = [*table.key, *(c for c in foreign.columns if c not in table.key)]
        join, condition = self._orphan(foreign, sql.Identifier("p"))
        before = sql.SQL(" AND ").join([sql.SQL("b.{0} = g.{0}").format(sql.Identifier(name)) for name in names])
        pairs = zip(foreign.columns, foreign.ref_columns, strict=True)
        same = sql.SQL(" AND ").join(
            [sql.SQL("q.{} = b.{}").format(sql.Identifier(r), sql.Identifier(c)) for c, r in pairs]
        )
        new = sql.SQL(
            "FROM {child} g{join} WHERE {condition} AND NOT EXISTS (SELECT 1 FROM {base} b"
            " LEFT JOIN {base_parent} q ON {same} WHERE {before} AND q.{ref} IS NULL)"
        ).format(
            child=sql.Identifier(self.plan.schema, table.name),
            join=join,
            condition=condition,
            base=sql.Identifier("homolog_base", table.name),
            base_parent=sql.Identifier("homolog_base", foreign.ref_table),
            same=same,
            before=before,
            ref=sql.Identifier(foreign.ref_columns[0]),
        )
        row = conn.execute(sql.SQL("SELECT count(*) {}").format(new)).fetchone()
        fresh = row[0] if row is not None else 0
        if number > fresh:
            self.findings.know(f"{table.name}.{foreign.name}", number - fresh)
        if fresh:
            shown = shown_key({n: (sql.Identifier("g", n), types[n]) for n in names}, self.secret)
            keys = conn.execute(sql.SQL("SELECT {} {} LIMIT {}").format(shown, new, sql.Literal(SHOWN))).fetchall()
            examples = [
                Difference(
                    Kind.REFERENCE.value,
                    table.name,
                    k,
                    ", ".join(foreign.columns),
                    expected=f"a row of {foreign.ref_table}",
                    found="none",
                    reason=foreign.name,
                )
                for (k,) in keys
            ]
            self.findings.extend(examples, fresh)

    # Objects

    def _check_objects(self, conn: Connection) -> None:
        found = conn.execute(
            sql.SQL(
                "SELECT coalesce(b.kind, o.kind), coalesce(b.name, o.name), coalesce(b.table_name, o.table_name),"
                " b.kind IS NULL, o.kind IS NULL FROM homolog.base_object b"
                " FULL JOIN ({}) o (kind, name, table_name, digest) ON o.kind = b.kind AND o.name = b.name"
                " WHERE o.digest IS DISTINCT FROM b.digest ORDER BY 1, 2"
            ).format(proof_objects.definitions(conn.info.server_version))
        ).fetchall()
        if found:
            self.findings.touched()
        for kind, name, table, added, gone in found:
            self.findings.add(
                Kind.OBJECT,
                table,
                key=f"{kind} {name}",
                reason="new" if added else "gone" if gone else "its definition is not what it was",
            )

    def check_views(self, conn: Connection) -> None:
        """Every materialised view is filled and is what its query gives now."""
        # Unlike the proof's own queries, those of a view are meant to see the schema of the application.
        conn.execute("SELECT set_config('search_path', quote_ident(%s), false)", [self.plan.schema])
        states: dict[str, bool] = dict(
            conn.execute(
                "SELECT relname, relispopulated FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE relkind = 'm' AND n.nspname = %s",
                [self.plan.schema],
            ).fetchall()
        )
        for name in sorted(self.catalog.matviews):
            if not states.get(name):
                self.findings.add(Kind.VIEW, name, reason="not filled")
                continue
            row = conn.execute(
                sql.SQL(
                    "SELECT count(*) FROM (SELECT hash, sum(side) FROM ("
                    "SELECT md5(x::text) AS hash, 1 AS side FROM ({}) x UNION ALL SELECT md5(x::text), -1 FROM {} x"
                    ") both_sides GROUP BY hash HAVING sum(side) <> 0) different"
                ).format(
                    sql.Composed([sql.SQL(self.catalog.matviews[name].strip().rstrip(";"))]),
                    sql.Identifier(self.plan.schema, name),
                )
            ).fetchone()
            if row is not None and row[0]:
                self.findings.add(Kind.VIEW, name, found=f"{row[0]} rows", reason="not what its query gives now")
