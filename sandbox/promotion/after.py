"""After a promotion: what was done of the list of what people have to do, by whom and when; and the acceptance.

Marks are only ever added, to ``after.json`` of the run; the last one of an item holds. They count for one promotion: if
it is rolled back and made again, the list begins anew. Who marked is named, in the run's folder only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

from merge.errors import BlockedError, ConfigError
from merge.language import text
from sandbox import inputs
from sandbox.events import now, redact
from sandbox.options import options_of
from sandbox.promotion import after_list

if TYPE_CHECKING:
    from sandbox.promotion.after_list import Item
    from sandbox.promotion.probing import Probed
    from sandbox.runs import Run

FILE = "after"
"""The file of the run's folder, without its ending."""
PROMOTION = "promotion"
"""The journal of a promotion, without its ending."""

MarkState = Literal["done", "problem", "not-applicable"]
State = Literal["open", "done", "problem", "not-applicable"]


@dataclass(frozen=True)
class Mark:
    """What somebody told of one item.

    :param source: installation that it is about; "" if it is about all.
    :param promotion: when the promotion was, to which it belongs.
    :param note: what was seen, or why it does not apply; numbers that look like documents are left out.
    :param evidence: what a program saw.
    """

    id: str
    source: str
    state: MarkState
    by: str
    at: str
    promotion: str
    note: str = ""
    evidence: str = ""


@dataclass(frozen=True)
class Standing:
    """How one item stands, for one source if it is about one.

    :param due: day on which it is due, if there is one; ISO 8601.
    :param mark: the last mark.
    """

    item: Item
    source: str
    state: State
    due: str | None = None
    mark: Mark | None = None

    @property
    def blocks(self) -> bool:
        """Whether the promotion cannot be accepted as it stands."""
        return self.item.gate == "block" and self.state in ("open", "problem")

    @property
    def name(self) -> str:
        """The item's id, and the source that it is about."""
        return f"{self.item.id} {self.source}".strip()

    def to_dict(self) -> dict[str, Any]:
        """For programs."""
        item = self.item
        return {
            "id": item.id,
            "source": self.source,
            "gate": item.gate,
            "title": str(item.title),
            "todo": str(item.todo),
            "check": str(item.check),
            "evidence": item.evidence,
            "state": self.state,
            "due": self.due,
            "by": self.mark and self.mark.by,
            "at": self.mark and self.mark.at,
            "note": self.mark and self.mark.note,
            "seen": self.mark and self.mark.evidence,
        }


@dataclass(frozen=True)
class Accepted:
    """That a promotion was accepted; `left` are the items that only warn and were not done then."""

    by: str
    at: str
    promotion: str
    left: tuple[str, ...] = field(default=())


def standing(run: Run) -> tuple[Standing, ...]:
    """Every item of the list, each for each source where it is about one, with what was told last."""
    promoted = _promotion(run).get("promoted_at") or ""
    marks = {(mark.id, mark.source): mark for mark in marks_of(run) if mark.promotion == promoted}
    sources = [source.name for source in inputs.sources(run)] if run.has("inputs") else []
    found = []
    for item in after_list.load(options_of(run).profile):
        due = None
        if promoted and item.due_days:
            day = datetime.fromisoformat(promoted).astimezone() + timedelta(days=item.due_days)
            due = day.date().isoformat()
        for source in sources if item.per_source else [""]:
            mark = marks.get((item.id, source))
            found.append(Standing(item, source, mark.state if mark else "open", due, mark))
    return tuple(found)


def open_items(run: Run) -> tuple[Standing, ...]:
    """What forbids to accept the promotion."""
    return tuple(found for found in standing(run) if found.blocks)


def knows(run: Run, item: str) -> bool:
    """Whether the run's list has an item of this id."""
    return any(found.id == item for found in after_list.load(options_of(run).profile))


def marks_of(run: Run) -> tuple[Mark, ...]:
    """All marks, in the order in which they were made."""
    return tuple(Mark(**kept) for kept in run.load(FILE)["marks"]) if run.has(FILE) else ()


