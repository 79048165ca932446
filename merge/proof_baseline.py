"""What both methods prove of the baseline: its rows, foreign keys and objects are in the merged database as they were.

Nothing here needs to know how the merge was made.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from psycopg import sql

from merge import catalog as catalogs
from merge import proof_objects
from merge.errors import ProofFailed
from merge.language import text
from merge.masking import masked, new_secret, shown_key
from merge.proof import SHOWN, Difference, Findings, Kind
from merge.proof_rows import TRUE, Cell, Comparison, found_rows
from merge.proof_session import table_sizes, unlike_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from merge.catalog import ForeignKey
    from merge.plan import Plan, TablePlan
    from merge.proof_session import Connection

_TOGETHER = 4
"""Foreign keys of one table that are checked in one scan: each needs the parent's keys in memory."""


class BaselineProof:
    """The proof of the baseline, in parts.

    :ivar base_rows: rows by table; `base_high` the greatest key of each table that has a key of one integer column.
    :ivar tables: tables that hold rows, here or in the baseline.
    """

    def __init__(self, conn: Connection, plan: Plan, findings: Findings) -> None:
        """Read the catalog and what was kept.

        :raises ProofFailed: if there is no baseline.
        """
        if conn.execute("SELECT to_regclass('homolog.base_done')").fetchone() == (None,):
            raise ProofFailed(
                text(pt="Não há cópia de referência do central.", en="There is no baseline of the central.")
            )
        self.plan = plan
        self.secret = new_secret()
        self.findings = findings
        self.catalog = catalogs.read(conn, plan.schema)
        self.base_rows: dict[str, int] = dict(
            conn.execute("SELECT table_name, rows FROM homolog.base_table").fetchall()
        )
        keys = {t.name: t.key[0] for t in plan if len(t.key) == 1}
        self.base_high = {
            table: int(high)
            for table, column, high in conn.execute("SELECT table_name, column_name, high FROM homolog.base_range")
            if keys.get(table) == column
        }
        self._unfilled_views = {
            name for (name,) in conn.execute("SELECT name FROM homolog.base_unfilled_view").fetchall()
        }
        self.tables = 0

    def filled(self, conn: Connection) -> list[tuple[int, TablePlan]]:
        """The tables that hold rows, with their bytes; those that are gone, or not what they were, are noted."""
        sizes, base_sizes = table_sizes(conn, self.plan.schema), table_sizes(conn, "homolog_base")
        unlike = unlike_tables(conn, self.plan.schema, "homolog_base")
        found = []
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
                found.append((sizes[table.name] + base_sizes[table.name], table))
        self.tables = len(found)
        return found

    def cells(self, table: TablePlan) -> list[Cell]:
        """All columns of a table: of the baseline's row ``b``, and of the merged row ``g``."""
        return [
            Cell(c.name, c.type, sql.Identifier("b", c.name), sql.Identifier("g", c.name))
            for c in self.catalog.tables[table.name].columns
        ]

    def compare(self, conn: Connection, table: TablePlan) -> int:
        """Every row of the baseline is there at its key, bit by bit the same. Return how many were found."""
        cells = self.cells(table)
        key = [next(c for c in cells if c.name == name) for name in table.key]
        merged = sql.Identifier(self.plan.schema, table.name)
        base = sql.Identifier("homolog_base", table.name)
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
        return pairs - lost

    def same_multiset(
        self, conn: Connection, table: TablePlan, expected: Sequence[sql.Composable], found_hashes: sql.Composable
    ) -> None:
        """Rows without a key: those expected, given as queries of hashes, are the merged rows, each as many times."""
        found = conn.execute(
            sql.SQL(
                "WITH e AS (SELECT hash, count(*) AS rows FROM ({}) x (hash) GROUP BY 1),"
                " g AS (SELECT hash, count(*) AS rows FROM ({}) x (hash) GROUP BY 1),"
                " d AS (SELECT coalesce(e.hash, g.hash) AS hash, coalesce(e.rows, 0) AS expected,"
                "              coalesce(g.rows, 0) AS found FROM e FULL JOIN g ON g.hash = e.hash"
                "        WHERE e.rows IS DISTINCT FROM g.rows)"
                " SELECT {}, expected, found, sum(abs(expected - found)) OVER (PARTITION BY expected > found) FROM d"
                " ORDER BY expected > found LIMIT {}"
            ).format(
                sql.SQL(" UNION ALL ").join(expected),
                found_hashes,
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

    def references(
        self, conn: Connection, inserted: Callable[[str], bool]
    ) -> list[tuple[int, Callable[[Connection], None]]]:
        """What looks at foreign keys, after the rows: it follows from them where nothing of the central was touched.

        :param inserted: whether rows were inserted into a table.
        """
        weighed: list[tuple[int, Callable[[Connection], None]]] = []
        sizes = table_sizes(conn, self.plan.schema)
        for table in self.plan:
            if sizes.get(table.name):
                new = inserted(table.name)
                keys = [k for k in self.catalog.tables[table.name].foreign_keys if self._may_dangle(k, new)]
                for first in range(0, len(keys), _TOGETHER):
                    task = partial(self._references, table=table, keys=keys[first : first + _TOGETHER])
                    weighed.append((sizes[table.name], task))
        return weighed

    def _may_dangle(self, key: ForeignKey, inserted: bool) -> bool:
        """False if all rows are the central's and untouched: PostgreSQL checked the key when it was restored."""
        return self.findings.central_touched or not key.validated or inserted

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

    def check_objects(self, conn: Connection) -> None:
        """Every object of the central is what it was, and there is no other."""
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
        """Every materialised view is what its query gives now; one that was not filled may be as it was."""
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
                if name in self._unfilled_views:
                    continue
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
