"""Where the sandbox's HTTPS is published: on this machine only, or for whom the operator names on a network of his."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from typing import TYPE_CHECKING

from merge.errors import ConfigError
from merge.language import text

if TYPE_CHECKING:
    from collections.abc import Sequence

LOOPBACK = "127.0.0.1"
PORT = 8443
_SMALLEST_PREFIX = 8
"""A network larger than this is not someone's own."""


@dataclass(frozen=True)
class Listen:
    """An address of this machine, a TCP port, and who may connect. `parse` checks what a person has given.

    :param port: None takes any that is free.
    :param allow: addresses and networks of IPv4; none where the address is loopback.
    """

    address: str = LOOPBACK
    port: int | None = PORT
    allow: tuple[str, ...] = ()

    @classmethod
    def parse(cls, address: str = LOOPBACK, port: int | None = PORT, allow: Sequence[str] = ()) -> Listen:
        """Check the address, the port and who is allowed.

        :raises ConfigError: if the address is not one of this machine's own, if nobody or everybody is allowed.
        """
        if port is not None and not 0 < port < 1 << 16:
            raise ConfigError(text(pt=f"Não é uma porta: {port}.", en=f"Not a port: {port}."))
        where = _own(address)
        if where.is_loopback:
            if allow:
                raise ConfigError(
                    text(
                        pt=f"{where} só é alcançado desta máquina: --allow não tem efeito.",
                        en=f"{where} is reached from this machine only: --allow has no effect.",
                    ),
                    next_step=text(pt="Tire --allow, ou indique --listen.", en="Leave out --allow, or name --listen."),
                )
            return cls(str(where), port)
        if not allow:
            raise ConfigError(
                text(
                    pt=f"Falta dizer quem pode chegar à sandbox em {where}.",
                    en=f"Nobody is allowed to reach the sandbox at {where}.",
                ),
                next_step=text(
                    pt="Indique o endereço de cada estação: --allow 192.168.1.20",
                    en="Name the address of each workstation: --allow 192.168.1.20",
                ),
            )
        return cls(str(where), port, tuple(str(_network(one)) for one in allow))

    @property
    def is_local(self) -> bool:
        """True if only this machine reaches it."""
        return IPv4Address(self.address).is_loopback

    @property
    def sources(self) -> tuple[str, ...]:
        """Where connections come from, as seen from inside; empty for the host's side of the bridge.

        This machine itself comes from its own address. The host's side of the bridge is not among them: where a daemon
        does not keep the sender's address, all would come from there.
        """
        return () if self.is_local else (*self.allow, self.address)


def _own(address: str) -> IPv4Address:
    try:
        found = IPv4Address(address)
    except AddressValueError:
        raise ConfigError(
            text(pt=f"Não é um endereço IPv4: {address}.", en=f"Not an IPv4 address: {address}."),
            next_step=text(
                pt="Indique um endereço desta máquina, por exemplo --listen 192.168.1.10.",
                en="Name an address of this machine, e.g. --listen 192.168.1.10.",
            ),
        ) from None
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as attempt:
        try:
            if found.is_unspecified or found.is_multicast:
                raise OSError
            attempt.bind((str(found), 0))
        except OSError:
            raise ConfigError(
                text(
                    pt=f"{found} não é o endereço de uma interface desta máquina.",
                    en=f"{found} is not the address of an interface of this machine.",
                ),
                next_step=text(
                    pt="A sandbox nunca é publicada em todas: indique uma (veja `ip -4 address` ou `ipconfig`).",
                    en="The sandbox is never published on all: name one (see `ip -4 address` or `ipconfig`).",
                ),
            ) from None
    return found


def _network(given: str) -> IPv4Network:
    try:
        found = IPv4Network(given, strict=False)
    except (AddressValueError, NetmaskValueError, ValueError):
        raise ConfigError(
            text(pt=f"Não é um endereço nem uma rede IPv4: {given}.", en=f"Not an address or network of IPv4: {given}.")
        ) from None
    if found.prefixlen < _SMALLEST_PREFIX:
        raise ConfigError(
            text(
                pt=f"{given} permite quase todos: indique a rede da unidade.",
                en=f"{given} allows almost everybody: name the unit's network.",
            )
        )
    return found
