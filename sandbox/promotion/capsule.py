"""The configuration capsule: production's own configuration, put back into the candidate before it takes its place.

Which tables that is, the profile declares (``[[capsule]]``). Afterwards every row of them that production has is in the
candidate, bit by bit; rows that only the candidate has were added by the merge and stay. Among the values are passwords
and certificates: they go from one database to the other as COPY gives them, and nothing of them is parsed or shown.

It is also shown here that nothing of what kept the sandbox silent (`sandbox.pec.neutralise`) is in the candidate.

Both databases hold code of somebody else, and our role may be a superuser: names are looked for in ``pg_catalog`` only,
triggers and rules do not fire, and what still runs at a write (checks, expressions of indexes) runs as the tables'
owner.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from merge.errors import BlockedError, PromotionRefused
from merge.language import counted, text
from sandbox.options import CENTRAL, PEC, options_of
from sandbox.pec import alternate, neutralise
from sandbox.pec.undo_values import SHOWN, changing, columns_of, key_of, set_exact

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from merge.profile import Capsule as Declared
    from merge.profile import Profile
    from sandbox.promotion.production import Connection, Production
    from sandbox.runs import Run

_SEARCHED = "pg_catalog"
_NO_LINK = "https://homolog.invalid"
"""Stands for the address of a copy: no installation has it, so that every address counts as one that is in use."""


@dataclass(frozen=True)
class TableCapsule:
    """What was done to one table, in rows.

    :param rows: rows of production that are meant: the sum of the three that follow.
    :param same: they were in the candidate already, bit by bit.
    :param put_back: they had other values there.
    :param added: they were not there.
    :param only_in_candidate: rows of the candidate that production does not have.
    """

    table: str
    rows: int
    same: int
    put_back: int
    added: int
    only_in_candidate: int


@dataclass(frozen=True)
class Capsule:
    """What was done to all tables; `absent` are those that neither database has, in this version."""

    tables: tuple[TableCapsule, ...]
    absent: tuple[str, ...]


@dataclass(frozen=True)
class RuleStanding:
    """Rows in use that one rule of neutralising finds in both databases; None where it cannot be asked."""

    rule: str
    table: str
    production: int | None
    candidate: int | None


@dataclass(frozen=True)
class Undone:
    """That nothing of the sandbox's neutralisation is in the candidate.

    :param tables: tables that rules change, all of whose rows in production are the same in the candidate.
    :param rows: rows compared.
    :param listed: rows of the sandbox's undo list, all of whose old values are in the candidate; 0 where the candidate
        itself was never neutralised.
    """

    rules: tuple[RuleStanding, ...]
    tables: int
    rows: int
    listed: int


def put_back(production: Production, candidate: str, profile: Profile) -> Capsule:
    """Put production's configuration back into the database `candidate`, in one transaction; and read it once more.

    :raises PromotionRefused: it cannot be put back; the candidate is what it was.
    """
    schema = profile.application.schema_
    done, absent = [], []
    with _told(), production.connect() as origin, production.connect(candidate) as conn, _reading(origin):
        tables = [declared.table for declared in profile.capsule]
        with changing(conn, tables, schema, _SEARCHED):
            conn.execute("SET LOCAL row_security = off")
            problems: list[str] = []
            for declared in profile.capsule:
                rows = _Rows.of(origin, conn, declared.table, declared.where, schema, problems)
                if rows is None:
                    absent.append(declared.table)
                    continue
                with _as_owner(production, conn, schema, declared.table):
                    done.append(_put_back(rows, declared, problems))
            if problems:
                raise _refused(problems)
    _demand_same(production, candidate, profile.capsule, schema)
    return Capsule(tuple(done), tuple(absent))


def undo_is_complete(production: Production, candidate: str, run: Run, profile: Profile) -> Undone:
    """Show that nothing of the sandbox's neutralisation is in the database `candidate`.

    Whatever a rule would change is as in production, row by row; and where the sandbox neutralised the candidate itself
    (engine pec), the old values of its undo list are in it.

    :raises PromotionRefused: something is, or that cannot be told.
    """
    schema = profile.application.schema_
    tables = list(dict.fromkeys(rule.table for rule in profile.neutralise))
    problems: list[str] = []
    compared = 0
    with _told():
        for found in _compare(production, candidate, [(table, "true") for table in tables], schema, problems):
            compared += found.rows
            problems += _unlike(found)
        standing = _rules(production, candidate, profile, schema, problems)
        listed = _undo_list(production, candidate, run, schema, problems)
    if problems:
        raise PromotionRefused(
            text(
                pt="Há no candidato algo da neutralização da sandbox; ele não vai para a produção.",
                en="Something of the sandbox's neutralisation is in the candidate; it does not go to production.",
            ),
            evidence=run.folder,
            details=problems[:SHOWN],
            next_step=text(
                pt="Nada foi feito na produção. Guarde a execução e peça ajuda: o perfil não cobre esse caso.",
                en="Nothing was done in production. Keep the run and ask for help: the profile does not cover this.",
            ),
        )
    return Undone(standing, len(tables), compared, listed)


def _rules(
    production: Production, candidate: str, profile: Profile, schema: str, problems: list[str]
) -> tuple[RuleStanding, ...]:
    """What all rules find in both databases: nothing may be in use in production and not in the candidate."""
    here, there = (
        neutralise.verify(
            partial(production.connect, database), profile.neutralise, link=_NO_LINK, schema=schema, searched=_SEARCHED
        ).rules
        for database in (production.database, candidate)
    )
    standing = []
    for before, now in zip(here, there, strict=True):
        rows = [None if s.found is neutralise.Found.ABSENT else s.rows for s in (before, now)]
        standing.append(RuleStanding(before.rule, before.table, *rows))
        if (rows[0] is None) != (rows[1] is None) or (rows[0] or 0) > (rows[1] or 0):
            problems.append(
                text(
                    pt=f"{before.rule} {before.table}: em uso {rows[0]} na produção, {rows[1]} no candidato",
                    en=f"{before.rule} {before.table}: in use {rows[0]} in production, {rows[1]} in the candidate",
                )
            )
    return tuple(standing)


def _undo_list(production: Production, candidate: str, run: Run, schema: str, problems: list[str]) -> int:
    """Rows of the sandbox's undo list; what of it is not in the candidate is a problem."""
    if options_of(run).engine != PEC:
        return 0
    if problem := alternate.undo_list_problem(run, CENTRAL):
        problems.append(problem)
    undo_list = alternate.undo_list_of(run, CENTRAL)
    connect = partial(production.connect, candidate)
    try:
        for left in neutralise.differences(connect, undo_list, schema=schema, searched=_SEARCHED):
            problems.append(f"{left.rule} {left.table} [{left.key}] {left.column or '-'}")
    except BlockedError as ex:  # the list was changed, or the server refused
        problems += [ex.what, *ex.details]
    return sum(entry.rows for batch in undo_list.current() for entry in batch.entries)


