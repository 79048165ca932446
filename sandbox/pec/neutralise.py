"""Keep a restored copy from talking to the outside, by SQL, before PEC first starts on it; and take that back.

What is changed is declared by the profile (``[[neutralise]]``). Every old value is on the disk, in an undo list outside
of the database, before the change is committed. No row passes through Python.

It works as the owner of the tables, which need not be a superuser: a restored database holds functions and rules of
somebody else. Triggers of the tables do not fire (they would write the history of changes that must leave no trace),
foreign keys do.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from merge.errors import BlockedError
from merge.language import counted, text
from sandbox.pec.undo_list import Entry
from sandbox.pec.undo_values import SHOWN, Conflict, Values, changing, columns_of, key_of, load, set_exact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from merge.profile import Neutralise
    from sandbox.pec.undo_list import Batch, UndoList
    from sandbox.pec.undo_values import Connect, Connection


class Found(StrEnum):
    """What a rule finds in a database."""

    NEUTRAL = "neutral"
    ACTIVE = "active"
    """Rows are not as the rule wants them."""
    MISSING = "missing"
    """No row meets a rule that requires one."""
    ABSENT = "absent"
    """The table or a column is not there: in this version, or under this name. A person has to look."""


@dataclass(frozen=True)
class RuleState:
    """What one rule finds; `rows` are those that are not neutral."""

    rule: str
    title: str
    table: str
    found: Found
    rows: int


@dataclass(frozen=True)
class Neutrality:
    """What all rules find."""

    rules: tuple[RuleState, ...]

    @property
    def open(self) -> tuple[RuleState, ...]:
        """What is not neutral: PEC must not start while there is any."""
        return tuple(rule for rule in self.rules if rule.found in (Found.ACTIVE, Found.MISSING))

    @property
    def absent(self) -> tuple[RuleState, ...]:
        """What could not be asked."""
        return tuple(rule for rule in self.rules if rule.found is Found.ABSENT)

    def demand(self) -> None:
        """Forbid PEC to start on a copy that is not neutral.

        :raises BlockedError: naming what is not.
        """
        if self.open:
            raise BlockedError(
                text(
                    pt="A cópia ainda poderia falar com o mundo externo; o PEC não pode ser iniciado.",
                    en="The copy could still talk to the outside; PEC must not start.",
                ),
                details=[f"{rule.rule} {rule.title}: {rule.table}, {_rows(rule)}" for rule in self.open],
                next_step=text(
                    pt="Neutralize de novo. Se falta a linha que uma regra exige, ajuste-a com --override.",
                    en="Neutralise again. If a row that a rule requires is missing, adjust the rule by --override.",
                ),
            )


@dataclass(frozen=True)
class Change:
    """What one rule changed this time; `found` is what it finds now."""

    rule: str
    title: str
    table: str
    rows: int
    found: Found


@dataclass(frozen=True)
class Undone:
    """What was put back, in rows, and what was not; `conflicts` are the first of `conflict_count`."""

    restored: int
    conflicts: tuple[Conflict, ...]
    conflict_count: int


def neutralise(
    connect: Connect, rules: Sequence[Neutralise], undo_list: UndoList, *, link: str, schema: str = "public"
) -> tuple[Change, ...]:
    """Make the changes that are still to be made, in one transaction; none if all is neutral.

    Killed at any point, it can be called again: it finds out from the database whether what the list says was
    committed.

    :param connect: opens an autocommit connection of the tables' owner. Nothing else may work in the database.
    :param link: the address of the copy.
    :raises BlockedError: nothing was changed, or the database is not the one that the list speaks of any more.
    """
    with connect() as conn, _guarded(undo_list):
        _settle(conn, undo_list, schema)
        number = undo_list.next_number()
        with changing(conn, [rule.table for rule in rules], schema):
            entries = [
                entry
                for position, rule in enumerate(rules)
                if (entry := _apply(conn, rule, link, schema, undo_list, f"{number}-{position}")) is not None
            ]
            states = _states(conn, rules, link, schema)
            _refuse_active(states)
            if entries:
                undo_list.prepare(number, entries)
        if entries:
            undo_list.mark("done", undo_list.batches()[-1:])
    changed = {entry.rule: entry.rows for entry in entries}
    return tuple(Change(s.rule, s.title, s.table, changed.get(s.rule, 0), s.found) for s in states)


def verify(
    connect: Connect, rules: Sequence[Neutralise], *, link: str, schema: str = "public", searched: str | None = None
) -> Neutrality:
    """What is not neutral, and what could not be asked; only reads.

    :param searched: the schema that names without one are looked for in, if it is another: in a database of somebody
        else, a superuser must look in ``pg_catalog`` only.
    """
    with connect() as conn, conn.transaction():
        set_exact(conn, searched or schema)
        return Neutrality(_states(conn, rules, link, schema))


def undo(connect: Connect, undo_list: UndoList, *, overwrite: bool = False, schema: str = "public") -> Undone:
    """Put back what neutralising changed, exactly, the last change first.

    A value that is neither the one that neutralising wrote nor the old one is a conflict: it stays, unless `overwrite`.
    Where a changed row is gone, there is nothing to write to. It can be called again.

    :param connect: opens an autocommit connection of the tables' owner. PEC must not run.
    :raises BlockedError: nothing was put back.
    """
    batches = [batch for batch in undo_list.batches() if batch.state in ("prepared", "done")]
    restored, conflicts, count = 0, [], 0
    with connect() as conn, _guarded(undo_list):
        with changing(conn, [entry.table for batch in batches for entry in batch.entries], schema):
            for entry in reversed([entry for batch in batches for entry in batch.entries]):
                change = load(conn, undo_list, entry, schema, "undoing")
                if change is None:
                    conflicts.append(Conflict(entry.rule, entry.table, "", None))
                    count += entry.rows
                    continue
                restored += change.restore(overwrite=overwrite)
                found, total = change.conflicts()
                conflicts += found
                count += total
                change.drop()
        if batches and not count:
            undo_list.mark("undone", batches)
    return Undone(restored, tuple(conflicts[:SHOWN]), count)


def differences(
    connect: Connect, undo_list: UndoList, *, schema: str = "public", searched: str | None = None
) -> tuple[Conflict, ...]:
    """Where the database differs from what it held before it was first neutralised, bit by bit; `SHOWN` at most.

    It only compares what neutralising changed.

    :param searched: as in `verify`.
    """
    found: list[Conflict] = []
    with connect() as conn, _guarded(undo_list), conn.transaction():
        set_exact(conn, searched or schema)
        earlier: list[Values] = []
        for entry in (entry for batch in undo_list.current() for entry in batch.entries):
            change = load(conn, undo_list, entry, schema, f"change_{len(earlier)}")
            if change is None:
                found.append(Conflict(entry.rule, entry.table, "", None))
                continue
            found += change.listed(change.differing(earlier), SHOWN - len(found))
            earlier.append(change)
    return tuple(found[:SHOWN])


def is_undone(connect: Connect, undo_list: UndoList, *, schema: str = "public") -> bool:
    """True if everything that neutralising changed is again what it was, bit by bit."""
    return not differences(connect, undo_list, schema=schema)


# Rules


def _states(conn: Connection, rules: Sequence[Neutralise], link: str, schema: str) -> tuple[RuleState, ...]:
    return tuple(_state(conn, rule, link, schema) for rule in rules)


def _state(conn: Connection, rule: Neutralise, link: str, schema: str) -> RuleState:
    def state(found: Found, rows: int = 0) -> RuleState:
        return RuleState(rule.id, str(rule.title), rule.table, found, rows)

    columns = columns_of(conn, schema, rule.table)
    if not columns or not rule.values.keys() <= columns.keys():
        return state(Found.ABSENT)
    try:
        with conn.transaction():
            meeting, active = conn.execute(
                sql.SQL("SELECT count(*), count(*) FILTER (WHERE {}) FROM {} WHERE {}").format(
                    _differs(rule, link, columns), sql.Identifier(schema, rule.table), _expression(rule.where, link)
                )
            ).fetchone() or (0, 0)
    except (psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedTable):  # named by the condition
        return state(Found.ABSENT)
    if active:
        return state(Found.ACTIVE, active)
    return state(Found.MISSING if rule.required and not meeting else Found.NEUTRAL)


def _refuse_active(states: Sequence[RuleState]) -> None:
    """Rules that contradict each other, or a rule of the database that undoes them, leave rows that are active."""
    active = [state for state in states if state.found is Found.ACTIVE]
    if active:
        raise BlockedError(
            text(
                pt="As regras não deixam a cópia neutra: uma desfaz o que outra faz. Nada foi alterado.",
                en="The rules do not make the copy neutral: one undoes what another does. Nothing was changed.",
            ),
            details=[f"{state.rule}: {state.table}, {_rows(state)}" for state in active],
            next_step=text(pt="Corrija [[neutralise]] no perfil.", en="Correct [[neutralise]] in the profile."),
        )


def _apply(conn: Connection, rule: Neutralise, link: str, schema: str, undo_list: UndoList, name: str) -> Entry | None:
    """Carry out one rule; None if there is nothing to change."""
    state = _state(conn, rule, link, schema)
    if state.found is not Found.ACTIVE:
        return None
    types = columns_of(conn, schema, rule.table)
    key = key_of(conn, schema, rule.table)
    columns = tuple(types) if rule.delete else tuple(rule.values)
    if not key or set(key) & rule.values.keys():
        raise BlockedError(
            text(
                pt=f"A regra {rule.id} não pode ser desfeita: {rule.table} não tem chave primária, ou ela a altera.",
                en=f"Rule {rule.id} could not be undone: {rule.table} has no primary key, or the rule changes it.",
            ),
            next_step=text(pt="Corrija [[neutralise]] no perfil.", en="Correct [[neutralise]] in the profile."),
        )
    if rule.delete:
        _refuse_cascade(conn, rule, schema)
    values = Values(conn, Entry(rule.id, rule.table, key, columns, rule.delete, state.rows, "", ""), schema, "change")
    new = [] if rule.delete else [_new(rule, column, link, types) for column in columns]
    values.keep(new, sql.SQL("{} AND ({})").format(_expression(rule.where, link), _differs(rule, link, types)))
    file = f"{name}-{rule.table}.copy"
    with undo_list.writing(file) as writer:
        values.write(writer)
    rows = values.apply()
    values.drop()
    return Entry(rule.id, rule.table, key, columns, rule.delete, rows, file, writer.sha256)


def _differs(rule: Neutralise, link: str, types: Mapping[str, str]) -> sql.Composable:
    """The condition that a row is not as the rule wants it."""
    if rule.delete:
        return sql.SQL("true")
    return sql.SQL(" OR ").join(
        sql.SQL("{}::text IS DISTINCT FROM {}::text").format(sql.Identifier(column), _new(rule, column, link, types))
        for column in rule.values
    )


def _new(rule: Neutralise, column: str, link: str, types: Mapping[str, str]) -> sql.Composable:
    return sql.SQL("CAST({} AS {})").format(_expression(rule.values[column], link), sql.SQL(types[column]))


def _expression(declared: str, link: str) -> sql.Composable:
    return sql.SQL("({})").format(sql.SQL(declared).format(link=sql.Literal(link)))


def _refuse_cascade(conn: Connection, rule: Neutralise, schema: str) -> None:
    """Rows that would go, or change, together with those taken out are in no undo list."""
    for child, referring in conn.execute(
        "SELECT c.relname, n.nspname FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid"
        "  JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE k.contype = 'f' AND k.confdeltype IN ('c', 'n', 'd') AND k.conrelid <> k.confrelid"
        "   AND k.confrelid = to_regclass(quote_ident(%s) || '.' || quote_ident(%s))",
        [schema, rule.table],
    ).fetchall():
        there = sql.SQL("SELECT EXISTS (SELECT 1 FROM {})").format(sql.Identifier(referring, child))
        if conn.execute(there).fetchone() == (True,):
            raise BlockedError(
                text(
                    pt=f"Retirar as linhas de {rule.table} mudaria também as de {child}, sem volta.",
                    en=f"Taking out the rows of {rule.table} would change those of {child} too, beyond recall.",
                ),
                next_step=text(
                    pt=f"Declare antes da regra {rule.id} uma que retire as linhas de {child}.",
                    en=f"Declare, before rule {rule.id}, one that takes out the rows of {child}.",
                ),
            )


def _settle(conn: Connection, undo_list: UndoList, schema: str) -> None:
    """Find out what became of a batch that was prepared: nothing but the database knows whether it was committed."""
    for batch in [batch for batch in undo_list.batches() if batch.state == "prepared"]:
        with changing(conn, [entry.table for entry in batch.entries], schema):
            at = _at(conn, undo_list, batch, schema)
        if at is None:
            raise BlockedError(
                text(
                    pt="Uma neutralização foi interrompida e o banco mudou depois: não se sabe o que valia antes.",
                    en="A neutralisation was interrupted and the database changed since: what held before is unknown.",
                ),
                evidence=undo_list.folder,
                next_step=text(
                    pt="Restaure o backup em uma cópia nova, com uma lista de desfazer nova.",
                    en="Restore the backup into a new copy, with a new undo list.",
                ),
            )
        undo_list.mark("void" if at == "o" else "done", [batch])


def _at(conn: Connection, undo_list: UndoList, batch: Batch, schema: str) -> str | None:
    """``n`` if the database is as after the batch, ``o`` if it is as before, None if it is neither."""
    loaded = [
        load(conn, undo_list, entry, schema, f"settling_{position}") for position, entry in enumerate(batch.entries)
    ]
    for kind in ("n", "o"):
        if all(values is not None and values.is_at(kind) for values in loaded):
            return kind
    return None


@contextmanager
def _guarded(undo_list: UndoList) -> Iterator[None]:
    """What the database says may quote a row; it is told by its code."""
    try:
        yield
    except OSError as ex:
        raise _unfinished(undo_list, ex.strerror or type(ex).__name__) from None
    except psycopg.Error as ex:
        named = ", ".join(filter(None, (ex.diag.table_name, ex.diag.column_name, ex.diag.constraint_name)))
        if isinstance(ex, psycopg.errors.LockNotAvailable):
            why = text(pt="outro programa usa o banco", en="another program uses the database")
        else:
            why = f"SQLSTATE {ex.sqlstate or '-'}"
        raise _unfinished(undo_list, why, named) from None


def _unfinished(undo_list: UndoList, why: str, named: str = "") -> BlockedError:
    return BlockedError(
        text(pt=f"A mudança na cópia não terminou: {why}.", en=f"The change of the copy was not finished: {why}."),
        details=[named] if named else [],
        evidence=undo_list.folder,
        next_step=text(
            pt="Corrija a causa e repita: a lista de desfazer diz o que já foi feito.",
            en="Remove the cause and repeat: the undo list tells what was done.",
        ),
    )


def _rows(state: RuleState) -> str:
    if state.found is Found.MISSING:
        return text(pt="a linha não existe", en="the row is not there")
    return counted(state.rows, text(pt="linha ativa", en="active row"), text(pt="linhas ativas", en="active rows"))
