"""The way back: the database that was production before gets its name again, and nothing of the other one is lost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from merge.errors import ConfigError, PromotionRefused
from merge.language import counted, text
from sandbox.events import now, operator
from sandbox.promotion import candidate, entry, files, leftovers, names, refusals, rights, written
from sandbox.promotion.guard import WriteGuard
from sandbox.promotion.journal import Journal, Rollback
from sandbox.promotion.probing import probe
from sandbox.promotion.production import Production
from sandbox.promotion.swap import Standing, standing, swap

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sandbox.console import Reporter
    from sandbox.promotion.production import Connection
    from sandbox.runs import Run

KEPT = "rollback"
"""Folder of a run with what was written to production between a promotion and its rollback; it holds patients' data."""


@dataclass(frozen=True)
class Asked:
    """What the operator asks for; see `sandbox.promotion.promote.Asked`."""

    dsn: str
    confirm: str = ""
    attachments: Path | None = None
    pec: tuple[tuple[str, int], ...] = ()
    tools: Path | None = None


def rollback(run: Run, asked: Asked, reporter: Reporter) -> Journal:
    """Bring back what was production before the run was promoted; after an interruption, finish.

    What was written since is counted and dumped first, and its database stays under another name.

    :raises ConfigError: the run is not in production.
    :raises PromotionRefused: with all reasons at once; nothing was done.
    :raises PromotionRolledBack: something failed; production is what it was.
    """
    journal = Journal.of(run)
    if journal is None or (journal.state == "preparing" and journal.candidate_oid is None):
        raise _not_promoted(run)
    with (
        entry.told(run, "rollback"),
        Production(asked.dsn, entry.private(run), tools=asked.tools) as production,
        entry.alone(production) as outside,
    ):
        entry.demand_same(production, journal)
        assert journal.candidate_oid is not None
        now_live = standing(outside, journal.database, journal.live_oid, journal.candidate_oid)
        if now_live is Standing.OLD:
            if journal.state == "preparing":
                leftovers.remove_made(run, production, outside, journal, asked.attachments)
                raise _not_promoted(run)
            if journal.rollback is None:
                raise PromotionRefused(
                    text(
                        pt="A produção já é a de antes, mas não foi esta ferramenta que voltou; nada foi feito.",
                        en="Production is the one from before already, but not by this tool; nothing was done.",
                    ),
                    next_step="invoke promotions",
                )
            return rolled_back(run, journal, asked.attachments, reporter)
        if now_live is Standing.NEW and journal.state == "preparing":  # killed between the commit and its note
            journal = note_promoted(run, journal)
        _check(production, outside, journal, now_live, asked)
        with WriteGuard(production) as guard:
            found = _dump(run, production, journal, reporter)
            _warn(reporter, journal, found)
            question = text(
                pt=f"Voltar {production.shown} ao que era antes de {run.id}?",
                en=f"Bring {production.shown} back to what it was before {run.id}?",
            )
            entry.confirm(reporter, production, asked.confirm, question)
            journal = _noted(journal, outside, found).save(run)
            journal = _swap(run, production, guard, journal, reporter)
        return rolled_back(run, journal, asked.attachments, reporter)


def note_promoted(run: Run, journal: Journal) -> Journal:
    """Write down that the swap of a promotion was committed."""
    run.attest("promoted", database=journal.database, server=journal.address, kept=journal.kept)
    return replace(journal, state="promoted", promoted_at=now()).save(run)


def _not_promoted(run: Run) -> ConfigError:
    return ConfigError(
        text(pt=f"A execução {run.id} não foi promovida.", en=f"Run {run.id} was not promoted."),
        next_step="invoke promotions",
    )


def swap_back(run: Run, production: Production, journal: Journal, reporter: Reporter) -> Journal:
    """Go back at once, after a promotion whose first look failed: nobody has worked with it."""
    with production.connect_outside() as outside, WriteGuard(production) as guard:
        journal = _noted(journal, outside, {}).save(run)
        journal = _swap(run, production, guard, journal, reporter)
    return rolled_back(run, journal, None, reporter)


