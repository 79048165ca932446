"""What came of a run: the stable ``result.json``, and its checks as JUnit XML.

The dataclasses are the format, and checked when they are made: `RunResult.to_dict` writes them as they are,
`RunResult.from_dict` reads them back, and ``docs/result.schema.json`` describes them. Nothing in them names a patient.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping  # pydantic reads the types
from dataclasses import asdict, field, fields
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal
from xml.etree import ElementTree as ET

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from merge.checks import State
from merge.language import counted, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from merge.errors import HomologationError

DISPOSITIONS = ("inserted", "matched", "reconciled", "grouped", "excluded", "rejected")

Role = Literal["central", "source"]
Status = Literal["validated", "blocked", "failed", "different"]
Dispositions = Annotated[Mapping[str, int], Field(json_schema_extra={"propertyNames": {"enum": list(DISPOSITIONS)}})]
StateName = Annotated[str, Field(json_schema_extra={"enum": [*map(str, State), "accepted", "confirmed"]})]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class ServerResult:
    """The server of the sandbox; both None if none was started."""

    provider: str | None
    version: str | None


@dataclass(frozen=True)
class InputResult:
    """One backup."""

    role: Role
    name: str
    path: str
    sha256: Sha256
    format: str
    dumped_from: str
    pec_version: str | None


@dataclass(frozen=True)
class TableResult:
    """One table of a source: what it is, by which rule and why, and what became of its rows.

    :param reasons: rows by reason, of whatever disposition.
    :param left_out: by reason, the rows that did not come.
    :param differing: by column, the reconciled rows that differ there from the central's.
    """

    name: str
    role: str
    rule: str
    reason: str
    rows: int
    dispositions: Dispositions | None
    reasons: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    differing: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ProofResult:
    """One proof; `differences` is None if it was not made, `central_unchanged` if it was not looked at."""

    method: str
    rows_compared: int
    differences: int | None
    central_unchanged: bool | None


@dataclass(frozen=True)
class ContentProofResult:
    """The proof by content, of the merged database as a whole: it needs nothing that the merge noted of itself.

    :param alike: by table, rows of the sources that are the same in all but their keys, and in what refers to them:
        that they were not swapped for each other is not proved.
    :param matched: by table and rule, rows of the sources that were there before.
    :param declared: by table and kind, what the application wrote itself while it ran on the database (engine pec);
        `central_unchanged` is None then.
    """

    rows_compared: int
    differences: int
    central_unchanged: bool | None
    alike: Mapping[str, int] = field(default_factory=dict)
    matched: Mapping[str, int] = field(default_factory=dict)
    declared: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceResult:
    """One source, in merge order. `seconds` by phase: restore, preflight, plan, merge, proof.

    :param added: by table, rows that the scope added; they are no rows of the source.
    """

    name: str
    rows: int
    dispositions: Dispositions | None
    tables: tuple[TableResult, ...]
    seconds: Mapping[str, float]
    proof: ProofResult
    added: Mapping[str, int] = field(default_factory=dict)

    @property
    def accounted(self) -> bool:
        """True if every row of every table has exactly one disposition."""
        return all(t.dispositions is None or sum(t.dispositions.values()) == t.rows for t in self.tables)


@dataclass(frozen=True)
class Candidate:
    """The merged database. `dump` and `sha256` are None until it is signed."""

    database: str | None
    promotable: bool
    reason: str | None
    dump: str | None = None
    sha256: Sha256 | None = None


@dataclass(frozen=True)
class DifferenceResult:
    """One difference that a proof found; values are masked."""

    kind: str
    table: str
    key: str = ""
    column: str | None = None
    source: int | None = None
    expected: str = ""
    found: str = ""
    reason: str | None = None


@dataclass(frozen=True)
class AttachmentsResult:
    """What became of the files that one base keeps outside of its database.

    :param size: bytes.
    :param fates: files by what became of them; the sum is `files`. None is known of the central's: they stay.
    :param missing: rows whose file was not delivered; `conflicts` rows whose file is kept beside the central's.
    """

    name: str
    files: int
    size: int
    fates: Mapping[str, int]
    rows: int
    missing: int
    conflicts: int


@dataclass(frozen=True)
class PreflightResult:
    """What one preflight check answered.

    :param where: ``run``, ``central``, ``merged`` or the name of a source.
    :param gate: what it does if something is found: ``block``, ``warn`` or ``record``.
    :param kind: ``data``, ``unit`` (what a unit must stop or finish: only warns in a rehearsal) or ``human``.
    :param found: how much was found; None if it is not counted.
    :param details: numbers, dates and internal keys.
    :param reason: why a warning was accepted, or who confirmed.
    """

    id: str
    where: str
    gate: Literal["block", "warn", "record"]
    kind: str
    state: StateName
    title: str
    found: int | None = None
    details: Mapping[str, int | str | None] = field(default_factory=dict)
    meaning: str = ""
    action: str = ""
    origin: str = ""
    evidence: str = ""
    reason: str = ""

    def __str__(self) -> str:
        number = "" if self.found is None else f" ({self.found})"
        return f"{self.id} · {self.where}: {self.meaning}{number}"


@dataclass(frozen=True)
class SuspicionResult:
    """A column that nobody declared, whose values all but say that it refers to a key.

    :param source: its name; `column` and `target` are ``table.column``.
    :param rows: rows with a value.
    :param moves: whether the key moves in a merge; if the column does refer to it, it would name other rows then.
    """

    source: str
    column: str
    target: str
    rows: int
    moves: bool


@dataclass(frozen=True)
class Problem:
    """What stopped the run; `kind` is the name of the error's class."""

    what: str
    evidence: str | None = None
    next_step: str | None = None
    details: tuple[str, ...] = ()
    kind: str = ""


