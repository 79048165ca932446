"""How the rows of a source look in the merged database, as SQL, and the queries that compare rows bit by bit.

The rows of a source are ``s``, the rows that they are compared with ``g``. Comparison is `record_image_eq`: it knows
no type, so that json, xml and point can be compared, and 1.0 is not 1.00, nor 0 the same as -0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psycopg import sql

from merge.masking import masked, shown_key
from merge.plan import ColumnKind
from merge.proof import SHOWN, Difference, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from merge.catalog import Table
    from merge.plan import Plan, TablePlan
    from merge.proof_session import Connection

TRUE = sql.SQL("true")
NEVER = sql.SQL("false")


@dataclass(frozen=True)
class Move:
    """How one domain of one source moves: by an offset, but for the rows in the map table."""

    offset: int = 0
    map: str | None = None


def read_moves(conn: Connection, source: int) -> dict[str, Move]:
    """The crosswalk of one source."""
    rows = conn.execute("SELECT domain, key_offset, map FROM homolog.key_domain WHERE source = %s", [source])
    return {domain: Move(offset, name) for domain, offset, name in rows}


@dataclass(frozen=True)
class Cell:
    """One column in a comparison: what it must be, and what it is."""

    name: str
    type: str
    expected: sql.Composable
    found: sql.Composable

    @property
    def differs(self) -> sql.Composed:
        """The condition that it is not the same, bit by bit."""
        return sql.SQL("NOT record_image_eq(ROW({}), ROW({}))").format(self.expected, self.found)


@dataclass(frozen=True)
class Image:
    """The rows of one table of one source, mapped.

    :param cells: every column that is compared.
    :param joins: the joins to map tables that the cells need.
    :param moving: for each key column whose domain moves, the condition that its value was matched.
    :param matched: the same for every column whose domain moves, and is not empty.
    :param excepted: whether any row of the table is an exception of the ledger.
    :param relation: the rows of the source.
    """

    source: int
    table: TablePlan
    cells: tuple[Cell, ...]
    joins: sql.Composable
    moving: Mapping[str, sql.Composable]
    matched: Mapping[str, sql.Composable]
    excepted: bool
    relation: sql.Composable

    @property
    def rows(self) -> sql.Composed:
        """The FROM clause: rows, their maps, and their exception as ``e``."""
        if not self.excepted:
            return sql.SQL("{} s{}").format(self.relation, self.joins)
        return sql.SQL("{} s{} LEFT JOIN {} e ON e.src_row = s.ctid").format(self.relation, self.joins, self.exceptions)

    @property
    def exceptions(self) -> sql.Composed:
        """The exceptions of this table."""
        return sql.SQL(
            "(SELECT src_row, disposition, columns, reason FROM homolog.exception"
            " WHERE source = {} AND table_name = {})"
        ).format(sql.Literal(self.source), sql.Literal(self.table.name))

    @property
    def live(self) -> sql.Composable:
        """The condition that the row came along and must be the same in every column."""
        return sql.SQL("e.disposition IS NULL") if self.excepted else TRUE

    @property
    def came(self) -> sql.Composable:
        """The condition that the row is in the merged database, whatever its columns."""
        return sql.SQL("(e.disposition IS NULL OR e.disposition = 'reconciled')") if self.excepted else TRUE

    @property
    def known(self) -> sql.Composable:
        """The condition that the mapped key may be one that was there before this source.

        A key with a part that moved by an offset is new for certain, because new keys are disjoint from all others.
        """
        return sql.SQL(" AND ").join(list(self.moving.values())) if self.moving else TRUE

    @property
    def surely_new(self) -> bool:
        """True if every row's key has a part that moved by an offset."""
        return NEVER in self.moving.values()

    def key(self) -> list[Cell]:
        """The cells of the key."""
        return [next(c for c in self.cells if c.name == name) for name in self.table.key]

    def inserted(self) -> list[Cell]:
        """The cells of rows that were not there before: the plan's constants stand for the source's values."""
        values = {c.column: c.value for c in self.table.constants}
        return [
            replace(c, expected=sql.SQL("({})::{}").format(sql.Literal(values[c.name]), sql.SQL(c.type)))
            if c.name in values
            else c
            for c in self.cells
        ]


def image(
    plan: Plan,
    table: TablePlan,
    catalog: Table,
    source: int,
    moves: Mapping[str, Move],
    *,
    excepted: bool,
    relation: sql.Composable | None = None,
) -> Image:
    """The image of the rows of one table of one source.

    :param relation: rows with the table's columns and the source's keys, instead of the source's rows.
    """
    cells: list[Cell] = []
    joins: list[sql.Composable] = []
    matched: dict[str, sql.Composable] = {}
    for position, column in enumerate(table.columns):
        described = catalog.column(column.name)
        if column.kind is ColumnKind.GENERATED or described is None:
            continue
        old: sql.Composable = sql.Identifier("s", column.name)
        found: sql.Composable = sql.Identifier("g", column.name)
        alias = sql.Identifier(f"m{position}")
        # Below a domain, so that no check of a restored database is run.
        cast = sql.SQL(described.base_type)
        new = old
        if column.kind is ColumnKind.LARGE_OBJECT:
            joins.append(_join(f"large_object_{source}", alias, old))
            new = sql.SQL("{}.dst::{}").format(alias, cast)
            found = sql.SQL("{}::{}").format(found, cast)
        elif column.kind is ColumnKind.KEY and column.domain is not None and not plan.domains[column.domain].fixed:
            move = moves.get(column.domain, Move())
            shifted = sql.SQL("{} + {}::bigint").format(old, sql.Literal(move.offset))
            if move.map is not None:
                joins.append(_join(move.map, alias, old))
                shifted = sql.SQL("coalesce({}.dst, {})").format(alias, shifted)
            new = sql.SQL("({})::{}").format(shifted, cast)
            found = sql.SQL("{}::{}").format(found, cast)
            if move.offset:
                matched[column.name] = NEVER if move.map is None else sql.SQL("{}.src IS NOT NULL").format(alias)
        cells.append(Cell(column.name, described.type, new, found))
    moving = {name: condition for name, condition in matched.items() if name in table.key}
    rows = relation or sql.Identifier(f"src_{source}", table.name)
    return Image(source, table, tuple(cells), sql.Composed(joins), moving, matched, excepted, rows)


