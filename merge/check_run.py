"""Asks the checks of restored bases before a merge, and again of the merged one.

Every check is one statement, sent by a role that is not superuser: the tables are found by search_path, and a
restored database may hold operators of its own. The rows of a source have neither indexes nor statistics; sessions of
`merge.proof_session` join by hash whatever the planner believes.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from merge import catalog as catalogs
from merge import sequences
from merge.checks import CENTRAL, MERGED, RUN, Answer, Check, State
from merge.errors import ConfigError
from merge.language import text
from merge.proof_rows import Move, read_moves
from merge.proof_session import run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from merge.plan import Plan
    from merge.proof_session import Connection

SHOWN = 5
"""Keys, names or values that an answer gives at most."""

BASELINE = "homolog_base"
"""The schema with the central as it was restored (`merge.baseline`)."""

_NAMED = re.compile(r'["«“]([^"»”]+)["»”]|(\w+\.\w+)')
"""The object that a message of PostgreSQL is about, in any language: between quotes, or ``alias.column``."""


def run_checks(
    connect: Callable[[], Connection],
    checks: Sequence[Check],
    *,
    central: str = "public",
    source: str | None = None,
    name: str = CENTRAL,
    final: bool = False,
    jobs: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Answer, ...]:
    """Ask the checks, and answer in their order: of the central and of the person, or of one source.

    The statements only read. One that names a table or column that is not there, or that fails, answers
    `State.NOT_AVAILABLE`: it stops nothing.

    :param connect: opens a connection, of a role that is not superuser, to the database that holds both sides.
    :param central: schema of the central; once something was merged, that of its baseline.
    :param source: schema of the source, or None to ask only what concerns the central and the run.
    :param name: what the answers call the base that is asked.
    :param final: whether what is prepared may go to production.
    :raises ConfigError: a `record` gives something else than numbers and dates.
    """
    answers: dict[str, Answer] = {}
    tasks: list[Callable[[Connection], None]] = []
    for check in checks:
        if check.kind == "human":
            if source is None:
                answers[check.id] = Answer(check.id, RUN, check.state(None, final=final))
        elif check.asks_rows and (source is not None or (check.same is None and check.across is None)):

            def ask(conn: Connection, check: Check = check) -> None:
                answers[check.id] = _ask(conn, check, name, final, lambda: _found(conn, check, central, source))

            tasks.append(ask)
    run_all(connect, tasks, jobs, on_progress)
    return tuple(answers[check.id] for check in checks if check.id in answers)


def new_defects(
    connect: Callable[[], Connection],
    checks: Sequence[Check],
    plan: Plan,
    sources: Sequence[int],
    *,
    jobs: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Answer, ...]:
    """Ask the checks that identify their offenders of the merged base: what is wrong there now, and was wrong neither
    in the central before nor in any source, is the merge's doing and blocks.

    A defect is known by what it is about (a key, mapped as the crosswalk maps it, or a natural value), so a new one is
    found although an old one went away. That search columns still agree with what they search is not asked: the exact
    proof compares each row with one row of one side, bit by bit, so what agreed there agrees here.

    :param connect: opens a connection, of a role that is not superuser, which may read the baseline
        (`merge.baseline.allow_reading`) and make temporary tables.
    :param sources: numbers of the sources that were merged, whose rows are still in ``src_<n>``.
    """
    answers: dict[str, Answer] = {}
    tasks: list[Callable[[Connection], None]] = []
    asked = [check for check in checks if check.offenders is not None or check.builtin is not None]
    for check in asked:

        def ask(conn: Connection, check: Check = check) -> None:
            answer = _ask(conn, check, MERGED, True, lambda: _new(conn, check, plan, sources))
            state = State.BLOCKED if answer.found else answer.state
            answers[check.id] = Answer(answer.id, answer.where, state, answer.found, answer.details)

        tasks.append(ask)
    # Only temporary tables are written to: each transaction makes its own, and reads only from then on.
    run_all(connect, tasks, jobs, on_progress, read_only=False)
    return tuple(answers[check.id] for check in asked)


_Found = tuple[int | None, dict[str, int | str | None]]


def _ask(conn: Connection, check: Check, where: str, final: bool, find: Callable[[], _Found]) -> Answer:
    """Find, and make an answer of what was found or of why it could not be."""
    try:
        found, details = find()
    except psycopg.Error as ex:
        if conn.broken or isinstance(ex, psycopg.errors.QueryCanceled):
            raise
        return Answer(check.id, where, State.NOT_AVAILABLE, None, _obstacle(ex))
    return Answer(check.id, where, check.state(found, final=final), found, details)


def _obstacle(ex: psycopg.Error) -> dict[str, int | str | None]:
    """What stood in the way. Any other message than that a name is unknown may quote a row."""
    if isinstance(ex, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        named = _NAMED.search(ex.diag.message_primary or "")
        if named is not None:
            return {"missing": named[1] or named[2]}
    return {"sqlstate": ex.sqlstate}


def _look_at(conn: Connection, schema: str) -> None:
    """Let a query's tables be those of `schema`; built-in functions and operators come first all the same."""
    conn.execute("SELECT set_config('search_path', quote_ident(%s), false)", [schema])


