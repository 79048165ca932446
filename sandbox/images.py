"""Images of a sandbox: those that are here, else pulled, else built; without network, given up after seconds."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tomllib
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import requests
from docker.errors import DockerException, ImageNotFound
from docker.utils import kwargs_from_env

from merge.errors import ConfigError, ServerError
from merge.language import text
from sandbox import installer, words
from sandbox.installer import version_of as version_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

COMPOSE = Path(__file__).resolve().parent.parent / "compose"
GUARD = "homolog-guard:latest"
PROXY = "homolog-proxy:latest"
PEC_BASE = "homolog-pec-base:latest"
BASE = "debian:bookworm-slim"
JAR_SHA256 = "homolog.installer.sha256"
"""Label of a PEC image: SHA-256 of the installer it was built from."""
JAR_NAME = "homolog.installer.name"
"""The same, with the installer's file name."""

_RECIPE = "homolog.recipe"
"""Label with the SHA-256 of the files that an image was built from, but for the installer."""
_DAEMON = "homolog.daemon"
"""Label with the id of the daemon that built an image: others had it loaded."""

_PATIENCE = 20
"""Seconds of silence after which a registry counts as not there."""
_BUILD_PATIENCE = 90
"""Seconds of silence after which a build is given up: an unpacking package says nothing for a while."""
_JAR_PATIENCE = 900
"""The same, where a layer of a gigabyte is written."""


@dataclass(frozen=True)
class Image:
    """An image that is here.

    :param name: repository and tag.
    :param id: Docker's id for it, which differs between kinds of Docker's storage.
    :param digest: digest in the registry it was pulled from, "" if it was not.
    :param size: bytes.
    :param origin: ``built`` here, ``pulled`` or ``loaded``.
    :param content: SHA-256 of its layers' digests and of how it starts: the same wherever the image is the same.
    """

    name: str
    id: str
    digest: str
    size: int
    origin: str
    content: str


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
    official, own = postgres_names(major)
    for image in (official, own):
        if _is_here(image):
            return image
    tried: list[str] = []
    if _pull(official, tried):
        return official
    name = official.partition(":")[2]
    if _build(own, "postgres", tried, PG_MAJOR=name):
        return own
    raise _none(
        text(pt=f"Não há imagem do PostgreSQL {name}.", en=f"There is no image of PostgreSQL {name}."),
        tried,
        flags=f" --major {major}",
        embedded=True,
    )


def postgres_names(major: int) -> tuple[str, str]:
    """The names of the official image and of our own with PostgreSQL of this major version (9 is 9.6)."""
    name = "9.6" if major == 9 else str(major)
    return f"postgres:{name}", f"homolog-postgres:{name}"


def guard() -> str:
    """The image that closes a network namespace: here already, else built.

    :raises ServerError: telling what was tried and what to do.
    """
    tried: list[str] = []
    if _is_here(GUARD) or _build(GUARD, "guard", tried):
        return GUARD
    raise _none(
        text(
            pt="Não há imagem para isolar a rede da sandbox; sem ela nada é iniciado.",
            en="There is no image to isolate the sandbox's network; without it nothing is started.",
        ),
        tried,
        embedded=True,
    )


def proxy() -> str:
    """The image of the TLS proxy: here already, else built.

    :raises ServerError: telling what was tried and what to do.
    """
    recipe, tried = _recipe("proxy"), list[str]()
    if _is_here(PROXY, recipe) or _build(PROXY, "proxy", tried):
        return PROXY
    raise _none(text(pt="Não há imagem do proxy TLS.", en="There is no image of the TLS proxy."), tried)


def pec_base() -> str:
    """The image with what PEC needs: here already, else built. On it, an installer becomes an image without internet.

    :raises ServerError: telling what was tried and what to do.
    """
    recipe, tried = _recipe("pec"), list[str]()
    if _is_here(PEC_BASE, recipe) or _build(PEC_BASE, "pec", tried):
        return PEC_BASE
    raise _none(text(pt="Não há imagem para o PEC.", en="There is no image for PEC."), tried)


def pec(jar: Path) -> str:
    """The image with the PEC of an installer JAR, named by its SHA-256: here already, else built.

    :raises ConfigError: if the file is no installer, or Docker lacks room.
    :raises ServerError: telling what was tried and what to do.
    """
    found = installer.inspect(jar)
    image, recipe = pec_name(found), _recipe("pec", "installer")
    if _is_here(image, recipe):
        return image
    needed = 2 * found.size  # as the daemon receives it, and as a layer
    with daemon() as client:
        place = folder(client)
    if place and (free := shutil.disk_usage(place).free) < needed:
        raise _no_room(needed, [f"{place}: {words.size(free)}"])
    pec_base()
    tried: list[str] = []
    labels = {_RECIPE: recipe, JAR_SHA256: found.sha256, JAR_NAME: found.path.name}
    if _build(image, "installer", tried, labels=labels, jar=found):
        return image
    if any("no space left" in line for line in tried):
        raise _no_room(needed, tried)
    raise _none(text(pt="A imagem do PEC não foi construída.", en="PEC's image was not built."), tried)


def pec_name(found: installer.Installer) -> str:
    """The name of the image with the PEC of an installer."""
    return f"homolog-pec:{found.sha256[:12]}"


