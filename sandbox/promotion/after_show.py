"""How the list of what is to be done after a promotion is shown: in the terminal, and on paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from merge.language import text
from sandbox import words
from sandbox.promotion import after

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.console import Reporter
    from sandbox.promotion.after import Standing
    from sandbox.runs import Run

PAPER = "after.md"

_BLANK = "_" * 20

_STYLES = {"open": "", "done": "green", "problem": "bold red", "not-applicable": "dim"}


def states() -> dict[str, str]:
    """What the states are called."""
    return {
        "open": text(pt="a fazer", en="to do"),
        "done": text(pt="feito", en="done"),
        "problem": text(pt="problema", en="problem"),
        "not-applicable": text(pt="não se aplica", en="does not apply"),
    }


def show(reporter: Reporter, run: Run) -> None:
    """Show the whole list, and what to do next."""
    found = after.standing(run)
    accepted = after.accepted(run)
    if reporter.as_json:
        reporter.print_json(
            {
                "items": [one.to_dict() for one in found],
                "open": [one.name for one in found if one.blocks],
                "accepted": accepted and {"by": accepted.by, "at": accepted.at, "left": list(accepted.left)},
            }
        )
        return
    table = Table(title=text(pt="Depois da promoção", en="After the promotion"))
    for name in ("", "", text(pt="estado", en="state"), text(pt="quem, quando", en="who, when")):
        table.add_column(name)
    for one in found:
        state = states()[one.state]
        if one.state == "open":
            state += f" ({_due(one)})" if one.due else " !" if one.item.gate == "block" else ""
        who = f"{one.mark.by}, {words.moment(one.mark.at)}" if one.mark else ""
        table.add_row(one.name, str(one.item.title), state, who, style=_STYLES[one.state])
    reporter.console.print(table)
    if accepted is not None:
        when = words.moment(accepted.at)
        reporter.note(text(pt=f"Aceita por {accepted.by}, {when}", en=f"Accepted by {accepted.by}, {when}"))
    upcoming = next((one for one in found if one.state in ("open", "problem")), None)
    if upcoming is not None:
        reporter.warn(f"{upcoming.name}: {upcoming.item.title}")
        for said in (upcoming.item.todo, upcoming.item.check):
            reporter.note(_filled(str(said), run))
        source = f" --source {upcoming.source}" if upcoming.source else ""
        reporter.note(f"invoke after --run {run.id} --mark {upcoming.item.id}{source} --by …")
    reporter.note(str(write(run)))


def write(run: Run) -> Path:
    """Write ``after.md``, to be printed: every item with boxes, names and dates; return its path."""
    promotion = run.load(after.PROMOTION) if run.has(after.PROMOTION) else {}
    title = text(pt="Depois da promoção", en="After the promotion")
    lines = [f"# {title}: {run.id}", ""]
    if when := promotion.get("promoted_at"):
        who, moment = promotion.get("by", ""), words.moment(when)
        lines += [text(pt=f"Em produção desde {moment}, por {who}.", en=f"Live since {moment}, by {who}."), ""]
    for one in after.standing(run):
        lines += _on_paper(one, run)
    if (accepted := after.accepted(run)) is not None:
        when = words.moment(accepted.at)
        lines += [text(pt=f"Aceita por {accepted.by}, {when}.", en=f"Accepted by {accepted.by}, {when}."), ""]
    else:
        lines += [
            text(pt="Aceita por: ____________________  em: ________", en="Accepted by: ____________  on: ________")
        ]
    run.write(PAPER, "\n".join(lines) + "\n")
    return run.folder / PAPER


def _on_paper(one: Standing, run: Run) -> list[str]:
    box = {"open": "[ ]", "done": "[x]", "problem": "[!]", "not-applicable": "[-]"}[one.state]
    gate = text(pt="bloqueia a aceitação", en="blocks the acceptance") if one.item.gate == "block" else ""
    marks = ", ".join(filter(None, (gate, _due(one) if one.due else "", words.evidence(one.item.evidence))))
    lines = [f"## {box} {one.name} · {one.item.title}", "", f"_{marks}_", "", _filled(str(one.item.todo), run), ""]
    lines += [text(pt="Como conferir: ", en="How to check: ") + _filled(str(one.item.check), run), ""]
    if one.mark is not None:
        said = " · ".join(filter(None, (one.mark.note, one.mark.evidence)))
        lines += [f"**{states()[one.state]}**: {one.mark.by}, {words.moment(one.mark.at)}. {said}".rstrip(), ""]
    else:
        lines += [
            text(pt="Quem: ____________________  Data: ________", en="Who: ____________________  Date: ________"),
            "",
        ]
    return lines


def _due(one: Standing) -> str:
    assert one.due is not None
    day = words.moment(f"{one.due}T12:00").split(" ", maxsplit=1)[0]
    return text(pt=f"em {day}", en=f"due {day}")


def _filled(said: str, run: Run) -> str:
    pack = run.folder / "handover.html"
    where = str(pack) if pack.exists() else f"invoke handover --run {run.id}"
    return " ".join(said.split()).replace("{handover}", where).replace("{run}", run.id)
