"""Columns that seem to refer to a key, though neither a foreign key nor the profile says so: by name and by values.

A column's values are plausible if every one is a value of the key, and there are enough of them to mean something.
That alone says little where keys are dense, small numbers: there the name must say it too (see `merge.affinity`). Where
keys are sparse it says much: the chance that unrelated values all hit the key is its density to the power of their
number.

Everything is counted in the database: what a sample of a column shows to be no reference is not looked at again, and
what is left is joined with the keys that it may refer to, all its values, in one query for each column.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from psycopg import sql

from merge.affinity import Affinity, Names
from merge.domains import mirrored
from merge.language import counted, text
from merge.plan import ColumnKind, Role
from merge.proof_session import run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import psycopg

    from merge.catalog import Catalog, Column
    from merge.domains import Member
    from merge.plan import Plan, TablePlan
    from merge.profile import Profile

    Connection = psycopg.Connection[tuple[Any, ...]]

_SAMPLE = 2000
"""Rows of a table, from all over it, that are looked at first."""
_RARE = 20
"""A column with fewer values among those is looked at where it has values, if its name says anything."""
_FEW = 3
"""Values from which they mean something, if the name says what they are."""
_SOME = 5
"""Values from which they mean something, if the name says more than the key's."""
_MANY = 20
"""Values of which one in twenty may name a row that was deleted, if the name says what they are."""
_GONE = 0.05
_KEYLIKE = 0.5
"""A prefix of which half of the columns are keys or references says that a column is one."""
_TELLING = 30.0
"""Minus the logarithm of the chance from which values alone are believed."""
_SPARSE = 0.5
"""A key is sparse if no more of its range is filled."""
_ROUNDS = 2
"""The names of columns that were found say what other columns are."""
_KEYS = 8
"""Keys tried for one column."""
_TEXTS = ("text", "character")


@dataclass(frozen=True)
class Suspicion:
    """A column that seems to refer to a key.

    :param target: ``table.column``, the defining column of the key's domain.
    :param rows: rows with a value; `distinct` values, of which `missing` are not in the key.
    :param by: whether its name says so too, or only its values.
    :param moves: True if the key moves in a merge, so that the column would name other rows afterwards.
    """

    table: str
    column: str
    target: str
    rows: int
    distinct: int
    missing: int
    by: Literal["name", "values"]
    moves: bool

    def __str__(self) -> str:
        counts = text(
            pt=f"{counted(self.distinct, 'valor', 'valores')} em {counted(self.rows, 'linha', 'linhas')}",
            en=f"{counted(self.distinct, 'value', 'values')} in {counted(self.rows, 'row', 'rows')}",
        )
        return f"{self.table}.{self.column} → {self.target}? ({counts})"


@dataclass(frozen=True)
class Examined:
    """Suspicions, those that matter most first, and how many columns were examined."""

    columns: int
    suspicions: tuple[Suspicion, ...]


@dataclass
class _Key:
    """A key that may be meant: `count` rows from `low` to `high`; `unique` if a constraint says so.

    :ivar made: nothing refers to it yet; that it is a key is concluded from its name and values.
    """

    member: Member
    fixed: bool
    unique: bool
    made: bool = False
    count: int = 0
    low: int = 0
    high: int = 0

    @property
    def density(self) -> float:
        """How much of its range is filled."""
        return self.count / (self.high - self.low + 1)

    @property
    def sparse(self) -> bool:
        """True if values in it say something; only a key that moves is worth the search."""
        return not self.fixed and 0 < self.density <= _SPARSE


@dataclass
class _Candidate:
    """A column that is examined, and what a sample shows: `rows` with `values` distinct ones, from `low` to `high`."""

    table: str
    column: Column
    own: str | None = None
    rows: int = 0
    values: int = 0
    integers: bool = True
    unique: bool = False
    low: int = 0
    high: int = 0

    @property
    def is_text(self) -> bool:
        return self.column.base_type.startswith(_TEXTS)


def find_undeclared(
    connect: Callable[[], Connection],
    plan: Plan,
    catalog: Catalog,
    profile: Profile,
    schema: str,
    rows: Mapping[str, int],
    jobs: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Suspicion, ...]:
    """Columns of tables that come which seem to be undeclared references, those that would move wrongly first.

    :param schema: where the rows are; the tables there are those of `catalog`.
    :param rows: rows of every table.
    """
    return examine(connect, plan, catalog, profile, schema, rows, jobs, on_progress).suspicions


