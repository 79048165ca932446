"""The tasks that touch production: snapshot, promote, rollback, promotions, discard."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.tasks import task

from merge.errors import ConfigError
from merge.language import text
from sandbox.console import Reporter
from sandbox.events import operator
from sandbox.promotion import after, probing, show
from sandbox.promotion import kept as keeping
from sandbox.promotion import promote as promoting
from sandbox.promotion import rollback as rolling_back
from sandbox.promotion import snapshot as snapshots
from sandbox.promotion.attempt import Asked
from sandbox.promotion.entry import answering
from sandbox.promotion.journal import MODES
from sandbox.promotion.production import Production
from sandbox.runs import Run, private_folder
from sandbox.tasking import RUN_HELP, exit_codes

if TYPE_CHECKING:
    from invoke.context import Context

    from sandbox.promotion.snapshot import Taken

_GB = 10**9
NEW_BACKUP = "I-07"
"""The item of the after-list that a verified backup of the new production does."""

_PRODUCTION_HELP = {
    "production": "address of the production database, without a password: 'host=10.0.0.5 port=5433 dbname=esus "
    "user=postgres', a URI, or service=NAME; the password comes from a passfile, PGPASSWORD or the keyboard",
    "tools": "folder with pg_dump and pg_restore of production's own major version",
}
_MOVE_HELP = {
    **RUN_HELP,
    **_PRODUCTION_HELP,
    "confirm": "the name of the production database, instead of being asked for it",
    "attachments": "production's own folder of files outside of its database",
    "pec": "HOST:PORT of PEC, which must not answer; once for each",
    "json": "print what was done as JSON",
}


@task(
    help={
        **_PRODUCTION_HELP,
        "folder": "where to write the backup",
        "verify": "restore it once and compare it with production",
        "run": "the promoted run whose new backup this is; with --verify it is marked in its after-list",
        "by": "who takes it, for the after-list",
        "json": "print as JSON",
    }
)
@exit_codes
def snapshot(
    c: Context,
    production: str,
    folder: str = "backups",
    tools: str = "",
    verify: bool = False,
    run: str = "",
    by: str = "",
    json: bool = False,
) -> None:
    """Take production's backup, with the marks that tell later whether production was written since."""
    reporter = Reporter(as_json=json)
    taken = snapshots.take_snapshot(
        production, Path(folder).resolve(), reporter, tools=_path(tools), jobs=_jobs(), verify=verify
    )
    show.show_snapshot(reporter, taken)
    if run:
        note_backup(Run.open(run), taken, by)


@task(
    iterable=["pec"],
    help={
        **_MOVE_HELP,
        "dry-run": "do all but the swap, and remove what was made beside production",
        "mode": "restore: the signed candidate; repeat: the merge again, on a copy of production beside it",
        "disk-free": "gigabytes that are free on the production server, where that cannot be seen from here",
        "wait": "minutes to wait for PEC at --pec afterwards, to measure its outage",
        "jobs": "parallel connections; the number of cores by default",
    },
)
@exit_codes
def promote(
    c: Context,
    production: str,
    run: str = "",
    confirm: str = "",
    dry_run: bool = False,
    mode: str = "restore",
    attachments: str = "",
    pec: list[str] | None = None,
    tools: str = "",
    disk_free: int = 0,
    wait: float = 0.0,
    jobs: int = 0,
    json: bool = False,
) -> None:
    """Bring a signed candidate to production, in one instant; `invoke rollback` takes it back in one."""
    if mode not in MODES:
        raise ConfigError(text(pt=f"Não há o modo {mode}.", en=f"There is no mode {mode}."), details=list(MODES))
    reporter = Reporter(as_json=json)
    found = Run.open(run)
    found.lock()
    asked = Asked(
        production,
        confirm,
        dry_run,
        mode,
        _path(attachments),
        tuple(map(probing.parse, pec or ())),
        _path(tools),
        disk_free * _GB or None,
        jobs or _jobs(),
        wait,
    )
    show.show_promotion(reporter, found, promoting.promote(found, asked, reporter), dry_run=dry_run)


@task(iterable=["pec"], help=_MOVE_HELP)
@exit_codes
def rollback(
    c: Context,
    production: str,
    run: str = "",
    confirm: str = "",
    attachments: str = "",
    pec: list[str] | None = None,
    tools: str = "",
    json: bool = False,
) -> None:
    """Bring back what was production before a run was promoted; what was written since is dumped, and kept."""
    reporter = Reporter(as_json=json)
    found = Run.open(run)
    found.lock()
    asked = rolling_back.Asked(
        production, confirm, _path(attachments), tuple(map(probing.parse, pec or ())), _path(tools)
    )
    show.show_rollback(reporter, found, rolling_back.rollback(found, asked, reporter))


@task(
    help={
        "production": _PRODUCTION_HELP["production"] + "; to see what each kept database occupies",
        "json": "print as JSON",
    }
)
@exit_codes
def promotions(c: Context, production: str = "", json: bool = False) -> None:
    """List what was promoted, which databases are kept of it, and what they occupy."""
    reporter = Reporter(as_json=json)
    if not production:
        found = keeping.kept(Run.all(), None)
    else:
        with answering(), private_folder() as scratch, Production(production, scratch) as server:
            found = keeping.kept(Run.all(), server)
    if json:
        reporter.print_json([asdict(one) for one in found])
    else:
        show.show_kept(reporter, found)


@task(
    help={
        "run": "run id, or part of it",
        "production": _PRODUCTION_HELP["production"],
        "confirm": "the name of the kept database, instead of being asked for it",
    }
)
@exit_codes
def discard(c: Context, run: str, production: str, confirm: str = "") -> None:
    """Remove for good the database that a promotion, or its rollback, keeps on the production server."""
    reporter = Reporter()
    found = Run.open(run)
    found.lock()
    with answering(), private_folder() as scratch, Production(production, scratch) as server:
        name = keeping.discard(found, server, confirm, reporter)
    reporter.note(text(pt=f"{name} foi apagado.", en=f"{name} was removed."))


def note_backup(run: Run, taken: Taken, by: str) -> None:
    """Note in the after-list of a promoted run that its new backup was taken, and is known to be good."""
    if not taken.snapshot.verified:
        raise ConfigError(
            text(
                pt="O backup foi feito, mas só conta na lista se for conferido.",
                en="The backup was taken, but it counts in the list only if it is verified.",
            ),
            next_step="--verify",
        )
    run.lock()
    if after.knows(run, NEW_BACKUP):  # of another application, nothing may be asked
        evidence = f"{taken.path.name} {taken.snapshot.sha256}"
        after.mark(run, NEW_BACKUP, by=by or operator(), evidence=evidence)


def _path(name: str) -> Path | None:
    return Path(name).resolve() if name else None


def _jobs() -> int:
    return os.cpu_count() or 1
