"""What the terminal shows of the alternate PEC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from merge.language import text
from sandbox.pec import smoke, tls
from sandbox.pec.alternate import AUTHORITY, FOLDER, HOSTS

if TYPE_CHECKING:
    from sandbox.console import Reporter
    from sandbox.pec.alternate import Base
    from sandbox.runs import Run


def show_pec(reporter: Reporter, run: Run, base: Base) -> None:
    """Say where PEC is, how a browser gets there, and what is to be looked at."""
    authority = run.folder / FOLDER / AUTHORITY
    listen, _, port = base.link.removeprefix("https://").partition(":")
    fingerprint = tls.fingerprint(authority.read_bytes())
    names = " ".join(HOSTS.values())
    said = text(pt="PEC no ar, sem saída para fora:", en="PEC is up, with no way out:")
    reporter.warn(f"{said} {base.link}")
    reporter.note(
        text(
            pt=f"O navegador confia nele com a autoridade {authority} (SHA-256 {fingerprint}).",
            en=f"A browser trusts it by the authority {authority} (SHA-256 {fingerprint}).",
        )
    )
    reporter.note(
        text(
            pt=f"Se uma tela pedir o nome: linha “{listen} {names}” no arquivo hosts, e https://{HOSTS[base.service]}:{port}",
            en=f"If a screen asks for the name: line “{listen} {names}” in the hosts file, https://{HOSTS[base.service]}:{port}",
        )
    )
    reporter.note(
        text(
            pt="É uma cópia descartável e neutra: nada do que se faz nela vai para o candidato, nem para a produção.",
            en="It is a disposable, neutral copy: nothing done in it reaches the candidate, or production.",
        )
    )
    show_smoke(reporter, run)


def show_smoke(reporter: Reporter, run: Run) -> None:
    """Whom professionals look at, and who has signed; internal ids only."""
    kept = run.load(smoke.FILE) if run.has(smoke.FILE) else {"drawn": [], "signatures": []}
    if reporter.as_json:
        reporter.print_json(kept)
        return
    standing = smoke.standing(run) if kept["drawn"] else {}
    states = {
        "pending": text(pt="pendente", en="pending"),
        "accepted": text(pt="conferido", en="looked at"),
        "refused": text(pt="problema", en="problem"),
        "empty": text(pt="não há", en="none"),
    }
    table = Table(title=text(pt="Lista de conferência", en="Smoke list"))
    for name in ("", text(pt="grupo", en="stratum"), text(pt="códigos internos", en="internal ids"), ""):
        table.add_column(name)
    for drawn in kept["drawn"]:
        people = ", ".join("+".join(map(str, ids)) for ids in drawn["people"]) or drawn["note"]
        table.add_row(drawn["stratum"], drawn["title"], people, states[standing[drawn["stratum"]]])
    reporter.console.print(table)
    if smoke.pending(run) if kept["drawn"] else ():
        reporter.note(f"invoke pec.smoke --run {run.id} --stratum … --by …")
