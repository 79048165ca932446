"""The ledger: what became of every source row, counted by table, disposition and reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge.plan import Disposition

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class LedgerLine:
    """Rows of one table with the same disposition for the same reason."""

    table: str
    disposition: Disposition
    reason: str
    rows: int


@dataclass(frozen=True)
class Added:
    """Rows of one table that the scope added; they are no rows of the source."""

    table: str
    reason: str
    rows: int


@dataclass(frozen=True)
class Ledger:
    """All lines of one source; the sum over a table is its number of rows in the source. What was added is beside."""

    lines: tuple[LedgerLine, ...]
    added: tuple[Added, ...] = ()

    def totals(self) -> Mapping[str, int]:
        """Rows by disposition, all of them, zero included."""
        count: Counter[str] = Counter({d.value: 0 for d in Disposition})
        for line in self.lines:
            count[line.disposition.value] += line.rows
        return count

    def of(self, table: str) -> tuple[LedgerLine, ...]:
        """The lines of one table."""
        return tuple(line for line in self.lines if line.table == table)
