"""How a result is said to a person: the verdict in plain words, names of things, numbers, times."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from merge.language import counted, text
from merge.language import number as number
from merge.plan import ALL, BELONGS, CENTRAL_OWNS, KEEP_CENTRAL

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    untouched = text(pt="A produção não foi tocada.", en="Production was not touched.")
    if result.status == "validated":
        done = (
            text(pt="Execução final validada", en="Final run validated")
            if result.final
            else text(pt="Ensaio validado", en="Rehearsal validated")
        )
        return Verdict(
            "good",
            text(pt=f"{done}, com linhas rejeitadas", en=f"{done}, with rows rejected")
            if _rejected(result)
            else text(
                pt=f"{done}: veio tudo o que o escopo {result.scope} inclui",
                en=f"{done}: all that the scope {result.scope} includes has come",
            )
            if result.scope != ALL
            else text(pt=f"{done}: nenhum registro se perdeu", en=f"{done}: no record was lost"),
            tuple(_validated(result)),
            tuple(_after_validated(result)),
        )
    if result.status == "different":
        shown = (text(pt="Veja as diferenças abaixo.", en="See the differences below."),) if result.differences else ()
        return Verdict(
            "bad",
            text(pt="Há diferenças: não leve à produção", en="There are differences: do not go to production"),
            (*why, untouched),
            (*asked, *shown),
        )
    if result.status == "blocked":
        return Verdict(
            "wait",
            text(pt="Bloqueado: há algo a resolver antes", en="Blocked: something must be solved first"),
            (*why, f"{_stopped_at(result)} {untouched}"),
            asked,
        )
    return Verdict(
        "bad",
        text(pt="Falhou: a execução final não chegou ao fim", en="Failed: the final run did not reach its end")
        if result.final
        else text(pt="Falhou: o ensaio não chegou ao fim", en="Failed: the rehearsal did not reach its end"),
        (*why, text(pt="O que estava em curso foi desfeito.", en="What was under way was undone.")),
        asked,
    )


def _stopped_at(result: RunResult) -> str:
    """How far a run came that was blocked."""
    merged = sum(f"source.{n}.merge" in result.timings for n in range(1, len(result.sources) + 1))
    if merged:
        sources = len(result.sources)
        return text(
            pt=f"{counted(merged, 'origem já estava unificada', 'origens já estavam unificadas')} na sandbox, de "
            f"{number(sources)}; das outras nada foi gravado.",
            en=f"{counted(merged, 'source was', 'sources were')} merged in the sandbox already, of {number(sources)}; "
            "nothing of the others was written.",
        )
    if "central.restore" in result.timings:
        return text(
            pt="A execução parou antes de unificar qualquer origem.", en="The run stopped before any source was merged."
        )
    return text(
        pt="A execução parou antes de restaurar qualquer backup.", en="The run stopped before any backup was restored."
    )


def _validated(result: RunResult) -> Iterator[str]:
    sources = len(result.sources)
    yield text(
        pt=f"{counted(result.rows, 'linha', 'linhas')} de {counted(sources, 'instalação', 'instalações')}, contadas "
        "uma a uma: cada uma está no banco unificado, ou já estava no central, ou não veio por um motivo declarado.",
        en=f"{counted(result.rows, 'row', 'rows')} of {counted(sources, 'installation', 'installations')}, counted one "
        "by one: each is in the merged database, or was in the central already, or did not come for a declared reason.",
    )
    yield from _left_behind(result)
    if result.central_proof is not None and result.central_proof.central_unchanged:
        yield text(
            pt="Os dados que o central já tinha continuam idênticos.",
            en="The data that the central already had are still identical.",
        )
    if rejected := _rejected(result):
        yield text(
            pt=f"Atenção: {counted(rejected, 'linha foi rejeitada', 'linhas foram rejeitadas')}; "
            "os motivos estão na tabela de cada origem.",
            en=f"Note: {counted(rejected, 'row was', 'rows were')} rejected; "
            "the reasons are in the table of each source.",
        )


def _left_behind(result: RunResult) -> Iterator[str]:
    """How many rows did not come, and of which kinds: those of which nothing is lost, and the others."""
    count: Counter[str] = Counter()
    for source in result.sources:
        for table in source.tables:
            for why, rows in table.left_out.items():
                count[_kind_left(table.role, why, of_table=why in (table.reason, table.rule))] += rows
    count["other"] -= _rejected(result)  # which have a sentence of their own
    known = [
        (
            "derived",
            text(pt="de dados que o central refaz, como relatórios", en="of data that the central makes anew"),
        ),
        ("config", text(pt="de configuração, que fica a do central", en="of settings, of which the central's stay")),
        (
            "queue",
            text(
                pt="de filas, sessões e processos, que só valem na própria instalação",
                en="of queues, sessions and jobs, which are of use in their own installation only",
            ),
        ),
        ("owned", text(pt="de vínculos que o central já define", en="of links that the central defines already")),
    ]
    parts = [f"{number(count[kind])} {what}" for kind, what in known if count[kind]]
    if parts:
        gone = sum(count[kind] for kind, _ in known)
        share = percent(100 * gone / result.rows)
        yield text(
            pt=f"{counted(gone, 'linha', 'linhas')} ({share}) não {'veio' if gone == 1 else 'vieram'}, e isso não é "
            f"perda: {'; '.join(parts)}.",
            en=f"{counted(gone, 'row', 'rows')} ({share}) did not come, which is no loss: {'; '.join(parts)}.",
        )
    if (other := count["other"]) <= 0:
        return
    more = text(pt="Mais " if parts else "", en="Another " if parts else "")
    by = (
        text(pt="regras do perfil", en="rules of the profile")
        if result.scope == ALL
        else text(pt=f"escolha do escopo {result.scope}", en=f"choice of the scope {result.scope}")
    )
    yield text(
        pt=f"{more}{counted(other, 'linha ficou', 'linhas ficaram')} de fora por {by}: só estão nos backups das "
        "origens. Leia os motivos em cada origem.",
        en=f"{more}{counted(other, 'row was', 'rows were')} left out by {by}: only the sources' backups hold them. "
        "Read the reasons at each source.",
    )


def _kind_left(role: str, why: str, *, of_table: bool) -> str:
    if why == CENTRAL_OWNS:
        return "owned"
    return role if of_table and role in ("derived", "config", "queue") else "other"


def _rejected(result: RunResult) -> int:
    return sum((source.dispositions or {}).get("rejected", 0) for source in result.sources)


def _after_validated(result: RunResult) -> Iterator[str]:
    yield text(
        pt="Leia em cada origem o que não veio, e por quê.", en="Read for each source what did not come, and why."
    )
    if warned := sum(answer.state == "warned" for answer in result.preflight):
        yield text(
            pt=f"Resolva ou aceite {counted(warned, 'aviso', 'avisos')} das verificações, abaixo.",
            en=f"Solve or accept {counted(warned, 'warning', 'warnings')} of the checks, below.",
        )
    if moving := sum(suspicion.moves for suspicion in result.suspicions):
        yield text(
            pt=f"{counted(moving, 'coluna parece', 'colunas parecem')} referência que ninguém declarou, a chaves que "
            "mudam: mostre a lista, em Avisos, a quem mantém o perfil.",
            en=f"{counted(moving, 'column looks', 'columns look')} like a reference that nobody declared, to keys that "
            "move: show the list, in Warnings, to whoever maintains the profile.",
        )
    if missing := sum(base.missing for base in result.attachments):
        yield text(
            pt=f"{counted(missing, 'linha aponta', 'linhas apontam')} para um anexo que não foi entregue: procure o "
            "arquivo na origem.",
            en=f"{counted(missing, 'row points', 'rows point')} to an attachment that was not delivered: look for the "
            "file at the source.",
        )
    yield text(
        pt=f"Gere a lista do que as unidades devem refazer: invoke handover --run {result.run_id}",
        en=f"Make the list of what the units must make again: invoke handover --run {result.run_id}",
    )
    if groups := sum(result.duplicates.values()):
        files = [duplicates_file(n) for n, s in enumerate(result.sources, 1) if result.duplicates.get(s.name)]
        and_ = text(pt=" e ", en=" and ")
        yield text(
            pt=f"{counted(groups, 'grupo', 'grupos')} de cidadãos com o mesmo documento: todos vieram, e a equipe de "
            f"saúde decide depois. Os códigos internos estão em {and_.join(files)}, na pasta da execução.",
            en=f"{counted(groups, 'group', 'groups')} of citizens with the same document: all of them came, and the "
            f"health team decides later. Their internal ids are in {and_.join(files)}, in the run's folder.",
        )
    if not result.candidate.promotable:
        why = f": {result.candidate.reason}." if result.candidate.reason else "."
        yield (
            text(pt="Este banco ainda não pode ir para produção", en="This database may not go to production yet") + why
        )


def duplicates_file(number_: int) -> str:
    """The file of the run's folder with the internal ids of one source's duplicates."""
    return f"source-{number_}-duplicates.json"


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
        KEEP_CENTRAL: text(
            pt="já no central, com diferença: fica o valor do central",
            en="already in the central, with a difference: the central's value stays",
        ),
        CENTRAL_OWNS: text(
            pt="pertence a uma linha que o central já tem, que não ganha outras",
            en="belongs to a row that the central has already, which gains no others",
        ),
        BELONGS: text(
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


STATES = ("blocked", "warned", "accepted", "pending", "confirmed", "recorded", "passed", "not_available")
"""The states of a preflight answer, those first that somebody should look at."""


def state(name: str, count: int = 1) -> str:
    """What so many answers of a state are called."""
    one, many = {
        "blocked": text(pt="impede impedem", en="blocks block").split(),
        "warned": text(pt="aviso avisos", en="warning warnings").split(),
        "accepted": (
            text(pt="aviso aceito", en="warning accepted"),
            text(pt="avisos aceitos", en="warnings accepted"),
        ),
        "pending": text(pt="pendente pendentes", en="pending pending").split(),
        "confirmed": text(pt="confirmada confirmadas", en="confirmed confirmed").split(),
        "recorded": text(pt="registrada registradas", en="recorded recorded").split(),
        "passed": (text(pt="em ordem", en="in order"),) * 2,
        "not_available": (
            text(pt="não se aplica", en="not available"),
            text(pt="não se aplicam", en="not available"),
        ),
    }[name]
    return one if count == 1 else many


def evidence(name: str) -> str:
    """How what a check relies on is known."""
    return {"seen": text(pt="visto", en="seen"), "inferred": text(pt="deduzido", en="inferred")}.get(name, name)


def detail(name: str, value: int | str | None) -> tuple[str, str]:
    """A detail of a preflight answer: what it is called, and its value."""
    label = {
        "bytes": text(pt="tamanho", en="size"),
        "central": text(pt="no central", en="in the central"),
        "source": text(pt="na origem", en="in the source"),
        "collation": text(pt="ordenação", en="collation"),
        "created": text(pt="backup de", en="backup of"),
        "details": text(pt="quais", en="which"),
        "encoding": text(pt="codificação", en="encoding"),
        "files": text(pt="arquivos", en="files"),
        "keys": text(pt="chaves", en="keys"),
        "last_write": text(pt="última escrita", en="last write"),
        "missing": text(pt="faltam", en="missing"),
        "reason": text(pt="motivo", en="reason"),
        "rows": text(pt="linhas", en="rows"),
        "seconds": text(pt="diferença", en="gap"),
        "unclaimed": text(pt="de linha nenhuma", en="of no row"),
    }.get(name, name.replace("_", " "))
    if name == "seconds" and isinstance(value, int):
        return label, duration(abs(value))
    if isinstance(value, int):
        return label, size(value) if name == "bytes" else number(value)
    return label, "—" if value is None else moments(value)


def places(where: str) -> str:
    """What the place of a check is called; a source by its name."""
    return {
        "run": text(pt="execução", en="run"),
        "merged": text(pt="base unificada", en="merged base"),
        "attachments": text(pt="anexos", en="attachments"),
    }.get(where, where)


def fates() -> dict[str, str]:
    """What became of attachments, of many of them."""
    return {
        "inserted": text(pt="no seu lugar", en="in their place"),
        "matched": text(pt="já no central", en="already there"),
        "reconciled": text(pt="o central tem outro; à parte", en="the central has another; apart"),
        "excluded": text(pt="a linha não veio; à parte", en="their row did not come; apart"),
        "unclaimed": text(pt="de linha nenhuma; à parte", en="of no row; apart"),
    }


def check_name(name: str) -> str:
    """What a check is called."""
    return {
        "intake": text(pt="arquivos de backup íntegros", en="backup files sound"),
        "conditions": text(pt="condições para começar", en="conditions to begin"),
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
    return f"{places(where)}: {phase(what)}" if where else phase(what)


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
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return text(pt=f"{whole // 86400} dias", en=f"{whole // 86400} days")


def size(count: int) -> str:
    """Bytes for a person: ``812 B``, ``49 kB``, ``1,2 GB``."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return (
        f"{value:.0f} {unit}"
        if value >= 10 or unit == "B"
        else f"{value:.1f} {unit}".replace(".", text(pt=",", en="."))
    )


_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)?")


def moments(value: str) -> str:
    """The text with every ISO 8601 time in it as `moment` says it."""
    return _MOMENT.sub(lambda found: moment(found[0]), value)


def moment(value: str) -> str:
    """An ISO 8601 time in the machine's time zone; as it is if it is none."""
    try:
        local = datetime.fromisoformat(value).astimezone()
    except ValueError:
        return value
    return local.strftime(text(pt="%d/%m/%Y %H:%M", en="%Y-%m-%d %H:%M"))
