"""Proof that keys are mapped one to one, and that the plan maps both ends of every reference alike."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import TYPE_CHECKING

from psycopg import sql

from merge.plan import Action, ColumnKind
from merge.proof import SHOWN, Difference, Findings, Kind
from merge.proof_rows import Move

if TYPE_CHECKING:
    from collections.abc import Mapping

    from merge.catalog import Catalog, Table
    from merge.plan import Domain, Plan, TablePlan
    from merge.proof_session import Connection

Ends = tuple[int, int]


class Ranges:
    """Least and greatest value of every key and reference of a source; safe for threads."""

    def __init__(self) -> None:
        self._ends: dict[tuple[str, str], Ends] = {}
        self._lock = threading.Lock()

    def measure(self, conn: Connection, plan: Plan, table: TablePlan, source: int) -> int:
        """Read one table of a source once. Return its number of rows."""
        columns = [c for c in table.columns if c.domain is not None and not plan.domains[c.domain].fixed]
        ends = [sql.SQL("min({0}), max({0})").format(sql.Identifier(c.name)) for c in columns]
        row = conn.execute(
            sql.SQL("SELECT {} FROM {}").format(
                sql.SQL(", ").join([sql.SQL("count(*)"), *ends]), sql.Identifier(f"src_{source}", table.name)
            )
        ).fetchone()
        assert row is not None
        with self._lock:
            for position, column in enumerate(columns):
                low, high = row[1 + 2 * position : 3 + 2 * position]
                if low is not None:
                    self._ends[table.name, column.name] = int(low), int(high)
        return int(row[0])

    def ends(self, table: str, column: str) -> Ends:
        """The least and the greatest value of a column that is not empty."""
        return self._ends[table, column]

    def of(self, domain: Domain) -> Ends | None:
        """The least and the greatest value of a whole domain."""
        return _widest([self._ends[member] for member in domain.members if member in self._ends])


def _widest(ends: list[Ends]) -> Ends | None:
    return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None


def check_plan(plan: Plan, catalog: Catalog, findings: Findings) -> None:
    """Whatever the plan says of a column, it must not hide it, and both ends of a foreign key must move alike."""
    planned = {t.name: t for t in plan}
    for name in sorted(catalog.tables.keys() ^ planned.keys()):
        findings.add(Kind.PLAN, name, reason="in the plan or in the catalog only")
    for table in plan.merged():
        described = catalog.tables.get(table.name)
        if described is None:
            continue
        _check_columns(table, described, findings)
        for foreign in described.foreign_keys:
            parent = planned.get(foreign.ref_table)
            if parent is None or parent.action is Action.EXCLUDE:
                continue
            for name, ref in zip(foreign.columns, foreign.ref_columns, strict=True):
                if _movement(plan, table, name) != _movement(plan, parent, ref):
                    reason = f"moves otherwise than {parent.name}.{ref}"
                    findings.add(Kind.PLAN, table.name, column=name, reason=reason)


def _check_columns(table: TablePlan, described: Table, findings: Findings) -> None:
    kinds = {c.name: c.kind for c in table.columns}
    for column in described.columns:
        kind = kinds.get(column.name)
        if kind is None or (kind is ColumnKind.GENERATED) != column.generated:
            findings.add(Kind.PLAN, table.name, column=column.name, reason="not compared")
        elif (kind is ColumnKind.LARGE_OBJECT) != (column.base_type == "oid"):
            findings.add(Kind.PLAN, table.name, column=column.name, reason="large objects are in columns of type oid")


def _movement(plan: Plan, table: TablePlan, column: str) -> str | None:
    domain = next((c.domain for c in table.columns if c.name == column), None)
    return None if domain is None or plan.domains[domain].fixed else domain


def check_maps(conn: Connection, *, plan: Plan, source: int, moves: Mapping[str, Move], findings: Findings) -> None:
    """Within one source no two keys become one: maps are one to one, and avoid the moved keys."""
    for name, move in sorted(moves.items()):
        domain = plan.domains.get(name)
        if domain is None:
            findings.add(Kind.CROSSWALK, name, reason="a domain that the plan does not know")
            continue
        table, column = domain.members[0]
        if domain.fixed:
            if move != Move():
                findings.add(Kind.CROSSWALK, table, column=column, reason="a fixed domain was moved")
            continue
        if move.map is None:
            continue
        parts = {
            "mapped": sql.Identifier("homolog", move.map),
            "rows": sql.Identifier(f"src_{source}", table),
            "key": sql.Identifier(column),
            "offset": sql.Literal(move.offset),
            "limit": sql.Literal(SHOWN),
        }
        for query, reason in _MAP_CHECKS:
            found = conn.execute(sql.SQL(query).format(**parts)).fetchall()
            if found:
                examples = [
                    Difference(Kind.CROSSWALK.value, table, f"{column}={key}", column, source, reason=reason)
                    for key, _ in found
                ]
                findings.extend(examples, found[0][1])


_MAP_CHECKS = (
    (
        "SELECT dst, count(*) OVER () FROM {mapped} GROUP BY dst HAVING count(*) > 1 LIMIT {limit}",
        "several keys of the source are mapped to this one",
    ),
    (
        "SELECT m.src, count(*) OVER () FROM {mapped} m LEFT JOIN {rows} s ON s.{key} = m.src"
        " WHERE s.{key} IS NULL LIMIT {limit}",
        "the map names a row that the source does not have",
    ),
    (
        "SELECT m.dst, count(*) OVER () FROM {mapped} m JOIN {rows} s ON s.{key} = m.dst - {offset}"
        " LEFT JOIN {mapped} o ON o.src = s.{key} WHERE o.src IS NULL LIMIT {limit}",
        "mapped to the moved key of another row of the same source",
    ),
)


def base_ranges(conn: Connection, plan: Plan) -> dict[str, Ends]:
    """The least and the greatest value of every domain in the baseline."""
    ends = {
        (table, column): (int(low), int(high))
        for table, column, low, high in conn.execute(
            "SELECT table_name, column_name, low, high FROM homolog.base_range"
        )
    }
    found = {d.name: _widest([ends[m] for m in d.members if m in ends]) for d in plan.domains.values()}
    return {name: widest for name, widest in found.items() if widest is not None}


def check_ranges(
    conn: Connection, plan: Plan, source: int, moves: Mapping[str, Move], ranges: Ranges, findings: Findings
) -> None:
    """No key or reference that moved by an offset names anything that the central named before.

    Mostly the ranges do not even touch. Where they do, the values are looked at one by one.
    """
    base = base_ranges(conn, plan)
    for domain in plan.domains.values():
        widest, move = ranges.of(domain), moves.get(domain.name)
        if domain.fixed or widest is None:
            continue
        if move is None:
            findings.add(Kind.CROSSWALK, domain.members[0][0], column=domain.members[0][1], reason="no crosswalk")
            continue
        low, high = widest[0] + move.offset, widest[1] + move.offset
        if domain.name not in base or low > base[domain.name][1] or high < base[domain.name][0]:
            continue
        _check_overlap(conn, plan, domain, source, move, findings)


def _check_overlap(conn: Connection, plan: Plan, domain: Domain, source: int, move: Move, findings: Findings) -> None:
    merged = {t.name for t in plan.merged()}
    unmapped = (
        sql.SQL("")
        if move.map is None
        else sql.SQL(" WHERE NOT EXISTS (SELECT 1 FROM homolog.{} m WHERE m.src = x.value)").format(
            sql.Identifier(move.map)
        )
    )
    moved = [_values(f"src_{source}", *member) for member in domain.members if member[0] in merged]
    found = conn.execute(
        sql.SQL(
            "SELECT value, count(*) OVER () FROM (SELECT value + {}::bigint AS value FROM ({}) x{}"
            " INTERSECT SELECT value FROM ({}) y) both_sides LIMIT {}"
        ).format(
            sql.Literal(move.offset),
            sql.SQL(" UNION ALL ").join(moved),
            unmapped,
            sql.SQL(" UNION ALL ").join([_values("homolog_base", *member) for member in domain.members]),
            sql.Literal(SHOWN),
        )
    ).fetchall()
    if found:
        table, column = domain.members[0]
        examples = [
            Difference(
                Kind.CROSSWALK.value,
                table,
                f"{column}={value}",
                column,
                source,
                reason="a moved key that the central had",
            )
            for value, _ in found
        ]
        findings.extend(examples, found[0][1])


def _values(schema: str, table: str, column: str) -> sql.Composed:
    return sql.SQL("SELECT {0}::bigint AS value FROM {1} WHERE {0} IS NOT NULL").format(
        sql.Identifier(column), sql.Identifier(schema, table)
    )


def check_sources(
    conn: Connection,
    plan: Plan,
    moves: Mapping[int, Mapping[str, Move]],
    ranges: Mapping[int, Ranges],
    findings: Findings,
) -> None:
    """No two sources have new keys in common: their moved ranges do not touch."""
    for domain in plan.domains.values():
        if domain.fixed:
            continue
        moved: list[tuple[int, int, int]] = []
        for source, known in ranges.items():
            widest, move = known.of(domain), moves[source].get(domain.name)
            if widest is not None and move is not None:
                moved.append((widest[0] + move.offset, widest[1] + move.offset, source))
        moved.sort()
        for (_, high, one), (low, _, other) in pairwise(moved):
            if low <= high:
                table, column = domain.members[0]
                findings.add(
                    Kind.CROSSWALK,
                    table,
                    column=column,
                    found=f"{low} ≤ {high}",
                    reason=f"moved keys of sources {one} and {other} meet",
                )
