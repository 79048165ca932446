"""Reads PEC's log as it grows, and says what is known about it, without a word of any message.

Messages may quote patients. So what leaves this module is: level, time, names of classes (of the logger, of exceptions,
of where they were thrown), the id of a known failure and the versions that it names. The log itself stays as it is, in
the run's evidence, for its owner only.

Formats: that of Spring Boot, those of Log4j, JBoss and java.util.logging, and plain text; in UTF-8 or Latin-1.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from merge.profile import Evidence, Text  # noqa: TC001 (pydantic reads them at run time)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

Kind = Literal["failure", "error", "expected", "warning", "ready", "unification"]

_ORDER: tuple[Kind, ...] = ("failure", "expected", "warning", "ready", "unification")
_BLOCK = 2**20
_LINE = 2**16
_RECORD = 2**17
_KEPT = 8
_SIGNATURES = 1000

_TIME = r"(?:(?:\d{4}-\d\d-\d\d|\d\d/\d\d/\d{4})[ T])?\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
_LEVELS = {
    "TRACE": "TRACE", "DEBUG": "DEBUG", "FINE": "DEBUG", "INFO": "INFO", "WARN": "WARN", "WARNING": "WARN",
    "ADVERTENCIA": "WARN", "ADVERTÊNCIA": "WARN", "ERROR": "ERROR", "SEVERE": "ERROR", "GRAVE": "ERROR",
    "FATAL": "FATAL",
}  # fmt: skip
_LEVEL = "|".join(sorted(_LEVELS, key=len, reverse=True))
_GROUPS = r"(?:\[[^\]\n]{0,120}\]\s*|\([^)\n]{0,120}\)\s*|\d{1,9}\s+)*"
_STARTS = (
    re.compile(rf"\W?(?P<time>{_TIME})\W{{0,3}}\s*{_GROUPS}\[?(?P<level>{_LEVEL})\b"),
    re.compile(rf"\[?(?P<level>{_LEVEL})\b\W{{0,3}}\s*(?P<time>{_TIME})"),
    re.compile(rf"\[?(?P<level>{_LEVEL})(?=\]|\s*:|\s+\[|\s+-\s)(?P<time>)"),
    re.compile(rf"\W?(?P<time>{_TIME})\s(?P<level>)"),
)
"""How a record may begin; the first that matches holds. The last one has no level."""

_CLASS = r"(?:[a-z_][\w$]*\.)+[A-Z][\w$]*"
"""A name of a Java class in its package. A name of a person does not look like it, nor does a login."""
_DEEP = r"(?:[a-z_][\w$]*\.){2,}[A-Z][\w$]*"
_LOGGER = re.compile(
    rf"\W{{0,3}}(?:\s*\d{{1,9}}\b)?(?:\s*---)?\s*(?:\[[^\]\n]{{0,120}}\]\s*|\([^)\n]{{0,120}}\)\s*){{0,4}}?"
    rf"(?:[\[(]\s*(?P<inside>{_DEEP})\s*[\])]|\.?(?P<bare>{_DEEP})\s*(?::|-\s|$))"
)
"""What follows a level: groups in brackets, then the logger, in brackets or before a sign. No word may come between."""
_EXCEPTION = re.compile(rf"(?<![\w.])(?:{_CLASS})(?:Exception|Error|Failure|Fault)\b")
_THROWN = re.compile(rf"^\s+at (?:\w+/+|[\w.@-]+/)?(?P<frame>{_CLASS})\.[\w$<>]+\(")
_BARE = re.compile(r"^(?:Exception in thread |Caused by: )")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Known(BaseModel):
    """Something that PEC is known to say.

    :param patterns: regular expressions over a record; named groups give the versions that may be shown.
    :param exit_codes: of PEC's process, that say the same.
    :param quiet: a failure also where the record's level says that it is none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    kind: Literal["failure", "expected", "warning", "ready", "unification"]
    patterns: tuple[str, ...]
    title: Text
    action: Text
    evidence: Evidence
    exit_codes: tuple[int, ...] = ()
    quiet: bool = False

    @field_validator("patterns")
    @classmethod
    def _compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            re.compile(pattern)
        return patterns

    @cached_property
    def expressions(self) -> tuple[re.Pattern[str], ...]:
        """The patterns, ready to search."""
        return tuple(re.compile(pattern, re.MULTILINE | re.IGNORECASE) for pattern in self.patterns)

    def search(self, record: str) -> Mapping[str, str] | None:
        """The versions that a record names, or None if it says something else."""
        for expression in self.expressions:
            if found := expression.search(record):
                return {name: value for name, value in found.groupdict().items() if value is not None}
        return None


@dataclass(frozen=True)
class Event:
    """Something in the log that matters; nothing of it is a message.

    :param line: number of the record's first line, from 1.
    :param at: time as the log writes it; empty if it writes none.
    :param exceptions: classes of exceptions, as they are named, outermost first.
    :param frames: classes in which they were thrown.
    :param known: id of what is known about it (`explain`).
    :param details: versions that it names.
    """

    kind: Kind
    line: int
    at: str
    level: str
    logger: str
    exceptions: tuple[str, ...] = ()
    frames: tuple[str, ...] = ()
    known: str | None = None
    details: Mapping[str, str] = field(default_factory=dict)


@cache
def load_known() -> tuple[Known, ...]:
    """What is known about PEC's log, in the order in which it is asked."""
    source = resources.files("sandbox.pec").joinpath("known.toml")
    entries = [Known.model_validate(entry) for entry in tomllib.loads(source.read_text(encoding="utf-8"))["known"]]
    return tuple(sorted(entries, key=lambda known: _ORDER.index(known.kind)))


