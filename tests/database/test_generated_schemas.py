"""Clean merges of generated schemas: the ledger adds up, and the exact proof finds no difference."""

from __future__ import annotations

import itertools
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from merge import catalog
from merge.profile import Profile
from tests.filler import fill
from tests.fix_merge import MERGE, OWNER, Bench

if TYPE_CHECKING:
    from collections.abc import Iterator

    from merge.plan import Plan
    from sandbox.server import Server

TYPES = (
    "text", "varchar(40)", "integer", "numeric(9,2)", "numeric", "double precision", "boolean", "date", "timestamptz",
    "timestamp", "json", "jsonb", "bytea", "uuid", "inet", "point", "text[]", "interval",
)  # fmt: skip
_number = itertools.count()


@dataclass(frozen=True)
class Made:
    """One generated table: its DDL and its rule."""

    name: str
    ddl: str
    rule: dict[str, Any]
    references: tuple[dict[str, Any], ...] = ()


@st.composite
def tables(draw: st.DrawFn) -> list[Made]:
    """Tables whose foreign keys go to earlier ones, or to themselves."""
    made: list[Made] = []
    numbered: list[str] = []  # tables with a key of their own
    for number in range(draw(st.integers(2, 7))):
        name = draw(st.sampled_from(["tb_t{}", "Odd Name {}", "tb_order{}"])).format(number)
        kinds = ["own", "own", "own", "none", "code"] + (["shared", "pair", "mirror"] if numbered else [])
        made.append(_table(draw, name, draw(st.sampled_from(kinds)), numbered))
        if '"id" bigint PRIMARY KEY,' in made[-1].ddl:
            numbered.append(name)
    return made


def _table(draw: st.DrawFn, name: str, kind: str, numbered: list[str]) -> Made:  # noqa: C901 (one case a kind)
    columns = [
        f'"c{i}" {draw(st.sampled_from(TYPES))}{" NOT NULL" if draw(st.booleans()) else ""}'
        for i in range(draw(st.integers(0, 4)))
    ]
    rule: dict[str, Any] = {"tables": [name], "role": "event", "reason": "generated", "evidence": "inferred"}
    references: list[dict[str, Any]] = []
    if kind == "code":
        columns = ['"id" varchar(30) PRIMARY KEY', *columns]
        rule |= {"role": "catalog", "key": "fixed"}
    elif kind == "own":
        columns = [f'"id" {draw(st.sampled_from(["bigint", "bigint", "integer"]))} PRIMARY KEY', *columns]
        if draw(st.booleans()):
            columns.append('"key" text NOT NULL UNIQUE')
            rule |= {"role": draw(st.sampled_from(["entity", "catalog"])), "key": "local", "match": [["key"]]}
        elif draw(st.integers(0, 5)) == 0:
            rule |= {"role": "config"}
    elif kind == "shared":
        parent = draw(st.sampled_from(numbered))
        columns = [f'"id" bigint PRIMARY KEY REFERENCES "{parent}"', *columns]
    elif kind == "pair":
        one, other = draw(st.sampled_from(numbered)), draw(st.sampled_from(numbered))
        columns = [
            f'"a" bigint REFERENCES "{one}"', f'"b" bigint REFERENCES "{other}"', *columns, 'PRIMARY KEY ("a", "b")'
        ]  # fmt: skip
        rule |= {"role": "link"}
    elif kind == "mirror":
        parent = draw(st.sampled_from(numbered))
        columns = ['"mirror_id" bigint PRIMARY KEY', '"of_id" bigint', *columns]
        rule |= {"role": "audit"}
        references.append(_reference(f"{name}.of_id", f"{parent}.id"))
    if kind in ("own", "none", "code") and numbered and draw(st.booleans()):
        parent = draw(st.sampled_from(numbered))
        columns.append(f'"parent" bigint{draw(st.sampled_from(["", " NOT NULL"]))} REFERENCES "{parent}"')
    if kind == "own" and draw(st.booleans()):
        columns.append(f'"self" bigint REFERENCES "{name}"' if "bigint PRIMARY KEY" in columns[0] else '"self" bigint')
    if numbered and draw(st.booleans()):
        columns.append('"soft_id" bigint')
        references.append(_reference(f"{name}.soft_id", f"{draw(st.sampled_from(numbered))}.id"))
    columns = columns or ['"only" text']
    ddl = f'CREATE TABLE "{name}" ({", ".join(columns)},)'.replace(",)", ")")
    return Made(name, ddl.replace("PRIMARY KEY)", "PRIMARY KEY, )").replace(", )", ")"), rule, tuple(references))


