"""The rows that must be in the merged database, and those that are, told by what they are and not by their keys.

Values of a key domain become *identities*, the same on both sides where they name the same thing:

- what the baseline named already keeps its value;
- what a source brings gets a number of this proof's own, beyond all of the baseline's: its value plus an offset for
  each source (`Expected`). The merged row that is the same thing gets that number too, once it is found (`Known`);
- things that are not told apart (yet) share one number, which is below all others.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from psycopg import sql

from merge.plan import Action, ColumnKind
from merge.proof_rows import TRUE, Cell, Move

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from merge.catalog import Catalog
    from merge.plan import ColumnPlan, Domain, Plan, TablePlan
    from merge.proof_session import Connection

SCRATCH = "homolog_content"
"""The schema of what is only needed while the proof is made."""

SOURCE, ROW = sql.Identifier("~source"), sql.Identifier("~row")
Which = Literal["new", "taken", "all"]
EXPECTED, FOUND = "e", "n"
"""The two sides: rows expected of the sources, and rows found in the merged database."""


@dataclass(frozen=True)
class Segment:
    """Things whose merged value is the expected number plus `shift`, from `low` to `high` expected.

    What lies between and is no row (a reference to one that is gone) has moved with them, or it is found to differ.
    """

    low: int
    high: int
    shift: int


@dataclass(frozen=True)
class Known:
    """What is known of the things of one domain.

    :param number: of the domain; names its tables.
    :param high: the greatest value of the baseline: what is not beyond it names what it named there.
    :param floor: identities down from here stand for things that are not told apart; it is itself the identity of
        all of which nothing is known.
    :param segments: things found, where their values moved alike.
    :param listed: whether there are tables of single things, which tell otherwise than the segments.
    :param mixed: whether merged values up to `high` are new ones too; then those of the baseline are listed.
    """

    number: int
    high: int
    floor: int
    segments: tuple[Segment, ...] = ()
    listed: bool = False
    mixed: bool = False

    def table(self, side: str) -> sql.Identifier:
        """The table ``(value, id)`` of single things of one side."""
        return sql.Identifier(SCRATCH, f"{side}_{self.number}")

    def identity(self, side: str, value: sql.Composable, alias: sql.Composable) -> sql.Composed:
        """The identity of a value that is not NULL; `alias` is the table of single things, joined by it."""
        high = self.floor if self.mixed and side == FOUND else self.high
        cases = [sql.SQL("WHEN {0} <= {1} THEN {0}").format(value, sql.Literal(high))]
        for part in self.segments:
            shift = part.shift if side == FOUND else 0
            cases.append(
                sql.SQL("WHEN {0} BETWEEN {1} AND {2} THEN {0} - {3}").format(
                    value, sql.Literal(part.low + shift), sql.Literal(part.high + shift), sql.Literal(shift)
                )
            )
        told = sql.SQL("CASE {} ELSE {} END").format(sql.SQL(" ").join(cases), sql.Literal(self.floor))
        if self.listed:
            told = sql.SQL("coalesce({}.id, {})").format(alias, told)
        return sql.SQL("CASE WHEN {} IS NOT NULL THEN ({})::bigint END").format(value, told)


class Domains:
    """What is known of every domain that moves; safe for threads that each change other domains."""

    def __init__(self, plan: Plan, ends: Mapping[str, tuple[int, int]]) -> None:
        """:param ends: the least and the greatest value of each domain in the baseline."""
        self._lock = threading.Lock()
        self._known: dict[str, Known] = {}
        for number, domain in enumerate(d for d in plan.domains.values() if not d.fixed):
            low, high = ends.get(domain.name, (0, None))
            floor = min(low, 0) - 1
            self._known[domain.name] = Known(number, floor if high is None else high, floor)

    def __getitem__(self, name: str) -> Known:
        return self._known[name]

    def make_lists(self, conn: Connection, name: str) -> None:
        """Make the tables of single things of a domain, if they are not there."""
        known = self._known[name]
        if not known.listed:
            for side in (EXPECTED, FOUND):
                conn.execute(
                    sql.SQL("CREATE UNLOGGED TABLE {} (value bigint PRIMARY KEY, id bigint)").format(known.table(side))
                )
            self.learn(name, listed=True)

    def names(self) -> list[str]:
        """All domains that move."""
        return list(self._known)

    def learn(self, name: str, *, segments: Sequence[Segment] = (), listed: bool = False, mixed: bool = False) -> None:
        """Add to what is known of a domain."""
        with self._lock:
            known = self._known[name]
            self._known[name] = replace(
                known,
                segments=(*known.segments, *segments),
                listed=known.listed or listed,
                mixed=known.mixed or mixed,
            )


@dataclass
class Expected:
    """The rows of the sources that must be in the merged database, by the plan alone.

    :param moves: by source and domain, the offset to this proof's numbers, and the table of `SCRATCH` with the rows
        that were there before.
    :param narrowed: by source, the tables of which the scope leaves rows out, listed in ``left_out``.
    :param added: by table, sources and names of the tables of `SCRATCH` with rows that the scope adds, and the column
        that says whether a row comes.
    :param filled: by source, the tables that have rows.
    """

    plan: Plan
    catalog: Catalog
    sources: Sequence[int]
    domains: Domains
    moves: dict[int, dict[str, Move]] = field(default_factory=dict)
    narrowed: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    added: dict[str, list[tuple[int, str, str]]] = field(default_factory=lambda: defaultdict(list))
    filled: dict[int, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))

    def columns(self, table: TablePlan) -> list[ColumnPlan]:
        """The columns that are compared."""
        known = {c.name for c in self.catalog.tables[table.name].columns}
        return [c for c in table.columns if c.kind is not ColumnKind.GENERATED and c.name in known]

    def domain_of(self, column: ColumnPlan) -> Domain | None:
        """The domain of a column whose values move."""
        if column.kind is not ColumnKind.KEY or column.domain is None:
            return None
        domain = self.plan.domains[column.domain]
        return None if domain.fixed else domain

    def places(self, table: TablePlan) -> list[tuple[int, sql.Composable, str | None]]:
        """Where the table's rows come from: source, relation, and for rows added the column that says which come."""
        if table.action is Action.EXCLUDE:
            return [(n, sql.Identifier(SCRATCH, name), of) for n, name, of in self.added.get(table.name, ())]
        return [(n, self._relation(n, table), None) for n in self.sources if self.filled[n].get(table.name)]

    def _relation(self, source: int, table: TablePlan) -> sql.Composable:
        rows = sql.Identifier(f"src_{source}", table.name)
        if table.name not in self.narrowed[source]:
            return rows
        return sql.SQL(
            "(SELECT r.ctid, r.* FROM {} r WHERE NOT EXISTS (SELECT 1 FROM {} o"
            " WHERE o.source = {} AND o.table_name = {} AND o.src_row = r.ctid))"
        ).format(rows, sql.Identifier(SCRATCH, "left_out"), sql.Literal(source), sql.Literal(table.name))

    def rows(self, table: TablePlan, source: int, which: Which = "new") -> sql.Composed:
        """The rows that a source must bring, as a query: values, and this proof's numbers in place of keys.

        :param which: only what must be inserted, or also what was there before, or also what the central owns.
        """
        parts = [self._rows(table, *place, which) for place in self.places(table) if place[0] == source]
        return sql.SQL(" UNION ALL ").join(parts)

    def all_rows(self, table: TablePlan) -> list[sql.Composable]:
        """`rows` of every source that has any."""
        return [self.rows(table, n) for n in dict.fromkeys(place[0] for place in self.places(table))]

    def _rows(
        self, table: TablePlan, source: int, relation: sql.Composable, of: str | None, which: Which
    ) -> sql.Composed:
        constants = {c.column: c for c in table.constants} if which == "new" else {}
        outputs: list[sql.Composable] = [sql.SQL("{} AS {}").format(sql.Literal(source), SOURCE)]
        outputs.append(sql.SQL("s.ctid AS {}").format(ROW))
        joins: list[sql.Composable] = []
        values: dict[str, sql.Composable] = {}
        matched: dict[str, sql.Composable] = {}
        for position, column in enumerate(self.columns(table)):
            old: sql.Composable = sql.Identifier("s", column.name)
            value, domain = old, self.domain_of(column)
            alias = sql.Identifier(f"m{position}")
            if column.kind is ColumnKind.LARGE_OBJECT:
                joins.append(
                    sql.SQL(" LEFT JOIN homolog.{} {} ON {}.src = {} AND NOT {}.dangling").format(
                        sql.Identifier(f"large_object_{source}"), alias, alias, old, alias
                    )
                )
                value = sql.SQL("CASE WHEN {0} IS NOT NULL THEN coalesce({1}.md5 || {1}.size, 'none') END").format(
                    old, alias
                )
            elif domain is not None:
                move = self.moves[source].get(domain.name, Move())
                value = sql.SQL("{}::bigint + {}").format(old, sql.Literal(move.offset))
                if move.map is not None:
                    joins.append(
                        sql.SQL(" LEFT JOIN {} {} ON {}.src = {}").format(
                            sql.Identifier(SCRATCH, move.map), alias, alias, old
                        )
                    )
                    value = sql.SQL("coalesce({}.dst, {})").format(alias, value)
                    matched[column.name] = sql.SQL("{}.src IS NOT NULL").format(alias)
            elif column.name in constants:
                type_ = sql.SQL(self.type_of(table, column.name))
                value = sql.SQL("({})::{}").format(sql.Literal(constants[column.name].value), type_)
            values[column.name] = value
            outputs.append(sql.SQL("{} AS {}").format(value, sql.Identifier(column.name)))
            if column.name in table.key:
                outputs.append(sql.SQL("{} AS {}").format(old, shown(table, column.name)))
        where: list[sql.Composable] = [TRUE]
        owner = of or table.central_owns
        if which != "all" and owner in matched:
            where.append(sql.SQL("NOT ({})").format(matched[owner]))
        if which == "new" and of is None:
            where += self._newness(table, source, values, matched)
        return sql.SQL("SELECT {} FROM {} s{} WHERE {}").format(
            sql.SQL(", ").join(outputs), relation, sql.Composed(joins), sql.SQL(" AND ").join(where)
        )

    def _newness(
        self,
        table: TablePlan,
        source: int,
        values: Mapping[str, sql.Composable],
        matched: Mapping[str, sql.Composable],
    ) -> list[sql.Composable]:
        """The conditions that a row was not there before."""
        where: list[sql.Composable] = []
        if self.plan.own_domain(table) is not None:
            where += [sql.SQL("NOT ({})").format(matched[k]) for k in table.key if k in matched]
        elif table.key and not self.surely_new(table, source):
            there: list[sql.Composable] = [sql.Identifier("homolog_base", table.name)]
            # Of what was there before an earlier source, the baseline tells, or a source before that one.
            there += [
                sql.SQL("({})").format(self._rows(table, n, relation, None, "taken"))
                for n, relation, _ in self.places(table)
                if n < source
            ]
            for rows in there:
                same = [sql.SQL("p.{} = {}").format(sql.Identifier(k), values[k]) for k in table.key]
                where.append(
                    sql.SQL("NOT EXISTS (SELECT 1 FROM {} p WHERE {})").format(rows, sql.SQL(" AND ").join(same))
                )
        return where

    def surely_new(self, table: TablePlan, source: int) -> bool:
        """True if a part of the key is new in every row of the source."""
        domains = [self.domain_of(table.column(name)) for name in table.key]
        return any(d is not None and self.moves[source].get(d.name, Move()).map is None for d in domains)

    def type_of(self, table: TablePlan, name: str) -> str:
        """The type of a column."""
        column = self.catalog.tables[table.name].column(name)
        return column.type if column is not None else "text"

    # Both sides

    def merged_rows(self, table: TablePlan, schema: str, where: sql.Composable = TRUE) -> sql.Composed:
        """The rows of a table as it is, in the same form as `rows`."""
        outputs: list[sql.Composable] = [sql.SQL("NULL::int AS {}, g.ctid AS {}").format(SOURCE, ROW)]
        joins: list[sql.Composable] = []
        for position, column in enumerate(self.columns(table)):
            old: sql.Composable = sql.Identifier("g", column.name)
            value = old
            if column.kind is ColumnKind.LARGE_OBJECT:
                alias = sql.Identifier(f"l{position}")
                joins.append(
                    sql.SQL(" LEFT JOIN {} {} ON {}.loid = {}").format(
                        sql.Identifier(SCRATCH, "large_object"), alias, alias, value
                    )
                )
                value = sql.SQL("CASE WHEN {} IS NOT NULL THEN coalesce({}.content, 'none') END").format(value, alias)
            elif self.domain_of(column) is not None:
                value = sql.SQL("{}::bigint").format(value)
            outputs.append(sql.SQL("{} AS {}").format(value, sql.Identifier(column.name)))
            if column.name in table.key:
                outputs.append(sql.SQL("{} AS {}").format(old, shown(table, column.name)))
        return sql.SQL("SELECT {} FROM {} g{} WHERE {}").format(
            sql.SQL(", ").join(outputs), sql.Identifier(schema, table.name), sql.Composed(joins), where
        )

    def identified(self, table: TablePlan, side: str, rows: sql.Composable) -> sql.Composed:
        """Rows of one side with identities in place of values of key domains, which stay beside (`value_of`)."""
        outputs: list[sql.Composable] = [sql.SQL("r.{}, r.{}").format(SOURCE, ROW)]
        joins: list[sql.Composable] = []
        for position, column in enumerate(self.columns(table)):
            name, domain = sql.Identifier(column.name), self.domain_of(column)
            value = sql.Identifier("r", column.name)
            if column.name in table.key:
                outputs.append(sql.SQL("r.{}").format(shown(table, column.name)))
            if domain is None:
                outputs.append(value)
                continue
            known, alias = self.domains[domain.name], sql.Identifier(f"x{position}")
            if known.listed:
                joins.append(
                    sql.SQL(" LEFT JOIN {} {} ON {}.value = {}").format(known.table(side), alias, alias, value)
                )
            outputs.append(sql.SQL("{} AS {}").format(known.identity(side, value, alias), name))
            outputs.append(sql.SQL("{} AS {}").format(value, value_of(column.name)))
        return sql.SQL("SELECT {} FROM ({}) r{}").format(sql.SQL(", ").join(outputs), rows, sql.Composed(joins))

    def is_open(self, column: ColumnPlan, alias: str) -> sql.Composable | None:
        """The condition that what a column names is not told apart from other things; None if it moves not."""
        domain = self.domain_of(column)
        if domain is None:
            return None
        return sql.SQL("{} <= {}").format(
            sql.Identifier(alias, column.name), sql.Literal(self.domains[domain.name].floor)
        )

    def cells(self, table: TablePlan) -> list[Cell]:
        """What is compared of the rows ``s`` expected and ``g`` found, both identified."""
        return [
            Cell(
                c.name,
                "bigint" if self.domain_of(c) is not None else self.type_of(table, c.name),
                sql.Identifier("s", c.name),
                sql.Identifier("g", c.name),
            )
            for c in self.columns(table)
        ]

    def key_values(self, table: TablePlan, alias: str) -> dict[str, tuple[sql.Composable, str]]:
        """The key of a row as a person knows it: by column, its value and its type."""
        return {
            k: (sql.SQL("{}.{}").format(sql.Identifier(alias), shown(table, k)), self.type_of(table, k))
            for k in table.key
        }