def folder(client: docker.DockerClient) -> Path | None:
    """Docker's own folder, where that is one of this host."""
    root = Path(client.info().get("DockerRootDir", ""))
    return root if root.is_absolute() and root.is_dir() else None


def find(name: str) -> Image | None:
    """What is known of an image, None if it is not here."""
    with daemon() as client:
        try:
            attrs = client.images.get(name).attrs
        except ImageNotFound:
            return None
        here = client.info().get("ID")
    config = attrs.get("Config") or {}
    labels = config.get("Labels") or {}
    starts = {key: config.get(key) or None for key in ("Entrypoint", "Cmd", "Env", "User", "WorkingDir", "Labels")}
    content = json.dumps([attrs["RootFS"].get("Layers"), starts], sort_keys=True)
    ours = name.startswith("homolog-")  # to some kinds of storage these have a digest too
    digests = [] if ours else [digest.split("@")[1] for digest in attrs.get("RepoDigests") or ()]
    built = ours and labels.get(_DAEMON, here) == here
    return Image(
        name=name,
        id=attrs["Id"],
        digest=digests[0] if digests else "",
        size=attrs["Size"],
        origin="pulled" if digests else "built" if built else "loaded",
        content=hashlib.sha256(content.encode()).hexdigest(),
    )


def postgres_here() -> list[int]:
    """Major versions of PostgreSQL of which there is an image here; 9 is 9.6."""
    with daemon() as client:
        tags = [tag for kind in ("postgres", "homolog-postgres") for i in client.images.list(kind) for tag in i.tags]
    found = (re.fullmatch(r"(?:homolog-)?postgres:(9(?=\.6$)|[1-9]\d)(?:\.6)?", tag) for tag in tags)
    return sorted({int(match[1]) for match in found if match})


def _none(what: str, tried: Iterable[str], *, flags: str = "", embedded: bool = False) -> ServerError:
    """The error that an image cannot be had; `embedded` if the run can do without Docker."""
    next_step = text(
        pt=f"Numa máquina com internet: invoke images --save imagens.tar{flags}; traga o arquivo e o .sha256 dele e "
        "rode aqui: invoke images --load imagens.tar.",
        en=f"On a machine with internet: invoke images --save images.tar{flags}; bring the file and its .sha256, and "
        "run here: invoke images --load images.tar.",
    )
    if embedded:
        next_step += text(pt=" Ou use --server embedded.", en=" Or use --server embedded.")
    return ServerError(what, details=list(tried), next_step=next_step)


def _no_room(needed: int, details: Iterable[str]) -> ConfigError:
    return ConfigError(
        text(
            pt=f"Falta espaço no disco do Docker: a imagem do PEC precisa de {words.size(needed)}.",
            en=f"Docker's disk lacks room: PEC's image needs {words.size(needed)}.",
        ),
        details=list(details),
        next_step=text(
            pt="Libere espaço (veja `docker system df`) e rode de novo.",
            en="Free some (see `docker system df`) and run it again.",
        ),
    )


def _is_here(image: str, recipe: str | None = None) -> bool:
    """True if an image is here and, if told, was built from these files, or has the digest that is recorded."""
    with daemon() as client:
        try:
            found = client.images.get(image)
        except ImageNotFound:
            return False
    pinned = _digests().get(image)
    known = [digest.split("@")[1] for digest in found.attrs.get("RepoDigests") or ()]
    if pinned and known and pinned not in known:
        return False
    return recipe is None or found.labels.get(_RECIPE) == recipe


def _digests() -> dict[str, str]:
    """The digests that are recorded for official images, by name and tag."""
    path = COMPOSE / "images.toml"
    return dict(tomllib.loads(path.read_text()).get("digests", {})) if path.exists() else {}


def _pull(image: str, tried: list[str]) -> bool:
    repository, tag = image.split(":")
    digest = _digests().get(image)
    what = f"docker pull {repository}@{digest}" if digest else f"docker pull {image}"
    start = {"repository": repository, "tag": digest or tag, "stream": True, "decode": True}
    if not _follow(what, _PATIENCE, tried, lambda api: api.pull(**start)):
        return False
    if digest:
        with daemon() as client:
            client.images.get(f"{repository}@{digest}").tag(repository, tag)
    return True


def _recipe(*names: str) -> str:
    """SHA-256 of the files in folders of compose/, that an image is built from."""
    digest = hashlib.sha256()
    for path in (path for name in names for path in sorted((COMPOSE / name).glob("*"))):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _build(
    image: str,
    name: str,
    tried: list[str],
    *,
    labels: dict[str, str] | None = None,
    jar: installer.Installer | None = None,
    **arguments: str,
) -> bool:
    """Build an image from a folder of compose/, and an installer if there is one; true if that succeeded."""
    if jar is None and not _is_here(BASE) and not _pull(BASE, tried):
        return False
    with daemon() as client:
        labels = {_RECIPE: _recipe(name), _DAEMON: client.info().get("ID", ""), **(labels or {})}
    options = {"buildargs": arguments, "labels": labels, "rm": True, "forcerm": True, "decode": True}
    if jar is None:
        options["path"] = str(COMPOSE / name)
    else:
        options |= {"fileobj": installer.context(jar, COMPOSE / name), "custom_context": True}
    patience = _BUILD_PATIENCE if jar is None else _JAR_PATIENCE
    return _follow(
        f"docker build -t {image} compose/{name}", patience, tried, lambda api: api.build(tag=image, **options)
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
