"""Collects what the steps of a run left in its folder into the result."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from merge.checks import CENTRAL
from merge.errors import BackupError, BlockedError, ConfigError, ProofFailed
from merge.language import text
from merge.plan import ALL, SET, Disposition
from sandbox import preflight, words
from sandbox.options import PEC, SQL
from sandbox.rehearsal import DATABASE
from sandbox.result import (
    AttachmentsResult,
    Candidate,
    ContentProofResult,
    DifferenceResult,
    InputResult,
    Problem,
    ProofResult,
    RunResult,
    ServerResult,
    SourceResult,
    SuspicionResult,
    TableResult,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from merge.errors import HomologationError
    from sandbox.result import Status
    from sandbox.runs import Run


def collect(run: Run, names: Sequence[str], problem: HomologationError | None) -> RunResult:
    """Make the result of a run as far as it came, and keep its ledger and its proofs in files of their own.

    :param names: the sources, in merge order.
    :param problem: the error that ended the run, if one did.
    """
    kept = run.load("run")
    inputs = _load(run, "inputs", {})
    server = kept.get("server") or {}
    proofs = {n: _load(run, f"source-{n}-proof", None) for n in range(1, len(names) + 1)}
    central = _load(run, "central-proof", None)
    content = _load(run, "content-proof", None)
    sources = [_source(run, number, name, proofs[number], central) for number, name in enumerate(names, 1)]
    run.save("ledger", {s.name: [asdict(t) for t in s.tables] for s in sources})
    kept_proofs = {"sources": dict(zip(names, proofs.values(), strict=True)), "central": central, "content": content}
    run.save("proof", kept_proofs)
    files = _load(run, "attachments-proof", None)
    carried = [(n, run.load(f"attachments-{n}")) for n in range(len(names) + 1) if run.has(f"attachments-{n}")]
    found = [proof for proof in (*proofs.values(), central, files, content) if proof is not None]
    engine = kept["asked"].get("engine", SQL)
    asked = [*([files] if carried else []), *([content] if content is not None or engine == PEC else [])]
    if engine == SQL:
        asked += [*proofs.values(), central]
    if problem is None and not (names and _is_proved(asked)):
        problem = ProofFailed(
            text(
                pt="Nem todas as provas foram feitas e valem; não se pode dizer que o resultado está certo.",
                en="Not all proofs were made and hold; it cannot be said that the result is right.",
            ),
            next_step=f"invoke prove --run {run.id}",
        )
    opaque: Counter[str] = Counter()
    for number in proofs:
        opaque.update(_load(run, f"source-{number}-opaque", {}))
    return RunResult(
        run_id=run.id,
        status=_status(problem),
        engine=engine,
        server=ServerResult(server.get("provider"), server.get("version")),
        inputs=tuple(_input(name, backup, kept) for name, backup in inputs.items()),
        sources=tuple(sources),
        timings=run.done(),
        candidate=_candidate(
            inputs, server, problem, _load(run, "frozen", {}), final=kept["asked"].get("final", False)
        ),
        central_proof=None if central is None else _proof(central, central),
        content_proof=None
        if content is None
        else ContentProofResult(
            content["rows_compared"],
            sum(content["differences"].values()),
            content["central_unchanged"] if engine == SQL else None,
            content["alike"],
            content["matched"],
            content["declared"],
        ),
        scope=kept["asked"].get("scope", ALL),
        duplicates={
            name: len(_load(run, f"source-{number}-duplicates", {"groups": ()})["groups"])
            for number, name in enumerate(names, 1)
        },
        differences=tuple(DifferenceResult(**example) for proof in found for example in proof["examples"]),
        opaque=dict(opaque),
        schema_differences=tuple(
            f"{words.structure(d['kind'])} {d['object']}: {d['reason']}"
            for number in proofs
            for d in _load(run, f"source-{number}-schema", {"differences": ()})["differences"]
            if d["harmless"]
        ),
        final=kept["asked"].get("final", False),
        attachments=tuple(
            AttachmentsResult(
                names[n - 1] if n else CENTRAL,
                a["files"],
                a["size"],
                a["files_by_fate"],
                a["rows"],
                a["missing"],
                a["conflicts"],
            )
            for n, a in carried
        ),
        attachments_proof=None if files is None else _proof(files, None),
        preflight=preflight.load(run),
        suspicions=tuple(
            SuspicionResult(name, f"{s['table']}.{s['column']}", s["target"], s["rows"], s["moves"])
            for number, name in enumerate(names, 1)
            for s in _load(run, f"source-{number}-suspicions", {"suspicions": ()})["suspicions"]
        ),
        problem=None
        if problem is None
        else Problem(problem.what, problem.evidence, problem.next_step, problem.details, type(problem).__name__),
        exit_code=0 if problem is None else problem.exit_code,
        started=kept["created"],
        finished=kept.get("finished", ""),
    )


def _is_proved(proofs: Sequence[Mapping[str, Any] | None]) -> bool:
    """True if every proof was made and holds."""
    return all(proof is not None and proof["holds"] for proof in proofs)


def _load(run: Run, name: str, default: Any) -> Any:
    return run.load(name) if run.has(name) else default


def _status(problem: HomologationError | None) -> Status:
    if problem is None:
        return "validated"
    if isinstance(problem, ProofFailed):
        return "different"
    return "blocked" if isinstance(problem, BackupError | BlockedError | ConfigError) else "failed"


def _input(name: str, backup: Mapping[str, Any], kept: Mapping[str, Any]) -> InputResult:
    return InputResult(
        role="central" if name == "central" else "source",
        name=name,
        path=str(backup["path"]),
        sha256=backup["sha256"],
        format=backup["format"],
        dumped_from=backup["dumped_from"] or "",
        pec_version=kept.get("versions", {}).get(name),
    )


def _source(
    run: Run, number: int, name: str, proof: Mapping[str, Any] | None, central: Mapping[str, Any] | None
) -> SourceResult:
    rows: dict[str, int] = _load(run, f"source-{number}-rows", {"rows": {}})["rows"]
    plan = {t["name"]: t for t in _load(run, "plan", {"tables": ()})["tables"]}
    ledger = _load(run, f"source-{number}-ledger", {"lines": ()})
    differing = _load(run, f"source-{number}-differing", {})
    dispositions: dict[str, Counter[str]] = {}
    reasons: dict[str, Counter[str]] = {}
    left_out: dict[str, Counter[str]] = {}
    for line in ledger["lines"]:
        table, disposition = line["table"], line["disposition"]
        dispositions.setdefault(table, Counter())[disposition] += line["rows"]
        if line["reason"]:
            reason = _reason(plan.get(table, {}), line["reason"])
            reasons.setdefault(table, Counter())[reason] += line["rows"]
            if disposition in (Disposition.EXCLUDED, Disposition.REJECTED):
                left_out.setdefault(table, Counter())[reason] += line["rows"]
    added: Counter[str] = Counter()
    for line in ledger.get("added", ()):
        added[line["table"]] += line["rows"]
    merged = run.has(f"source-{number}-ledger")
    return SourceResult(
        name=name,
        rows=sum(rows.values()),
        dispositions=_all(dispositions.values()) if merged else None,
        tables=tuple(
            TableResult(
                table,
                plan.get(table, {}).get("role") or "",
                plan.get(table, {}).get("rule") or "",
                plan.get(table, {}).get("reason") or "",
                count,
                _all([dispositions.get(table, Counter())]) if merged else None,
                dict(reasons.get(table, {})),
                dict(left_out.get(table, {})),
                differing.get(table, {}),
            )
            for table, count in sorted(rows.items())
        ),
        seconds=_seconds(run, number),
        proof=_proof(proof, central),
        added=dict(added),
    )


def _reason(plan: Mapping[str, Any], name: str) -> str:
    """What the plan of a table says of a reason that the ledger only names."""
    declared = {leave["name"]: leave["reason"] for leave in plan.get("leave_out", ())}
    if plan.get("constants"):
        declared[SET] = "; ".join(constant["reason"] for constant in plan["constants"])
    reason: str = declared.get(name, name)
    return reason


def _seconds(run: Run, number: int) -> dict[str, float]:
    """Seconds by phase; what the merge spends on matching and foreseeing is planning."""
    done, phases = run.done(), _load(run, f"source-{number}-phases", {})
    planning = sum(phases.get(phase, 0.0) for phase in ("scope", "match", "collisions"))
    return {
        "restore": done.get(f"source.{number}.restore", 0.0),
        "preflight": done.get(f"source.{number}.preflight", 0.0),
        "plan": round(planning, 3),
        "merge": round(max(done.get(f"source.{number}.merge", 0.0) - planning, 0.0), 3),
        "proof": done.get(f"source.{number}.proof", 0.0),
    }


def _proof(proof: Mapping[str, Any] | None, central: Mapping[str, Any] | None) -> ProofResult:
    unchanged = None if central is None else central["central_unchanged"]
    if proof is None:
        return ProofResult("exact", 0, None, unchanged)
    return ProofResult(proof["method"], proof["rows_compared"], sum(proof["differences"].values()), unchanged)


def _all(counts: Iterable[Counter[str]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return {d.value: total[d.value] for d in Disposition}


def _candidate(
    inputs: Mapping[str, Any],
    server: Mapping[str, Any],
    problem: HomologationError | None,
    frozen: Mapping[str, Any],
    *,
    final: bool,
) -> Candidate:
    reasons = []
    if problem is not None:
        reasons.append(text(pt="a execução não terminou validada", en="the run did not end validated"))
    dumped = inputs.get("central", {}).get("dumped_major")
    if dumped is not None and dumped != server.get("major"):
        reasons.append(
            text(
                pt=f"o central é do PostgreSQL {dumped} e a sandbox do {server.get('major')}",
                en=f"the central is of PostgreSQL {dumped} and the sandbox of {server.get('major')}",
            )
        )
    if not final:
        reasons.append(text(pt="é um ensaio, não a execução final", en="it is a rehearsal, not the final run"))
    dump = {} if reasons else {name: frozen[name] for name in ("dump", "sha256") if name in frozen}
    return Candidate(DATABASE, promotable=not reasons, reason="; ".join(reasons) or None, **dump)
