"""Watches PECs while people work with them: what they log, how the data grow, room, memory, and that nothing gets out.

It only looks. It never ends anything for being slow.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import psycopg
from docker.errors import APIError

from merge.errors import MergeError, ServerError
from merge.language import counted, number, text
from sandbox import events, images, words
from sandbox.pec import pec_log
from sandbox.pec.progress import Growth

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from sandbox.pec.alternate import Alternate, Watched
    from sandbox.pec.compose import State
    from sandbox.pec.pec_log import Event
    from sandbox.pec.progress import Sample, StatusLine

STALLED_MINUTES = 15.0
"""Without any growth for so long, people are told; a unification takes hours, and that may be as it should."""

_LITTLE = 5 * 2**30
"""Bytes free on the disk below which people are told."""

_CARE = 3
"""Watched tables that a line names."""


@dataclass(frozen=True)
class Look:
    """How things stand at one moment.

    :param states: by service, how its container is.
    :param memory: bytes that each service uses.
    :param events: what the logs said since the last look, by service.
    :param sample: of the first PEC's base; None if the server does not answer.
    :param expected: records, since the start, of what a closed room must refuse.
    """

    at: str
    states: Mapping[str, State | None]
    memory: Mapping[str, int]
    events: tuple[tuple[str, Event], ...]
    sample: Sample | None
    expected: int

    @property
    def problem(self) -> str:
        """What is wrong, in a sentence; "" if nothing is."""
        for service, state in self.states.items():
            if state is None or not state.is_running:
                known = pec_log.explain_exit(state.code if state is not None else 0, pec_log.load_known())
                return text(pt=f"{service} parou", en=f"{service} ended") + (f": {known.title}" if known else "")
        for service, event in self.events:
            if event.kind in ("failure", "error"):
                return text(
                    pt=f"{service} registrou um erro (linha {event.line} do log): {what(event)}",
                    en=f"{service} logged an error (line {event.line} of its log): {what(event)}",
                )
        return ""


def what(event: Event) -> str:
    """What an event is about: what is known of it, else the classes that it names; never a message."""
    if event.known is not None and event.kind != "error":
        return pec_log.explain(event.known, pec_log.load_known())[0]
    return ", ".join(event.exceptions) or event.logger or event.level


@dataclass
class Watch:
    """Looks at PECs from time to time.

    :param watched: the PECs; the growth of the first one's base is what is measured.
    """

    alternate: Alternate
    watched: Sequence[Watched]
    growth: Growth = field(init=False)

    def __post_init__(self) -> None:
        connect = self.alternate.connect_to(self.watched[0].base)
        self.growth = Growth(connect, self.alternate.profile.watch, self.alternate.server.place)

    def look(self) -> Look:
        """Look once."""
        stack = self.alternate.stack
        states = {pec.base.service: stack.state(pec.base.service) for pec in self.watched}
        ended = {service for service, state in states.items() if state is None or not state.is_running}
        events = [
            (pec.base.service, event) for pec in self.watched for event in pec.read(final=pec.base.service in ended)
        ]
        try:
            sample = self.growth.sample()
        except psycopg.OperationalError:
            sample = None
        known = {entry.id: entry.kind for entry in pec_log.load_known()}
        expected = sum(
            count for pec in self.watched for name, count in pec.follower.known.items() if known[name] == "expected"
        )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return Look(now, states, self._memory(), tuple(events), sample, expected)

    def lines(self, look: Look) -> list[str]:
        """One look, for people: what the logs said, and one line of figures."""
        said = [f"{service}: {event.kind}, {what(event)} (log: {event.line})" for service, event in look.events]
        return [*said, " · ".join(self._parts(look))]

    def statuses(self, look: Look) -> tuple[StatusLine, ...]:
        """What the tables of the unification say."""
        return look.sample.status if look.sample is not None else ()

    def _parts(self, look: Look) -> Iterator[str]:
        if look.sample is not None:
            rates = self.growth.rates()
            grown = sorted(look.sample.rows, key=lambda table: (-rates[table], table))[:_CARE]
            yield "; ".join(
                f"{table} {number(look.sample.rows[table])} (+{number(round(rates[table]))}/min)" for table in grown
            )
            yield text(pt="banco ", en="database ") + words.size(look.sample.database_bytes)
            if look.sample.free is not None:
                little = text(pt=" (pouco espaço!)", en=" (little room!)") if look.sample.free < _LITTLE else ""
                yield words.size(look.sample.free) + text(pt=" livres", en=" free") + little
        if look.memory:
            used = ", ".join(f"{service} {words.size(used)}" for service, used in look.memory.items())
            yield text(pt="memória ", en="memory ") + used
        if look.expected:
            yield text(
                pt=counted(look.expected, "tentativa de sair recusada", "tentativas de sair recusadas"),
                en=counted(look.expected, "attempt to get out refused", "attempts to get out refused"),
            )
        if self.growth.samples and self.growth.stalled(STALLED_MINUTES):
            yield text(
                pt=f"nada mudou há {STALLED_MINUTES:g} minutos (lentidão não é erro: espere)",
                en=f"nothing changed for {STALLED_MINUTES:g} minutes (slowness is no error: wait)",
            )

    def _memory(self) -> dict[str, int]:
        used = {}
        with images.daemon() as client:
            for pec in self.watched:
                try:
                    container = client.containers.get(self.alternate.stack.name(pec.base.service))
                    stats = cast("dict[str, Any]", container.stats(stream=False))
                    used[pec.base.service] = int(stats["memory_stats"]["usage"])
                except (KeyError, APIError):
                    continue
        return used


def freeze(alternate: Alternate, problem: str) -> Path:
    """Keep all that tells what happened, and return the package for the vendor's support.

    It holds the logs of the PECs as they are, which may quote patients: whoever sends it does so by the official
    channel only. The two backups that support asks for are named in it, not held.
    """
    run = alternate.run
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    run.events.add("pec", "frozen", problem=problem)
    kept = run.load("inputs") if run.has("inputs") else {}
    backups = [f"{backup['sha256']}  {name}: {backup['path']}" for name, backup in kept.items()]
    package = alternate.folder / f"ticket-{stamp}.zip"
    with package.open("xb") as file:
        package.chmod(0o600)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
            out.writestr("LEIA-ME.txt", _read_me(problem))
            out.writestr("backups.sha256", "".join(f"{line}\n" for line in backups))
            out.write(run.folder / "events.jsonl", "events.jsonl")
            out.write(run.folder / "pec.json", "pec.json")
            for log in sorted(alternate.folder.glob("*.log")):
                out.write(log, log.name)
    events.support_bundle(run.folder, logs=alternate.server.logs())
    return package


def _read_me(problem: str) -> str:
    return text(
        pt=f"Unificação de bases do PEC: {problem}\n\n"
        "Contém os logs dos dois PECs (pec.log), que podem citar pacientes, a linha do tempo e os hashes dos backups.\n"
        "Envie somente pelo canal oficial de suporte. Não repita a unificação: restaure os dois backups e aguarde.\n"
        "Os dois backups, que o suporte pede, são dados de saúde: quem decide e os envia é uma pessoa.\n",
        en=f"PEC's unification: {problem}\n\n"
        "Holds the logs of both PECs (pec.log), which may quote patients, the timeline, the hashes of the backups.\n"
        "Send it by the official channel of support only. Do not repeat the unification: restore both backups, wait.\n"
        "The two backups that support asks for are health data: a person decides, and sends them.\n",
    )


def troubled(alternate: Alternate, problem: str, package: Path) -> ServerError:
    """The error for a PEC that people look at, in which something went wrong."""
    return ServerError(
        text(pt=f"O PEC teve um problema: {problem}.", en=f"PEC has a problem: {problem}."),
        evidence=package,
        next_step=text(
            pt="O candidato não foi tocado. Veja o log; depois: invoke pec.down, e pec.up para uma cópia nova. "
            f"(invoke pec.watch --run {alternate.run.id} continua a acompanhar.)",
            en="The candidate was not touched. See the log; then: invoke pec.down, and pec.up for a new copy. "
            f"(invoke pec.watch --run {alternate.run.id} goes on watching.)",
        ),
    )


def stopped(alternate: Alternate, problem: str, package: Path) -> MergeError:
    """The error for a unification that went wrong."""
    return MergeError(
        text(pt=f"A unificação do PEC parou: {problem}.", en=f"PEC's unification stopped: {problem}."),
        evidence=package,
        details=[text(pt=f"pacote para o chamado: {package}", en=f"package for the ticket: {package}")],
        next_step=text(
            pt="Não repita. Abra um chamado com o pacote e os dois backups, e espere a resposta. Para voltar as duas "
            f"cópias ao que eram: invoke pec.put-back --run {alternate.run.id}",
            en="Do not repeat it. Open a ticket with the package and both backups, and wait for the answer. To put "
            f"both copies back: invoke pec.put-back --run {alternate.run.id}",
        ),
    )