def _reference(column: str, to: str) -> dict[str, Any]:
    return {"columns": [column], "to": to, "reason": "generated", "evidence": "inferred"}


def _profile(made: list[Made], left: int = 0) -> Profile:
    """The profile of all tables; scope `part` leaves out one row in three of every table whose place `left` divides."""
    excluded = {t.name for t in made if t.rule["role"] == "config"}
    rules = [t.rule for t in made]
    # What refers to rows that do not come does not come either.
    for table in made:
        if any(f'REFERENCES "{name}"' in table.ddl for name in excluded):
            table.rule.update(role="config", match=[], key="local")
            excluded.add(table.name)
    return Profile.model_validate(
        {
            "application": {"name": "generated", "title": "generated"},
            "rule": rules,
            "reference": [r for t in made for r in t.references],
            "scope": [{"name": "part", **_WHY, "leave_out": _leave_out(made, left)}],
        }
    )


_WHY = {"reason": "generated", "evidence": "inferred"}


def _leave_out(made: list[Made], left: int) -> list[dict[str, Any]]:
    chosen = [t for n, t in enumerate(made) if left and n % left == 0 and '"id" bigint' in t.ddl]
    return [{"tables": [t.name], "where": 's."id" % 3 = 1', **_WHY} for t in chosen]


@contextmanager
def merged(
    server: Server, made: list[Made], *, rows: int, shared: int, sources: int, left: int, setting: bool
) -> Iterator[tuple[Bench, Plan]]:
    """A database of the generated schema into which the sources were merged, and in which the ledger adds up."""
    for table in made if setting else ():
        numbered = table.ddl.startswith(f'CREATE TABLE "{table.name}" ("id" bigint PRIMARY KEY,')
        if numbered and re.search(r'"c0" text( NOT NULL)?[,)]', table.ddl):
            table.rule["set"] = [{"column": "c0", "value": "set 'it'", **_WHY}]
    database = f"generated_{next(_number)}"
    server.create_role(MERGE, member_of=OWNER, settings={"session_replication_role": "replica"})
    server.create_database(database, OWNER)
    try:
        bench = Bench(server, database)
        with bench.owner() as conn:
            for table in made:
                conn.execute(table.ddl.encode())
        profile = _profile(made, left)
        with bench.merger() as conn:
            found = catalog.read(conn, "public")
            fill(conn, found, "public", rows=rows, name="central", shared=shared, first=3)
        plan, found = bench.prepare(profile, "part" if left else "all")
        for number in range(1, sources + 1):
            bench.load(
                number,
                found,
                lambda conn, schema, n=number: fill(conn, found, schema, rows=rows, name=f"s{n}", shared=shared),  # type: ignore[misc]
            )
            ledger = bench.merge(plan, found, number).ledger
            for name, count in bench.rows[number].items():
                assert sum(line.rows for line in ledger.of(name)) == count, name
        yield bench, plan
    finally:
        server.drop_database(database)


MADE = {
    "made": tables(),
    "rows": st.integers(1, 40),
    "shared": st.integers(0, 20),
    "sources": st.integers(1, 2),
    "left": st.integers(0, 3),
    "setting": st.booleans(),
}
GIVEN = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@given(**MADE)
@GIVEN
def test_clean_merges_differ_in_nothing(server: Server, **drawn: Any) -> None:
    """Every row is in one disposition, and what the proof compares is the same, whatever is left out or set."""
    with merged(server, **drawn) as (bench, plan):
        for proof in bench.prove(plan):
            assert [str(d) for d in proof.examples] == []
