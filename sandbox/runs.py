"""Run folders: what a run was asked, what it has done, and its results; one process at a time."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import time
from collections.abc import Mapping, Set
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from merge.errors import ConfigError
from merge.language import text
from sandbox import audit
from sandbox.events import Events, now
from sandbox.lock import LOCKED_BYTE

if TYPE_CHECKING:
    from collections.abc import Iterator

CANDIDATE = "candidate"
"""Below the folder of a run: the dump of the merged database, as it was signed."""

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


def base_folder() -> Path:
    """Where runs are kept: ``HOMOLOG_RUNS``, or ``runs`` below the current folder."""
    return Path(os.environ.get("HOMOLOG_RUNS", "runs")).resolve()


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder where runs are, for what is restored or unpacked outside of any; it is removed at the end."""
    base_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".work-", dir=base_folder()) as folder:
        yield Path(folder)


class Run:
    """One run and its folder.

    ``run.json`` holds what it was asked and which steps are done; ``events.jsonl`` who did what when; other JSON files
    the result of each step. Nothing in it is of a patient.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events = Events(folder / "events.jsonl")
        self._lock: IO[str] | None = None

    @property
    def id(self) -> str:
        """The run's name."""
        return self.folder.name

    @property
    def created(self) -> str:
        """When it was made, ISO 8601 in UTC."""
        return str(self.load("run")["created"])

    @classmethod
    def create(cls, **asked: Any) -> Run:
        """Make a run with a new name, locked by this process."""
        stamp = datetime.now(UTC).astimezone().strftime("%Y%m%d-%H%M")
        name = f"{stamp}-{''.join(secrets.choice(_ALPHABET) for _ in range(4))}"
        folder = base_folder() / name
        try:
            folder.mkdir(mode=0o700, parents=True)
        except OSError as ex:
            raise ConfigError(
                text(
                    pt=f"A pasta das execuções não pode ser usada: {base_folder()} ({ex.strerror}).",
                    en=f"The folder of runs cannot be used: {base_folder()} ({ex.strerror}).",
                ),
                next_step=text(
                    pt="Indique outra na variável HOMOLOG_RUNS.", en="Name another in the variable HOMOLOG_RUNS."
                ),
            ) from None
        run = cls(folder)
        run.lock()
        run.save("run", {"run_id": name, "created": now(), "asked": asked, "done": {}})
        return run

    @classmethod
    def open(cls, name: str = "") -> Run:
        """Open a run by its name or a part of it; the last one by default.

        :raises ConfigError: if there is none, or more than one.
        """
        found = [run for run in cls.all() if name in run.id]
        if name and len(found) > 1:
            found = [run for run in found if run.id == name] or found
        if not found or (name and len(found) > 1):
            raise ConfigError(
                text(
                    pt=f"Não há uma execução {name or ''} em {base_folder()}." if not found
                    else f"Há {len(found)} execuções com {name} no nome.",
                    en=f"There is no run {name or ''} in {base_folder()}." if not found
                    else f"There are {len(found)} runs with {name} in their names.",
                ),
                details=[run.id for run in found],
            )  # fmt: skip
        return found[-1]

    @classmethod
    def all(cls) -> list[Run]:
        """All runs, in the order in which they were made."""
        runs = [cls(p.parent) for p in base_folder().glob("*/run.json")]
        return sorted(runs, key=lambda run: (run.created, run.id))

    # Lock

    def lock(self) -> None:
        """Keep other processes off until this one ends, however it ends.

        :raises ConfigError: if another process has the run.
        """
        if self._lock is not None:
            return
        file = os.fdopen(os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "a+")
        try:
            _lock_file(file)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "?"
            file.close()
            raise ConfigError(
                text(
                    pt=f"A execução {self.id} está em uso por outro processo ({holder}).",
                    en=f"The run {self.id} is in use by another process ({holder}).",
                ),
                next_step=text(pt="Espere que ele termine.", en="Wait for it to end."),
            ) from None
        file.truncate(0)
        file.write(f"pid {os.getpid()}, {now()}\n")
        file.flush()
        self._lock = file

    @property
    def is_busy(self) -> bool:
        """True if a process has it."""
        if self._lock is not None:
            return True
        try:
            self.lock()
        except ConfigError:
            return True
        self.unlock()
        return False

    def unlock(self) -> None:
        """Let other processes have the run."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # Evidence

    def attest(self, act: str, **details: Any) -> str:
        """Note an act that an audit will ask for, here and in the log of all runs; return the new head of the log here.

        Whatever a killed process has noted here only, is noted there too.
        """
        head = self.events.add("run", act, audited=True, **details)
        audit.note(self.folder, self.events)
        return head

    def check_log(self) -> tuple[str, ...]:
        """What is wrong with the log of this run, by itself and against the log of all runs."""
        return (*self.events.check(), *audit.check(self.folder, self.events))

    # Results

    def save(self, name: str, content: Any) -> None:
        """Write ``<name>.json`` in one instant; dataclasses, enums, paths and times are understood.

        :raises TypeError: if the content holds anything else that JSON does not know; then nothing is written.
        """
        self.write(f"{name}.json", json.dumps(_plain(content), ensure_ascii=False, indent=1))

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file of the run in one instant, for its owner only."""
        path = self.folder / name
        making = path.with_name(path.name + ".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(making, flags, 0o600), "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        making.replace(path)

    def load(self, name: str) -> Any:
        """Read ``<name>.json``."""
        return json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))

    def same(self, name: str, content: Any) -> bool:
        """True if ``<name>.json`` holds this content."""
        return bool(self.load(name) == json.loads(json.dumps(_plain(content))))

    def has(self, name: str) -> bool:
        """True if ``<name>.json`` was written."""
        return (self.folder / f"{name}.json").exists()

    # Steps

    def done(self) -> dict[str, float]:
        """Steps that are done, and the seconds that each took."""
        steps: dict[str, float] = self.load("run")["done"]
        return steps

    def is_done(self, step: str) -> bool:
        """True if the step was done, in this process or one before."""
        return step in self.done()

    def forget(self, *names: str) -> None:
        """Nothing is done any more: what was done is void, and so are the results of these names."""
        self._update(done={})
        for name in names:
            (self.folder / f"{name}.json").unlink(missing_ok=True)

    def note(self, **values: Any) -> None:
        """Keep values in ``run.json``."""
        self._update(**values)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Mark a step as done when the context ends well; note its begin and end as events."""
        if name in (done := self.done()):  # not any more, until it ends well again
            self._update(done={step: took for step, took in done.items() if step != name})
        self.events.add(name, "begin")
        start = time.monotonic()
        try:
            yield
        except BaseException as ex:
            self.events.add(name, "failed", error=type(ex).__name__, seconds=round(time.monotonic() - start, 3))
            raise
        seconds = round(time.monotonic() - start, 3)
        self.events.add(name, "end", seconds=seconds)
        self._update(done={**self.done(), name: seconds})

    def _update(self, **values: Any) -> None:
        self.save("run", {**self.load("run"), **values})


def _plain(value: Any) -> Any:
    """The value as JSON knows it. What is not foreseen is refused: its text might hold anything."""
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, str | int | float):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Set):
        return sorted(_plain(item) for item in value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    raise TypeError(f"{type(value).__name__} is not for a run's folder")


def _lock_file(file: IO[str]) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        file.seek(LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
