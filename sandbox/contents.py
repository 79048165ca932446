"""How much a backup holds: the rows of every table, and their bytes as text, as the intake has measured them.

A file's size says little: the same rows take a quarter of the space compressed. So rows are counted and measured as
COPY writes them, which is the same in every format.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.intake import Backup, Unit


@dataclass(frozen=True)
class Contents:
    """What a backup holds.

    :param unit: what `sizes` are: ``text``, bytes of the rows as COPY writes them; ``inserts``, bytes of INSERT
        statements; ``stored``, bytes as they are in the archive, where Python cannot decompress them.
    :param sizes: by table as `Backup.tables` calls it; tables without rows are left out, where that can be told.
    :param rows: rows by table, of ``text``; else None.
    """

    unit: Unit
    sizes: Mapping[str, int]
    rows: Mapping[str, int] | None

    @classmethod
    def of(cls, backup: Backup) -> Contents:
        """What the intake has measured."""
        return cls(backup.unit, dict(backup.sizes), dict(backup.rows) if backup.unit == "text" else None)

    @property
    def size(self) -> int:
        """Bytes of all tables."""
        return sum(self.sizes.values())