def _tool_version() -> str:
    try:
        return importlib.metadata.version("pec-homolog")
    except importlib.metadata.PackageNotFoundError:
        return ""


@dataclass(frozen=True)
class RunResult:
    """The whole result.

    :param timings: seconds of every step that was done, e.g. ``central.restore``, ``source.1.merge``.
    :param central_proof: the proof of the central; None if it was not made.
    :param content_proof: the proof by content; None if it was not made.
    :param duplicates: by source, groups of citizens who share a document.
    :param differences: the first hundred of each kind of each proof; the proofs count them all.
    :param scope: what comes of a source: ``all``, or the name of a scope of the profile.
    :param opaque: by ``table.column``, filled values in which no reference can be followed.
    :param final: whether the result was meant to go to production; if not, it is a rehearsal.
    :param preflight: what every check answered.
    :param suspicions: columns that look like undeclared references.
    :param attachments: files outside the databases; `attachments_proof` is None if none were delivered.
    :param started: and `finished`: ISO 8601, UTC.
    """

    SCHEMA_VERSION: ClassVar[int] = 1

    run_id: str
    status: Status
    engine: str
    server: ServerResult
    inputs: tuple[InputResult, ...]
    sources: tuple[SourceResult, ...]
    timings: Mapping[str, float]
    candidate: Candidate
    central_proof: ProofResult | None = None
    scope: str = "all"
    duplicates: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    differences: tuple[DifferenceResult, ...] = ()
    opaque: Mapping[str, int] = field(default_factory=dict)
    schema_differences: tuple[str, ...] = ()
    attachments: tuple[AttachmentsResult, ...] = ()
    attachments_proof: ProofResult | None = None
    final: bool = False
    preflight: tuple[PreflightResult, ...] = ()
    suspicions: tuple[SuspicionResult, ...] = ()
    content_proof: ContentProofResult | None = None
    problem: Problem | None = None
    exit_code: int = 0
    started: str = ""
    finished: str = ""
    tool: str = field(default_factory=_tool_version)

    @classmethod
    def refused(cls, error: HomologationError) -> RunResult:
        """The result where there is no run: what was asked could not even begin."""
        nothing = Candidate(None, promotable=False, reason=error.what)
        problem = Problem(error.what, error.evidence, error.next_step, error.details, type(error).__name__)
        return cls("", "blocked", "sql", ServerResult(None, None), (), (), {}, nothing, problem=problem,
                   exit_code=error.exit_code)  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """As ``result.json`` holds it."""
        return {"schema_version": self.SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> RunResult:
        """Read what `to_dict` gave; fields of a later version are left out.

        :raises pydantic.ValidationError: if it is no result.
        """
        known = {f.name for f in fields(cls)}
        return TypeAdapter(cls).validate_python({k: v for k, v in content.items() if k in known})

    @property
    def rows(self) -> int:
        """Rows of all sources."""
        return sum(source.rows for source in self.sources)

    @property
    def rows_compared(self) -> int:
        """Rows that the proofs compared, those of the central included."""
        proofs = [*(s.proof for s in self.sources), *([self.central_proof] if self.central_proof else [])]
        exact = sum(proof.rows_compared for proof in proofs)
        return exact or (self.content_proof.rows_compared if self.content_proof else 0)


# Checks


@dataclass(frozen=True)
class Check:
    """One check of a run: `state` is passed, failed or skipped; `group` is the run, the central or a source."""

    group: str
    name: str
    state: str
    seconds: float = 0.0
    message: str = ""
    details: tuple[str, ...] = ()


_NAMES = {
    "BackupError": "intake",
    "SchemaDifference": "schema",
    "CoverageError": "coverage",
    "BlockedError": "preflight",
    "PreflightBlocked": "preflight",
    "CollisionError": "merge",
    "MergeError": "merge",
}


def checks(result: RunResult) -> list[Check]:
    """All checks of a run, in the order in which they are made.

    A run stops at its first problem, so that what comes before has passed and what comes after was skipped.
    """
    listed = list(_evidence(result))
    problem = result.problem
    if problem is None or any(check.state == "failed" for check in listed):
        return listed
    at = _place(listed, problem)
    failed = Check(listed[at].group, listed[at].name, "failed", listed[at].seconds, problem.what, problem.details)
    later = [Check(c.group, c.name, c.state if c.state == "passed" else "skipped") for c in listed[at + 1 :]]
    return [*listed[:at], failed, *later]


def _place(listed: list[Check], problem: Problem) -> int:
    """The check that the problem failed: of those of the first place that has not passed all, the one of its name."""
    first = next((i for i, check in enumerate(listed) if check.state != "passed"), len(listed) - 1)
    wanted = (listed[first].group, _NAMES.get(problem.kind))
    return next((i for i, check in enumerate(listed) if (check.group, check.name) == wanted), first)


def _evidence(result: RunResult) -> Iterator[Check]:
    """What the figures alone say of each check: passed or failed if they tell, else skipped."""
    timings = result.timings

    def step(group: str, name: str, done: str) -> Check:
        return Check(group, name, "passed" if done in timings else "skipped", timings.get(done, 0.0))

    yield Check("run", "intake", "passed" if result.inputs and all(i.sha256 for i in result.inputs) else "skipped")
    blocked = [a for a in result.preflight if a.state == "blocked"]
    early = [a for a in blocked if a.kind in ("human", "file")]
    if early or "central.restore" in timings:
        yield _answered("run", "conditions", early, 0.0)
    yield step("central", "restore", "central.restore")
    yield step("central", "preflight", "central.preflight")
    for number, source in enumerate(result.sources, 1):
        prefix = f"source.{number}"
        yield step(source.name, "restore", f"{prefix}.restore")
        yield Check(source.name, "schema", "passed" if f"{prefix}.restore" in timings else "skipped")
        yield Check(source.name, "coverage", "passed" if f"{prefix}.preflight" in timings else "skipped")
        yield step(source.name, "preflight", f"{prefix}.preflight")
        yield step(source.name, "merge", f"{prefix}.merge")
        if result.engine == "sql":  # which tells what it did with each row, and is proved source by source
            yield _ledger(source, f"{prefix}.merge" in timings)
            yield _proof(result, source.name, number, source.proof, timings.get(f"{prefix}.proof", 0.0))
    if result.engine == "sql":
        yield _proof(result, "central", None, result.central_proof, timings.get("central.proof", 0.0))
    if result.attachments:
        found = result.attachments_proof
        yield _proof(result, "attachments", None, found, timings.get("attachments.proof", 0.0))
    if result.content_proof is not None or result.engine != "sql":
        seconds = timings.get("content.proof", 0.0)
        yield _proof(result, "merged", None, result.content_proof, seconds, name="content")
    merged = [a for a in blocked if a.where == "merged"]
    yield _answered("merged", "preflight", merged, timings.get("merged.checks"))


def _answered(group: str, name: str, blocked: Sequence[PreflightResult], seconds: float | None) -> Check:
    """A check that is made of preflight answers; `seconds` is None if they were not asked."""
    if blocked:
        message = text(
            pt=f"{counted(len(blocked), 'verificação impede', 'verificações impedem')}.",
            en=f"{counted(len(blocked), 'check blocks', 'checks block')}.",
        )
        return Check(group, name, "failed", seconds or 0.0, message, tuple(f"{a.id}: {a.meaning}" for a in blocked))
    return Check(group, name, "skipped" if seconds is None else "passed", seconds or 0.0)


def _ledger(source: SourceResult, merged: bool) -> Check:
    if not merged or source.dispositions is None:
        return Check(source.name, "ledger", "skipped")
    wrong = tuple(t.name for t in source.tables if t.dispositions and sum(t.dispositions.values()) != t.rows)
    if not wrong:
        return Check(source.name, "ledger", "passed")
    message = text(
        pt=f"{counted(len(wrong), 'tabela não fecha', 'tabelas não fecham')}.",
        en=f"{counted(len(wrong), 'table does', 'tables do')} not add up.",
    )
    return Check(source.name, "ledger", "failed", 0.0, message, wrong)


def _proof(
    result: RunResult, group: str, number: int | None, proof: ProofResult | ContentProofResult | None, seconds: float,
    name: str = "proof",
) -> Check:  # fmt: skip
    if proof is None or proof.differences is None:
        return Check(group, name, "skipped", seconds)
    if not proof.differences:
        return Check(group, name, "passed", seconds)
    message = text(
        pt=f"{counted(proof.differences, 'diferença', 'diferenças')}.",
        en=f"{counted(proof.differences, 'difference', 'differences')}.",
    )
    found = (d for d in result.differences if d.source == number)
    lines = tuple(f"{d.kind} {d.table}{'.' + d.column if d.column else ''} [{d.key}]" for d in found)
    return Check(group, name, "failed", seconds, message, lines)


def junit(result: RunResult) -> bytes:
    """The checks as JUnit XML, one test case each."""
    found = checks(result)
    suite = ET.Element(
        "testsuite",
        name=f"homolog {result.run_id}",
        tests=str(len(found)),
        failures=str(sum(c.state == "failed" for c in found)),
        skipped=str(sum(c.state == "skipped" for c in found)),
        errors="0",
        time=f"{sum(result.timings.values()):.3f}",
    )
    if result.started:
        suite.set("timestamp", result.started)
    for check in found:
        case = ET.SubElement(
            suite, "testcase", classname=f"homolog.{check.group}", name=check.name, time=f"{check.seconds:.3f}"
        )
        if check.state == "failed":
            failure = ET.SubElement(case, "failure", message=_xml(check.message), type=check.name)
            failure.text = _xml("\n".join(check.details))
        elif check.state == "skipped":
            ET.SubElement(case, "skipped")
    suites = ET.Element("testsuites")
    suites.append(suite)
    ET.indent(suites)
    document: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return document


def _xml(value: str) -> str:
    """Leave out control characters that XML cannot hold."""
    return "".join(c for c in value if c in "\t\n\r" or c >= " ")