def shown(table: TablePlan, name: str) -> sql.Identifier:
    """The name under which a query has the value of a key column as it is in its database."""
    return sql.Identifier(f"~key{table.key.index(name)}")


def value_of(name: str) -> sql.Identifier:
    """The name under which a query has the value of which it has the identity under the column's name."""
    return sql.Identifier(f"~{name}")


_HASHABLE = (
    "bigint", "integer", "smallint", "numeric", "text", "character", "boolean", "date", "timestamp", "time", "uuid",
    "double precision", "real", "bytea",
)  # fmt: skip


def color(expected: Expected, table: TablePlan, names: Sequence[str], server_version: int, alias: str) -> sql.Composed:
    """A hash of some columns of an identified row, by which rows are proposed as the same: then they are compared.

    Values that are equal have the same hash, though they may differ bit by bit.
    """
    if not names:
        return sql.Composed([sql.SQL("0::bigint")])
    if server_version < 140000:
        return digest(names, alias)
    parts: list[sql.Composable] = []
    for column in expected.columns(table):
        if column.name in names:
            described = expected.catalog.tables[table.name].column(column.name)
            fast = (
                described is not None
                and described.type == described.base_type
                and described.base_type.startswith(_HASHABLE)
                and not described.base_type.endswith("[]")
            ) or expected.domain_of(column) is not None
            parts.append(sql.SQL("{}" if fast else "{}::text").format(sql.Identifier(alias, column.name)))
    return sql.SQL("hash_record_extended(ROW({}), 0)").format(sql.SQL(", ").join(parts))


def digest(names: Sequence[str], alias: str) -> sql.Composed:
    """A digest of columns of an identified row, bit by bit."""
    return sql.SQL("md5(ROW({})::text)").format(sql.SQL(", ").join([sql.Identifier(alias, name) for name in names]))
