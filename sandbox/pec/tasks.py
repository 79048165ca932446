"""The tasks below ``pec.``: the alternate PEC of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from invoke.tasks import task

from sandbox.console import Reporter
from sandbox.options import PEC_MEMORY
from sandbox.pec import operations
from sandbox.pec.listen import PORT, Listen
from sandbox.pec.show import show_pec, show_smoke
from sandbox.pec.smoke import sign_off
from sandbox.runs import Run
from sandbox.tasking import RUN_HELP, exit_codes

if TYPE_CHECKING:
    from invoke.context import Context


@task(
    iterable=["allow"],
    help={
        **RUN_HELP,
        "pec-jar": "installer of PEC: eSUS-AB-PEC-…-Linux64.jar",
        "listen": "address of this machine at which people reach it; this machine only by default",
        "allow": "with --listen: address or network that may connect; once for each",
        "port": "HTTPS port; 0 for any",
        "memory": "megabytes for PEC",
        "patience": "minutes that PEC may take to answer",
        "migrate": "PEC may bring the copy to its own version",
    },
)
@exit_codes
def up(
    c: Context,
    pec_jar: str,
    run: str = "",
    listen: str = "127.0.0.1",
    allow: list[str] | None = None,
    port: int = PORT,
    memory: int = PEC_MEMORY,
    patience: float = 25.0,
    migrate: bool = False,
) -> None:
    """Start the alternate PEC on a disposable copy of a run's candidate, with no way out, for people to look at."""
    reporter = Reporter()
    found = Run.open(run)
    found.lock()
    where = Listen.parse(listen, port or None, allow or ())
    asked = operations.Asked(Path(pec_jar).resolve(), where, memory, patience, migrate)
    show_pec(reporter, found, operations.up(found, asked, reporter))


@task(help=RUN_HELP)
@exit_codes
def down(c: Context, run: str = "") -> None:
    """Take the alternate PEC down: its containers, its copy and its logs are removed."""
    found = Run.open(run)
    found.lock()
    operations.down(found, Reporter())


@task(help={**RUN_HELP, "minutes": "how long to watch; as long as PEC runs by default"})
@exit_codes
def watch(c: Context, run: str = "", minutes: float = 0.0) -> None:
    """Watch the PECs of a run: their logs, how the data grow, memory, disk, and that nothing gets out."""
    operations.watch(Run.open(run), Reporter(), minutes=minutes)


@task(positional=["step"], help={**RUN_HELP, "step": "requested, accepted, unifying, unified, or error"})
@exit_codes
def mark(c: Context, step: str, run: str = "") -> None:
    """Tell that a step of the vendor's unification was done, or that the screen shows an error."""
    operations.mark(Run.open(run), step)


@task(help=RUN_HELP)
@exit_codes
def put_back(c: Context, run: str = "") -> None:
    """After a unification that went wrong: put both bases of the sandbox back to what they were before it."""
    found = Run.open(run)
    found.lock()
    operations.put_back(found, Reporter())


@task(
    help={
        **RUN_HELP,
        "stratum": "whom a professional has looked at; without it, the list is shown",
        "by": "who looked",
        "verdict": "ok or problem",
        "note": "what was seen; never a name or a document",
        "json": "print as JSON",
    }
)
@exit_codes
def smoke(
    c: Context, run: str = "", stratum: str = "", by: str = "", verdict: str = "ok", note: str = "", json: bool = False
) -> None:
    """Show the smoke list (internal ids only), or sign for one stratum of it."""
    reporter = Reporter(as_json=json)
    found = Run.open(run)
    if stratum:
        sign_off(found, stratum, by, verdict, note)  # type: ignore[arg-type]  # which it checks
    show_smoke(reporter, found)