def mark(
    run: Run,
    item: str,
    *,
    by: str,
    state: str = "done",
    source: str = "",
    note: str = "",
    evidence: str = "",
    probed: Probed | None = None,
) -> Mark:
    """Tell what came of one item; the caller has the run's lock.

    :param source: which installation; may be left out where there is only one.
    :param probed: what an address answered that must not answer any more.
    :raises ConfigError: with all that is wrong with it; nothing is noted.
    """
    promoted = _demand_promoted(run)
    known = [found for found in standing(run) if found.item.id == item]
    if not source and len(known) == 1:
        source = known[0].source
    found = next((one for one in known if one.source == source), None)
    problems = list(_problems(found, known, item, state=state, by=by, note=note, probed=probed))
    if problems or found is None:
        raise ConfigError(
            text(pt="A marca não foi feita.", en="The mark was not made."),
            details=problems,
            next_step=f"invoke after --run {run.id}",
        )
    # An address may look like a document, so what was probed is not redacted; nobody typed anything else there.
    tried = f"{probed.host}:{probed.port} {probed.answer} {probed.at}" if probed is not None else ""
    seen = "; ".join(filter(None, (redact(evidence), tried)))
    made = Mark(item, source, state, by.strip(), now(), promoted, redact(note.strip()), seen)  # type: ignore[arg-type]
    run.save(FILE, {"marks": [*marks_of(run), made]})
    run.events.add("after", "marked", item=item, source=source, state=state, by=made.by)
    return made


def accept(run: Run, by: str) -> Accepted:
    """Accept the promotion: from then on the sandbox may be destroyed. The caller has the run's lock.

    :raises BlockedError: something that must be done before is not.
    """
    promoted = _demand_promoted(run)
    if not by.strip():
        raise ConfigError(text(pt="Quem aceita? Diga o nome.", en="Who accepts? Give a name."), next_step="--by NAME")
    if left := open_items(run):
        raise BlockedError(
            text(
                pt=f"A promoção da execução {run.id} ainda não pode ser aceita.",
                en=f"The promotion of run {run.id} cannot be accepted yet.",
            ),
            evidence=run.folder / f"{FILE}.json",
            details=[f"{one.name}: {one.item.title}" for one in left],
            next_step=f"invoke after --run {run.id} --mark {left[0].item.id} --by …",
        )
    warned = tuple(one.name for one in standing(run) if one.state in ("open", "problem"))
    accepted = Accepted(by.strip(), now(), promoted, warned)
    run.note(accepted={"by": accepted.by, "at": accepted.at, "promotion": promoted, "left": list(warned)})
    run.events.add("after", "accepted", by=accepted.by, left=list(warned))
    return accepted


def accepted(run: Run) -> Accepted | None:
    """The acceptance of the run's promotion as it is now; None if it is not promoted, or nobody has accepted that."""
    kept, promotion = run.load("run").get("accepted"), _promotion(run)
    if kept is None or promotion.get("state") != "promoted" or kept["promotion"] != promotion.get("promoted_at"):
        return None
    return Accepted(kept["by"], kept["at"], kept["promotion"], tuple(kept["left"]))


def _problems(
    found: Standing | None, known: list[Standing], item: str, *, state: str, by: str, note: str, probed: Probed | None
) -> list[str]:
    problems = []
    if not known:
        problems.append(text(pt=f"Não há o item {item} na lista.", en=f"There is no item {item} in the list."))
    elif found is None:
        names = ", ".join(one.source for one in known if one.source) or "-"
        problems.append(text(pt=f"De qual instalação? --source {names}", en=f"Of which one? --source {names}"))
    if state not in get_args(MarkState):
        problems.append(f"--state {' | '.join(get_args(MarkState))}")
    if not by.strip():
        problems.append(text(pt="Quem fez? --by NOME", en="Who did it? --by NAME"))
    if state in ("problem", "not-applicable") and not note.strip():
        problems.append(text(pt="Diga o porquê: --note", en="Say why: --note"))
    if found is not None and state == "not-applicable" and found.item.always:
        problems.append(text(pt=f"{item} sempre se aplica.", en=f"{item} always applies."))
    if found is not None and found.item.probe and state == "done":
        problems += _off(probed, note)
    return problems


def _off(probed: Probed | None, note: str) -> list[str]:
    """What keeps an installation from being told to be off."""
    if probed is None:
        return [] if note.strip() else [
            text(
                pt="Sonde a máquina (--probe ENDEREÇO:PORTA), ou diga em --note como se sabe que está desligada.",
                en="Probe the machine (--probe HOST:PORT), or say in --note how it is known to be off.",
            )
        ]  # fmt: skip
    if probed.is_off:
        return []
    if probed.is_off is None and note.strip():
        return []
    return [str(probed)]


def _demand_promoted(run: Run) -> str:
    """When the run was promoted.

    :raises ConfigError: it is not, or not any more.
    """
    promotion = _promotion(run)
    if promotion.get("state") != "promoted":
        raise ConfigError(
            text(pt=f"A execução {run.id} não está em produção.", en=f"The run {run.id} is not in production."),
            next_step="invoke promotions",
        )
    return str(promotion.get("promoted_at") or "")


def _promotion(run: Run) -> dict[str, Any]:
    kept: dict[str, Any] = run.load(PROMOTION) if run.has(PROMOTION) else {}
    return kept
