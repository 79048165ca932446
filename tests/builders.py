"""Made-up results of runs, for tests of what is shown and written."""

from __future__ import annotations

from typing import Any

from sandbox.result import (
    DISPOSITIONS,
    AttachmentsResult,
    Candidate,
    DifferenceResult,
    InputResult,
    PreflightResult,
    Problem,
    ProofResult,
    RunResult,
    ServerResult,
    SourceResult,
    SuspicionResult,
    TableResult,
)

_TABLES: tuple[tuple[str, str, str, str, dict[str, int]], ...] = (
    ("tb_cidadao", "entity", "citizens", "policy keep", {"inserted": 4180}),
    ("tb_fat_atendimento_individual", "derived", "warehouse", "o PEC recalcula", {"excluded": 81250}),
    ("tb_atend", "event", "uuid", "", {"inserted": 60210, "matched": 12}),
    ("tb_unidade_saude", "entity", "cnes", "", {"matched": 2, "inserted": 1}),
    ("tb_ciap", "catalog", "natural key", "", {"matched": 205}),
    ("tb_medicamento", "catalog", "natural key", "", {"matched": 700, "inserted": 4, "reconciled": 3}),
    ("tb_config_sistema", "config", "settings", "fica a configuração do central", {"excluded": 41}),
    ("tb_prof", "entity", "cpf", "", {"matched": 12, "inserted": 25, "reconciled": 1}),
    ("tb_envio_rnds", "queue", "comes along", "", {"inserted": 980}),
    ("tb_vacio", "event", "uuid", "", {}),
)

_DIFFERING = {"tb_prof": {"ds_email": 1}, "tb_medicamento": {"st_ativo": 3, "ds_forma": 1}}


def build_table(name: str, role: str, rule: str, reason: str, dispositions: dict[str, int]) -> TableResult:
    """A table whose rows are the sum of its dispositions."""
    gone = sum(dispositions.get(name, 0) for name in ("excluded", "rejected"))
    left_out = {reason or rule: gone} if gone else {}
    return TableResult(name, role, rule, reason, sum(dispositions.values()), dispositions,
        left_out=left_out, differing=_DIFFERING.get(name, {}))  # fmt: skip


def build_answer(
    id_: str, where: str, state: Any, *, gate: Any = "warn", kind: str = "data", **changes: Any
) -> PreflightResult:
    """An answer of a preflight check."""
    values: dict[str, Any] = {
        "title": f"título de {id_}",
        "meaning": f"significado de {id_}",
        "action": f"ação de {id_}",
        "origin": "inspeção de bases",
        "evidence": "inferred",
    }
    return PreflightResult(id_, where, gate, kind, state, **{**values, **changes})


PREFLIGHT = (
    build_answer("A-01", "run", "pending", gate="block", kind="human"),
    build_answer("A-02", "run", "confirmed", gate="block", kind="human", reason="M. Souza · 2026-11-23T22:12:04+00:00"),
    build_answer(
        "C-08f", "central", "warned", kind="file", details={"seconds": 172800, "last_write": "2026-11-21T10:00:00"}
    ),
    build_answer("B-13", "ubs-norte", "accepted", found=1, reason="conferido com a unidade"),
    build_answer("B-13", "ubs-sul", "passed", found=0),
    build_answer("E-16", "ubs-sul", "recorded", gate="record", details={"cidadaos": 4180}),
    build_answer("E-07", "merged", "passed", found=0),
)


def build_source(name: str = "ubs-norte", **changes: Any) -> SourceResult:
    """A source that was merged and proved."""
    tables = tuple(build_table(*table) for table in _TABLES)
    totals = dict.fromkeys(DISPOSITIONS, 0)
    for table in tables:
        for disposition, rows in (table.dispositions or {}).items():
            totals[disposition] += rows
    rows = sum(table.rows for table in tables)
    values: dict[str, Any] = {
        "name": name,
        "rows": rows,
        "dispositions": totals,
        "tables": tables,
        "seconds": {"restore": 8.1, "preflight": 1.2, "plan": 0.4, "merge": 5.3, "proof": 3.9},
        "proof": ProofResult("exact", rows - totals["excluded"], 0, True),
    }
    return SourceResult(**{**values, **changes})


