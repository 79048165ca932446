"""The backups and attachments of a run: inspected, kept with it, and checked, together with this machine."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from merge.checks import CENTRAL, RUN
from merge.language import text
from sandbox import attachments, file_checks, host_checks, intake
from sandbox.contents import Contents
from sandbox.order import Candidate, central_warning, propose
from sandbox.promotion import snapshot
from sandbox.rehearsal import Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sandbox.console import Reporter
    from sandbox.host_checks import HostCheck
    from sandbox.intake import Backup
    from sandbox.options import Named
    from sandbox.preflight import Preflight
    from sandbox.runs import Run
    from sandbox.server import Server


def inspect(run: Run, paths: Mapping[str, Path], reporter: Reporter) -> dict[str, Backup]:
    """Inspect the backups of a run, the central's first, and keep what they are, and the central's sidecar.

    :raises BackupError: with all that cannot be used.
    """
    found: dict[str, Backup] = {}
    try:
        with reporter.step(text(pt="Examinar os backups", en="Inspect the backups")), run.step("intake"):
            intake.inspect_all(
                paths, work=run.folder / "work", on_progress=reporter.progress, on_found=found.__setitem__
            )
    finally:
        run.save("inputs", found)  # of those that are bad the error tells
    snapshot.keep_sidecar(run, found[CENTRAL], reporter)
    return found


def backups(run: Run) -> dict[str, Backup]:
    """The inspected backups by name, the central's first; none if they were not inspected yet."""
    return {name: _backup(kept) for name, kept in run.load("inputs").items()} if run.has("inputs") else {}


def sources(run: Run) -> list[Source]:
    """The sources of a run, in merge order."""
    named = [(name, backup) for name, backup in backups(run).items() if name != CENTRAL]
    return [Source(number, name, backup) for number, (name, backup) in enumerate(named, 1)]


def _backup(kept: Mapping[str, object]) -> Backup:
    values = dict(kept)
    for part in fields(intake.Backup):
        value = values[part.name]
        if "Path" in str(part.type):
            values[part.name] = Path(str(value))
        elif isinstance(value, list):
            values[part.name] = tuple(tuple(v) if isinstance(v, list) else v for v in value)
    return intake.Backup(**values)  # type: ignore[arg-type]


def take_attachments(
    run: Run, directories: Sequence[Named], store: attachments.Attachments, jobs: int, reporter: Reporter
) -> None:
    """Take stock of the attachments that were delivered; what was taken stock of is not read again."""
    numbers = {CENTRAL: attachments.CENTRAL} | {source.name: source.number for source in sources(run)}
    for name, directory in directories:
        if store.inventory(numbers[name]) is None:
            title = text(pt=f"Inventariar os anexos de {name}", en=f"Take stock of the attachments of {name}")
            with reporter.step(title):
                store.take(numbers[name], name, directory, jobs, reporter.progress)


def check(
    run: Run, server: Server, essential: Sequence[str], preflight: Preflight, reporter: Reporter, carried: int,
    copies: int = 1,
) -> None:  # fmt: skip
    """Ask what files and this machine can answer, before anything is restored.

    :param essential: tables without whose rows a backup is not one of the application.
    :param carried: bytes of attachments that will be carried along.
    :param copies: how many times the databases are there at once, at most.
    :raises PreflightBlocked: with all that blocks.
    """
    answers = [host_checks.answer_of(found) for found in _host_checks(backups(run), server, essential, carried, copies)]
    preflight.check(preflight.report("files", answers, reporter))


def _host_checks(
    found: Mapping[str, Backup], server: Server, essential: Sequence[str], carried: int, copies: int
) -> Iterator[HostCheck]:
    central = found[CENTRAL]
    measured = {name: Contents.of(backup) for name, backup in found.items()}
    candidates = [Candidate(name, backup, measured[name]) for name, backup in found.items()]
    warning = central_warning(propose(candidates), central.path)
    yield host_checks.HostCheck("A-05", RUN, "warned" if warning else "passed", message=warning or "")
    for name, backup in found.items():
        yield file_checks.checksum(backup, name)
        yield file_checks.versions(central, backup, name, server.major)
        yield file_checks.complete(backup, name, essential)
        yield file_checks.encoding(backup, name)
    needed = host_checks.disk_needed([(backup, measured[name]) for name, backup in found.items()], carried)
    yield host_checks.disk(copies * needed, server.place)
    yield host_checks.memory()
