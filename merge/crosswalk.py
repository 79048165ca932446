"""The crosswalk: how keys of a source become keys of the merged database.

A key domain moves by an offset beyond everything that the domain ever named on either side, so that old and new keys
are disjoint: a reference that somebody forgot to map can never hit an existing row. Rows that were matched with a row
already there are exceptions to the offset, kept in a map table of the domain.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from psycopg import sql

from merge.errors import CollisionError
from merge.language import counted, text
from merge.plan import ColumnKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import psycopg

    from merge.catalog import Catalog
    from merge.plan import Domain, Plan, TablePlan

_LIMITS = {"smallint": 2**15 - 1, "integer": 2**31 - 1, "bigint": 2**63 - 1}

SCHEMA = """
    CREATE TABLE IF NOT EXISTS homolog.source (
        source int PRIMARY KEY, name text NOT NULL, merged_at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE IF NOT EXISTS homolog.key_domain (
        source int, domain text, key_offset bigint NOT NULL, map text, PRIMARY KEY (source, domain));
    CREATE TABLE IF NOT EXISTS homolog.domain_top (domain text PRIMARY KEY, top numeric NOT NULL);
    CREATE TABLE IF NOT EXISTS homolog.exception (
        source int NOT NULL, table_name text NOT NULL, src_row tid NOT NULL, disposition text NOT NULL,
        columns text[] NOT NULL DEFAULT '{}', reason text NOT NULL);
    CREATE TABLE IF NOT EXISTS homolog.ledger (
        source int, table_name text, disposition text, reason text, rows bigint NOT NULL,
        PRIMARY KEY (source, table_name, disposition, reason));
    CREATE TABLE IF NOT EXISTS homolog.added (
        source int, table_name text, reason text, rows bigint NOT NULL, PRIMARY KEY (source, table_name, reason));
"""
"""The tables of schema `homolog` that the merge writes and the proof reads."""


@dataclass(frozen=True)
class Key:
    """How one domain of one source moves; `map` names a table of schema `homolog`, if any row was matched."""

    offset: int
    map: str | None = None


@dataclass
class Crosswalk:
    """The crosswalk of one source; `narrowed` are the tables of which the scope leaves rows out."""

    source: int
    keys: dict[str, Key]
    narrowed: set[str] = field(default_factory=set)

    @property
    def schema(self) -> str:
        """The schema that holds the source's rows."""
        return f"src_{self.source}"

    def add_map(self, domain: str, name: str) -> None:
        """Note that rows of the domain were matched."""
        self.keys[domain] = replace(self.keys[domain], map=name)

    def mapped(self, table: TablePlan, relation: sql.Composable | None = None) -> Mapped:
        """The source rows of a table that the scope does not leave out, with all their keys mapped.

        :param relation: other rows with the same columns, instead of the table's.
        """
        columns: list[tuple[str, sql.Composable]] = []
        joins: list[sql.Composable] = []
        aliases: dict[str, str] = {}
        for position, column in enumerate(table.columns):
            value: sql.Composable = sql.Identifier("s", column.name)
            alias = f"m{position}"
            if column.kind is ColumnKind.GENERATED:
                continue
            if column.kind is ColumnKind.LARGE_OBJECT:
                joins.append(_join(f"large_object_{self.source}", alias, value))
                value = sql.Identifier(alias, "dst")
            elif column.kind is ColumnKind.KEY and column.domain is not None:
                key = self.keys[column.domain]
                moved = sql.SQL("{} + {}").format(value, sql.Literal(key.offset)) if key.offset else value
                if key.map is not None:
                    joins.append(_join(key.map, alias, value))
                    moved = sql.SQL("coalesce({}, {})").format(sql.Identifier(alias, "dst"), moved)
                    aliases[column.name] = alias
                value = sql.SQL("({})::{}").format(moved, sql.SQL(column.type))
            columns.append((column.name, value))
        constants = {
            c.column: sql.SQL("({})::{}").format(sql.Literal(c.value), sql.SQL(table.column(c.column).type))
            for c in table.constants
        }
        return Mapped(relation or self._relation(table.name), tuple(columns), tuple(joins), aliases, constants)

    def _relation(self, table: str) -> sql.Composable:
        rows = sql.Identifier(self.schema, table)
        if table not in self.narrowed:
            return rows
        return sql.SQL(
            "(SELECT r.ctid, r.* FROM {} r WHERE NOT EXISTS (SELECT 1 FROM homolog.exception e WHERE e.source = {}"
            " AND e.table_name = {} AND e.disposition = 'excluded' AND e.src_row = r.ctid))"
        ).format(rows, sql.Literal(self.source), sql.Literal(table))


@dataclass(frozen=True)
class Mapped:
    """The parts of a query over the rows of one source table with mapped keys; the source's row is ``s``.

    :param relation: the rows.
    :param aliases: by column, the name under which its map table is joined.
    :param constants: by column, the value that inserted rows have instead of the source's.
    """

    relation: sql.Composable
    columns: tuple[tuple[str, sql.Composable], ...]
    joins: tuple[sql.Composable, ...]
    aliases: Mapping[str, str]
    constants: Mapping[str, sql.Composable]

    @property
    def names(self) -> sql.Composed:
        """The columns' names, comma separated."""
        return sql.SQL(", ").join(sql.Identifier(name) for name, _ in self.columns)

    def value(self, column: str) -> sql.Composable:
        """The expression of one mapped column."""
        return dict(self.columns)[column]

    def is_matched(self, column: str, *, matched: bool = True) -> sql.Composable:
        """The condition that the row's value in this column was (or was not) matched with one already there."""
        if column not in self.aliases:
            return sql.SQL("false" if matched else "true")
        state = sql.SQL("IS NOT NULL" if matched else "IS NULL")
        return sql.SQL("{} {}").format(sql.Identifier(self.aliases[column], "src"), state)

    def row(self) -> sql.Composed:
        """The mapped values as one row."""
        return sql.SQL("ROW({})::record").format(sql.SQL(", ").join(value for _, value in self.columns))

    def merged_row(self, alias: str) -> sql.Composed:
        """The columns of the same table in the merged database as one row."""
        columns = sql.SQL(", ").join(sql.Identifier(alias, name) for name, _ in self.columns)
        return sql.SQL("ROW({})::record").format(columns)

    def values(self) -> sql.Composed:
        """The values of the row if it is inserted, each named as its column, comma separated."""
        return sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(self.constants.get(name, value), sql.Identifier(name))
            for name, value in self.columns
        )

    def source(self) -> sql.Composed:
        """The FROM clause."""
        return sql.SQL("{} s{}").format(self.relation, sql.SQL("").join(self.joins))


