"""How a result is said to a person: the verdict in plain words, names of things, numbers, times."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from merge.language import text

if TYPE_CHECKING:
    from sandbox.result import RunResult


@dataclass(frozen=True)
class Verdict:
    """What a person who reads nothing else must know: a headline, why, and what to do next."""

    tone: str
    headline: str
    sentences: tuple[str, ...]
    next_steps: tuple[str, ...]


def verdict(result: RunResult) -> Verdict:
    """The verdict of a run in plain words."""
    problem = result.problem
    why = (problem.what,) if problem else ()
    asked = (problem.next_step,) if problem and problem.next_step else ()
    if result.status == "validated":
        return Verdict(
            "good",
            text(pt="Validado, com linhas rejeitadas", en="Validated, with rows rejected")
            if _rejected(result)
            else text(pt="Validado: nenhum registro se perdeu", en="Validated: no record was lost"),
            tuple(_validated(result)),
            tuple(_after_validated(result)),
        )
    if result.status == "different":
        return Verdict(
            "bad",
            text(pt="Há diferenças: não leve à produção", en="There are differences: do not go to production"),
            (*why, text(pt="A produção não foi tocada.", en="Production was not touched.")),
            (*asked, text(pt="Veja as diferenças abaixo.", en="See the differences below.")),
        )
    if result.status == "blocked":
        return Verdict(
            "wait",
            text(pt="Bloqueado: há algo a resolver antes", en="Blocked: something must be solved first"),
            (
                *why,
                text(
                    pt="A unificação parou antes de gravar esta origem. A produção não foi tocada.",
                    en="The merge stopped before this source was written. Production was not touched.",
                ),
            ),
            asked,
        )
    return Verdict(
        "bad",
        text(pt="Falhou: o ensaio não chegou ao fim", en="Failed: the rehearsal did not reach its end"),
        (*why, text(pt="O que estava em curso foi desfeito.", en="What was under way was undone.")),
        asked,
    )


def _validated(result: RunResult) -> list[str]:
    rows, sources = number(result.rows), len(result.sources)
    sentences = [
        text(
            pt=f"As {rows} linhas de {sources} instalações foram contadas uma a uma: cada uma está no banco unificado, "
            "ou já estava no central, ou tem um motivo declarado para não vir.",
            en=f"All {rows} rows of {sources} installations are accounted for: each is in the merged database, "
            "or was in the central already, or has a declared reason not to come.",
        )
    ]
    if result.central_proof is not None and result.central_proof.central_unchanged:
        sentences.append(
            text(
                pt="Os dados que o central já tinha continuam idênticos.",
                en="The data that the central already had are still identical.",
            )
        )
    if result.scope != "all":
        sentences.append(
            text(
                pt=f"O escopo {result.scope} deixa de fora parte do que as origens têm, por regras declaradas.",
                en=f"The scope {result.scope} leaves out a part of what the sources have, by declared rules.",
            )
        )
    rejected = _rejected(result)
    if rejected:
        sentences.append(
            text(
                pt=f"Atenção: {number(rejected)} linhas foram rejeitadas; os motivos estão na tabela de cada origem.",
                en=f"Note: {number(rejected)} rows were rejected; the reasons are in the table of each source.",
            )
        )
    return sentences


def _rejected(result: RunResult) -> int:
    return sum((source.dispositions or {}).get("rejected", 0) for source in result.sources)


def _after_validated(result: RunResult) -> list[str]:
    steps = [
        text(
            pt="Leia em cada origem o que não veio, e por quê.",
            en="Read for each source what did not come, and why.",
        )
    ]
    steps.append(
        text(
            pt=f"Gere a lista do que as unidades devem refazer: invoke handover --run {result.run_id}",
            en=f"Make the list of what the units must make again: invoke handover --run {result.run_id}",
        )
    )
    if sum(result.duplicates.values()):
        steps.append(
            text(
                pt=f"Há {number(sum(result.duplicates.values()))} grupos de cidadãos com o mesmo documento: "
                "todos vieram, e a equipe de saúde decide depois.",
                en=f"There are {number(sum(result.duplicates.values()))} groups of citizens with the same document: "
                "all of them came, and the health team decides later.",
            )
        )
    if not result.candidate.promotable:
        steps.append(
            text(pt="Este banco ainda não pode ir para produção", en="This database may not go to production yet")
            + (f": {result.candidate.reason}." if result.candidate.reason else ".")
        )
    return steps


def labels() -> dict[str, str]:
    """What a disposition is called, many rows of it."""
    return {
        "inserted": text(pt="inseridas", en="inserted"),
        "matched": text(pt="já no central", en="already there"),
        "reconciled": text(pt="conciliadas", en="reconciled"),
        "grouped": text(pt="agrupadas", en="grouped"),
        "excluded": text(pt="não vieram", en="left out"),
        "rejected": text(pt="rejeitadas", en="rejected"),
    }


def roles() -> dict[str, str]:
    """What a role is called, of one table."""
    return {
        "catalog": text(pt="catálogo", en="catalog"),
        "entity": text(pt="cadastro", en="entity"),
        "event": text(pt="atendimento/evento", en="event"),
        "link": text(pt="vínculo", en="link"),
        "config": text(pt="configuração", en="configuration"),
        "queue": text(pt="fila de envio", en="queue"),
        "derived": text(pt="derivada", en="derived"),
        "audit": text(pt="auditoria", en="audit"),
    }


def reason(name: str) -> str:
    """A reason of the ledger in words; those of the profile are words already."""
    return {
        "central_kept": text(
            pt="já no central, com diferença: fica o valor do central",
            en="already in the central, with a difference: the central's value stays",
        ),
        "central_owns": text(
            pt="pertence a uma linha que o central já tem, que não ganha outras",
            en="belongs to a row that the central has already, which gains no others",
        ),
        "belongs": text(
            pt="refere-se a uma linha que o escopo deixa de fora",
            en="refers to a row that the scope leaves out",
        ),
    }.get(name, name)


def kinds() -> dict[str, str]:
    """What a kind of difference is called."""
    return {
        "lost": text(pt="linha perdida", en="row lost"),
        "changed": text(pt="valor mudado", en="value changed"),
        "doubled": text(pt="linha em dobro", en="row doubled"),
        "invented": text(pt="linha sem origem", en="row from nowhere"),
        "ledger": text(pt="conta não fecha", en="ledger"),
        "crosswalk": text(pt="chave trocada", en="key"),
        "reference": text(pt="referência quebrada", en="broken reference"),
        "large_object": text(pt="anexo", en="large object"),
        "sequence": text(pt="sequência", en="sequence"),
        "view": text(pt="visão", en="view"),
        "object": text(pt="estrutura", en="object"),
        "plan": text(pt="plano", en="plan"),
    }


def states() -> dict[str, str]:
    """What the answers of a state are called."""
    return {
        "blocked": text(pt="impedem", en="block"),
        "warned": text(pt="avisos", en="warnings"),
        "accepted": text(pt="avisos aceitos", en="warnings accepted"),
        "pending": text(pt="pendentes", en="pending"),
        "confirmed": text(pt="confirmadas", en="confirmed"),
        "passed": text(pt="em ordem", en="in order"),
        "recorded": text(pt="registradas", en="recorded"),
        "not_available": text(pt="não se aplicam", en="not available"),
    }


def places(where: str) -> str:
    """What the place of a check is called; a source by its name."""
    return {
        "run": text(pt="execução", en="run"),
        "merged": text(pt="base unificada", en="merged base"),
    }.get(where, where)


def check_name(name: str) -> str:
    """What a check is called."""
    return {
        "intake": text(pt="arquivos de backup íntegros", en="backup files sound"),
        "restore": text(pt="backup restaurado", en="backup restored"),
        "schema": text(pt="mesma estrutura do central", en="same structure as the central"),
        "coverage": text(pt="toda tabela tem regra", en="every table has a rule"),
        "preflight": text(pt="dados coerentes", en="data coherent"),
        "merge": text(pt="unificação gravada", en="merge written"),
        "ledger": text(pt="contas fecham", en="counts add up"),
        "proof": text(pt="prova linha a linha", en="proof row by row"),
    }.get(name, name)


def phase(name: str) -> str:
    """What a phase of a run is called, as something to do."""
    return {
        "restore": text(pt="restaurar", en="restore"),
        "baseline": text(pt="guardar a referência", en="keep the baseline"),
        "intake": text(pt="examinar os backups", en="inspect the backups"),
        "sample": text(pt="criar backups sintéticos", en="make synthetic backups"),
        "attachments": text(pt="trazer os anexos", en="bring the attachments"),
        "checks": text(pt="verificar", en="check"),
        "preflight": text(pt="verificar", en="check"),
        "plan": text(pt="planejar", en="plan"),
        "merge": text(pt="unificar", en="merge"),
        "proof": text(pt="provar", en="prove"),
    }.get(name, name)


def step_name(step: str, result: RunResult) -> str:
    """A step such as ``source.1.merge`` in words."""
    where, _, what = step.rpartition(".")
    place = where.removeprefix("source.")
    if place.isdecimal() and 0 < int(place) <= len(result.sources):
        where = result.sources[int(place) - 1].name
    return f"{where}: {phase(what)}" if where else phase(what)


def number(value: float) -> str:
    """A whole number with the language's separators."""
    return f"{int(value):,}".replace(",", text(pt=".", en=","))


def percent(share: float) -> str:
    """A share of 0 to 100, with one decimal."""
    if 0 < share < 0.1:
        return "< 0,1 %".replace(",", text(pt=",", en="."))
    return f"{share:.1f} %".replace(".", text(pt=",", en="."))


def duration(seconds: float) -> str:
    """Seconds for a person: ``0,4 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s".replace(".", text(pt=",", en="."))
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def moment(value: str) -> str:
    """An ISO 8601 time in the machine's time zone; as it is if it is none."""
    try:
        local = datetime.fromisoformat(value).astimezone()
    except ValueError:
        return value
    return local.strftime(text(pt="%d/%m/%Y %H:%M", en="%Y-%m-%d %H:%M"))
