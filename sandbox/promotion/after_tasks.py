"""The tasks of the time after a promotion: the list of what people do then, and the acceptance."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from invoke.tasks import task

from sandbox.console import Reporter
from sandbox.promotion import after as following
from sandbox.promotion import after_show, probing
from sandbox.runs import Run
from sandbox.tasking import RUN_HELP, exit_codes

if TYPE_CHECKING:
    from invoke.context import Context


@task(
    help={
        **RUN_HELP,
        "mark": "id of an item that somebody has done; without it, the list is shown",
        "source": "installation that it is about, where there are several",
        "by": "who did it",
        "state": "done, problem or not-applicable",
        "note": "what was seen, or why; never a name or a document of a patient",
        "probe": "HOST:PORT of the real decentralised installation, which must not answer any more",
        "json": "print as JSON",
    }
)
@exit_codes
def after(
    c: Context,
    run: str = "",
    mark: str = "",
    source: str = "",
    by: str = "",
    state: str = "done",
    note: str = "",
    probe: str = "",
    json: bool = False,
) -> None:
    """Show what is to be done after the promotion, or tell that one thing was done."""
    reporter = Reporter(as_json=json)
    found = Run.open(run)
    probed = probing.probe(*probing.parse(probe)) if probe else None
    if probed is not None:
        (reporter.note if probed.is_off else reporter.warn)(str(probed))
    if mark:
        found.lock()
        try:
            following.mark(found, mark, by=by, state=state, source=source, note=note, probed=probed)
        finally:
            found.unlock()
    if mark or not probe:
        after_show.show(reporter, found)


@task(help={**RUN_HELP, "by": "who accepts", "json": "print as JSON"})
@exit_codes
def accept(c: Context, run: str = "", by: str = "", json: bool = False) -> None:
    """Accept the promotion, when everything that must be done after it was; then the sandbox may be destroyed."""
    reporter = Reporter(as_json=json)
    found = Run.open(run)
    found.lock()
    try:
        accepted = following.accept(found, by)
    finally:
        found.unlock()
    if json:
        reporter.print_json(asdict(accepted))
    else:
        after_show.show(reporter, found)
