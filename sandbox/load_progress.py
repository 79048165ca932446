"""How far the load of a source is."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.restore import OnProgress


_COMPRESSED = 0.2
"""Compressed bytes per byte of COPY data, until the first table tells."""


class LoadProgress:
    """Bytes of the archive that are done; within a table they are estimated by those that are."""

    def __init__(self, on_progress: OnProgress | None) -> None:
        self.on_progress = on_progress
        self.sizes: dict[str, int] = {}
        self.total = 0
        self.read = 0
        self.done = 0
        self.read_when_done = 0
        self.lock = threading.Lock()

    def expect(self, sizes: Mapping[str, int], total: int | None = None) -> None:
        """Tell the compressed bytes of each table, or the whole's if those are not known."""
        self.sizes = dict(sizes)
        self.total = sum(sizes.values()) if total is None else total

    def add(self, count: int) -> None:
        """Note bytes that were read, decompressed."""
        with self.lock:
            self.read += count
            if self.on_progress is not None:
                ratio = self.done / self.read_when_done if self.read_when_done else _COMPRESSED if self.sizes else 1.0
                ahead = int((self.read - self.read_when_done) * ratio)
                self.on_progress(min(self.done + ahead, self.total), self.total)

    def finish(self, table: str) -> None:
        """Note that a table is done."""
        with self.lock:
            if table in self.sizes:
                self.done += self.sizes[table]
                self.read_when_done = self.read
