"""The plan of a merge: for every table what is done with its rows, for every column how its values are mapped.

A plan is made once from the central's catalog and the profile (`merge.planner`), and read by the engine, the
proof and the report. It holds no SQL and no data.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ALL = "all"
"""The scope in which everything of meaning comes; a profile may declare others, in which less does."""

KEEP_CENTRAL = "central_kept"
"""Reason of a reconciled row: it is already there, and where it differs the central's value stays."""

CENTRAL_OWNS = "central_owns"
"""Reason of an excluded row: it belongs to a row that the central has already, whose rows are the central's only."""

BELONGS = "belongs"
"""Reason of an excluded row: it refers to a row that the scope leaves out."""

SET = "set"
"""Reason of an inserted row: some of its columns were given declared values."""


class Role(StrEnum):
    """What a table is."""

    CATALOG = "catalog"
    ENTITY = "entity"
    EVENT = "event"
    LINK = "link"
    CONFIG = "config"
    QUEUE = "queue"
    DERIVED = "derived"
    AUDIT = "audit"


class Disposition(StrEnum):
    """What became of a source row; every source row has exactly one."""

    INSERTED = "inserted"
    MATCHED = "matched"
    RECONCILED = "reconciled"
    GROUPED = "grouped"
    EXCLUDED = "excluded"
    REJECTED = "rejected"


class Action(StrEnum):
    """Whether the rows of a table come along."""

    MERGE = "merge"
    EXCLUDE = "exclude"


class ColumnKind(StrEnum):
    """How the values of a column get into the merged database."""

    VERBATIM = "verbatim"
    """As they are, bit by bit."""
    KEY = "key"
    """Through the crosswalk of the column's key domain (own key or reference)."""
    LARGE_OBJECT = "large_object"
    """An oid that names a large object: through the source's large object map."""
    GENERATED = "generated"
    """Computed by the server; neither inserted nor compared with the source."""


@dataclass(frozen=True)
class ColumnPlan:
    """One column; `domain` names the key domain if `kind` is KEY; `type` as format_type() spells it."""

    name: str
    kind: ColumnKind = ColumnKind.VERBATIM
    domain: str | None = None
    type: str = ""


@dataclass(frozen=True)
class Domain:
    """Values that name the same things: a key column and all columns that refer to it.

    `name` is ``table.column`` of the defining key, or a declared name. A `fixed` domain never changes (codes shipped
    by the vendor, national codes); the others move by an offset, but for the rows in their map table.
    `members` are all (table, column) pairs of the domain, the defining one first.
    """

    name: str
    fixed: bool
    members: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Constant:
    """A column that has this value, NULL if None, in every row that is inserted from a source."""

    column: str
    value: str | None
    reason: str


@dataclass(frozen=True)
class LeaveOut:
    """Rows of a source that the scope leaves out.

    :param name: stands in the ledger, the same in every language.
    :param where: condition on the row ``s``; tables named in it are the source's.
    """

    name: str
    where: str
    reason: str


@dataclass(frozen=True)
class Follow:
    """A reference on which a row is left out together with the row of `table` that it refers to."""

    columns: tuple[str, ...]
    table: str
    ref_columns: tuple[str, ...]


@dataclass(frozen=True)
class Addition:
    """Rows that come in place of those of a table that the scope leaves out; they are no rows of the source.

    :param of: a key column of `table`: a row comes only where what it names was inserted from the same source.
    :param query: gives every column of `table`, with the source's keys, from the source's tables.
    """

    name: str
    table: str
    of: str
    query: str
    reason: str


@dataclass(frozen=True)
class TablePlan:
    """One table; its role is None if no rule of the profile says what it is.

    :param key: columns that identify a row (primary key, else a unique key without NULLs); empty if there is none.
    :param match: declared keys, tried in order, by which a source row is the same as a row already there.
    :param within: column whose parent, when it was matched, makes this row be looked for by content among that
        parent's rows.
    :param central_owns: column whose parent, when it was matched, has the central's rows only: others are excluded.
    :param rule: which rule of the profile gave the role, and `reason` its reason.
    :param constants: values of inserted rows; only for tables with a key of their own.
    :param leave_out: conditions under which a row does not come.
    :param follows: references to tables of which rows are left out.
    """

    name: str
    role: Role | None
    action: Action
    rule: str
    reason: str
    key: tuple[str, ...]
    columns: tuple[ColumnPlan, ...]
    match: tuple[tuple[str, ...], ...] = ()
    within: str | None = None
    central_owns: str | None = None
    constants: tuple[Constant, ...] = ()
    leave_out: tuple[LeaveOut, ...] = ()
    follows: tuple[Follow, ...] = ()

    def column(self, name: str) -> ColumnPlan:
        """Return the plan of one column."""
        return next(c for c in self.columns if c.name == name)


@dataclass(frozen=True)
class Plan:
    """All tables of the application's schema, in an order in which matches can be made; and what the scope adds."""

    schema: str
    tables: tuple[TablePlan, ...]
    domains: Mapping[str, Domain]
    scope: str = ALL
    additions: tuple[Addition, ...] = ()

    def __iter__(self) -> Iterator[TablePlan]:
        return iter(self.tables)

    def table(self, name: str) -> TablePlan:
        """Return the plan of one table."""
        return next(t for t in self.tables if t.name == name)

    def own_domain(self, table: TablePlan) -> Domain | None:
        """The domain that moves and that the table's key defines; None if its key is fixed, inherited or composite."""
        if len(table.key) != 1:
            return None
        name = table.column(table.key[0]).domain
        domain = self.domains[name] if name else None
        return domain if domain and not domain.fixed and domain.members[0] == (table.name, table.key[0]) else None

    def merged(self) -> Iterator[TablePlan]:
        """The tables whose rows come along."""
        return (t for t in self.tables if t.action is Action.MERGE)
