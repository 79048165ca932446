"""The proof of one source: every row of it is in the merged database, bit by bit, or the ledger says why not."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from psycopg import sql

from merge import catalog as catalogs
from merge import proof_crosswalk, proof_large_objects, proof_scope
from merge.masking import masked, new_secret
from merge.plan import CENTRAL_OWNS, Action, Disposition
from merge.proof import SHOWN, Difference, Findings, Kind
from merge.proof_rows import NEVER, TRUE, Comparison, Move, content, found_rows, image, read_moves, same_key
from merge.proof_session import run_all, session, table_sizes, unlike_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from merge.plan import Plan, TablePlan
    from merge.proof import Proof
    from merge.proof_rows import Cell, Image
    from merge.proof_session import Connection

_CHEAP_LOOKUP = 6
"""Looking a row up by index costs about as much as reading so many rows one after the other."""


def prove_source(
    connect: Callable[[], Connection],
    plan: Plan,
    source: int,
    jobs: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> Proof:
    """Prove one merged source. Its cost grows with the source, not with the central.

    :param connect: opens a connection to the merged database, of a role that reads all there; it only reads.
    :param on_progress: called with tables done and tables in all.
    """
    start = time.monotonic()
    with session(connect) as conn:
        prover = _Prover(conn, plan, source)
        tasks = prover.prepare(conn)
    run_all(connect, tasks, jobs, on_progress)
    with session(connect) as conn:
        prover.conclude(conn)
    return prover.findings.proof(len(tasks), time.monotonic() - start)


class _Prover:
    def __init__(self, conn: Connection, plan: Plan, source: int) -> None:
        self.plan = plan
        self.source = source
        self.secret = new_secret()
        self.findings = Findings(source)
        self.catalog = catalogs.read(conn, plan.schema)
        sources = conn.execute("SELECT source FROM homolog.source WHERE source < %s ORDER BY 1", [source]).fetchall()
        self.earlier: list[int] = [number for (number,) in sources]
        self.moves: dict[int, dict[str, Move]] = {n: read_moves(conn, n) for n in [*self.earlier, source]}
        self.sizes = {n: table_sizes(conn, f"src_{n}") for n in [*self.earlier, source]}
        self.merged_sizes = table_sizes(conn, plan.schema)
        excepted = conn.execute("SELECT DISTINCT source, table_name FROM homolog.exception").fetchall()
        self.excepted: set[tuple[int, str]] = {(number, table) for number, table in excepted}
        self.ranges = proof_crosswalk.Ranges()
        self.counts: dict[str, Counter[str]] = {}

    def prepare(self, conn: Connection) -> list[Callable[[Connection], None]]:
        proof_crosswalk.check_plan(self.plan, self.catalog, self.findings)
        proof_scope.check_follows(self.plan, self.catalog, self.findings)
        sizes = self.sizes[self.source]
        unlike = unlike_tables(conn, self.plan.schema, f"src_{self.source}")
        for name in sorted(unlike):
            self.findings.add(Kind.OBJECT, name, reason="has not the columns that the source's rows have")
        for table in self.plan:
            if table.name not in sizes:
                self.findings.add(Kind.LOST, table.name, reason="the source's copy of this table is gone")
        filled = sorted(
            (t for t in self.plan if sizes.get(t.name) and t.name not in unlike), key=lambda t: -sizes[t.name]
        )
        maps = partial(
            proof_crosswalk.check_maps,
            plan=self.plan,
            source=self.source,
            moves=self.moves[self.source],
            findings=self.findings,
        )
        objects = partial(proof_large_objects.check_source, source=self.source, findings=self.findings)
        left_out = partial(
            proof_scope.check_left_out,
            plan=self.plan,
            catalog=self.catalog,
            source=self.source,
            filled=sizes,
            secret=self.secret,
            findings=self.findings,
        )
        additions = [
            partial(
                proof_scope.check_addition,
                plan=self.plan,
                add=add,
                described=self.catalog.tables[add.table],
                source=self.source,
                moves=self.moves[self.source],
                secret=self.secret,
                findings=self.findings,
            )
            for add in self.plan.additions
            if add.table in self.catalog.tables
        ]
        return [*(partial(self._prove, table=t) for t in filled), maps, objects, left_out, *additions]

    def conclude(self, conn: Connection) -> None:
        proof_crosswalk.check_ranges(conn, self.plan, self.source, self.moves[self.source], self.ranges, self.findings)
        self._check_ledger(conn)

    def _image(self, table: TablePlan, source: int) -> Image:
        return image(
            self.plan,
            table,
            self.catalog.tables[table.name],
            source,
            self.moves[source],
            excepted=(source, table.name) in self.excepted,
        )

    def _prove(self, conn: Connection, *, table: TablePlan) -> None:
        if table.name not in self.catalog.tables:
            return
        if table.action is Action.EXCLUDE:
            relation = sql.Identifier(f"src_{self.source}", table.name)
            rows = _number(conn, sql.SQL("SELECT count(*) FROM {}").format(relation))
            self.counts[table.name] = Counter({Disposition.EXCLUDED.value: rows})
            return
        rows = self.ranges.measure(conn, self.plan, table, self.source)
        if not rows:
            return
        self.findings.compared(table.name, rows)
        rows_image = self._image(table, self.source)
        counts = self._exceptions(conn, rows_image)
        live = rows - counts.total()
        if not table.key:
            self._contains(conn, rows_image)
            matched = 0
        elif (own := self._own_move(table)) is not None:
            matched = self._compare_own(conn, rows_image, own, rows)
        elif rows_image.surely_new:
            (key, *_) = [c for c in rows_image.key() if rows_image.moving.get(c.name) == NEVER]
            self._compare(conn, rows_image, rows_image.live, within=self._within(table, key))
            matched = 0
        else:
            self._compare(conn, rows_image, rows_image.live, lookup=self._few(table, rows, rows))
            matched = self._already_there(conn, rows_image)
        counts[Disposition.MATCHED.value] = matched
        counts[Disposition.INSERTED.value] = live - matched
        self.counts[table.name] = counts
        if table.central_owns:
            self._check_owned(conn, rows_image, table.central_owns)
        if counts[Disposition.RECONCILED.value]:
            self._reconciled(conn, rows_image, self._few(table, counts[Disposition.RECONCILED.value], rows))

    def _own_move(self, table: TablePlan) -> Move | None:
        domain = self.plan.own_domain(table)
        move = self.moves[self.source].get(domain.name) if domain is not None else None
        return move if move is not None and move.offset else None

    def _within(self, table: TablePlan, key: Cell) -> sql.Composed:
        """The condition that a merged row's key is in the range to which the source's keys moved."""
        low, high = self.ranges.ends(table.name, key.name)
        domain = table.column(key.name).domain
        offset = self.moves[self.source][domain].offset if domain is not None else 0
        return sql.SQL("{} BETWEEN {} AND {}").format(key.found, sql.Literal(low + offset), sql.Literal(high + offset))

    def _few(self, table: TablePlan, wanted: int, rows: int) -> bool:
        """True if so many of the source's rows are better looked up one by one in the merged table."""
        indexes = self.catalog.tables[table.name].uniques
        if not any(i.plain and set(i.columns) == set(table.key) for i in indexes):
            return False
        share = self.merged_sizes.get(table.name, 0) / max(self.sizes[self.source][table.name], 1)
        return wanted * _CHEAP_LOOKUP < rows * share

    def _compare_own(self, conn: Connection, rows_image: Image, move: Move, rows: int) -> int:
        """Compare rows whose key moves by an offset, or was matched. Return how many were matched.

        The moved keys are together, beyond all others: only that range of the merged table's index is read, and it
        must hold nothing else.
        """
        table, (key,) = rows_image.table, rows_image.key()
        unmatched = sql.SQL("NOT ({})").format(rows_image.moving[key.name])
        within = self._within(table, key)
        where = sql.SQL("{} AND {}").format(rows_image.live, unmatched)
        found = self._compare(conn, rows_image, where, within=within, cells=rows_image.inserted())
        merged = sql.Identifier(self.plan.schema, table.name)
        extra = _number(conn, sql.SQL("SELECT count(*) FROM {} g WHERE {}").format(merged, within)) - found
        if extra > 0:
            keys = conn.execute(
                sql.SQL(
                    "SELECT g.key::text FROM (SELECT {found} AS key FROM {merged} g WHERE {within}) g"
                    " LEFT JOIN (SELECT {expected} AS key FROM {rows} WHERE {where}) s ON s.key = g.key"
                    " WHERE s.key IS NULL LIMIT {limit}"
                ).format(
                    found=key.found,
                    merged=merged,
                    within=within,
                    expected=key.expected,
                    rows=rows_image.rows,
                    where=where,
                    limit=sql.Literal(SHOWN),
                )
            ).fetchall()
            self._note(
                extra,
                [Difference(Kind.INVENTED.value, table.name, f"{key.name}={k}", None, self.source) for (k,) in keys],
            )
        if move.map is None:
            return 0
        matched = _number(
            conn,
            sql.SQL("SELECT count(*) FROM {} WHERE {} AND {}").format(
                rows_image.rows, rows_image.live, rows_image.moving[key.name]
            ),
        )
        if matched:
            where = sql.SQL("{} AND {}").format(rows_image.live, rows_image.moving[key.name])
            self._compare(conn, rows_image, where, lookup=self._few(table, matched, rows))
        return matched

    def _compare(
        self,
        conn: Connection,
        rows_image: Image,
        where: sql.Composable,
        *,
        lookup: bool = False,
        within: sql.Composable = TRUE,
        cells: Sequence[Cell] | None = None,
    ) -> int:
        """Compare the rows with those at their mapped keys. Return how many rows were found."""
        table = rows_image.table
        merged = sql.Identifier(self.plan.schema, table.name)
        joined = found_rows(merged, rows_image.key(), lookup=lookup, within=within)
        comparison = Comparison(
            table.name,
            sql.SQL("{}{}").format(rows_image.rows, joined),
            where,
            rows_image.key(),
            rows_image.cells if cells is None else cells,
            self.source,
            self.secret,
        )
        pairs, lost, changed = comparison.count(conn)
        if lost:
            self._note(lost, comparison.lost(conn))
        if changed:
            for number, examples in comparison.changed(conn):
                self._note(number, examples)
        return pairs - lost

    def _note(self, count: int, examples: list[Difference]) -> None:
        if examples:
            self.findings.extend(examples, count)

    def _exceptions(self, conn: Connection, rows_image: Image) -> Counter[str]:
        """Rows of the source that are exceptions, by disposition; an exception must name one row, and once."""
        if not rows_image.excepted:
            return Counter()
        found = conn.execute(
            sql.SQL(
                "SELECT e.disposition, count(s.ctid), count(*), count(DISTINCT e.src_row)"
                " FROM {} e LEFT JOIN {} s ON s.ctid = e.src_row GROUP BY 1"
            ).format(rows_image.exceptions, rows_image.relation)
        ).fetchall()
        known = {d.value for d in Disposition} - {Disposition.INSERTED.value, Disposition.MATCHED.value}
        for disposition, rows, lines, distinct in found:
            if rows != lines or distinct != lines or disposition not in known:
                self.findings.add(
                    Kind.LEDGER,
                    rows_image.table.name,
                    expected=f"{distinct} {disposition}",
                    found=f"{lines} {disposition}",
                    reason="an exception names no row, names one twice, or is of no known disposition",
                )
        return Counter({disposition: rows for disposition, rows, _, _ in found})

    def _already_there(self, conn: Connection, rows_image: Image) -> int:
        """How many of the source's rows have a key that the central or an earlier source had."""
        where = sql.SQL("{} AND {} AND (b.there IS NOT NULL OR p.there IS NOT NULL)").format(
            rows_image.live, rows_image.known
        )
        return _number(
            conn, sql.SQL("SELECT count(*) FROM {}{} WHERE {}").format(rows_image.rows, self._there(rows_image), where)
        )

    def _check_owned(self, conn: Connection, rows_image: Image, owner: str) -> None:
        """Exactly those new rows are excluded as the central's whose owner was there before."""
        table, key = rows_image.table, rows_image.key()
        joins: sql.Composable = sql.SQL("")
        new: sql.Composable = TRUE
        if self._own_move(table) is not None:
            new = sql.SQL("NOT ({})").format(rows_image.moving[key[0].name])
        elif key and not rows_image.surely_new:
            joins = self._there(rows_image)
            new = sql.SQL("NOT ({} AND (b.there IS NOT NULL OR p.there IS NOT NULL))").format(rows_image.known)
        owned = sql.SQL("({} AND {})").format(new, rows_image.matched.get(owner, NEVER))
        claimed = (
            sql.SQL("e.disposition = 'excluded' AND e.reason = {}").format(sql.Literal(CENTRAL_OWNS))
            if rows_image.excepted
            else NEVER
        )
        for condition, reason in (
            (sql.SQL("{} AND NOT {}").format(claimed, owned), "excluded, but the central does not own it"),
            (sql.SQL("{} AND {}").format(rows_image.live, owned), "the central owns it, but it is not excluded"),
        ):
            wrong = _number(
                conn, sql.SQL("SELECT count(*) FROM {}{} WHERE {}").format(rows_image.rows, joins, condition)
            )
            if wrong:
                found = Difference(Kind.LEDGER.value, table.name, source=self.source, found=f"{wrong} rows")
                self._note(wrong, [replace(found, column=owner, reason=reason)])

    def _there(self, rows_image: Image) -> sql.Composed:
        """Joins to the baseline as ``b`` and to earlier sources' rows as ``p``; ``there`` is not null if found."""
        table, key = rows_image.table, rows_image.key()
        names = sql.SQL(", ").join([sql.Identifier(c.name) for c in key])
        brought: list[sql.Composable] = [
            sql.SQL("SELECT {} FROM {} WHERE false").format(names, sql.Identifier("homolog_base", table.name))
        ]
        for source in self.earlier:
            if self.sizes[source].get(table.name):
                other = self._image(table, source)
                values = sql.SQL(", ").join([c.expected for c in other.key()])
                brought.append(sql.SQL("SELECT {} FROM {} WHERE {}").format(values, other.rows, other.came))
        base = sql.Identifier("homolog_base", table.name)
        if self._few(table, 1, 1) and self.plan.own_domain(table) is None:  # then it has an index
            found = sql.SQL(" LEFT JOIN LATERAL (SELECT true AS there FROM {} g WHERE {} OFFSET 0) b ON true").format(
                base, same_key(key)
            )
        else:
            found = sql.SQL(" LEFT JOIN (SELECT true AS there, {} FROM {}) b ON {}").format(
                names, base, _same_names("b", key)
            )
        return sql.SQL("{} LEFT JOIN (SELECT DISTINCT true AS there, x.* FROM ({}) x) p ON {}").format(
            found, sql.SQL(" UNION ALL ").join(brought), _same_names("p", key)
        )

    def _reconciled(self, conn: Connection, rows_image: Image, lookup: bool) -> None:
        """A reconciled row has a counterpart that was there before, and differs from it in the declared columns only.

        That the merged row has the central's values in those columns is part of the central's proof.
        """
        table, key = rows_image.table, rows_image.key()
        if not key:
            self.findings.add(Kind.LEDGER, table.name, reason="a row without a key cannot be reconciled")
            return
        own = self._own_move(table)
        there = sql.SQL("") if own is not None else self._there(rows_image)
        before = (
            rows_image.moving[key[0].name]
            if own is not None
            else sql.SQL("{} AND (b.there IS NOT NULL OR p.there IS NOT NULL)").format(rows_image.known)
        )
        merged = sql.Identifier(self.plan.schema, table.name)
        where = sql.SQL("e.disposition = 'reconciled'")
        comparison = Comparison(
            table.name,
            sql.SQL("{}{}{}").format(rows_image.rows, found_rows(merged, key, lookup=lookup), there),
            where,
            key,
            rows_image.cells,
            self.source,
            self.secret,
        )
        names = [cell.name for cell in rows_image.cells]
        row = conn.execute(
            sql.SQL(
                "SELECT count(*) FILTER (WHERE {absent}), count(*) FILTER (WHERE NOT ({before})),"
                " count(*) FILTER (WHERE columns IS NULL OR NOT columns <@ {names}::text[]) FROM {rows} WHERE {where}"
            ).format(
                absent=comparison.absent,
                before=before,
                names=sql.Literal(names),
                rows=comparison.rows,
                where=where,
            )
        ).fetchone()
        assert row is not None
        lost, fresh, strange = row
        if lost:
            self._note(lost, comparison.lost(conn))
        for number, reason in (
            (fresh, "reconciled, but neither the central nor an earlier source had this row"),
            (strange, "reconciled in columns that the table does not have"),
        ):
            if number:
                self.findings.extend(
                    [
                        Difference(
                            Kind.LEDGER.value, table.name, source=self.source, found=f"{number} rows", reason=reason
                        )
                    ],
                    number,
                )
        declared = [(c, sql.SQL("{} = ANY (columns)").format(sql.Literal(c.name))) for c in rows_image.cells]
        present = sql.SQL("NOT {}").format(comparison.absent)
        undeclared = [(c, sql.SQL("{} AND {} AND NOT {}").format(present, c.differs, d)) for c, d in declared]
        idle = [(c, sql.SQL("{} AND NOT ({}) AND {}").format(present, c.differs, d)) for c, d in declared]
        for number, examples in [
            *comparison.by_column(conn, Kind.CHANGED, undeclared, "not among the columns declared as reconciled"),
            *comparison.by_column(conn, Kind.LEDGER, idle, "declared as reconciled, but it is the same"),
        ]:
            self._note(number, examples)

    def _contains(self, conn: Connection, rows_image: Image) -> None:
        """Rows without a key: the merged table holds each at least as many times as the source."""
        table = rows_image.table.name
        expected = content([c.expected for c in rows_image.cells])
        found = content([c.found for c in rows_image.cells])
        missing = conn.execute(
            sql.SQL(
                "WITH missing AS (SELECT s.hash, s.rows - coalesce(g.rows, 0) AS rows"
                " FROM (SELECT {} AS hash, count(*) AS rows FROM {} WHERE {} GROUP BY 1) s"
                " LEFT JOIN (SELECT {} AS hash, count(*) AS rows FROM {} g GROUP BY 1) g ON g.hash = s.hash"
                " WHERE s.rows > coalesce(g.rows, 0))"
                " SELECT {}, rows, (SELECT sum(rows) FROM missing) FROM missing LIMIT {}"
            ).format(
                expected,
                rows_image.rows,
                rows_image.live,
                found,
                sql.Identifier(self.plan.schema, table),
                masked(sql.SQL("hash"), "row", self.secret),
                sql.Literal(SHOWN),
            )
        ).fetchall()
        examples = [
            Difference(Kind.LOST.value, table, "", None, self.source, f"{key} × {rows}", "none")
            for key, rows, _ in missing
        ]
        self._note(int(missing[0][2]) if missing else 0, examples)

    def _check_ledger(self, conn: Connection) -> None:
        declared: dict[str, Counter[str]] = {}
        for table, disposition, rows in conn.execute(
            "SELECT table_name, disposition, sum(rows)::bigint FROM homolog.ledger WHERE source = %s GROUP BY 1, 2",
            [self.source],
        ):
            declared.setdefault(table, Counter())[disposition] = rows
        for table in sorted(declared.keys() | self.counts.keys()):
            counted, written = self.counts.get(table, Counter()), declared.get(table, Counter())
            for disposition in sorted(counted.keys() | written.keys()):
                if counted[disposition] != written[disposition]:
                    self.findings.add(
                        Kind.LEDGER,
                        table,
                        key=disposition,
                        expected=f"{counted[disposition]} rows",
                        found=f"{written[disposition]} rows",
                    )
        strange = {name for _, name in self.excepted if _ == self.source} - {t.name for t in self.plan.merged()}
        for table in sorted(strange):
            self.findings.add(Kind.LEDGER, table, reason="exceptions for a table whose rows do not come")


def _same_names(alias: str, key: Sequence[Cell]) -> sql.Composed:
    return sql.SQL(" AND ").join([sql.SQL("{} = {}").format(sql.Identifier(alias, c.name), c.expected) for c in key])


def _number(conn: Connection, query: sql.Composed) -> int:
    row = conn.execute(query).fetchone()
    return int(row[0]) if row is not None else 0
