"""What a person does in the two PECs, click by click, and the log of what was done when.

The names of menus, tabs, buttons and states are those of the vendor's manual of the unification; they were read there,
not on a screen. The unification asks for a person's password: it is typed into PEC, never here.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from merge.errors import ConfigError
from merge.language import text

if TYPE_CHECKING:
    from pathlib import Path

REQUESTED, ACCEPTED, UNIFYING, UNIFIED, ERROR = "requested", "accepted", "unifying", "unified", "error"

MARKS = (REQUESTED, ACCEPTED, UNIFYING, UNIFIED, ERROR)
"""What a person tells, in this order; an error at any time."""


@dataclass(frozen=True)
class Step:
    """One thing to do.

    :param mark: what is told when it is done.
    :param where: ``source`` or ``central``: in which PEC.
    :param clicks: what to do there, in order.
    :param then: the state that PEC shows afterwards.
    """

    mark: str
    where: str
    title: str
    clicks: tuple[str, ...]
    then: str


def steps(*, link: str, source: str) -> tuple[Step, ...]:
    """The vendor's unification of one source.

    :param link: what is typed as the central's link; it is a name inside the sandbox.
    :param source: name of the installation that sends.
    """
    menu = text(
        pt="Entre com o perfil “Administrador da Instalação”. Menu lateral “Configurações da instalação”, aba "
        "“Unificação de base”.",
        en="Log in with the profile “Administrador da Instalação”. Side menu “Configurações da instalação”, tab "
        "“Unificação de base”.",
    )
    return (
        Step(
            REQUESTED,
            "source",
            text(pt="Solicitar a unificação", en="Ask for the unification"),
            (
                menu,
                text(
                    pt="Abra “Envio de dados para a instalação central do município”.",
                    en="Open “Envio de dados para a instalação central do município”.",
                ),
                text(
                    pt=f"“Nome da minha instalação”: o da unidade ({source}). “Link da instalação central”: {link}",
                    en=f"“Nome da minha instalação”: that of the unit ({source}). “Link da instalação central”: {link}",
                ),
                text(
                    pt="“Senha na instalação central”: a sua, do mesmo CPF, no central. Só o PEC a recebe.",
                    en="“Senha na instalação central”: your own, of the same CPF, in the central. Only PEC gets it.",
                ),
                text(pt="Clique em “Solicitar unificação”.", en="Click “Solicitar unificação”."),
            ),
            "Aguardando aprovação",
        ),
        Step(
            ACCEPTED,
            "central",
            text(pt="Aceitar a solicitação", en="Accept the request"),
            (
                menu,
                text(
                    pt="Abra “Recebimento de dados de instalações locais”.",
                    en="Open “Recebimento de dados de instalações locais”.",
                ),
                text(
                    pt="Na linha da instalação clique em “Aceitar” e confirme: “Sim, aceitar solicitação”.",
                    en="In the installation's row click “Aceitar” and confirm: “Sim, aceitar solicitação”.",
                ),
            ),
            "Aguardando unificação",
        ),
        Step(
            UNIFYING,
            "source",
            text(pt="Unificar", en="Unify"),
            (
                text(
                    pt="Espere o estado “Aguardando unificação”: pode demorar alguns minutos.",
                    en="Wait for the state “Aguardando unificação”: it may take some minutes.",
                ),
                text(
                    pt="Clique em “Unificar” e confirme. A instalação que envia (aqui, a cópia) será desativada.",
                    en="Click “Unificar” and confirm. The installation that sends (here, the copy) is deactivated.",
                ),
            ),
            "Unificando base",
        ),
        Step(
            UNIFIED,
            "central",
            text(pt="Acompanhar até o fim", en="Follow it to its end"),
            (
                text(
                    pt="Pode levar horas. Não feche, não reinicie e não clique de novo; lentidão não é erro.",
                    en="It may take hours. Do not close, restart or click again; slowness is no error.",
                ),
                text(
                    pt="O fim é o estado “Base unificada” com a data; pode surgir o botão “Cidadãos duplicados”.",
                    en="The end is the state “Base unificada” with the date; “Cidadãos duplicados” may appear.",
                ),
            ),
            "Base unificada",
        ),
    )


class Marks:
    """What people told about one unification: a file to which every process appends, one JSON object in each line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, mark: str, by: str = "") -> None:
        """Tell that something was done, or seen.

        :param by: ``person`` or ``database``: who saw it.
        :raises ConfigError: it is none of `MARKS`.
        """
        if mark not in MARKS:
            raise ConfigError(
                text(pt=f"Marca desconhecida: {mark}.", en=f"Unknown mark: {mark}."), next_step=" | ".join(MARKS)
            )
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), "mark": mark, "by": by})
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, (line + "\n").encode())
        finally:
            os.close(descriptor)

    def read(self) -> list[dict[str, str]]:
        """All that was told, in order."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines() if line]

    @property
    def told(self) -> frozenset[str]:
        """What was told so far."""
        return frozenset(line["mark"] for line in self.read())

    def reached(self, mark: str) -> bool:
        """Whether this, or what comes after it, was told."""
        later = MARKS[MARKS.index(mark) : MARKS.index(ERROR)]
        return not self.told.isdisjoint(later)