def build_result(**changes: Any) -> RunResult:
    """A validated run of two sources."""
    values: dict[str, Any] = {
        "run_id": "20261123-1912-k7m2",
        "status": "validated",
        "engine": "sql",
        "server": ServerResult("embedded", "16.14"),
        "inputs": tuple(
            InputResult(
                role="central" if name == "central" else "source",
                name=name,
                path=f"/backups/{name}.backup",
                sha256=letter * 64,
                format="custom",
                dumped_from="9.6.13",
                pec_version="5.4.36",
            )
            for name, letter in (("central", "a"), ("ubs-norte", "b"), ("ubs-sul", "c"))
        ),
        "sources": (build_source("ubs-norte"), build_source("ubs-sul")),
        "timings": {
            "central.restore": 21.4,
            "central.baseline": 3.2,
            "central.preflight": 0.4,
            **{
                f"source.{n}.{step}": seconds
                for n in (1, 2)
                for step, seconds in (("restore", 8.1), ("preflight", 1.2), ("merge", 5.7), ("proof", 3.9))
            },
            "central.proof": 6.6,
            "attachments.proof": 0.2,
            "merged.checks": 0.5,
        },
        "candidate": Candidate("candidate", promotable=False, reason="é um ensaio, não uma execução final"),
        "central_proof": ProofResult("exact", 1_204_113, 0, True),
        "duplicates": {"ubs-norte": 31, "ubs-sul": 12},
        "opaque": {"tb_auditoria_evento.ds_detalhe": 1204},
        "attachments": (
            AttachmentsResult("central", 25, 135_034, {"inserted": 25}, 0, 0, 0),
            AttachmentsResult("ubs-sul", 10, 50_347, {"inserted": 9, "unclaimed": 1}, 10, 1, 0),
        ),
        "attachments_proof": ProofResult("exact", 35, 0, None),
        "preflight": PREFLIGHT,
        "suspicions": (SuspicionResult("ubs-sul", "tb_atend.co_nova", "tb_prof.co_seq_prof", 66, True),),
        "started": "2026-11-23T22:12:04.120+00:00",
        "finished": "2026-11-23T22:13:29.900+00:00",
    }
    return RunResult(**{**values, **changes})


_LATE = ("central.proof", "attachments.proof", "merged.checks")
"""Steps after the last source."""


def build_different() -> RunResult:
    """A run whose second source differs."""
    differences = (
        DifferenceResult("lost", "tb_atend", key="co_seq_atend=4410", source=2),
        DifferenceResult(
            "changed",
            "tb_cidadao",
            key="co_seq_cidadao=91",
            column="dt_nascimento",
            source=2,
            expected="date(10) #3f2a9c0d11",
            found="date(10) #77ab01c2fe",
        ),
        DifferenceResult("sequence", "seq_tb_atend", reason="behind its data", source=2),
    )
    good = build_result()
    bad = build_source("ubs-sul", proof=ProofResult("exact", 66_300, 3, None))
    return build_result(
        status="different",
        exit_code=6,
        sources=(good.sources[0], bad),
        differences=differences,
        central_proof=None,
        attachments_proof=None,
        timings={k: v for k, v in good.timings.items() if k not in _LATE},
        problem=Problem(
            "A prova encontrou 3 diferenças: o resultado não pode ir para produção.",
            evidence="/srv/runs/20261123-1912-k7m2",
            next_step="Não tente de novo: guarde a pasta da execução e envie o pacote de suporte.",
            details=tuple(f"{d.kind} {d.table}" for d in differences),
            kind="ProofFailed",
        ),
        candidate=Candidate("candidate", promotable=False, reason="a execução não terminou validada"),
    )


def build_blocked() -> RunResult:
    """A run that was blocked by the coverage gate of its second source."""
    good = build_result()
    empty = build_source(
        "ubs-sul",
        tables=tuple(
            TableResult(t.name, t.role, t.rule, t.reason, t.rows, dict.fromkeys(DISPOSITIONS, 0))
            for t in good.sources[1].tables
        ),
        dispositions=dict.fromkeys(DISPOSITIONS, 0),
        seconds={"restore": 8.1},
        proof=ProofResult("exact", 0, None, None),
    )
    return build_result(
        status="blocked",
        exit_code=4,
        sources=(good.sources[0], empty),
        central_proof=None,
        attachments_proof=None,
        timings={k: v for k, v in good.timings.items() if not k.startswith("source.2.") and k not in _LATE}
        | {"source.2.restore": 8.1},
        duplicates={"ubs-norte": 31},
        warnings=("ubs-sul: a unidade ainda estava em uso quando o backup foi feito",),
        schema_differences=("tb_x: índice a mais na origem",),
        problem=Problem(
            "2 tabelas preenchidas não têm regra no perfil.",
            next_step="Envie a lista a quem mantém o perfil; nada foi gravado.",
            details=("tb_nova_ficha: 120", "tb_nova_ficha_item: 480"),
            kind="CoverageError",
        ),
        candidate=Candidate("candidate", promotable=False, reason="a execução não terminou validada"),
    )
