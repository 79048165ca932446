"""Finds out which merged row is which expected one, by what they hold; so keys of the two sides become known as equal.

Rows are proposed as the same where one expected row and one merged row alone have the same color. A proposal proves
nothing: that the rows are the same, bit by bit, is compared in the end. Tables come after those that they refer to.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from psycopg import sql

from merge.proof_content_rows import EXPECTED, FOUND, SOURCE, Segment, color, value_of
from merge.proof_rows import TRUE
from merge.proof_session import run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from merge.plan import Domain, TablePlan
    from merge.proof_content_rows import Expected
    from merge.proof_session import Connection

_ALIKE = 300
"""Rows of one table, of either side, that are compared each with each to find which was changed into which."""

_ROUNDS = 3
"""How often: what resembles a row most may resemble another more."""


class Pairing:
    """Pairs the rows of tables that number their rows, and so the things of their domains."""

    def __init__(
        self, expected: Expected, new_rows: Mapping[str, sql.Composable], lowest: Mapping[str, int | None]
    ) -> None:
        """
        :param new_rows: by table, the condition that a merged row ``g`` is none of the baseline's.
        :param lowest: by table, the least key of those, None if not all are beyond the baseline's.
        """
        self._expected = expected
        self._new_rows = new_rows
        self._lowest = lowest
        self._told: set[str] = set()
        self._open: dict[str, frozenset[str]] = {}

    def run(self, connect: Callable[[], Connection], jobs: int, tables: Sequence[TablePlan]) -> None:
        """Pair all rows of these tables that can be paired without looking at what refers to them."""
        among = [t for t in tables if self._is_among_old(t)]
        run_all(connect, [partial(self._list_new, table=t) for t in among], jobs, read_only=False)
        for level in self._levels(tables):
            run_all(connect, [partial(self._pair, table=t) for t in level], jobs, read_only=False)
        # What could not be told before, because it refers to what came later, may be told now.
        again = [t for t in tables if self._open.get(t.name, frozenset()) & self._told]
        run_all(connect, [partial(self._pair, table=t, again=True) for t in again], jobs, read_only=False)

    def found(self, table: TablePlan) -> sql.Composed:
        """The merged rows that are none of the baseline's, identified."""
        rows = self._expected.merged_rows(table, self._expected.plan.schema, self._new_rows.get(table.name, TRUE))
        return self._expected.identified(table, FOUND, rows)

    def expected(self, table: TablePlan) -> sql.Composed | None:
        """The expected rows of all sources, identified; None if there are none."""
        rows = self._expected.all_rows(table)
        if not rows:
            return None
        return self._expected.identified(table, EXPECTED, sql.SQL(" UNION ALL ").join(rows))

    # Order

    def _defined(self, table: TablePlan) -> Iterator[tuple[str, Domain]]:
        """The domains that a table defines, by column, the one of its key first."""
        own = self._expected.plan.own_domain(table)
        if own is None:
            return
        yield table.key[0], own
        for column in self._expected.columns(table):
            domain = self._expected.domain_of(column)
            if domain is not None and domain is not own and domain.members[0] == (table.name, column.name):
                yield column.name, domain

    def _levels(self, tables: Sequence[TablePlan]) -> Iterator[list[TablePlan]]:
        """The tables, each after those that define what it refers to, as far as they do not refer to each other."""
        definers = {domain.name: t.name for t in tables for _, domain in self._defined(t)}
        waiting: dict[str, set[str]] = {}
        for table in tables:
            domains = [self._expected.domain_of(c) for c in self._expected.columns(table)]
            waiting[table.name] = {definers[d.name] for d in domains if d and d.name in definers} - {table.name}
        by_name = {t.name: t for t in tables}
        while waiting:
            least = min(len(needed) for needed in waiting.values())
            ready = [name for name, needed in waiting.items() if len(needed) == least]
            if least:  # a cycle: one of it must go first
                ready = ready[:1]
            yield [by_name[name] for name in ready]
            waiting = {name: needed.difference(ready) for name, needed in waiting.items() if name not in ready}

    # Pairs

    def _is_among_old(self, table: TablePlan) -> bool:
        """True if a new key is not beyond all that the baseline names: then both are listed, to be told apart."""
        own, lowest = self._expected.plan.own_domain(table), self._lowest.get(table.name)
        return own is not None and (lowest is None or lowest <= self._expected.domains[own.name].high)

    def _list_new(self, conn: Connection, *, table: TablePlan) -> None:
        own = self._expected.plan.own_domain(table)
        assert own is not None
        self._expected.domains.make_lists(conn, own.name)
        self._expected.domains.learn(own.name, mixed=True)
        known = self._expected.domains[own.name]
        conn.execute(
            sql.SQL("INSERT INTO {} SELECT DISTINCT g.{}::bigint, {}::bigint FROM {} g WHERE {}").format(
                known.table(FOUND),
                sql.Identifier(table.key[0]),
                sql.Literal(known.floor),
                sql.Identifier(self._expected.plan.schema, table.name),
                self._new_rows[table.name],
            )
        )
        for name, column in own.members:
            conn.execute(
                sql.SQL(
                    "INSERT INTO {} SELECT DISTINCT {value}, {value} FROM {} b WHERE {value} IS NOT NULL"
                    " ON CONFLICT DO NOTHING"
                ).format(
                    known.table(FOUND),
                    sql.Identifier("homolog_base", name),
                    value=sql.SQL("b.{}::bigint").format(sql.Identifier(column)),
                )
            )

    def _pair(self, conn: Connection, *, table: TablePlan, again: bool = False) -> None:
        (key, own), *others = self._defined(table)
        columns = [c.name for c in self._expected.columns(table) if c.name != key]
        before = {d.name for c in self._expected.columns(table) if (d := self._expected.domain_of(c)) is not None}
        unknown = frozenset(before - {own.name} - self._told)
        left, unequal = self._group(conn, table, columns, only_open=again)
        if unequal:
            uniques = [i.columns for i in self._expected.catalog.tables[table.name].uniques if i.plain]
            match = [k for k in table.match if not any("." in name for name in k)]
            for names in dict.fromkeys([*uniques, *match]):
                if unequal and key not in names and set(names) <= set(columns):
                    left, unequal = self._group(conn, table, names, only_open=True)
            for _ in range(_ROUNDS if unequal else 0):
                self._resemble(conn, table, columns)
        if left:
            self._open[table.name] = unknown
        self._told |= {own.name, *(domain.name for _, domain in others)}
        for column, domain in others:
            self._emit(conn, table, column, domain)

    def _group(self, conn: Connection, table: TablePlan, names: Sequence[str], *, only_open: bool) -> tuple[bool, bool]:
        """Pair rows by some columns; whether any are left, and whether not as many on both sides."""
        # Written down before anything is learned: rows that name others of their table have another color then.
        rows = self._colored(conn, table, names, only_open=only_open)
        groups = _groups(rows)
        own = self._expected.plan.own_domain(table)
        assert own is not None
        others, unequal = self._learn(conn, own, groups)
        if others and not only_open:
            known = self._expected.domains[own.name]
            self._expected.domains.make_lists(conn, own.name)
            for side, value in ((EXPECTED, "c"), (FOUND, "w")):
                conn.execute(
                    sql.SQL(
                        "INSERT INTO {into} SELECT DISTINCT {value}, {floor}::bigint FROM ({rows}) u"
                        " WHERE {value} IS NOT NULL AND color IN"
                        " (SELECT color FROM ({groups}) q WHERE NOT (nc = 1 AND nw = 1)) ON CONFLICT DO NOTHING"
                    ).format(
                        into=known.table(side),
                        value=sql.Identifier(value),
                        floor=sql.Literal(known.floor),
                        rows=rows,
                        groups=groups,
                    )
                )
        return others, unequal

    def _colored(self, conn: Connection, table: TablePlan, names: Sequence[str], *, only_open: bool) -> sql.Composed:
        """The query of the rows of both sides: color, source, and the expected or the merged value of the key.

        :param only_open: only rows that are not paired.
        """
        own = self._expected.plan.own_domain(table)
        assert own is not None
        key = sql.Identifier(table.key[0])
        floor = sql.Literal(self._expected.domains[own.name].floor)
        hashed = color(self._expected, table, names, conn.info.server_version, "r")
        parts = []
        for rows, values in (
            (self.expected(table), "{} AS n, {} AS c, NULL::bigint AS w"),
            (self.found(table), "{} AS n, NULL::bigint AS c, {} AS w"),
        ):
            if rows is not None:
                where = sql.SQL("{} <= {}").format(key, floor) if only_open else TRUE
                parts.append(
                    sql.SQL("SELECT {} AS color, {} FROM ({}) r WHERE {}").format(
                        hashed, sql.SQL(values).format(SOURCE, value_of(table.key[0])), rows, where
                    )
                )
        return sql.SQL(" UNION ALL ").join(parts)

    def _learn(self, conn: Connection, domain: Domain, groups: sql.Composed) -> tuple[bool, bool]:
        """Note the pairs that are alone; whether there are others, and whether not as many on both sides."""
        known = self._expected.domains[domain.name]
        summary: list[tuple[Any, ...]] = conn.execute(
            sql.SQL(
                "SELECT n, nc = 1 AND nw = 1, nc <> nw, min(w - c), max(w - c), min(c), max(c), min(w), max(w)"
                " FROM ({}) q GROUP BY 1, 2, 3"
            ).format(groups)
        ).fetchall()
        pairs = sorted((row for row in summary if row[1]), key=lambda row: int(row[7]))
        alike = all(row[3] == row[4] and row[7] > known.high for row in pairs)
        apart = all(one[8] < other[7] for one, other in pairwise(pairs))
        if pairs and alike and apart and not known.segments and not known.listed:
            segments = [Segment(int(row[5]), int(row[6]), int(row[3])) for row in pairs]
            self._expected.domains.learn(domain.name, segments=segments)
        elif pairs:
            self._expected.domains.make_lists(conn, domain.name)
            self._note(conn, domain, sql.SQL("SELECT c, w FROM ({}) q WHERE nc = 1 AND nw = 1").format(groups))
        return not all(row[1] for row in summary), any(row[2] for row in summary)

    def _note(self, conn: Connection, domain: Domain, pairs: sql.Composable) -> None:
        """Note pairs ``(c, w)``, which are told one by one."""
        known = self._expected.domains[domain.name]
        with conn.transaction():
            conn.execute(sql.SQL("CREATE TEMP TABLE homolog_pair ON COMMIT DROP AS {}").format(pairs))
            for side, value in ((EXPECTED, "c"), (FOUND, "w")):
                conn.execute(
                    sql.SQL(
                        "INSERT INTO {} SELECT {}, c FROM pg_temp.homolog_pair"
                        " ON CONFLICT (value) DO UPDATE SET id = excluded.id"
                    ).format(known.table(side), sql.Identifier(value))
                )
                conn.execute(sql.SQL("ANALYZE {}").format(known.table(side)))

    def _emit(self, conn: Connection, table: TablePlan, column: str, domain: Domain) -> None:
        """Pair the things that a column names, and no key numbers, by the rows that name them."""
        expected, key = self.expected(table), sql.Identifier(table.key[0])
        own = self._expected.plan.own_domain(table)
        if expected is None or own is None:
            return
        floor = sql.Literal(self._expected.domains[own.name].floor)
        open_ = sql.Literal(self._expected.domains[domain.name].floor)
        self._learn(
            conn,
            domain,
            sql.SQL(
                "SELECT n, c, w, count(*) OVER (PARTITION BY w) AS nc, count(*) OVER (PARTITION BY c) AS nw"
                " FROM (SELECT DISTINCT s.{source} AS n, s.{value} AS c, g.{value} AS w FROM ({expected}) s"
                "  JOIN ({found}) g ON g.{key} = s.{key} WHERE s.{key} > {floor}"
                "  AND s.{name} <= {open} AND g.{name} <= {open}) d"
            ).format(
                source=SOURCE,
                value=value_of(column),
                expected=expected,
                found=self.found(table),
                key=key,
                floor=floor,
                name=sql.Identifier(column),
                open=open_,
            ),
        )

    def _resemble(self, conn: Connection, table: TablePlan, names: Sequence[str]) -> None:
        """Pair rows that are not the same, but resemble each other more than any other.

        That only serves to tell which column was changed, instead of a row lost and another invented.
        """
        own, expected = self._expected.plan.own_domain(table), self.expected(table)
        if own is None or expected is None:
            return
        values: list[sql.Composable] = []
        for column in self._expected.columns(table):
            if column.name in names:
                text = sql.SQL("r.{}::text").format(sql.Identifier(column.name))
                unknown = self._expected.is_open(column, "r")
                values.append(
                    text if unknown is None else sql.SQL("CASE WHEN NOT {} THEN {} END").format(unknown, text)
                )
        if not values:
            return
        sides = [
            sql.SQL(
                "SELECT item, i, md5(value) AS hash, count(*) OVER (PARTITION BY item) AS filled FROM"
                " (SELECT r.{} AS item, ARRAY[{}] AS list FROM ({}) r WHERE r.{} <= {} AND {} IN"
                "   (SELECT color FROM ({}) c WHERE nc <> nw) LIMIT {}) q,"
                " unnest(list) WITH ORDINALITY AS v (value, i) WHERE value IS NOT NULL"
            ).format(
                value_of(table.key[0]),
                sql.SQL(", ").join(values),
                rows,
                sql.Identifier(table.key[0]),
                sql.Literal(self._expected.domains[own.name].floor),
                color(self._expected, table, names, conn.info.server_version, "r"),
                _groups(self._colored(conn, table, names, only_open=True)),
                sql.Literal(_ALIKE),
            )
            for rows in (expected, self.found(table))
        ]
        self._expected.domains.make_lists(conn, own.name)
        self._note(
            conn,
            own,
            sql.SQL(
                "SELECT c, w FROM (SELECT *, row_number() OVER (PARTITION BY c ORDER BY score DESC, w) AS one,"
                " row_number() OVER (PARTITION BY w ORDER BY score DESC, c) AS other FROM"
                " (SELECT a.item AS c, b.item AS w, count(*) AS score, min(a.filled) AS filled"
                " FROM ({}) a JOIN ({}) b ON b.i = a.i AND b.hash = a.hash GROUP BY 1, 2) q"
                " WHERE 2 * score >= filled) q WHERE one = 1 AND other = 1"
            ).format(*sides),
        )


def _groups(rows: sql.Composable) -> sql.Composed:
    """The query of colors: source, an expected and a merged value of the key, and how many there are of each."""
    return sql.SQL(
        "SELECT color, min(n) AS n, min(c) AS c, min(w) AS w, count(c) AS nc, count(w) AS nw FROM ({}) u GROUP BY color"
    ).format(rows)