def _join(table: str, alias: str, value: sql.Composable) -> sql.Composed:
    return sql.SQL(" LEFT JOIN {} {} ON {} = {}").format(
        sql.Identifier("homolog", table), sql.Identifier(alias), sql.Identifier(alias, "src"), value
    )


def tops(
    conn: psycopg.Connection[tuple[Any, ...]], schema: str, plan: Plan, filled: Iterable[str]
) -> dict[str, tuple[int, int]]:
    """The least and the greatest value that names something of each domain, in `schema`: one scan of each table."""
    found: dict[str, tuple[int, int]] = {}
    members: dict[str, list[tuple[str, str]]] = {}
    for known in plan.domains.values():
        for table, column in known.members:
            members.setdefault(table, []).append((column, known.name))
    for table in filled:
        columns = members.get(table)
        if not columns:
            continue
        ends = sql.SQL(", ").join(sql.SQL("min({0}), max({0})").format(sql.Identifier(column)) for column, _ in columns)
        row = conn.execute(sql.SQL("SELECT {} FROM {}").format(ends, sql.Identifier(schema, table))).fetchone()
        for position, (_, domain) in enumerate(columns):
            low, high = (row or ())[2 * position : 2 * position + 2]
            if high is not None:
                before = found.get(domain, (low, high))
                found[domain] = (min(before[0], low), max(before[1], high))
    return {domain: (int(low), int(high)) for domain, (low, high) in found.items()}


def offsets(
    plan: Plan, catalog: Catalog, central: Mapping[str, int], source: Mapping[str, tuple[int, int]]
) -> dict[str, Key]:
    """Choose an offset for each domain that moves.

    :param central: greatest value of each domain in the central, sequences included.
    :param source: least and greatest value of each domain in the source.
    :raises CollisionError: listing every column whose type cannot hold the moved keys.
    """
    keys: dict[str, Key] = {}
    problems: list[str] = []
    for domain in plan.domains.values():
        if domain.fixed or domain.name not in source:
            keys[domain.name] = Key(0)
            continue
        low, high = source[domain.name]
        # Beyond both sides, so that no old key is also a new one; rounded up, so that a person can read it.
        offset = _round_up(max(central.get(domain.name, 0), high, 0) - min(low - 1, 0))
        keys[domain.name] = Key(offset)
        problems += _too_narrow(domain, catalog, offset + high)
    if problems:
        raise CollisionError(
            text(
                pt=f"{counted(len(problems), 'coluna não comporta', 'colunas não comportam')} as chaves deslocadas.",
                en=f"{counted(len(problems), 'column', 'columns')} cannot hold the moved keys.",
            ),
            details=problems,
        )
    return keys


def _round_up(number: int) -> int:
    step: int = 10 ** max(len(str(number)) - 2, 0)
    return -(-number // step) * step


def _too_narrow(domain: Domain, catalog: Catalog, highest: int) -> list[str]:
    narrow = []
    for table, name in domain.members:
        column = catalog.tables[table].column(name)
        limit = _LIMITS.get(column.base_type) if column is not None else None
        if column is not None and limit is not None and highest > limit:
            narrow.append(f"{table}.{name} ({column.type}): {highest}")
    return narrow
