"""What a promotion that was not carried out has left beside production, and how it is removed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sandbox.promotion import beside, files, names, repeat

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.promotion.journal import Journal
    from sandbox.promotion.production import Connection, Production
    from sandbox.runs import Run


def remove_made(
    run: Run, production: Production, outside: Connection, journal: Journal, attachments: Path | None = None
) -> Journal:
    """Remove what a promotion that was not carried out has made, and nothing else; return its journal.

    :param outside: a session in another database of the server.
    :param attachments: where production's files are now; where they were by default.
    """
    if journal.mode == "repeat" and production.is_superuser:
        repeat.clear(run, production, journal.candidate)
    for one in names.ours(outside):
        if (one.run_id, one.kind) == (run.id, names.Kind.CANDIDATE):
            beside.drop_unfinished(production, one.oid, run_id=run.id)
    if journal.attachments is not None:
        files.remove(run, attachments)
    return replace(journal, candidate_oid=None).save(run) if journal.state == "preparing" else journal
