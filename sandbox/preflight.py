"""What the preflight of a run found, what people said to it, and whether the merge may begin.

`merge.check_run` asks restored bases, `sandbox.host_checks` files and this machine; some things only a person can
confirm. In a rehearsal, which is made while units work, those are pending. In a final run each must be confirmed: asked
once at the terminal, or given in a file; then kept with the run. A warning can be accepted, with a reason; what blocks
cannot.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge.checks import RUN, Answer, State, read
from merge.checks import load as load_checks
from merge.errors import ConfigError, PreflightBlocked
from merge.language import counted, text
from sandbox.result import PreflightResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from merge.checks import Check
    from sandbox.console import Reporter
    from sandbox.runs import Run

_FILES = Path(__file__).with_name("files.checks.toml")

ACCEPTED = "accepted"
CONFIRMED = "confirmed"


@dataclass(frozen=True)
class Decisions:
    """What people decided about a run.

    :param final: whether its result is to go to production.
    :param accepted: reason by id of the warnings that were accepted.
    """

    final: bool = False
    accepted: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Confirmation:
    """Who confirmed what only a person can, and when (ISO 8601, UTC)."""

    by: str
    at: str
    note: str = ""


class Preflight:
    """The preflight of one run; each part of it is kept in the run folder as ``checks-<part>.json``."""

    def __init__(self, run: Run, checks: Sequence[Check], decisions: Decisions) -> None:
        self.run = run
        self.checks = {check.id: check for check in checks}
        self.decisions = decisions
        check_ids(checks, decisions.accepted)

    def report(self, part: str, answers: Iterable[Answer], reporter: Reporter) -> tuple[PreflightResult, ...]:
        """Keep the answers of one part, and tell what the user should not overlook."""
        reported = tuple(self._reported(answer) for answer in answers)
        self.run.save(f"checks-{part}", {"answers": reported})
        for answer in reported:
            if answer.state in (State.WARNED, State.BLOCKED):
                reporter.warn(str(answer))
        return reported

    def check(self, reported: Iterable[PreflightResult]) -> None:
        """Raise `PreflightBlocked` with all that blocks, each with what to do."""
        blocking = [answer for answer in reported if answer.state == State.BLOCKED]
        if not blocking:
            return
        details = [f"{answer}{_sides(answer)} — {answer.action}" for answer in blocking]
        details += [
            text(
                pt=f"{answer.id}: o que bloqueia não pode ser aceito",
                en=f"{answer.id}: what blocks cannot be accepted",
            )
            for answer in blocking
            if answer.id in self.decisions.accepted
        ]
        places = ", ".join(dict.fromkeys(answer.where for answer in blocking))
        raise PreflightBlocked(
            text(
                pt=f"{counted(len(blocking), 'verificação impede', 'verificações impedem')} a unificação ({places}).",
                en=f"{counted(len(blocking), 'check forbids', 'checks forbid')} the merge ({places}).",
            ),
            details=details,
            next_step=text(
                pt="Resolva cada uma e comece de novo; o relatório diz o que cada uma significa.",
                en="Solve each and begin again; the report says what each of them means.",
            ),
        )

    def _reported(self, answer: Answer) -> PreflightResult:
        check = self.checks[answer.id]
        state, reason = str(answer.state), ""
        if answer.state is State.WARNED and answer.id in self.decisions.accepted:
            state, reason = ACCEPTED, self.decisions.accepted[answer.id]
        if check.kind == "human" and (said := self.confirmations().get(answer.id)) is not None:
            state = CONFIRMED
            reason = " · ".join(part for part in (said.by, said.at, said.note) if part)
        details = dict(answer.details)
        message = details.pop("message", None)
        return PreflightResult(
            answer.id,
            answer.where,
            check.gate,
            check.kind,
            state,
            str(check.title),
            answer.found,
            details,
            str(message or check.meaning),
            str(check.action),
            str(check.origin),
            check.evidence,
            reason,
        )

    # What only a person can confirm

    def confirmations(self) -> dict[str, Confirmation]:
        """What was confirmed so far, by id."""
        if not self.run.has("confirmations"):
            return {}
        return {name: Confirmation(**said) for name, said in self.run.load("confirmations").items()}

    def confirm(self, reporter: Reporter, given: Path | None) -> None:
        """Take the confirmations of a file; in a final run ask for what is missing, where there is somebody to ask.

        :raises ConfigError: the file cannot be used.
        :raises PreflightBlocked: a final run lacks confirmations that block it.
        """
        said = {**self.confirmations(), **(_read(given, self._human()) if given is not None else {})}
        if self.decisions.final:
            for check in self._human().values():
                if check.id not in said and (answer := _ask(reporter, check)) is not None:
                    said[check.id] = answer
        if said:
            self.run.save("confirmations", said)
        answers = [
            Answer(check.id, RUN, check.state(None, final=self.decisions.final)) for check in self._human().values()
        ]
        reported = tuple(self._reported(answer) for answer in answers)
        self.run.save("checks-people", {"answers": reported})
        blocking = [answer for answer in reported if answer.state == State.BLOCKED]
        if blocking:
            raise PreflightBlocked(
                text(
                    pt=f"A execução final exige {counted(len(blocking), 'confirmação', 'confirmações')} de pessoas.",
                    en=f"A final run demands {counted(len(blocking), 'confirmation', 'confirmations')} of people.",
                ),
                details=[f"{answer.id}: {answer.meaning}" for answer in blocking],
                next_step=text(
                    pt="Rode de novo em um terminal, que as pergunta, ou dê --confirmations ARQUIVO (veja o README).",
                    en="Run again in a terminal, which asks for them, or give --confirmations FILE (see the README).",
                ),
            )

    def _human(self) -> dict[str, Check]:
        return {name: check for name, check in self.checks.items() if check.kind == "human"}


def all_checks(profile: str) -> tuple[Check, ...]:
    """The checks of files and of this machine, and those of an application."""
    return (*read(_FILES), *load_checks(profile))


def check_ids(checks: Iterable[Check], accepted: Iterable[str]) -> None:
    """Raise `ConfigError` if something is accepted that is no check."""
    unknown = sorted(set(accepted) - {check.id for check in checks})
    if unknown:
        raise ConfigError(
            text(pt="Não há verificações com estes códigos.", en="There are no checks with these ids."),
            details=unknown,
            next_step="invoke preflight",
        )


def load(run: Run) -> tuple[PreflightResult, ...]:
    """All answers so far: of people, of files and machine, of the central, of each source, of the merged base."""
    sources = len(run.load("inputs")) if run.has("inputs") else 0
    parts = ("people", "files", "central", *(f"source-{n}" for n in range(1, sources)), "merged")
    found: list[dict[str, Any]] = []
    for part in parts:
        if run.has(f"checks-{part}"):
            found += run.load(f"checks-{part}")["answers"]
    accepted: dict[str, str] = run.load("run")["asked"].get("accepted", {})
    answers = (PreflightResult(**answer) for answer in found)
    # Also those that were accepted only when the run was resumed.
    return tuple(
        replace(a, state=ACCEPTED, reason=accepted[a.id]) if a.state == State.WARNED and a.id in accepted else a
        for a in answers
    )


def _sides(answer: PreflightResult) -> str:
    """In what the two sides differ, where that was asked."""
    if "central" not in answer.details:
        return ""
    return f" [central: {answer.details['central']}; {answer.where}: {answer.details['source']}]"


def _read(path: Path, human: Mapping[str, Check]) -> dict[str, Confirmation]:
    """Confirmations of a TOML file: a table for each id, with ``by`` and perhaps ``note``."""
    problems: list[str] = []
    said: dict[str, Confirmation] = {}
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as ex:
        given, problems = {}, [str(ex)]
    for name, entry in given.items():
        by = entry.get("by") if isinstance(entry, dict) else None
        if name not in human:
            problems.append(text(pt=f"{name}: nada que uma pessoa confirme", en=f"{name}: nothing a person confirms"))
        elif not isinstance(by, str) or not by.strip():
            problems.append(text(pt=f"{name}: falta quem confirma (by)", en=f"{name}: who confirms is missing (by)"))
        else:
            said[name] = Confirmation(by.strip(), _now(), str(entry.get("note", "")))
    if problems:
        raise ConfigError(
            text(pt="As confirmações não podem ser usadas.", en="The confirmations cannot be used."),
            evidence=path,
            details=problems,
            next_step=text(pt="Corrija o arquivo.", en="Correct the file."),
        )
    return said


def _ask(reporter: Reporter, check: Check) -> Confirmation | None:
    """Ask at the terminal who confirms; None if nobody does, or there is nobody to ask."""
    by = reporter.ask(
        f"{check.id} · {check.title}\n  {check.meaning}\n  {check.action}",
        text(pt="Quem confirma (vazio: ninguém)", en="Who confirms (empty: nobody)"),
    )
    return Confirmation(by, _now()) if by else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
