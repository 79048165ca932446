"""The report of a run: one HTML file that needs nothing else, for whoever must answer for the unification.

It renders a `RunResult` and queries nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jinja2

from merge.language import counted, text
from merge.plan import Role
from sandbox import words
from sandbox.result import DISPOSITIONS, checks
from sandbox.verdict import verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sandbox.result import Check, PreflightResult, RunResult, SourceResult, SuspicionResult, TableResult

_LOOKED_AT = ("blocked", "warned", "accepted")
"""States of preflight answers that are shown each, not only in a table."""


def render(result: RunResult) -> str:
    """The report as HTML, in the user's language."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sandbox"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=words.number,
        duration=words.duration,
        moment=words.moment,
        moments=words.moments,
        reason=words.reason,
        size=words.size,
    )
    environment.globals.update(
        t=_text,
        counted=counted,
        labels=words.labels(),
        roles=words.roles(),
        kinds=words.kinds(),
        fates=words.fates(),
        check_name=words.check_name,
        content_said=words.content,
        detail=words.detail,
        duplicates_file=words.duplicates_file,
        evidence=words.evidence,
        percent=words.percent,
        place=words.places,
        state=words.state,
        step_name=words.step_name,
    )
    return environment.get_template("report.html").render(
        result=result,
        verdict=verdict(result),
        problem_details=_details(result),
        groups=_grouped(checks(result)),
        states=_states(result.preflight),
        findings=_findings(result.preflight),
        people=[answer for answer in result.preflight if answer.kind == "human"],
        answers=sorted(result.preflight, key=lambda answer: words.STATES.index(answer.state)),
        bars={source.name: _bar(source.dispositions or {}) for source in result.sources},
        tables={source.name: _filled(source) for source in result.sources},
        excluded={source.name: _excluded(source) for source in result.sources},
        differing={source.name: _differing(source) for source in result.sources},
        suspicions=sorted(result.suspicions, key=_importance),
        counts=Counter(difference.kind for difference in result.differences),
        total=sum(result.timings.values()),
        longest=max(result.timings.values(), default=0.0),
    )


def _details(result: RunResult) -> list[str]:
    """The details of the problem, but for the answers that block: these are shown with all there is about them."""
    if result.problem is None:
        return []
    blocked = [answer for answer in result.preflight if answer.state == "blocked"]
    shown = tuple(f"{a.id} · {a.where}: " for a in blocked)
    asked = {f"{a.id}: {a.meaning}" for a in blocked}
    return [detail for detail in result.problem.details if not detail.startswith(shown) and detail not in asked]


@dataclass(frozen=True)
class Part:
    """One part of a bar: `share` in percent."""

    name: str
    rows: int
    share: float


def _bar(dispositions: Mapping[str, int]) -> list[Part]:
    total = sum(dispositions.values()) or 1
    return [Part(name, rows, 100 * rows / total) for name in DISPOSITIONS if (rows := dispositions.get(name, 0))]


def _filled(source: SourceResult) -> list[TableResult]:
    return sorted((t for t in source.tables if t.rows), key=lambda table: (-table.rows, table.name))


def _excluded(source: SourceResult) -> list[tuple[str, int]]:
    """The reasons for which rows did not come, most rows first."""
    count: Counter[str] = Counter()
    for table in source.tables:
        for reason, rows in table.left_out.items():
            count[words.reason(reason)] += rows
    return count.most_common()


@dataclass(frozen=True)
class Differing:
    """The tables of one source whose content is not the central's: catalogs, and others with rows that differ.

    :param added: rows of catalogs that only the source had.
    :param differ: rows that both had with other content, in catalogs; `differ_elsewhere` in the other tables.
    """

    catalogs: tuple[TableResult, ...]
    others: tuple[TableResult, ...]
    added: int
    differ: int
    differ_elsewhere: int


def _differing(source: SourceResult) -> Differing:
    def rows(table: TableResult, disposition: str) -> int:
        return (table.dispositions or {}).get(disposition, 0)

    def order(table: TableResult) -> tuple[int, int, str]:
        return -rows(table, "reconciled"), -rows(table, "inserted"), table.name

    unlike = sorted((t for t in source.tables if rows(t, "reconciled") or rows(t, "inserted")), key=order)
    catalogs = tuple(t for t in unlike if t.role == Role.CATALOG)
    others = tuple(t for t in unlike if t.role != Role.CATALOG and rows(t, "reconciled"))
    return Differing(
        catalogs,
        others,
        sum(rows(t, "inserted") for t in catalogs),
        sum(rows(t, "reconciled") for t in catalogs),
        sum(rows(t, "reconciled") for t in others),
    )


@dataclass(frozen=True)
class Finding:
    """One preflight check that somebody should look at, with its answers of one state: one for each place."""

    state: str
    answers: tuple[PreflightResult, ...]


def _findings(answers: Iterable[PreflightResult]) -> list[Finding]:
    found: dict[tuple[str, str], list[PreflightResult]] = {}
    for answer in answers:
        if answer.state in _LOOKED_AT:
            found.setdefault((answer.state, answer.id), []).append(answer)
    ordered = sorted(found, key=lambda key: words.STATES.index(key[0]))
    return [Finding(key[0], tuple(found[key])) for key in ordered]


def _states(answers: Sequence[PreflightResult]) -> dict[str, int]:
    """How many answers there are of each state that occurs."""
    count: Counter[str] = Counter(answer.state for answer in answers)
    return {state: count[state] for state in words.STATES if count[state]}


def _importance(suspicion: SuspicionResult) -> tuple[bool, str, str]:
    return not suspicion.moves, suspicion.column, suspicion.source


def _grouped(found: list[Check]) -> dict[str, list[Check]]:
    """The checks by source; those of the whole run are shown with the central's."""
    groups: dict[str, list[Check]] = {}
    for check in found:
        groups.setdefault("central" if check.group == "run" else check.group, []).append(check)
    return groups


def _text(pt: str, en: str) -> str:
    return text(pt=pt, en=en)