# One table


@dataclass(frozen=True)
class _Found:
    """How the rows of production stand in the candidate."""

    table: str
    rows: int
    missing: int
    differing: int
    only_in_candidate: int


class _Rows:
    """The rows of one table of production, in a temporary table of a session in the candidate."""

    def __init__(
        self, origin: Connection, conn: Connection, table: str, where: str, schema: str,
        columns: Sequence[str], key: Sequence[str],
    ) -> None:  # fmt: skip
        self._origin, self._conn = origin, conn
        self.name, self._where = table, sql.SQL("({})").format(sql.SQL(where))
        self._table = sql.Identifier(schema, table)
        self._columns, self._key = columns, key
        self._name = sql.Identifier(f"of_{table}"[:60])
        self._rows = sql.SQL("pg_temp.{}").format(self._name)

    @classmethod
    def of(
        cls, origin: Connection, conn: Connection, table: str, where: str, schema: str, problems: list[str]
    ) -> _Rows | None:
        """The rows of a table; None if neither side has it, or if something, added to `problems`, forbids to ask."""
        sides = [columns_of(side, schema, table) for side in (origin, conn)]
        if not any(sides):
            return None
        keys = [key_of(side, schema, table) for side in (origin, conn)]
        if sides[0] != sides[1] or keys[0] != keys[1]:
            problems.append(
                text(
                    pt=f"{table}: não é igual na produção e no candidato (colunas ou chave)",
                    en=f"{table}: is not the same in production and in the candidate (columns or key)",
                )
            )
        elif not keys[0]:
            problems.append(text(pt=f"{table}: não tem chave primária", en=f"{table}: has no primary key"))
        elif not all(_is_plain(side, schema, table) for side in (origin, conn)):
            problems.append(
                text(
                    pt=f"{table}: não é uma tabela comum, ou tem regras (CREATE RULE)",
                    en=f"{table}: is no ordinary table, or has rules (CREATE RULE)",
                )
            )
        else:
            return cls(origin, conn, table, where, schema, list(sides[0]), keys[0])
        return None

    def bring(self) -> None:
        """Bring them from production, as COPY gives them."""
        self._conn.execute(
            sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WHERE false").format(
                self._name, _list(self._columns), self._table
            )
        )
        give = sql.SQL("COPY (SELECT {} FROM {} WHERE {}) TO STDOUT").format(
            _list(self._columns), self._table, self._where
        )
        take = sql.SQL("COPY {} FROM STDIN").format(self._rows)
        with self._origin.cursor().copy(give) as giving, self._conn.cursor().copy(take) as taking:
            for block in giving:
                taking.write(block)
        self._conn.execute(sql.SQL("ANALYZE {}").format(self._rows))

    def compare(self) -> _Found:
        """How they stand in the candidate."""
        found = self._conn.execute(
            sql.SQL(
                "SELECT count(*), count(*) FILTER (WHERE t.{} IS NULL),"
                " count(*) FILTER (WHERE t.{} IS NOT NULL AND {}) FROM {} v LEFT JOIN {} t ON {}"
            ).format(*[sql.Identifier(self._key[0])] * 2, self._differs, self._rows, self._table, self._same_key)
        ).fetchone()
        others = self._conn.execute(
            sql.SQL("SELECT count(*) FROM {} t WHERE {} AND NOT EXISTS (SELECT 1 FROM {} v WHERE {})").format(
                self._table, self._where, self._rows, self._same_key
            )
        ).fetchone()
        assert found is not None
        assert others is not None
        return _Found(self.name, *found, *others)

    def write(self) -> None:
        """Make the candidate's rows the same."""
        assign = [column for column in self._columns if column not in self._key]
        if assign:
            self._conn.execute(
                sql.SQL("UPDATE {} t SET {} FROM {} v WHERE {} AND {}").format(
                    self._table,
                    sql.SQL(", ").join(sql.SQL("{0} = v.{0}").format(sql.Identifier(c)) for c in assign),
                    self._rows, self._same_key, self._differs,
                )
            )  # fmt: skip
        always = sql.SQL("OVERRIDING SYSTEM VALUE" if self._conn.info.server_version >= 100000 else "")
        self._conn.execute(
            sql.SQL(
                "INSERT INTO {} ({}) {} SELECT {} FROM {} v WHERE NOT EXISTS (SELECT 1 FROM {} t WHERE {})"
            ).format(
                self._table, _list(self._columns), always, _list(self._columns), self._rows, self._table,
                self._same_key,
            )
        )  # fmt: skip

    def drop(self) -> None:
        """Forget them, in the candidate's session."""
        self._conn.execute(sql.SQL("DROP TABLE {}").format(self._rows))

    @property
    def _same_key(self) -> sql.Composable:
        return sql.SQL(" AND ").join(sql.SQL("t.{0} = v.{0}").format(sql.Identifier(c)) for c in self._key)

    @property
    def _differs(self) -> sql.Composable:
        """Bit by bit: ``=`` takes 1.0 for 1.00, and json has none."""
        rows = (
            sql.SQL("ROW({})").format(
                sql.SQL(", ").join(sql.SQL("{}.{}").format(sql.SQL(side), sql.Identifier(c)) for c in self._columns)
            )
            for side in ("t", "v")
        )
        return sql.SQL("pg_catalog.record_image_ne({}, {})").format(*rows)