def _found(conn: Connection, check: Check, central: str, source: str | None) -> _Found:
    base = source or central
    _look_at(conn, base)
    if check.query is not None:
        return _number(conn, sql.SQL(check.query)), {}
    if check.offenders is not None:
        return _offenders(conn, check, sql.SQL(check.offenders))
    if check.record is not None:
        return None, _record(conn, check)
    if check.builtin is not None:
        if source is not None:
            # A source's sequences never come along, and the values that they had are in its backup only.
            return None, {"reason": text(pt="não se aplica a uma origem", en="does not apply to a source")}
        _look_at(conn, "pg_catalog")
        behind, untold = _behind(conn, central)
        return len(behind), {"untold": untold, **_shown("sequences", sorted(behind))}
    assert source is not None
    if check.across is not None:
        schemas = {"central": sql.Identifier(central), "source": sql.Identifier(source)}
        _look_at(conn, "pg_catalog")
        return _number(conn, sql.SQL(check.across).format(**schemas)), {}
    assert check.same is not None
    theirs = _texts(conn, check.same)
    _look_at(conn, central)
    ours = _texts(conn, check.same)
    if ours == theirs and ours:
        return 0, {}
    both = len(ours ^ theirs) or 1
    return both, {"central": _few(sorted(ours - theirs)), "source": _few(sorted(theirs - ours))}


def _number(conn: Connection, query: sql.SQL | sql.Composed) -> int:
    row = conn.execute(query).fetchone()
    return int(row[0] or 0) if row is not None else 0


def _texts(conn: Connection, query: str) -> set[str]:
    return {str(value) for (value,) in conn.execute(sql.SQL(query)).fetchall() if value is not None}


def _offenders(conn: Connection, check: Check, query: sql.Composable) -> _Found:
    """How many offenders, and the first keys, if they are keys: integers, whatever the declaration says."""
    shown = sql.SQL("id") if check.key is not None else sql.SQL("NULL")
    rows = conn.execute(
        sql.SQL("SELECT count(*) OVER (), {} FROM (SELECT DISTINCT id FROM ({}) q (id)) d ORDER BY id LIMIT {}").format(
            shown, query, sql.Literal(SHOWN)
        )
    ).fetchall()
    keys = [str(key) for _, key in rows if isinstance(key, int)]
    return (int(rows[0][0]) if rows else 0), _shown("keys", keys)


def _record(conn: Connection, check: Check) -> dict[str, int | str | None]:
    assert check.record is not None
    cursor = conn.execute(sql.SQL(check.record))
    names = [column.name for column in cursor.description or ()]
    return {name: _plain(check, value) for name, value in zip(names, cursor.fetchone() or (), strict=False)}


def _plain(check: Check, value: object) -> int | str | None:
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, Decimal):
        return int(value)
    if isinstance(value, date | datetime):
        return value.isoformat()
    raise ConfigError(
        text(
            pt=f"A verificação {check.id} registra algo que não é número nem data.",
            en=f"Check {check.id} records something that is neither a number nor a date.",
        ),
        next_step=text(pt="Corrija a consulta.", en="Correct its query."),
    )


def _few(values: Sequence[str]) -> str:
    more = f" (+{len(values) - SHOWN})" if len(values) > SHOWN else ""
    return ", ".join(values[:SHOWN]) + more if values else "—"


