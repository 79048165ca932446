"""Shows what backups hold, and the proposed order, on the console or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from merge.language import text
from sandbox import words

if TYPE_CHECKING:
    from sandbox.console import Reporter
    from sandbox.order import Candidate, Proposal


def show(reporter: Reporter, proposal: Proposal) -> None:
    """Show every backup in the proposed order, the reasons, and the command line to run."""
    if reporter.as_json:
        reporter.print_json(to_dict(proposal))
        return
    for number, candidate in enumerate((proposal.central, *proposal.sources)):
        place = text(pt=f"{number}ª origem", en=f"source {number}") if number else text(pt="central", en="central")
        reporter.console.print(Text.assemble("\n", (candidate.name, "bold"), f" · {place}"))
        for label, value in _facts(candidate):
            reporter.console.print(Text.assemble("  ", (f"{label}: ", "dim"), value))
    reporter.console.print()
    for reason in proposal.reasons:
        reporter.console.print(Text(reason))
    if proposal.command:
        reporter.console.print(Text.assemble("→ ", (proposal.command, "bold")), soft_wrap=True)


def _facts(candidate: Candidate) -> list[tuple[str, str]]:
    backup, contents = candidate.backup, candidate.contents
    wrapper = "" if backup.wrapper == "none" else f" ({backup.wrapper})"
    rows = "" if contents.rows is None else words.number(sum(contents.rows.values()))
    filled = f"{words.number(len(contents.sizes))} / {words.number(len(backup.tables))}"
    unit = {
        "text": text(pt="bytes das linhas", en="bytes of the rows"),
        "inserts": text(pt="bytes dos INSERT", en="bytes of the INSERTs"),
        "stored": text(pt="bytes comprimidos", en="compressed bytes"),
    }[contents.unit]
    facts = [
        (text(pt="arquivo", en="file"), str(backup.path)),
        (text(pt="formato", en="format"), f"{backup.format}{wrapper} {backup.archive_version or ''}".strip()),
        (text(pt="bytes do arquivo", en="bytes of the file"), words.number(backup.size)),
        ("sha256", backup.sha256),
        ("PostgreSQL", backup.dumped_from or "?"),
        (text(pt="codificação", en="encoding"), backup.encoding),
        (text(pt="entradas", en="entries"), words.number(backup.entries)),
        *([(text(pt="tabelas com linhas", en="tables with rows"), filled)] if contents.rows is not None else []),
        (text(pt="linhas", en="rows"), rows),
        (unit, words.number(contents.size)),
        (
            text(pt="objetos grandes", en="large objects"),
            text(pt="sim", en="yes") if backup.large_objects else text(pt="não", en="no"),
        ),
    ]
    return [(label, value) for label, value in facts if value]


def to_dict(proposal: Proposal) -> dict[str, Any]:
    """As plain values for JSON."""
    return {
        "backups": [_candidate(c) for c in (proposal.central, *proposal.sources)],
        "central": proposal.central.name,
        "sources": [c.name for c in proposal.sources],
        "compared": proposal.compared,
        "sizes": dict(proposal.size),
        "reasons": list(proposal.reasons),
        "command": proposal.command,
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    backup, contents = candidate.backup, candidate.contents
    return {
        "name": candidate.name,
        "path": str(backup.path),
        "sha256": backup.sha256,
        "size": backup.size,
        "format": backup.format,
        "wrapper": backup.wrapper,
        "archive_version": backup.archive_version,
        "dumped_from": backup.dumped_from,
        "encoding": backup.encoding,
        "entries": backup.entries,
        "tables": len(backup.tables),
        "rows": contents.rows,
        "row_bytes": contents.size,
        "row_bytes_unit": contents.unit,
        "large_objects": backup.large_objects,
    }