def examine(
    connect: Callable[[], Connection],
    plan: Plan,
    catalog: Catalog,
    profile: Profile,
    schema: str,
    rows: Mapping[str, int],
    jobs: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> Examined:
    """What `find_undeclared` gives, and how many columns were examined."""
    search = _Search(plan, catalog, profile, schema, rows)
    tables = sorted(search.tables(), key=lambda table: -rows[table])
    run_all(connect, [partial(search.measure, table) for table in tables], jobs, on_progress)
    search.add_keys()
    for _ in range(_ROUNDS):
        pairs = [(c, keys) for c in search.open_candidates() if (keys := search.plausible(c))]
        pairs.sort(key=lambda pair: -rows[pair[0].table])
        run_all(connect, [partial(search.test, c, keys) for c, keys in pairs], jobs, on_progress)
        search.learn()
    found = sorted(search.found, key=lambda s: (not s.moves, s.by, s.table, s.column))
    return Examined(len(search.candidates), tuple(found))


class _Search:
    """What is known of columns and keys while they are examined."""

    def __init__(self, plan: Plan, catalog: Catalog, profile: Profile, schema: str, rows: Mapping[str, int]) -> None:
        self.plan, self.catalog, self.profile, self.schema, self.rows = plan, catalog, profile, schema, rows
        columns = {name: [c.name for c in table.columns] for name, table in catalog.tables.items()}
        self.declared = {m for said in profile.declarations for m in said.among(columns)}
        self.keys = list(self._keys())
        members = {k.member: {c for _, c in plan.domains[".".join(k.member)].members} for k in self.keys}
        self.names = Names(catalog.tables, members)
        self.candidates = [c for table in plan.merged() if rows.get(table.name) for c in self._columns(table)]
        self.found: list[Suspicion] = []
        self._keylike = self._prefixes()

    # What there is

    def _keys(self) -> Iterator[_Key]:
        """The keys that have rows, but for those of mirrors and of what is derived, to which nothing else refers."""
        for domain in self.plan.domains.values():
            table, column = domain.members[0]
            found = self.catalog.tables[table]
            rule = self.profile.rule_of(table, found.primary_key)
            if self.rows.get(table) and rule is not None and not rule.mirror and rule.role is not Role.DERIVED:
                unique = any(i.columns == (column,) for i in found.uniques if i.plain)
                yield _Key((table, column), domain.fixed, unique)

    def _columns(self, table: TablePlan) -> Iterator[_Candidate]:
        """The columns of a table of which nothing says what they are; and a local key that may be another's."""
        found = self.catalog.tables[table.name]
        original = mirrored(self.catalog, table.name, self.profile.rule_of(table.name, found.primary_key))
        linked = {name for key in found.foreign_keys for name in key.columns}
        for column in found.columns:
            planned = table.column(column.name)
            settled = (
                column.name in linked
                or not (column.integer or column.base_type.startswith(_TEXTS))
                or (original is not None and original.column(column.name) is not None)
                or (table.name, column.name) in self.declared
            )
            if settled or planned.kind not in (ColumnKind.VERBATIM, ColumnKind.KEY):
                continue
            domain = self.plan.domains[planned.domain] if planned.domain else None
            if domain is None:
                yield _Candidate(table.name, column)
            elif not domain.fixed and domain.members[0] == (table.name, column.name):
                yield _Candidate(table.name, column, own=domain.name)

    def _prefixes(self) -> dict[str, float]:
        """The share of integer columns that are keys or references, by the first word of their names."""
        every: Counter[str] = Counter()
        keys: Counter[str] = Counter()
        for table in self.plan.merged():
            for column in table.columns:
                found = self.catalog.tables[table.name].column(column.name)
                if found is not None and found.integer:
                    prefix = column.name.split("_")[0]
                    every[prefix] += 1
                    keys[prefix] += column.domain is not None
        return {prefix: keys[prefix] / count for prefix, count in every.items()}

    # What the values are

    def tables(self) -> set[str]:
        """The tables that are read: those of the columns and those of the keys."""
        return {c.table for c in self.candidates} | {k.member[0] for k in self.keys}

    def measure(self, table: str, conn: Connection) -> None:
        """Look at a sample of a table's columns, and at all of its keys."""
        candidates = [c for c in self.candidates if c.table == table]
        keys = [k for k in self.keys if k.member[0] == table]
        source = sql.Identifier(self.schema, table)
        self._count(conn, self._sample(table), candidates)
        if keys:
            parts = [sql.SQL("count({0}), min({0}), max({0})").format(sql.Identifier(key.member[1])) for key in keys]
            counts = iter(_row(conn, sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(parts), source)))
            for key in keys:
                key.count, key.low, key.high = (int(next(counts) or 0) for _ in range(3))
        rare = [c for c in candidates if c.rows < _RARE and self.names.matches(c.column.name)]
        if rare and not self._is_small(table):
            parts = [sql.SQL("count({})").format(sql.Identifier(c.column.name)) for c in rare]
            counts = iter(_row(conn, sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(parts), source)))
            for candidate in [c for c in rare if next(counts) > c.rows]:
                name = sql.Identifier(candidate.column.name)
                filled = sql.SQL("(SELECT {0} FROM {1} WHERE {0} IS NOT NULL LIMIT {2}) s")
                self._count(conn, filled.format(name, source, sql.Literal(_SAMPLE)), [candidate])

    def _is_small(self, table: str) -> bool:
        return self.rows[table] <= 2 * _SAMPLE

    def _sample(self, table: str) -> sql.Composable:
        """Some rows of a table, from all over it; all of a small one."""
        source = sql.Identifier(self.schema, table)
        if self._is_small(table):
            return source
        return sql.SQL("{} TABLESAMPLE SYSTEM ({}) REPEATABLE (1)").format(source, 100 * _SAMPLE / self.rows[table])

    @staticmethod
    def _count(conn: Connection, source: sql.Composable, candidates: Sequence[_Candidate]) -> None:
        """Count the values of columns, and note whether all are integers, and their range."""
        columns = [sql.Identifier(c.column.name) for c in candidates]
        numbers = [sql.Identifier(f"n{n}") for n in range(len(candidates))]
        if not candidates:
            return
        found = iter(
            _row(
                conn,
                # OFFSET 0: each value is read as a number once.
                sql.SQL("SELECT {} FROM (SELECT {} FROM {} OFFSET 0) v").format(
                    sql.SQL(", ").join(
                        sql.SQL("count({0}), count(DISTINCT {1}), count({1}), min({1}), max({1})").format(
                            column, number
                        )
                        for column, number in zip(columns, numbers, strict=True)
                    ),
                    sql.SQL(", ").join(
                        sql.SQL("{}, {} AS {}").format(column, _number(candidate.column).format(column), number)
                        for candidate, column, number in zip(candidates, columns, numbers, strict=True)
                    ),
                    source,
                ),
            )
        )
        for candidate in candidates:
            candidate.rows, candidate.values, integers, low, high = (next(found) for _ in range(5))
            candidate.integers = integers == candidate.rows
            candidate.unique = candidate.values == candidate.rows
            candidate.low, candidate.high = low or 0, high or 0

    def add_keys(self) -> None:
        """Columns with names of keys and unique values may be keys of their own, to which others refer."""
        for c in self.candidates:
            if c.own is None and c.rows > 1 and c.integers and c.column.integer and c.unique and self._is_keylike(c):
                name = c.column.name
                self.keys.append(_Key((c.table, name), False, False, True, c.rows, c.low, c.high))
                self.names.add((c.table, name), [name], [self.names.of_column(name)])

    def open_candidates(self) -> list[_Candidate]:
        """The columns of which nothing was found yet."""
        known = {(s.table, s.column) for s in self.found}
        return [c for c in self.candidates if (c.table, c.column.name) not in known]

    def learn(self) -> None:
        """Remember the names of the columns that were found by name."""
        for found in self.found:
            if found.by == "name":
                table, column = found.target.split(".")
                self.names.learn((table, column), found.column)

    # Which keys may be meant

    def _is_keylike(self, candidate: _Candidate) -> bool:
        return self._keylike.get(candidate.column.name.split("_")[0], 0.0) >= _KEYLIKE

    def plausible(self, candidate: _Candidate) -> list[tuple[Affinity, _Key]]:
        """The keys that a column may refer to, by its name, or by its values alone; the likeliest first."""
        if not candidate.rows or not candidate.integers:
            return []
        said = self.names.matches(candidate.column.name)
        found: list[tuple[Affinity, int, float, _Key]] = []
        for key in [k for k in self.keys if k.member in said or k.sparse]:
            affinity, closeness = said.get(key.member, (Affinity.NONE, 0))
            inside = key.low <= candidate.low and candidate.high <= key.high
            if key.count and (inside or affinity is Affinity.SAME) and self._is_wanted(candidate, key, affinity):
                found.append((affinity, closeness, -key.density, key))
        found.sort(key=lambda match: match[:3], reverse=True)
        return [(affinity, key) for affinity, _, _, key in found[:_KEYS]]

    def _is_wanted(self, candidate: _Candidate, key: _Key, affinity: Affinity) -> bool:
        name, (table, column) = candidate.column.name, key.member
        if (table, column) == (candidate.table, name):
            return False
        if key.made:  # of two tables with such a column, the one with more to its name refers to the other
            ours, theirs = len(self.names.of_table(candidate.table)), len(self.names.of_table(table))
            if theirs > ours or (theirs == ours and candidate.unique):
                return False
        if candidate.own is not None:  # a key of its own, unless it has the name of another's
            return affinity is Affinity.SAME and not self.names.share_a_word(name, candidate.table)
        if affinity is Affinity.NONE:
            return _surprise(candidate.values, key.density) >= _TELLING
        if self._is_keylike(candidate):
            return True
        # Numbers and codes are small; who refers to rows names the last ones, too.
        return affinity is not Affinity.PART and candidate.high >= (key.low + key.high) / 2

    # Whether it is so

    def test(self, candidate: _Candidate, keys: Sequence[tuple[Affinity, _Key]], conn: Connection) -> None:
        """Count how many of the column's values each key has, and note the likeliest key that has them all."""
        if not self._is_small(candidate.table) and not any(affinity for affinity, _ in keys):
            _, distinct, counts = self._included(conn, candidate, keys, self._sample(candidate.table))
            keys = [key for key, count in zip(keys, counts, strict=True) if count == distinct]
            if not keys:
                return
        table = sql.Identifier(self.schema, candidate.table)
        rows, distinct, counts = self._included(conn, candidate, keys, table)
        for (affinity, key), count in zip(keys, counts, strict=True):
            if self._convinces(conn, candidate, affinity, key, distinct, distinct - count):
                self.found.append(
                    Suspicion(
                        candidate.table,
                        candidate.column.name,
                        ".".join(key.member),
                        rows,
                        distinct,
                        distinct - count,
                        "name" if affinity else "values",
                        not key.fixed,
                    )
                )
                return

    def _included(
        self, conn: Connection, candidate: _Candidate, keys: Sequence[tuple[Affinity, _Key]], source: sql.Composable
    ) -> tuple[int, int, list[int]]:
        """Rows with a value in `source`, how many values there are, and how many of them each key has."""
        name = sql.Identifier(candidate.column.name)
        joins: list[sql.Composable] = []
        for number, (_, key) in enumerate(keys):
            joins.append(
                sql.SQL(" LEFT JOIN (SELECT {distinct}{column} AS k FROM {table}) {alias} ON {key} = v.value").format(
                    distinct=sql.SQL("" if key.unique else "DISTINCT "),
                    column=sql.Identifier(key.member[1]),
                    table=sql.Identifier(self.schema, key.member[0]),
                    alias=sql.Identifier(f"k{number}"),
                    key=sql.SQL("{}.k::text" if candidate.is_text else "{}.k").format(sql.Identifier(f"k{number}")),
                )
            )
        query = sql.SQL(
            "SELECT coalesce(sum(v.n), 0)::bigint, count(*){found} FROM"
            " (SELECT {value} AS value, count(*) AS n FROM {source} WHERE {name} IS NOT NULL GROUP BY 1) v{joins}"
        ).format(
            found=sql.SQL("").join(
                sql.SQL(", count({}.k)").format(sql.Identifier(f"k{number}")) for number in range(len(keys))
            ),
            value=sql.SQL("{}::text").format(name) if candidate.is_text else name,
            source=source,
            name=name,
            joins=sql.SQL("").join(joins),
        )
        rows, distinct, *counts = _row(conn, query)
        return rows, distinct, counts

    def _convinces(
        self, conn: Connection, candidate: _Candidate, affinity: Affinity, key: _Key, distinct: int, missing: int
    ) -> bool:
        keylike = self._is_keylike(candidate)
        if missing:
            return affinity is Affinity.SAME and distinct >= _MANY and missing <= _GONE * distinct
        if affinity is Affinity.SAME:
            return keylike or distinct >= _FEW
        if affinity is Affinity.NONE:
            return _surprise(distinct, self._density(conn, candidate, key)) >= _TELLING
        return distinct >= (_FEW if keylike else _SOME)

    def _density(self, conn: Connection, candidate: _Candidate, key: _Key) -> float:
        """How much of the column's range the key fills: elsewhere it may be sparser."""
        query = sql.SQL("SELECT count(*) FROM {} WHERE {} BETWEEN {} AND {}").format(
            sql.Identifier(self.schema, key.member[0]),
            sql.Identifier(key.member[1]),
            sql.Literal(candidate.low),
            sql.Literal(candidate.high),
        )
        (count,) = conn.execute(query).fetchone() or (0,)
        return float(count) / (candidate.high - candidate.low + 1)


def _row(conn: Connection, query: sql.Composed) -> tuple[Any, ...]:
    return conn.execute(query).fetchone() or ()


def _number(column: Column) -> sql.SQL:
    """A column's value as a number, or NULL if it is none; the column goes in at {0}."""
    if column.base_type.startswith(_TEXTS):
        return sql.SQL("CASE WHEN {0}::text ~ '^(0|[1-9][0-9]{{0,17}})$' THEN {0}::text::bigint END")
    if column.base_type.startswith("numeric"):
        return sql.SQL("CASE WHEN {0} = trunc({0}) AND abs({0}) < 1e18 THEN {0}::bigint END")
    return sql.SQL("{0}::bigint")


def _surprise(values: int, density: float) -> float:
    """Minus the logarithm of the chance that so many values, picked without regard to a key, are all in it."""
    return -values * math.log(density) if 0 < density < 1 else 0.0