def _join(name: str, alias: sql.Identifier, value: sql.Composable) -> sql.Composed:
    return sql.SQL(" LEFT JOIN homolog.{} {} ON {}.src = {}").format(sql.Identifier(name), alias, alias, value)


def same_key(key: Sequence[Cell]) -> sql.Composed:
    """The condition that the row compared has the expected key."""
    return sql.SQL(" AND ").join([sql.SQL("{} = {}").format(c.found, c.expected) for c in key])


def found_rows(
    relation: sql.Composable, key: Sequence[Cell], *, lookup: bool, within: sql.Composable = TRUE
) -> sql.Composed:
    """The join to the rows compared with: all at once, or one lookup by index for each row.

    The planner knows nothing of these tables, so the shape of the query says which: nested loops are off, but a
    LATERAL with OFFSET 0 cannot be anything else.
    """
    if lookup:
        return sql.SQL(" LEFT JOIN LATERAL (SELECT g.* FROM {} g WHERE {} OFFSET 0) g ON true").format(
            relation, same_key(key)
        )
    return sql.SQL(" LEFT JOIN {} g ON {} AND {}").format(relation, same_key(key), within)


@dataclass(frozen=True)
class Comparison:
    """A comparison of rows with those found at their keys.

    :param rows: the FROM clause, with the rows expected and ``g``.
    :param where: which of the rows.
    """

    table: str
    rows: sql.Composable
    where: sql.Composable
    key: Sequence[Cell]
    cells: Sequence[Cell]
    source: int | None
    secret: str

    @property
    def absent(self) -> sql.Composed:
        """The condition that no row was found."""
        return sql.SQL("{} IS NULL").format(self.key[0].found)

    @property
    def _changed(self) -> sql.Composed:
        return sql.SQL("NOT record_image_eq(ROW({}), ROW({}))").format(
            sql.SQL(", ").join([c.expected for c in self.cells]), sql.SQL(", ").join([c.found for c in self.cells])
        )

    def count(self, conn: Connection) -> tuple[int, int, int]:
        """Pairs of rows, rows not found, and rows found that are not the same."""
        row = conn.execute(
            sql.SQL(
                "SELECT count(*), count(*) FILTER (WHERE {absent}),"
                " count(*) FILTER (WHERE CASE WHEN {absent} THEN false ELSE {changed} END) FROM {rows} WHERE {where}"
            ).format(absent=self.absent, changed=self._changed, rows=self.rows, where=self.where)
        ).fetchone()
        assert row is not None
        return row[0], row[1], row[2]

    def lost(self, conn: Connection, reason: str | None = None) -> list[Difference]:
        """The first rows not found."""
        return self._examples(conn, Kind.LOST, None, self.absent, reason)

    def changed(self, conn: Connection, reason: str | None = None) -> list[tuple[int, list[Difference]]]:
        """For every column that differs in any row found: in how many, and the first of them."""
        conditions = [(c, sql.SQL("NOT {} AND {}").format(self.absent, c.differs)) for c in self.cells]
        return self.by_column(conn, Kind.CHANGED, conditions, reason)

    def by_column(
        self, conn: Connection, kind: Kind, conditions: Sequence[tuple[Cell, sql.Composable]], reason: str | None
    ) -> list[tuple[int, list[Difference]]]:
        """For every column whose condition is true in any row: in how many, and the first of them."""
        counts = conn.execute(
            sql.SQL("SELECT {} FROM {} WHERE {}").format(
                sql.SQL(", ").join([sql.SQL("count(*) FILTER (WHERE {})").format(c) for _, c in conditions]),
                self.rows,
                self.where,
            )
        ).fetchone()
        assert counts is not None
        return [
            (number, self._examples(conn, kind, cell, condition, reason))
            for number, (cell, condition) in zip(counts, conditions, strict=True)
            if number
        ]

    def _examples(
        self, conn: Connection, kind: Kind, cell: Cell | None, condition: sql.Composable, reason: str | None
    ) -> list[Difference]:
        shown: list[sql.Composable] = [shown_key({c.name: (c.expected, c.type) for c in self.key}, self.secret)]
        if cell is None:
            shown += [sql.Literal("row"), sql.Literal("none")]
        else:
            shown += [masked(cell.expected, cell.type, self.secret), masked(cell.found, cell.type, self.secret)]
        rows = conn.execute(
            sql.SQL("SELECT {} FROM {} WHERE {} AND {} LIMIT {}").format(
                sql.SQL(", ").join(shown), self.rows, self.where, condition, sql.Literal(SHOWN)
            )
        ).fetchall()
        return [
            Difference(
                kind.value,
                self.table,
                key,
                None if cell is None else cell.name,
                self.source,
                expected,
                found,
                reason,
            )
            for key, expected, found in rows
        ]


def content(cells: Sequence[sql.Composable]) -> sql.Composed:
    """A digest of a row's content, for tables without a key."""
    return sql.SQL("md5(ROW({})::text)").format(sql.SQL(", ").join(cells))
