"""The tables and columns that an application is known to have, kept beside its profile as plain text.

One line a table: its name, a colon, its columns; those of the primary key have a ``*`` before them::

    tb_cidadao_grupo: *co_seq_cidadao_grupo co_cidadao co_cidadao_master co_cidadao_unificado

Against it a profile is checked before there is any database. It decides nothing about a merge: what is really there is
read from the catalog. ``python -m sandbox.inventory > merge/profiles/pec.inventory`` makes that of PEC anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from merge.catalog import Catalog


@dataclass(frozen=True)
class KnownTable:
    """The columns of one table in their order, and those of its primary key in theirs."""

    columns: tuple[str, ...]
    primary_key: tuple[str, ...]


Inventory = dict[str, KnownTable]
"""Known tables by name."""


def of_catalog(catalog: Catalog) -> Inventory:
    """The inventory of a schema that was read."""
    return {t.name: KnownTable(tuple(c.name for c in t.columns), t.primary_key) for t in catalog.tables.values()}


def render(inventory: Mapping[str, KnownTable]) -> str:
    """The inventory as text, tables by name, which `read` understands."""
    lines = []
    for name, table in sorted(inventory.items()):
        # The key's columns first, in the order of the key, which may be another than that of the columns.
        rest = [c for c in table.columns if c not in table.primary_key]
        lines.append(" ".join([f"{name}:", *(f"*{c}" for c in table.primary_key), *rest]) + "\n")
    return "".join(lines)


def read(path: Path) -> Inventory:
    """Read an inventory.

    :raises OSError: if there is no such file.
    :raises ValueError: naming the lines that are not of the form, or name a table again.
    """
    inventory: Inventory = {}
    wrong = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        name, colon, columns = line.partition(":")
        words = columns.split()
        if not line.strip() or line.startswith("#"):
            continue
        if not colon or name in inventory:
            wrong.append(number)
        inventory[name] = KnownTable(
            tuple(w.removeprefix("*") for w in words), tuple(w[1:] for w in words if w.startswith("*"))
        )
    if wrong:
        raise ValueError(f"{path.name}: {', '.join(map(str, wrong))}")
    return inventory


def matching(pattern: str, tables: Mapping[str, Collection[str]]) -> Iterator[tuple[str, str]]:
    """The columns of `tables` (columns by table) that match a ``table.column`` pattern."""
    table_pattern, column_pattern = pattern.split(".")
    for table in [table_pattern] if table_pattern in tables else tables:
        if fnmatchcase(table, table_pattern):
            yield from ((table, c) for c in tables[table] if fnmatchcase(c, column_pattern))


def is_exact(pattern: str) -> bool:
    """True if a pattern has no wildcard."""
    return not any(sign in pattern for sign in "*?[")
