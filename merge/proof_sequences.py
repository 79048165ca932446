"""Proof that sequences are what they were, never behind where they stood, and ahead of the keys they number."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

from psycopg import sql

from merge import proof_objects
from merge.proof import Findings, Kind

if TYPE_CHECKING:
    from merge.catalog import Catalog
    from merge.plan import Plan
    from merge.proof_session import Connection

Member = tuple[str, str]


def check(conn: Connection, plan: Plan, catalog: Catalog, findings: Findings, *, by_application: bool = False) -> None:
    """Compare every sequence with the baseline and with the data.

    A sequence that already stood behind its data must only not have fallen back, unless the data grew. Which keys it
    numbers can be unsure: this project puts it ahead of all that it may, so that it must be.

    :param by_application: the application has numbered what came, which moves no other sequence than that of a table:
        one is only known to be behind if it is behind all keys that it may number.
    """
    before = {
        name: (last + called, definition)
        for name, last, called, definition in conn.execute(
            "SELECT name, last_value, is_called::int, definition FROM homolog.base_sequence"
        )
    }
    now = {name: (last + called, text) for name, last, called, text in proof_objects.sequences(conn, plan.schema)}
    keys = [(t.name, t.key[0]) for t in plan if len(t.key) == 1 and _is_integer(catalog, t.name, t.key[0])]
    top, old_top = cache(partial(_top, conn, plan.schema)), cache(partial(_old_top, conn))
    moving = [member for member in keys if _moves(plan, member)]

    def is_behind(stands: int, member: Member) -> bool:
        return stands <= top(member) and top(member) > old_top(member)

    for name in sorted(before):
        if name not in now:
            findings.touched()
            findings.add(Kind.SEQUENCE, name, reason="gone")
            continue
        (stood, definition), (stands, redefined) = before[name], now[name]
        if definition != redefined:
            findings.touched()
            findings.add(Kind.SEQUENCE, name, expected=definition, found=redefined, reason="other properties")
        if stands < stood:
            findings.touched()
            findings.add(Kind.SEQUENCE, name, expected=f"≥ {stood}", found=str(stands), reason="fell back")
        increment = catalog.sequences[name].increment if name in catalog.sequences else 1
        if increment < 0:
            continue
        numbered = _numbered(name, catalog, keys) or moving
        member = next((m for m in numbered if is_behind(stands, m)), None)
        if member is None or (by_application and not all(is_behind(stands, m) for m in numbered)):
            continue
        findings.add(
            Kind.SEQUENCE, name, column=".".join(member), expected=f"> {top(member)}", found=f"next is {stands}"
        )


def _is_integer(catalog: Catalog, table: str, column: str) -> bool:
    described = catalog.tables[table].column(column) if table in catalog.tables else None
    return described is not None and described.integer


def _moves(plan: Plan, member: Member) -> bool:
    table = plan.table(member[0])
    return plan.own_domain(table) is not None


def _numbered(sequence: str, catalog: Catalog, keys: list[Member]) -> list[Member]:
    """The keys that a sequence numbers, by ownership or by its name; empty if nothing tells.

    Names known: ``table_column_seq``, ``seq_table`` and, without underscores, abbreviated and cut off,
    ``sq_<table>_<column>``; the table with its prefix or without.
    """
    owner = catalog.sequences[sequence].owner if sequence in catalog.sequences else None
    if owner is not None:
        return [owner] if _is_integer(catalog, *owner) else []
    return [member for member in keys if _is_named_after(sequence, *member)]


def _is_named_after(sequence: str, table: str, column: str) -> bool:
    stem = table.partition("_")[2] or table
    for name in (table, stem):
        if sequence in (f"{name}_{column}_seq", f"{name}_seq", f"seq_{name}", f"sq_{name}"):
            return True
    prefix, _, rest = sequence.partition("_")
    entity, _, number = rest.rpartition("_")
    if prefix != "sq" or len(number) < 6 or not column.replace("_", "").startswith(number):
        return False
    return any(_abbreviates(entity.replace("_", ""), name.replace("_", "")) for name in (table, stem))


def _abbreviates(short: str, name: str) -> bool:
    """Whether a name gives the other one if letters are left out."""
    position = 0
    for letter in short:
        position = name.find(letter, position) + 1
        if not position:
            return False
    return True


def _top(conn: Connection, schema: str, member: Member) -> int:
    table, column = member
    row = conn.execute(
        sql.SQL("SELECT max({}) FROM {}").format(sql.Identifier(column), sql.Identifier(schema, table))
    ).fetchone()
    return int(row[0]) if row is not None and row[0] is not None else 0


def _old_top(conn: Connection, member: Member) -> int:
    row = conn.execute(
        "SELECT high FROM homolog.base_range WHERE table_name = %s AND column_name = %s", list(member)
    ).fetchone()
    return int(row[0]) if row is not None else _top(conn, "homolog_base", member)
