"""Backups read once, from begin to end: what is read is hashed on the way, and told."""

from __future__ import annotations

import hashlib
import io
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    OnProgress = Callable[[int, int], None]

_BUFFER = 1 << 20


class Reading:
    """One reading of a backup.

    :param delivered: the file or folder that is hashed.
    :param readable: what is read beside, where the backup had to be unwrapped; it is not hashed.
    :param on_progress: called with bytes read and bytes in all.
    """

    def __init__(self, delivered: Path, readable: Path, on_progress: OnProgress | None) -> None:
        self.delivered = delivered
        self._sizes = {path: path.stat().st_size for path in _files(delivered)}
        self.size = sum(self._sizes.values())
        """Bytes as delivered."""
        self._hashes: dict[Path, str] = {}
        self._on_progress = on_progress
        self._done = 0
        self._total = self.size
        if readable != delivered:
            self._total += sum(path.stat().st_size for path in _files(readable))

    @contextmanager
    def open(self, path: Path) -> Iterator[IO[bytes]]:
        """Open a file that is read in its order, and cannot be sought in; at the end what was left is read too."""
        raw = _Raw(path, self._add, hashed=path in self._sizes)
        with io.BufferedReader(raw, _BUFFER) as file:
            yield file
            while file.read(_BUFFER):
                pass
        if path in self._sizes:
            self._hashes[path] = raw.hash.hexdigest()

    def sha256(self) -> str:
        """SHA-256 of the file as delivered; of a folder, that of the list of its files' hashes.

        What was not opened so far is read now.
        """
        for path in self._sizes:
            if path not in self._hashes:
                with self.open(path):
                    pass
        if self.delivered in self._hashes:
            return self._hashes[self.delivered]
        names = sorted((path.relative_to(self.delivered).as_posix(), path) for path in self._sizes)
        manifest = "".join(f"{self._hashes[path]}  {name}\n" for name, path in names)
        return hashlib.sha256(manifest.encode()).hexdigest()

    def _add(self, count: int) -> None:
        self._done += count
        if self._on_progress is not None:
            self._on_progress(min(self._done, self._total), self._total)


class _Raw(io.RawIOBase):
    def __init__(self, path: Path, add: Callable[[int], None], *, hashed: bool) -> None:
        self.hash = hashlib.sha256()
        self._file = path.open("rb", buffering=0)
        self._add = add
        self._hashed = hashed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer) or 0
        if self._hashed:
            self.hash.update(memoryview(buffer)[:count])
        self._add(count)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
