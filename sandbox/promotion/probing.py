"""Whether an address of the network still answers: the only thing that tells that an installation is really off."""

from __future__ import annotations

import errno
import re
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from merge.errors import ConfigError
from merge.language import text

SECONDS = 3.0

Answer = Literal["open", "refused", "filtered", "unreachable", "unknown name", "not probed"]

_ORDER: tuple[Answer, ...] = ("open", "not probed", "filtered", "unreachable", "refused")
"""Of several addresses of one name, the first of these counts."""


@dataclass(frozen=True)
class Probed:
    """What an address answered.

    :param answer: ``open``: something listens; ``refused``, ``filtered`` (no answer in time) and ``unreachable`` (no
        such machine in the network): nothing does; else this machine cannot tell.
    """

    host: str
    port: int
    answer: Answer
    at: str

    @property
    def is_off(self) -> bool | None:
        """Whether nothing answers; None if that cannot be told from here."""
        return {"open": False, "refused": True, "filtered": True, "unreachable": True}.get(self.answer)

    def __str__(self) -> str:
        said = {
            "open": text(pt="atende", en="answers"),
            "refused": text(pt="recusa: nada atende", en="refuses: nothing listens"),
            "filtered": text(pt="não responde", en="gives no answer"),
            "unreachable": text(pt="a máquina não está na rede", en="the machine is not in the network"),
            "unknown name": text(pt="nome desconhecido", en="unknown name"),
            "not probed": text(pt="daqui não se pode saber", en="cannot be told from here"),
        }[self.answer]
        return f"{self.host}:{self.port} {said}"


def parse(address: str) -> tuple[str, int]:
    """The host and port of ``HOST:PORT`` or ``[IPv6]:PORT``.

    :raises ConfigError: it is no such address.
    """
    found = re.fullmatch(r"(?:\[([\w:.%-]+)\]|([^:\s\[\]/]+)):(\d{1,5})", address)
    if found is None or not 0 < int(found[3]) < 65536:
        raise ConfigError(
            text(pt=f"{address} não é um endereço.", en=f"{address} is no address."), next_step="--probe 10.0.0.7:8080"
        )
    return found[1] or found[2], int(found[3])


def probe(host: str, port: int, timeout: float = SECONDS) -> Probed:
    """Try to connect, to every address of a name.

    :param timeout: seconds for each.
    """
    at = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return Probed(host, port, "unknown name", at)
    answers = [_try(family, address, timeout) for family, *_, address in found]
    return Probed(host, port, min(answers, key=_ORDER.index), at)


def _try(family: int, address: tuple[object, ...], timeout: float) -> Answer:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.settimeout(timeout)
            tried.connect(address)
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "filtered"
    except OSError as ex:
        return "unreachable" if ex.errno in (errno.EHOSTUNREACH, errno.EHOSTDOWN) else "not probed"
    return "open"
