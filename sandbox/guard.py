"""What closes the network of containers: ``compose/guard``, from the side of who starts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docker.types import Mount

from merge.errors import ServerError
from merge.language import text
from sandbox import images

if TYPE_CHECKING:
    import docker

INSIDE = "/homolog"
"""Where the programs of ``compose/guard`` are in containers."""
DNS = ["127.0.0.1"]
"""Whom Docker's own name server is to ask, if ever it is asked: nobody."""
RIGHTS = ("NET_ADMIN", "NET_RAW", "SETUID", "SETGID")
"""Capabilities of who closes a namespace; the last two to give up all of them."""


def mount() -> Mount:
    """These programs, for a container."""
    return Mount(INSIDE, str(images.COMPOSE / "guard"), type="bind", read_only=True)


def not_closed(said: str) -> ServerError:
    """The error for a network that the guard could not close."""
    return ServerError(
        text(
            pt="A rede da sandbox não pôde ser isolada; nada foi iniciado.",
            en="The sandbox's network could not be isolated; nothing was started.",
        ),
        details=said.splitlines()[-5:],
    )


def host_side(client: docker.DockerClient) -> str:
    """Where connections come from, for ``isolate``, to ports that are published on this machine's loopback.

    That is ``gateway``, the host's side of the bridge, where the bridge is one of this machine's.

    Docker Desktop has a machine of its own, which no neighbour of this one reaches, and comes from elsewhere in it.
    """
    return "0.0.0.0/0" if is_desktop(client) else "gateway"


def is_desktop(client: docker.DockerClient) -> bool:
    """True if containers run in a machine of Docker Desktop's."""
    return bool(client.info()["OperatingSystem"] == "Docker Desktop")
