"""The verdict of a run in plain words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge.language import counted, number, text
from merge.plan import ALL, CENTRAL_OWNS
from sandbox import words
from sandbox.options import SQL

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
        sources = number(len(result.sources))
        done = counted(merged, text(pt="já estava unificada", en="was"), text(pt="já estavam unificadas", en="were"))
        return text(
            pt=f"De {sources} origens, {done} na sandbox; nada mais foi gravado.",
            en=f"Of {sources} sources {done} merged in the sandbox already; nothing else was written.",
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
    if result.engine != SQL:
        yield text(
            pt="Quem unificou foi o próprio PEC, conduzido por uma pessoa; este projeto acompanhou e provou.",
            en="PEC itself merged, led by a person; this project watched, and proved the result.",
        )
    yield from _left_behind(result)
    proof = result.central_proof or result.content_proof
    if proof is not None and proof.central_unchanged:
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
        share = words.percent(100 * gone / result.rows)
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
            pt=f"Resolva ou aceite {counted(warned, 'aviso', 'avisos')} das verificações.",
            en=f"Solve or accept {counted(warned, 'warning', 'warnings')} of the checks.",
        )
    if moving := sum(suspicion.moves for suspicion in result.suspicions):
        yield text(
            pt=f"{counted(moving, 'coluna parece referência', 'colunas parecem referências')} a chaves que mudam, sem "
            "que ninguém as declarasse: mostre a lista, em Avisos, a quem mantém o perfil.",
            en=f"{counted(moving, 'column looks like a reference', 'columns look like references')} to keys that move, "
            "and nobody declared it: show the list, in Warnings, to whoever maintains the profile.",
        )
    if missing := sum(base.missing for base in result.attachments):
        yield text(
            pt=f"{counted(missing, 'linha aponta', 'linhas apontam')} para um anexo que não foi entregue: procure o "
            "arquivo na origem.",
            en=f"{counted(missing, 'row points', 'rows point')} to an attachment that was not delivered: look for the "
            "file at the source.",
        )
    if result.final and result.candidate.promotable:
        yield text(
            pt=f"Depois de lido o relatório, duas pessoas assinam: invoke sign --run {result.run_id} --role operator …",
            en=f"After the report was read, two people sign: invoke sign --run {result.run_id} --role operator …",
        )
    yield text(
        pt=f"Gere a lista do que as unidades devem refazer: invoke handover --run {result.run_id}",
        en=f"Make the list of what the units must make again: invoke handover --run {result.run_id}",
    )
    if groups := sum(result.duplicates.values()):
        files = [words.duplicates_file(n) for n, s in enumerate(result.sources, 1) if result.duplicates.get(s.name)]
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
