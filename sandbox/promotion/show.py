"""What the user sees of a promotion, a rollback, and of what is kept."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from merge.language import counted, text
from sandbox import words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox.console import Reporter
    from sandbox.promotion.journal import Journal
    from sandbox.promotion.kept import Kept
    from sandbox.promotion.snapshot import Taken
    from sandbox.runs import Run


def show_snapshot(reporter: Reporter, taken: Taken) -> None:
    """Tell where the backup is, and what comes next."""
    if reporter.as_json:
        reporter.print_json(taken.to_dict())
        return
    found = taken.snapshot
    verified = text(pt=", restaurado e conferido", en=", restored and compared") if found.verified else ""
    reporter.note(f"{taken.path} ({words.size(found.size)}{verified})")
    reporter.note(f"{taken.sidecar}")
    reporter.note(f"sha256 {found.sha256}")
    reporter.note(text(pt="A seguir: ", en="Next: ") + f"invoke homolog --final --central {taken.path} --source …")


def show_promotion(reporter: Reporter, run: Run, journal: Journal, *, dry_run: bool) -> None:
    """Tell what a promotion did, and what comes next."""
    if reporter.as_json:
        reporter.print_json(asdict(journal))
        return
    spent = words.duration(sum(journal.seconds.values()))
    if dry_run and journal.state == "preparing":
        reporter.note(
            text(
                pt=f"Ensaio da promoção: tudo foi feito e provado em {spent}, menos a troca; nada ficou na produção.",
                en=f"Rehearsed: all was done and proved in {spent} but the swap; nothing stays in production.",
            )
        )
        reporter.note(str(run.folder / "promotion-rehearsal.json"))
        return
    reporter.note(
        text(
            pt=f"{journal.database} em {journal.address} é agora o resultado de {run.id} ({spent} ao todo).",
            en=f"{journal.database} on {journal.address} is the result of {run.id} now ({spent} in all).",
        )
    )
    if journal.login_wait is not None:
        reporter.note(
            text(
                pt=f"Um login esperou no máximo {words.duration(journal.login_wait)}; "
                f"{counted(journal.ended, 'sessão encerrada', 'sessões encerradas')}.",
                en=f"A login had to wait for {words.duration(journal.login_wait)} at most; "
                f"{counted(journal.ended, 'session was ended', 'sessions were ended')}.",
            )
        )
    if journal.outage is not None:
        reporter.note(
            text(
                pt=f"O PEC ficou fora do ar {words.duration(journal.outage)} ao todo.",
                en=f"PEC was out for {words.duration(journal.outage)} as a whole.",
            )
        )
    reporter.note(
        text(
            pt=f"O banco de antes fica no servidor como {journal.kept}.",
            en=f"The database from before stays on the server as {journal.kept}.",
        )
    )
    reporter.note(text(pt="Para voltar: ", en="To go back: ") + f"invoke rollback --run {run.id} --production …")
    reporter.note(text(pt="A seguir: ", en="Next: ") + f"invoke after --run {run.id}")


def show_rollback(reporter: Reporter, run: Run, journal: Journal) -> None:
    """Tell what a rollback did."""
    if reporter.as_json:
        reporter.print_json(asdict(journal))
        return
    reporter.note(
        text(
            pt=f"{journal.database} em {journal.address} é de novo o que era antes de {run.id}.",
            en=f"{journal.database} on {journal.address} is again what it was before {run.id}.",
        )
    )
    back = journal.rollback
    if back is None:
        return
    if back.login_wait is not None:
        waited = words.duration(back.login_wait)
        reporter.note(text(pt=f"Um login esperou no máximo {waited}.", en=f"A login had to wait for {waited} at most."))
    reporter.note(
        text(
            pt=f"O banco que saiu fica no servidor como {back.kept}.",
            en=f"The database that left stays on the server as {back.kept}.",
        )
    )
    if back.dump:
        reporter.warn(
            text(
                pt="O que foi gravado desde a promoção (dados de pacientes) está em ",
                en="What was written since the promotion (patients' data) is in ",
            )
            + str(run.folder / back.dump)
        )


def show_kept(reporter: Reporter, found: Sequence[Kept]) -> None:
    """List what was promoted, and what is kept of it."""
    table = Table(box=None, header_style="bold")
    for header in (
        text(pt="execução", en="run"),
        text(pt="estado", en="state"),
        text(pt="servidor", en="server"),
        text(pt="banco", en="database"),
        text(pt="guardado", en="kept"),
        text(pt="ocupa", en="occupies"),
        text(pt="promovida", en="promoted"),
    ):
        table.add_column(header, overflow="fold")
    for one in found:
        state = one.state + (text(pt=", aceita", en=", accepted") if one.accepted else "")
        size = "?" if one.size is None else words.size(one.size)
        when = words.moment(one.promoted_at) if one.promoted_at else "—"
        table.add_row(one.run_id, state, one.address, Text(one.database), Text(one.kept), size, when)
    reporter.console.print(table)