def _put_back(rows: _Rows, declared: Declared, problems: list[str]) -> TableCapsule:
    rows.bring()
    found = rows.compare()
    if declared.exact and found.only_in_candidate:
        problems.append(
            text(
                pt=f"{found.table}: só o candidato tem "
                f"{counted(found.only_in_candidate, 'linha', 'linhas')}, e não devia ter nenhuma a mais",
                en=f"{found.table}: {counted(found.only_in_candidate, 'row is', 'rows are')} only in the candidate, "
                "which may have no others than production",
            )
        )
    else:
        rows.write()
    rows.drop()
    same = found.rows - found.missing - found.differing
    return TableCapsule(found.table, found.rows, same, found.differing, found.missing, found.only_in_candidate)


def _compare(
    production: Production, candidate: str, tables: Iterable[tuple[str, str]], schema: str, problems: list[str]
) -> Iterator[_Found]:
    """Compare the rows of tables that meet a condition, and change nothing."""
    with production.connect() as origin, production.connect(candidate) as conn, _reading(origin), conn.transaction():
        set_exact(conn, _SEARCHED)
        conn.execute("SET LOCAL row_security = off")
        for table, where in tables:
            if (rows := _Rows.of(origin, conn, table, where, schema, problems)) is not None:
                with _as_owner(production, conn, schema, table):
                    rows.bring()
                    found = rows.compare()
                    rows.drop()
                yield found