def _shown(name: str, values: Sequence[str]) -> dict[str, int | str | None]:
    return {name: ", ".join(values[:SHOWN])} if values else {}


def _new(conn: Connection, check: Check, plan: Plan, sources: Sequence[int]) -> _Found:
    if check.builtin is not None:
        _look_at(conn, "pg_catalog")
        new = _newly_behind(conn, plan.schema)
        return len(new), _shown("sequences", new)
    assert check.offenders is not None
    number = sql.SQL("bigint" if check.key is not None else "text")
    with conn.transaction():
        conn.execute(
            sql.SQL("CREATE TEMPORARY TABLE offender (old boolean NOT NULL, id {}) ON COMMIT DROP").format(number)
        )
        conn.execute("SET TRANSACTION READ ONLY")
        for schema, move in _bases(conn, check, plan, sources):
            _look_at(conn, schema)
            conn.execute(
                sql.SQL("INSERT INTO pg_temp.offender SELECT {}, {} FROM ({}) q (id){}").format(
                    sql.Literal(schema != plan.schema), _mapped(move, number), sql.SQL(check.offenders), _map(move)
                )
            )
        return _offenders(
            conn,
            check,
            sql.SQL("SELECT id FROM pg_temp.offender WHERE NOT old EXCEPT SELECT id FROM pg_temp.offender WHERE old"),
        )


def _bases(conn: Connection, check: Check, plan: Plan, sources: Sequence[int]) -> Iterator[tuple[str, Move]]:
    """The schemas in which to look, and how the offenders of each are called in the merged base."""
    yield plan.schema, Move()
    yield BASELINE, Move()
    member = tuple((check.key or "").split("."))
    domain = next((d.name for d in plan.domains.values() if member in d.members), "")
    for source in sources:
        yield f"src_{source}", read_moves(conn, source).get(domain, Move())


def _mapped(move: Move, number: sql.Composable) -> sql.Composed:
    if move.map is None:
        return sql.SQL("q.id::{} + {}" if move.offset else "q.id::{}").format(number, sql.Literal(move.offset))
    return sql.SQL("coalesce(m.dst, q.id::{} + {})").format(number, sql.Literal(move.offset))


def _map(move: Move) -> sql.Composable:
    if move.map is None:
        return sql.SQL("")
    return sql.SQL(" LEFT JOIN {} m ON m.src = q.id").format(sql.Identifier("homolog", move.map))


def _behind(conn: Connection, schema: str) -> tuple[dict[str, tuple[str, str]], int]:
    """The sequences of a schema whose next value is a key that is there already, by key column; and how many there
    are of which nothing tells what they number.
    """
    found = catalogs.read(conn, schema)
    owners = sequences.numbered(found)
    tops = _tops(conn, schema, set(owners.values()))
    behind = {
        name: member for name, member in owners.items() if sequences.next_value(found.sequences[name]) <= tops[member]
    }
    return behind, len(found.sequences) - len(owners)


def _newly_behind(conn: Connection, schema: str) -> list[str]:
    """Those that are behind now and were not in the baseline."""
    behind, _ = _behind(conn, schema)
    stood: dict[str, int] = dict(
        conn.execute(
            "SELECT name, last_value + is_called::int FROM homolog.base_sequence WHERE name = ANY (%s)", [list(behind)]
        ).fetchall()
    )
    old = _tops(conn, BASELINE, set(behind.values()))
    return sorted(name for name, member in behind.items() if stood.get(name, 0) > old[member])


def _tops(conn: Connection, schema: str, members: set[tuple[str, str]]) -> Mapping[tuple[str, str], int]:
    """The greatest value of each column, 0 if it has none."""
    ordered = sorted(members)
    tops: dict[tuple[str, str], int] = {}
    for start in range(0, len(ordered), 200):  # one query for each would cost more than reading it
        chunk = ordered[start : start + 200]
        query = sql.SQL(" UNION ALL ").join(
            sql.SQL("SELECT {}, {}, max({})::numeric FROM {}").format(
                sql.Literal(table), sql.Literal(column), sql.Identifier(column), sql.Identifier(schema, table)
            )
            for table, column in chunk
        )
        tops |= {(table, column): int(top or 0) for table, column, top in conn.execute(query).fetchall()}
    return tops
