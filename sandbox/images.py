"""Images of a sandbox: those that are here, else pulled, else built; without network, given up after seconds."""

from __future__ import annotations

from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import requests
from docker.errors import DockerException, ImageNotFound
from docker.utils import kwargs_from_env

from merge.errors import ServerError
from merge.language import text

if TYPE_CHECKING:
    from collections.abc import Iterator

COMPOSE = Path(__file__).resolve().parent.parent / "compose"
GUARD = "homolog-guard:latest"
BASE = "debian:bookworm-slim"

_PATIENCE = 20
"""Seconds of silence after which a registry counts as not there."""
_BUILD_PATIENCE = 90
"""Seconds of silence after which a build is given up: an unpacking package says nothing for a while."""


@contextmanager
def daemon(patience: int = 600) -> Iterator[docker.DockerClient]:
    """A connection to the Docker daemon of this machine, for as long as the context lasts.

    :param patience: seconds to wait for each of its answers.
    :raises ServerError: if it does not answer, is on another machine, or refuses something.
    """
    try:
        with closing(docker.from_env(timeout=patience)) as client:
            if not client.api.base_url.startswith(("http+unix:", "http+docker:", "npipe:")):
                raise ServerError(
                    text(
                        pt="O Docker está em outra máquina: os backups não podem ser lidos por ele.",
                        en="Docker is on another machine: it cannot read the backups.",
                    ),
                    next_step=text(
                        pt="Apague DOCKER_HOST ou use --server embedded.",
                        en="Unset DOCKER_HOST or use --server embedded.",
                    ),
                )
            yield client
    except (DockerException, requests.RequestException) as ex:
        raise ServerError(
            text(pt="O Docker não atendeu.", en="Docker did not do what was asked."),
            details=[_short(ex)],
            next_step=text(
                pt="Verifique com `docker info`, ou use --server embedded.",
                en="Check with `docker info`, or use --server embedded.",
            ),
        ) from None


def answers() -> bool:
    """True if a daemon of this machine answers within seconds."""
    try:
        with daemon(patience=5) as client:
            return bool(client.ping())
    except ServerError:
        return False


def postgres(major: int) -> str:
    """An image with PostgreSQL of this major version: here already, else pulled, else built.

    :raises ServerError: telling what was tried and what to do.
    """
    name = "9.6" if major == 9 else str(major)
    official, own = f"postgres:{name}", f"homolog-postgres:{name}"
    for image in (official, own):
        if _is_here(image):
            return image
    tried: list[str] = []
    if _pull(official, tried):
        return official
    if _build(own, "postgres", tried, PG_MAJOR=name):
        return own
    raise ServerError(
        text(pt=f"Não há imagem do PostgreSQL {name}.", en=f"There is no image of PostgreSQL {name}."),
        details=tried,
        next_step=text(
            pt=f"Numa máquina com internet: docker pull {official}; docker save {official} -o postgres.tar; "
            "traga o arquivo e rode aqui: docker load -i postgres.tar. Ou use --server embedded.",
            en=f"On a machine with internet: docker pull {official}; docker save {official} -o postgres.tar; "
            "bring the file and run here: docker load -i postgres.tar. Or use --server embedded.",
        ),
    )


def guard() -> str:
    """The image that closes a network namespace: here already, else built.

    :raises ServerError: telling what was tried and what to do.
    """
    tried: list[str] = []
    if _is_here(GUARD) or _build(GUARD, "guard", tried):
        return GUARD
    raise ServerError(
        text(
            pt="Não há imagem para isolar a rede da sandbox; sem ela nada é iniciado.",
            en="There is no image to isolate the sandbox's network; without it nothing is started.",
        ),
        details=tried,
        next_step=text(
            pt="Numa máquina com internet: docker build -t homolog-guard compose/guard; docker save homolog-guard "
            "-o guard.tar; traga o arquivo e rode aqui: docker load -i guard.tar. Ou use --server embedded.",
            en="On a machine with internet: docker build -t homolog-guard compose/guard; docker save homolog-guard "
            "-o guard.tar; bring the file and run here: docker load -i guard.tar. Or use --server embedded.",
        ),
    )


def _is_here(image: str) -> bool:
    with daemon() as client:
        try:
            client.images.get(image)
        except ImageNotFound:
            return False
        return True


def _pull(image: str, tried: list[str]) -> bool:
    repository, tag = image.split(":")
    return _follow(
        f"docker pull {image}", _PATIENCE, tried, lambda api: api.pull(repository, tag=tag, stream=True, decode=True)
    )


def _build(image: str, folder: str, tried: list[str], **arguments: str) -> bool:
    if not _is_here(BASE) and not _pull(BASE, tried):
        return False
    options = {"path": str(COMPOSE / folder), "buildargs": arguments, "rm": True, "forcerm": True, "decode": True}
    return _follow(
        f"docker build -t {image} compose/{folder}",
        _BUILD_PATIENCE,
        tried,
        lambda api: api.build(tag=image, **options),
    )


def _follow(what: str, patience: int, tried: list[str], start: Any) -> bool:
    """Follow a long step of the daemon until its end; true if it ended well."""
    try:
        with closing(docker.APIClient(**kwargs_from_env(), version="auto", timeout=patience)) as api:
            for said in start(api):
                if "error" in said:
                    tried.append(f"{what}: {_short(said['error'])}")
                    return False
            return True
    except (DockerException, requests.RequestException, TypeError) as ex:
        tried.append(f"{what}: {_short(ex)}")
        return False


def _short(problem: object) -> str:
    said = str(getattr(problem, "explanation", None) or problem).strip()
    return (said.splitlines() or [type(problem).__name__])[-1][:300]
