"""The report of a run: one HTML file that needs nothing else, for whoever must answer for the unification.

It renders a `RunResult` and queries nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jinja2

from merge.language import text
from sandbox import words
from sandbox.result import DISPOSITIONS, checks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.result import Check, RunResult, SourceResult, TableResult


def render(result: RunResult) -> str:
    """The report as HTML, in the user's language."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sandbox"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=words.number, duration=words.duration, moment=words.moment, reason=words.reason)
    environment.globals.update(
        t=_text,
        labels=words.labels(),
        roles=words.roles(),
        kinds=words.kinds(),
        check_name=words.check_name,
        percent=words.percent,
        step_name=words.step_name,
    )
    return environment.get_template("report.html").render(
        result=result,
        verdict=words.verdict(result),
        groups=_grouped(checks(result)),
        bars={source.name: _bar(source.dispositions or {}) for source in result.sources},
        tables={source.name: _filled(source) for source in result.sources},
        excluded={source.name: _excluded(source) for source in result.sources},
        counts=Counter(difference.kind for difference in result.differences),
        total=sum(result.timings.values()),
        longest=max(result.timings.values(), default=0.0),
    )


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


def _grouped(found: list[Check]) -> dict[str, list[Check]]:
    """The checks by source; those of the whole run are shown with the central's."""
    groups: dict[str, list[Check]] = {}
    for check in found:
        groups.setdefault("central" if check.group == "run" else check.group, []).append(check)
    return groups


def _text(pt: str, en: str) -> str:
    return text(pt=pt, en=en)
