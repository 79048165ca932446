"""Which server a run gets, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge.errors import ConfigError, ServerError
from merge.language import text
from sandbox import images
from sandbox.containers import DockerServer
from sandbox.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sandbox.server import Server

PROVIDERS = ("auto", "docker", "embedded")
"""What `choose` can be asked for."""

MAJOR = 15
"""Major version in Docker when nothing asks for another: the one that builds without a registry."""


def choose(
    provider: str,
    *,
    major: int | None,
    exact: bool = False,
    folder: Path,
    run_id: str,
    inputs: Sequence[Path] = (),
    binaries: Path | None = None,
    memory: int | None = None,
) -> tuple[Server, str]:
    """Return the server of a run, not started, and the reason why it is this one.

    :param provider: docker or embedded, then it is exactly that; or auto: Docker if it can be had, else embedded.
    :param major: wanted major version of PostgreSQL, if any is wanted.
    :param exact: a person has asked for it; if not, as when it is a backup's own, an embedded server may be newer.
    :param folder: the server's own folder in the run; one that holds a server already gives that server.
    :param inputs: files that the server's tools may read.
    :param binaries: directory of PostgreSQL's programs for an embedded server; with auto, that decides.
    :raises ServerError: if the server that was asked for cannot be had.
    """

    def embedded() -> Server:
        return EmbeddedServer(folder, binaries=binaries, major=major, exact=exact, memory=memory)

    def docker() -> Server:
        server = DockerServer(folder, major=major or MAJOR, run_id=run_id, inputs=inputs, memory=memory)
        server.prepare()
        return server

    match provider:
        case "embedded":
            return embedded(), text(pt="pedido", en="asked for")
        case "docker":
            return docker(), text(pt="pedido", en="asked for")
        case "auto" if binaries is not None:
            return embedded(), text(pt="binários indicados", en="binaries were given")
        case "auto" if not images.answers():
            return embedded(), text(pt="nenhum Docker atende nesta máquina", en="no Docker answers on this machine")
        case "auto":
            try:
                return docker(), text(pt="o Docker atende e tem a imagem", en="Docker answers and has the image")
            except ServerError as ex:
                why = "; ".join([ex.what, *ex.details])
                return embedded(), text(pt=f"o Docker não serve: {why}", en=f"Docker will not do: {why}")
        case _:
            raise ConfigError(
                text(pt=f"Servidor desconhecido: {provider}.", en=f"Unknown server: {provider}."),
                next_step="--server auto | docker | embedded",
            )
