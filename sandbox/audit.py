"""The log of all runs: what an audit will ask for, so that what is removed from the log of one run shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge.language import text
from sandbox.events import Events

if TYPE_CHECKING:
    from pathlib import Path

FILE = "audit.jsonl"

_OF_EVERY_LINE = {"time", "monotonic", "pid", "who", "step", "event", "audited", "previous"}


def log(runs: Path) -> Events:
    """The log of the runs in a folder; each of its lines holds the head that the log of a run had after an act."""
    return Events(runs / FILE, "audit")


def note(folder: Path, events: Events) -> None:
    """Take over the acts of one run, those too that a killed process could not note any more.

    :param folder: of the run; `events` its log.
    """
    known = _noted(folder)
    for head, event in events.heads().items():
        if event is not None and event.get("audited") and head not in known:
            details = {name: value for name, value in event.items() if name not in _OF_EVERY_LINE}
            log(folder.parent).add("run", event["event"], **{**details, "run": folder.name, "head": head})


def check(folder: Path, events: Events) -> tuple[str, ...]:
    """What is broken in the log of all runs, and what it and the log of one run do not have in common."""
    noted, there = _noted(folder), events.heads()
    problems = [*log(folder.parent).check()]
    for head, act in noted.items():
        if head not in there:
            problems.append(
                text(
                    pt=f"{events.path.name}: falta o ato “{act}”, ou foi alterado; {FILE} o registra",
                    en=f"{events.path.name}: the act “{act}” is missing, or was changed; {FILE} holds it",
                )
            )
    for head, event in there.items():
        if event is not None and event.get("audited") and head not in noted:
            problems.append(
                text(
                    pt=f"{FILE}: falta o ato “{event['event']}” desta execução",
                    en=f"{FILE}: the act “{event['event']}” of this run is missing",
                )
            )
    return tuple(problems)


def missing(runs: Path) -> tuple[str, ...]:
    """Names of the runs whose acts are known and whose log is gone."""
    known = dict.fromkeys(str(line["run"]) for line in log(runs).read() if "run" in line)
    return tuple(name for name in known if not (runs / name / "events.jsonl").exists())


def _noted(folder: Path) -> dict[str, str]:
    """The acts of one run by the head after each."""
    return {line["head"]: line["event"] for line in log(folder.parent).read() if line.get("run") == folder.name}