def explain(known: str, entries: Sequence[Known]) -> tuple[str, str]:
    """What a known event means, and what to do about it, in the user's language.

    :raises KeyError: if nobody knows it.
    """
    entry = {entry.id: entry for entry in entries}[known]
    return str(entry.title), str(entry.action)


def explain_exit(code: int, entries: Sequence[Known]) -> Known | None:
    """What the exit code of PEC's process, or of its container, is known to mean."""
    return next((entry for entry in entries if code in entry.exit_codes), None)


class Follower:
    """Takes the bytes of a log as they come, and gives events; each kind of event once, all are counted.

    :ivar lines: lines so far.
    :ivar levels: records by level; those without one under ``-``.
    :ivar known: records by the id of what is known about them.
    :ivar first_error: the first failure or unexpected error.
    :ivar is_ready: whether PEC has said that it started.
    """

    def __init__(self, known: Sequence[Known]) -> None:
        self._entries = known
        self._rest = b""
        self._record: list[str] = []
        self._size = 0
        self._first_line = 0
        self._said: set[tuple[object, ...]] = set()
        self.lines = 0
        self.levels: Counter[str] = Counter()
        self.known: Counter[str] = Counter()
        self.first_error: Event | None = None
        self.is_ready = False

    @property
    def unification_lines(self) -> int:
        """Records about the unification. How PEC words its progress was never seen, so this is a count."""
        return self.known["unification"]

    def feed(self, data: bytes) -> tuple[Event, ...]:
        """Read on. A record ends where the next one begins, or at `flush`."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        events = [event for line in lines for event in self._take(line)]
        if len(self._rest) > _LINE:  # no line of a log is like this: it is cut, and what follows is a line of its own
            events += self._take(self._rest)
            self._rest = b""
        return tuple(events)

    def flush(self, *, final: bool = False) -> tuple[Event, ...]:
        """End the record that was begun: nothing came for a while.

        :param final: also the line that was begun.
        """
        events: list[Event] = []
        if final and self._rest:
            events += self._take(self._rest)
            self._rest = b""
        return (*events, *self._end())

    def _take(self, raw: bytes) -> Iterator[Event]:
        self.lines += 1
        line = _COLOUR.sub("", _decode(raw[:_LINE]).rstrip("\r")).lstrip("\ufeff")
        if any(start.match(line) for start in _STARTS) or (_BARE.match(line) and not self._record):
            yield from self._end()
        if not self._record:
            self._first_line = self.lines
        if self._size < _RECORD:
            self._record.append(line)
            self._size += len(line) + 1

    def _end(self) -> Iterator[Event]:
        record = "\n".join(self._record)
        self._record, self._size = [], 0
        event = self._event(record) if record.strip() else None
        if event is None:
            return
        if event.kind == "ready":
            self.is_ready = True
        if self.first_error is None and event.kind in ("failure", "error"):
            self.first_error = event
        signature = (event.kind, event.known or (event.logger, event.exceptions), *event.details.values())
        if signature not in self._said and len(self._said) < _SIGNATURES:
            self._said.add(signature)
            yield event

    def _event(self, record: str) -> Event | None:
        """What a record is about; None if it needs no mention."""
        first, _, _ = record.partition("\n")
        begin = next((found for start in _STARTS if (found := start.match(first))), None)
        level = _LEVELS.get(begin["level"] or "", "") if begin is not None else ""
        self.levels[level or "-"] += 1
        logger = _LOGGER.match(first, begin.end()) if begin is not None and level else None
        exceptions = tuple(dict.fromkeys(found[0] for found in _EXCEPTION.finditer(record)))[:_KEPT]
        frames = [found["frame"] for line in record.split("\n") if (found := _THROWN.match(line))]
        is_error = level in ("ERROR", "FATAL") or (not level and bool(exceptions) and bool(frames))
        kind, known, details = self._knows(record, level)
        if is_error and kind in (None, "warning", "ready", "unification"):  # an error is not explained away
            kind = "error"
        elif kind is None and level == "WARN" and exceptions:
            kind = "warning"
        if kind is None:
            return None
        if kind == "unification":
            return None  # counted
        return Event(
            kind,
            self._first_line,
            begin["time"] if begin is not None else "",
            level or "-",
            (logger["inside"] or logger["bare"]) if logger is not None else "",
            exceptions,
            tuple(dict.fromkeys(frames))[:_KEPT],
            known,
            details,
        )

    def _knows(self, record: str, level: str) -> tuple[Kind | None, str | None, Mapping[str, str]]:
        for entry in self._entries:
            if entry.kind == "failure" and level in ("INFO", "DEBUG", "TRACE") and not entry.quiet:
                continue
            if (details := entry.search(record)) is not None:
                self.known[entry.id] += 1
                return entry.kind, entry.id, details
        return None, None, {}


class Tail:
    """The bytes that are added to a log, which may be rotated, shortened, or not there yet.

    :param copy: a file in the run's evidence, to which they are appended; for its owner only.
    """

    def __init__(self, path: Path, copy: Path | None = None) -> None:
        self.path = path
        self.copy = copy
        self._place: tuple[int, int] = (0, 0)
        self._offset = 0

    def read(self) -> Iterator[bytes]:
        """What was added since the last time, in blocks."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            status = os.fstat(file.fileno())
            place = (status.st_dev, status.st_ino)
            if place != self._place or status.st_size < self._offset:
                self._place, self._offset = place, 0
            file.seek(self._offset)
            while block := file.read(_BLOCK):
                self._offset += len(block)
                self._keep(block)
                yield block

    def _keep(self, block: bytes) -> None:
        if self.copy is not None:
            descriptor = os.open(self.copy, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                file.write(block)


def _decode(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