def _swap(run: Run, production: Production, guard: WriteGuard, journal: Journal, reporter: Reporter) -> Journal:
    assert journal.candidate_oid is not None
    assert journal.rollback is not None
    with reporter.step(text(pt="Trocar os bancos de volta", en="Swap the databases back")):
        swapped = swap(production, guard, journal.candidate_oid, journal.live_oid, journal.rollback.kept, run_id=run.id)
    return replace(journal, rollback=replace(journal.rollback, login_wait=swapped.login_wait))


def _check(production: Production, outside: Connection, journal: Journal, now_live: Standing, asked: Asked) -> None:
    """Refuse what cannot be brought back, with all reasons."""
    if now_live is not Standing.NEW:
        raise PromotionRefused(
            text(
                pt="A produção agora é outro banco: houve outra promoção depois desta.",
                en="Production is another database now: there was another promotion after this one.",
            ),
            next_step="invoke promotions",
        )
    with production.connect() as conn:
        owner = candidate.main_owner(conn)
    reasons = [
        *rights.missing_rights(production),
        *rights.obstacles(production),
        *refusals.of_sessions(rights.sessions(production), owner, [probe(*address) for address in asked.pec]),
    ]
    kept = outside.execute("SELECT datname FROM pg_database WHERE oid = %s", [journal.live_oid]).fetchone()
    if kept is None:
        reasons.append(
            text(
                pt=f"o banco anterior ({journal.kept}) não está mais no servidor",
                en=f"the database from before ({journal.kept}) is not on the server any more",
            )
        )
    if reasons:
        raise PromotionRefused(
            text(
                pt=f"A volta foi recusada: {counted(len(reasons), 'motivo', 'motivos')}.",
                en=f"The rollback is refused: {counted(len(reasons), 'reason', 'reasons')}.",
            ),
            details=reasons,
            next_step=text(pt="Nada foi feito. Resolva e repita.", en="Nothing was done. Solve them and repeat."),
        )


def _dump(run: Run, production: Production, journal: Journal, reporter: Reporter) -> Mapping[str, int]:
    title = text(pt="Guardar o que foi gravado desde a promoção", en="Dump what was written since the promotion")
    with reporter.step(title), production.connect() as conn:
        return written.dump(conn, journal.live_oid, _path(run, journal), reporter.progress)


def _path(run: Run, journal: Journal) -> Path:
    return run.folder / KEPT / f"written-{journal.candidate_oid}.sql"


def _warn(reporter: Reporter, journal: Journal, found: Mapping[str, int]) -> None:
    rows, tables = sum(found.values()), len(found)
    if not rows:
        reporter.note(text(pt="Nada foi gravado desde a promoção.", en="Nothing was written since the promotion."))
        return
    reporter.warn(
        text(
            pt=f"Desde a promoção foram gravadas {counted(rows, 'linha', 'linhas')} em "
            f"{counted(tables, 'tabela', 'tabelas')}, que a produção de antes não tem. Elas ficam num arquivo e no "
            "banco que sai.",
            en=f"Since the promotion, {counted(rows, 'row was', 'rows were')} written in "
            f"{counted(tables, 'table', 'tables')}, which production from before does not have. They stay in a file "
            "and in the database that leaves.",
        )
    )
    for table, count in sorted(found.items(), key=lambda item: -item[1])[:10]:
        reporter.note(f"{table}: {count}")


def _noted(journal: Journal, outside: Connection, found: Mapping[str, int]) -> Journal:
    assert journal.candidate_oid is not None
    return replace(
        journal,
        rollback=Rollback(
            at=now(),
            by=operator(),
            kept=names.free_name(outside, names.undone_name(journal.database, journal.run_id)),
            oid=journal.candidate_oid,
            written=dict(found),
            dump=f"{KEPT}/written-{journal.candidate_oid}.sql" if found else None,
            login_wait=None,
        ),
    )


def rolled_back(run: Run, journal: Journal, attachments: Path | None, reporter: Reporter) -> Journal:
    """After the commit: the files that were added leave, too."""
    if journal.attachments is not None:
        with reporter.step(text(pt="Retirar os anexos acrescentados", en="Take the added attachments out")):
            removed = files.remove(run, attachments)
        journal = journal.noted(attachments_removed=removed)
    if journal.state != "rolled_back":  # asked again, it has only finished what an interruption left
        rows = sum(journal.rollback.written.values()) if journal.rollback else 0
        run.attest("rolled back", database=journal.database, server=journal.address, written=rows)
    return replace(journal, state="rolled_back").save(run)
