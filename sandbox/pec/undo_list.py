"""The undo list: what was changed in a restored copy, kept outside of the database.

A folder, for its owner only. ``undo.jsonl`` is only ever appended to, one line at a time, each on the disk before the
next step: what a batch of changes is about to do (*prepared*), that it was committed (*done*), that it turned out not
to have been (*void*), that it was taken back (*undone*). The values, old and new, are beside it in the form that COPY
gives them, one file for each rule: among them are passwords and certificates, so nothing of them is ever shown.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any, Literal

from merge.errors import BlockedError
from merge.language import text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    Buffer = bytes | bytearray | memoryview

State = Literal["prepared", "done", "void", "undone"]

_BLOCK = 2**20


@dataclass(frozen=True)
class Entry:
    """What one rule changed in one table: `rows` rows, in `file`.

    :param key: columns of the primary key. The file has them first, then the old values of `columns`, then, unless
        the rows were taken out, the new ones.
    """

    rule: str
    table: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    delete: bool
    rows: int
    file: str
    sha256: str


@dataclass(frozen=True)
class Batch:
    """The changes of one transaction, in their order."""

    number: int
    state: State
    entries: tuple[Entry, ...]


class Writer:
    """Writes one file of values and measures it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of what was written so far."""
        return self._hash.hexdigest()

    def write(self, block: Buffer) -> None:
        """Append a block."""
        self._hash.update(block)
        self._file.write(block)


class UndoList:
    """The undo list of one database, in `folder`, which is made when it is needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lines = folder / "undo.jsonl"

    def batches(self) -> tuple[Batch, ...]:
        """All batches in their order. A line that was cut off by a kill says nothing."""
        batches: dict[int, Batch] = {}
        for line in self._read():
            if line["state"] == "prepared":
                entries = tuple(_entry(entry) for entry in line["entries"])
                batches[line["batch"]] = Batch(line["batch"], "prepared", entries)
            else:
                for number in line["batches"]:
                    batches[number] = replace(batches[number], state=line["state"])
        return tuple(batches.values())

    def current(self) -> tuple[Batch, ...]:
        """The batches that hold, or, when all was taken back, those that were taken back last."""
        batches = self.batches()
        if holding := tuple(batch for batch in batches if batch.state in ("prepared", "done")):
            return holding
        last: list[int] = next((line["batches"] for line in reversed(self._read()) if line["state"] == "undone"), [])
        return tuple(batch for batch in batches if batch.number in last)

    def next_number(self) -> int:
        """The number of a batch that is to be prepared."""
        return len(self.batches()) + 1

    @contextmanager
    def writing(self, name: str) -> Iterator[Writer]:
        """A file of values, made anew: one of that name that no line speaks of was left by a kill."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            yield Writer(file)
            file.flush()
            os.fsync(file.fileno())

    def reading(self, entry: Entry) -> Iterator[bytes]:
        """The blocks of a file of values.

        :raises BlockedError: before the first if it is not what was written.
        """
        path = self.folder / entry.file
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            found = ""
        if found != entry.sha256:
            raise BlockedError(
                text(
                    pt=f"A lista de desfazer foi alterada: {entry.file} não é o que foi gravado.",
                    en=f"The undo list was tampered with: {entry.file} is not what was written.",
                ),
                evidence=path,
                next_step=text(
                    pt="Descarte esta cópia e restaure o backup de novo.", en="Discard this copy and restore again."
                ),
            )
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block

    def prepare(self, number: int, entries: Sequence[Entry]) -> None:
        """Write down what is about to be committed."""
        _sync_folder(self.folder)  # the files of values are there before a line speaks of them
        self._append({"batch": number, "state": "prepared", "entries": [asdict(entry) for entry in entries]})

    def mark(self, state: Literal["done", "void", "undone"], batches: Sequence[Batch]) -> None:
        """Write down what became of batches; the values of void ones are removed."""
        self._append({"state": state, "batches": [batch.number for batch in batches]})
        if state == "void":
            for batch in batches:
                for entry in batch.entries:
                    (self.folder / entry.file).unlink(missing_ok=True)

    def _read(self) -> list[dict[str, Any]]:
        if not self._lines.exists():
            return []
        whole, _, _ = self._lines.read_bytes().rpartition(b"\n")
        return [json.loads(line) for line in whole.splitlines()]

    def _append(self, line: dict[str, Any]) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        with os.fdopen(os.open(self._lines, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            written = file.read()
            file.truncate(written.rfind(b"\n") + 1)  # what a kill cut off
            file.seek(0, os.SEEK_END)
            file.write(json.dumps({"at": at, **line}).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(self.folder)


def _entry(kept: dict[str, Any]) -> Entry:
    return Entry(**{**kept, "key": tuple(kept["key"]), "columns": tuple(kept["columns"])})


def _sync_folder(folder: Path) -> None:
    """Bring names of files to the disk, where a folder can be opened (not on Windows)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
