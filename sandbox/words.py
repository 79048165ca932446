"""How things are said to a person: names of what is in a result, numbers, times."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

from merge.language import counted, text
from merge.language import number as number
from merge.plan import BELONGS, CENTRAL_OWNS, KEEP_CENTRAL

if TYPE_CHECKING:
    from sandbox.result import ContentProofResult, RunResult


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


def content(proof: ContentProofResult) -> tuple[str, ...]:
    """What the proof by content compared, and what it cannot tell, in sentences."""
    rows, found = proof.rows_compared, proof.differences
    said = text(
        pt=f"Prova pelo conteúdo, sem o mapa de chaves: {counted(rows, 'linha comparada', 'linhas comparadas')}, "
        f"{counted(found, 'diferença', 'diferenças')}.",
        en=f"Proof by content, without the map of keys: {counted(rows, 'row', 'rows')} compared, "
        f"{counted(found, 'difference', 'differences')}.",
    )
    if own := sum(proof.declared.values()):
        said += " " + text(
            pt=f"{counted(own, 'linha foi escrita', 'linhas foram escritas')} pelo próprio PEC enquanto rodava, em "
            "tabelas de configuração, filas, auditoria e dados derivados: result.json diz quais.",
            en=f"{counted(own, 'row was', 'rows were')} written by PEC itself while it ran, in tables of settings, "
            "queues, audit and derived data: result.json says which.",
        )
    alike, tables = sum(proof.alike.values()), len(proof.alike)
    if not alike:
        return (said, text(pt="O conteúdo distingue todas as linhas.", en="Content tells all rows apart."))
    return (
        said,
        text(
            pt=f"{counted(alike, 'linha', 'linhas')} de {counted(tables, 'tabela', 'tabelas')} não se distinguem pelo "
            "conteúdo: são iguais em tudo, menos na chave, e que não foram trocadas entre si não está provado.",
            en=f"{counted(alike, 'row', 'rows')} in {counted(tables, 'table', 'tables')} cannot be told apart by "
            "content: they are the same in all but their keys, and that they were not swapped for each other "
            "is not proved.",
        ),
    )


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
        "content": text(pt="conteúdo", en="content"),
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


def structure(kind: str) -> str:
    """What a kind of difference between two schemas is called."""
    return {
        "check": text(pt="restrição check", en="check"),
        "column": text(pt="coluna", en="column"),
        "column order": text(pt="ordem das colunas", en="column order"),
        "default": text(pt="valor padrão", en="default"),
        "foreign key": text(pt="chave estrangeira", en="foreign key"),
        "foreign table": text(pt="tabela externa", en="foreign table"),
        "function": text(pt="função", en="function"),
        "generated": text(pt="coluna calculada", en="generated column"),
        "index": text(pt="índices", en="indexes"),
        "materialized view": text(pt="visão materializada", en="materialized view"),
        "not null": text(pt="obrigatoriedade", en="not null"),
        "primary key": text(pt="chave primária", en="primary key"),
        "sequence": text(pt="sequência", en="sequence"),
        "table": text(pt="tabela", en="table"),
        "trigger": text(pt="gatilhos", en="triggers"),
        "type": text(pt="tipo", en="type"),
        "unique key": text(pt="chave única", en="unique key"),
        "view": text(pt="visão", en="view"),
    }.get(kind, kind)


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
        "content": text(pt="prova pelo conteúdo", en="proof by content"),
    }.get(name, name)


def phase(name: str) -> str:
    """What a phase of a run is called, as something to do."""
    return {
        "restore": text(pt="restaurar", en="restore"),
        "baseline": text(pt="guardar a referência", en="keep the baseline"),
        "fingerprint": text(pt="tirar a impressão digital", en="take the fingerprint"),
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