def _demand_same(production: Production, candidate: str, declared: Sequence[Declared], schema: str) -> None:
    problems: list[str] = []
    with _told():
        for found in _compare(production, candidate, [(d.table, d.where) for d in declared], schema, problems):
            problems += _unlike(found)
    if problems:
        raise _refused(problems)


def _unlike(found: _Found) -> list[str]:
    wrong = found.missing + found.differing
    if not wrong:
        return []
    return [
        text(
            pt=f"{found.table}: {counted(found.missing, 'linha da produção falta', 'linhas da produção faltam')} no "
            f"candidato, {counted(found.differing, 'difere', 'diferem')}",
            en=f"{found.table}: {counted(found.missing, 'row', 'rows')} of production missing in the candidate, "
            f"{counted(found.differing, 'row differs', 'rows differ')}",
        )
    ]


def _is_plain(conn: Connection, schema: str, table: str) -> bool:
    """Whether rows are written to it as they are given, and its name stands for no query."""
    return conn.execute(
        "SELECT relkind IN ('r', 'p') AND NOT relhasrules FROM pg_class"
        " WHERE oid = to_regclass(quote_ident(%s) || '.' || quote_ident(%s))",
        [schema, table],
    ).fetchone() == (True,)


def _list(columns: Iterable[str]) -> sql.Composable:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


# Sessions


@contextmanager
def _reading(conn: Connection) -> Iterator[None]:
    """A transaction that sees one moment and writes nothing."""
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        set_exact(conn, _SEARCHED)
        conn.execute("SET LOCAL row_security = off")  # policies are code; who may not see all rows is told so
        yield


@contextmanager
def _as_owner(production: Production, conn: Connection, schema: str, table: str) -> Iterator[None]:
    """Within a transaction: a superuser works as the owner of a table, whose checks and indexes are code of others."""
    if not production.is_superuser:
        yield
        return
    row = conn.execute(
        "SELECT pg_get_userbyid(relowner) FROM pg_class"
        " WHERE oid = to_regclass(quote_ident(%s) || '.' || quote_ident(%s))",
        [schema, table],
    ).fetchone()
    assert row is not None
    conn.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(row[0])))
    yield
    conn.execute("SET LOCAL ROLE NONE")


@contextmanager
def _told() -> Iterator[None]:
    """What a server says may quote a row; it is told by its code. A line that is cut is for the caller to judge."""
    try:
        yield
    except psycopg.Error as ex:
        if ex.sqlstate is None or ex.sqlstate[:2] in ("08", "57"):
            raise
        named = ", ".join(filter(None, (ex.diag.table_name, ex.diag.column_name, ex.diag.constraint_name)))
        raise _refused([f"SQLSTATE {ex.sqlstate}" + (f": {named}" if named else "")]) from None


def _refused(problems: Sequence[str]) -> PromotionRefused:
    return PromotionRefused(
        text(
            pt="A configuração da produção não pôde ser devolvida ao candidato.",
            en="Production's configuration could not be put back into the candidate.",
        ),
        details=problems,
        next_step=text(
            pt="Nada foi feito na produção. Corrija a causa, ou [[capsule]] no perfil, e repita.",
            en="Nothing was done in production. Solve the cause, or correct [[capsule]] in the profile, and repeat.",
        ),
    )
