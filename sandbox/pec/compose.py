"""The stack of ``compose/compose.yaml``: Compose makes and starts it; all else asks Docker itself."""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from docker.errors import NotFound

from merge.errors import ConfigError, ServerError
from merge.language import text
from sandbox import guard, images, labelled
from sandbox.command import LocalCommand
from sandbox.pec.listen import Listen
from sandbox.throwaway import write_private

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import docker
    from docker.models.containers import Container

PART = "pec"
"""Value of `labelled.PART` on everything of the stack."""
FILE = images.COMPOSE / "compose.yaml"
NET = "net"
"""The service that holds the closed network."""
SERVICES = ("db", "pec-central", "pec-source", "proxy", "canary")
"""All others; each has a profile of its name."""
MEGABYTE = 1 << 20

_OLDEST = (1, 28)
"""Version of docker-compose that first knew profiles."""
_CLOSE_SECONDS = 120
_STOP_SECONDS = (120, 600)
"""To end by itself; the second is the database's."""
_LISTEN = "homolog.listen"
"""Label of the network's container: where it listens, and for whom."""
_LOG_LINES = 2000


@dataclass(frozen=True)
class Settings:
    """What a run's stack is made of. None of it is secret.

    :param folder: the run's folder; the stack's own is ``pec`` in it.
    :param postgres: image of PostgreSQL.
    :param postgres_user: ``uid:gid`` of the user ``postgres`` in it.
    :param pec: image of PEC, "" as long as none is wanted.
    :param proxy: image of the proxy, "" as long as none is wanted.
    :param memory: bytes that PostgreSQL may use.
    :param pec_memory: bytes that each PEC may use; three quarters are its heap.
    :param central: database of the central and the role that owns it.
    :param source: database of the source and the role that owns it.
    :param migrate: PEC may bring its database to its own version.
    """

    run_id: str
    folder: Path
    guard: str = images.GUARD
    postgres: str = ""
    postgres_user: str = ""
    pec: str = ""
    proxy: str = ""
    memory: int = 2048 * MEGABYTE
    pec_memory: int = 4096 * MEGABYTE
    listen: Listen = field(default_factory=Listen)
    central: tuple[str, str] = ("central", "central")
    source: tuple[str, str] = ("source", "source")
    migrate: bool = False

    def variables(self, host_side: str = "gateway") -> dict[str, str]:
        """The variables of the Compose file. What is empty is the file's own to say, but for the port: any.

        :param host_side: as `guard.host_side` says.
        """
        elsewhere = "" if host_side == "gateway" else host_side
        return {
            "HOMOLOG_RUN": self.run_id,
            "HOMOLOG_FOLDER": str(self.folder.resolve()),
            "HOMOLOG_GUARD_IMAGE": self.guard,
            "HOMOLOG_POSTGRES_IMAGE": self.postgres,
            "HOMOLOG_POSTGRES_USER": self.postgres_user,
            "HOMOLOG_POSTGRES_LIMIT": str(self.memory),
            "HOMOLOG_POSTGRES_SHARED": str(max(self.memory // 4, 256 * MEGABYTE)),
            "HOMOLOG_PEC_IMAGE": self.pec,
            "HOMOLOG_PEC_LIMIT": str(self.pec_memory),
            "HOMOLOG_PEC_MEMORY": f"{self.pec_memory * 3 // 4 // MEGABYTE}M",
            "HOMOLOG_PEC_MIGRATE": "1" if self.migrate else "",
            "HOMOLOG_CENTRAL_DATABASE": self.central[0],
            "HOMOLOG_CENTRAL_USER": self.central[1],
            "HOMOLOG_SOURCE_DATABASE": self.source[0],
            "HOMOLOG_SOURCE_USER": self.source[1],
            "HOMOLOG_PROXY_IMAGE": self.proxy,
            "HOMOLOG_SQL_FROM": elsewhere,
            "HOMOLOG_LISTEN": self.listen.address,
            "HOMOLOG_PORT": "" if self.listen.port is None else str(self.listen.port),
            "HOMOLOG_ALLOW": " ".join(self.listen.sources) or elsewhere,
        }


@dataclass(frozen=True)
class State:
    """How a container is.

    :param status: Docker's word: ``created``, ``running``, ``exited``, …
    :param exit_code: of its last end; 0 if there was none.
    :param out_of_memory: it was ended for using more than it may.
    :param health: ``starting``, ``healthy``, ``unhealthy``, or "" where nobody looks.
    """

    status: str
    exit_code: int
    out_of_memory: bool
    health: str

    @property
    def code(self) -> int:
        """How its program ended: `exit_code`, and as if killed where it was its memory."""
        return 137 if self.out_of_memory else self.exit_code

    @property
    def is_running(self) -> bool:
        """True while its program runs."""
        return self.status == "running"


def program() -> tuple[str, ...]:
    """How Compose is called here: ``docker compose``, else ``docker-compose``.

    :raises ServerError: if there is neither, or only one that is too old.
    """
    old = ""
    for call in (("docker", "compose"), ("docker-compose",)):
        if shutil.which(call[0]) is None:
            continue
        said = LocalCommand((*call, "version", "--short"), _environment()).run(check=False)
        version = re.match(r"v?(\d+)\.(\d+)", said.stdout.decode(errors="replace"))
        if said.code == 0 and version:
            if tuple(map(int, version.groups())) >= _OLDEST:
                return call
            old = f"{' '.join(call)} {version.group()}"
    raise ServerError(
        text(
            pt=f"Falta o Docker Compose{f' (há um antigo demais: {old})' if old else ''}.",
            en=f"Docker Compose is missing{f' (there is one that is too old: {old})' if old else ''}.",
        ),
        next_step=text(
            pt="Instale docker-compose-plugin (pacotes da Docker) ou docker-compose 1.28 ou mais novo (Debian).",
            en="Install docker-compose-plugin (Docker's packages) or docker-compose 1.28 or newer (Debian).",
        ),
    )


class Stack:
    """The containers of one run's closed room. Only ``net`` is on a network; the others share it.

    `up` with ``start=False`` makes containers, `deliver` puts secrets into them, `up` starts them.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def project(self) -> str:
        """Compose's name for it, with which all names begin."""
        return f"homolog-{self.settings.run_id}-pec"

    @property
    def folder(self) -> Path:
        """The stack's folder in the run's."""
        return self.settings.folder / PART

    @property
    def environment_file(self) -> Path:
        """Variables of the Compose file for this run, for us and for who looks with Compose."""
        return self.folder / "compose.env"

    def name(self, service: str) -> str:
        """Name of a service's container."""
        return f"{self.project}-{service.removeprefix('pec-')}"

    # Life

    def up(self, *services: str, start: bool = True) -> None:
        """Make the containers of services, with the network closed, or start those that are made.

        Containers that are there are not made anew, whatever the settings; `remove` them for that. But if the network
        does not run and is to listen elsewhere now, all are removed: it is made anew, and none can change to another.
        What runs in a network that was started again meanwhile is stopped before: it shares nothing with the others.

        :raises ConfigError: if it would be published where Docker does not tell who connects, or runs and listens
            elsewhere.
        :raises ServerError: if the network cannot be closed, or Compose fails; with its words.
        """
        with images.daemon() as client:
            if not self.settings.listen.is_local and guard.is_desktop(client):
                raise ConfigError(
                    text(
                        pt="O Docker Desktop não mostra quem se conecta: nele a sandbox só atende esta máquina.",
                        en="Docker Desktop does not show who connects: there the sandbox serves this machine only.",
                    ),
                    next_step=text(pt="Tire --listen, ou use um Linux.", en="Leave out --listen, or use Linux."),
                )
            host_side = guard.host_side(client)
            self._write_environment(host_side)
            is_up = self._stop_strays(client, self.settings.variables(host_side))
        if not is_up:  # while it does not run, docker-compose makes the others in Docker's own, open network
            self._call("--detach", NET)
            self._wait_closed()
        if wanted := [service for service in services if service != NET]:
            self._call("--no-start", *wanted)
            self._check_network(wanted)
            if start:
                self._call("--detach", *wanted)

    def stop(self, *services: str) -> None:
        """Stop services, or all, the network last. Does nothing about what does not run."""
        with images.daemon() as client:
            for container in self.containers(client):
                if self._is_one(container, services):
                    container.stop(timeout=_STOP_SECONDS[container.name == self.name("db")])

    def remove(self, *services: str) -> None:
        """Remove the containers of services, or all, with what is in them but volumes that have a name."""
        with images.daemon() as client:
            for container in self.containers(client):
                if self._is_one(container, services):
                    with suppress(NotFound):
                        container.remove(v=True, force=True)

    def down(self) -> None:
        """Remove containers, networks and volumes, and the file of variables. Does nothing about what is gone."""
        labelled.remove(labelled.leftovers(self.settings.run_id, PART))
        self.environment_file.unlink(missing_ok=True)

    # Use

    def deliver(self, service: str, path: str, content: bytes, *, user: str = "0:0", mode: int = 0o400) -> None:
        """Put a file into a container, which need not have been started.

        :param user: ``uid:gid`` of its owner.
        """
        place = PurePosixPath(path)
        with images.daemon() as client:
            client.containers.get(self.name(service)).put_archive(
                str(place.parent), labelled.tar(place.name, content, user, mode)
            )

    def state(self, service: str) -> State | None:
        """How its container is, None if there is none."""
        with images.daemon() as client:
            try:
                found = client.containers.get(self.name(service)).attrs["State"]
            except NotFound:
                return None
        return State(
            found["Status"], found["ExitCode"], found["OOMKilled"], found.get("Health", {}).get("Status", "")
        )  # fmt: skip

    def logs(self, service: str, lines: int = _LOG_LINES) -> str:
        """The end of what its container has said, "" if there is none."""
        with images.daemon() as client:
            try:
                return client.containers.get(self.name(service)).logs(tail=lines).decode(errors="replace")
            except NotFound:
                return ""

    def exec(self, service: str, argv: Sequence[str], *, user: str = "") -> tuple[int, str]:
        """Run a program in a running container; return its exit code and what it said."""
        with images.daemon() as client:
            done: Any = client.containers.get(self.name(service)).exec_run(list(argv), user=user)
        return int(done.exit_code), done.output.decode(errors="replace")

    def port(self, inside: int) -> int:
        """Where a port of the room is on the host: 5432 for SQL, 443 for HTTPS.

        :raises ServerError: if the network does not run.
        """
        with images.daemon() as client:
            try:
                found = client.containers.get(self.name(NET)).attrs["NetworkSettings"]["Ports"]
                return int(found[f"{inside}/tcp"][0]["HostPort"])
            except (NotFound, KeyError, TypeError, IndexError):
                raise ServerError(
                    text(pt="A rede da sandbox do PEC não está no ar.", en="The network of PEC's sandbox is not up.")
                ) from None

    def containers(self, client: docker.DockerClient) -> list[Container]:
        """All containers of the stack, also those that Compose does not know; the network's last, before it `db`."""
        mine = [f"{labelled.LABEL}={self.settings.run_id}", f"{labelled.PART}={PART}"]
        found = client.containers.list(all=True, filters={"label": mine}, ignore_removed=True)
        last = (self.name("db"), self.name(NET))
        return sorted(found, key=lambda one: last.index(one.name) + 1 if one.name in last else 0)

    # How

    def _is_one(self, container: Container, services: Sequence[str]) -> bool:
        return not services or container.name in [self.name(service) for service in services]

    def _call(self, action: str, *services: str) -> None:
        call = (*self._compose(), "up", action, "--no-recreate", "--no-build", *services)
        said = LocalCommand(call, _environment()).run(check=False)
        if said.code != 0:
            raise self._failed(said.stderr, services)

    def _wait_closed(self) -> None:
        """Wait until the network says that it is closed."""
        deadline = time.monotonic() + _CLOSE_SECONDS
        while (state := self.state(NET)) is None or state.health != "healthy":
            if state is None or not state.is_running or time.monotonic() > deadline:
                raise guard.not_closed(self.logs(NET))
            time.sleep(0.1)

    def _check_network(self, services: Sequence[str]) -> None:
        """Look whether containers will share the closed network; remove them if one will not."""
        with images.daemon() as client:
            shared = f"container:{client.containers.get(self.name(NET)).id}"
            made = [client.containers.get(self.name(service)) for service in services]
        open_ = [one.name for one in made if one.attrs["HostConfig"]["NetworkMode"] != shared]
        if open_:
            self.remove(*services)
            raise guard.not_closed("\n".join(str(name) for name in open_))

    def _compose(self) -> tuple[str, ...]:
        profiles = (part for service in SERVICES for part in ("--profile", service))
        files = ("--env-file", str(self.environment_file.resolve()), "-p", self.project, "-f", str(FILE))
        return (*self._program, *files, *profiles)

    @cached_property
    def _program(self) -> tuple[str, ...]:
        return program()

    def _write_environment(self, host_side: str) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        variables = self.settings.variables(host_side)
        if bad := [name for name, value in variables.items() if re.search(r"['\\\n\r]", value)]:
            raise ConfigError(
                text(
                    pt="O Compose não aceita aspas simples nem barras invertidas nestes valores.",
                    en="Compose cannot be told values with single quotes or backslashes.",
                ),
                details=[f"{name}={variables[name]}" for name in bad],
                next_step=text(pt="Mude a pasta: HOMOLOG_RUNS.", en="Change the folder: HOMOLOG_RUNS."),
            )
        write_private(self.environment_file, "".join(f"{name}='{value}'\n" for name, value in variables.items()))

    def _stop_strays(self, client: docker.DockerClient, variables: Mapping[str, str]) -> bool:
        """Stop what was started before the network that is there now, and is in one that is gone. True if one is."""
        listen = " ".join(variables[f"HOMOLOG_{name}"] for name in ("LISTEN", "PORT", "ALLOW"))
        found = self.containers(client)
        if not found:
            return False
        *others, last = found
        is_elsewhere = last.name == self.name(NET) and last.labels.get(_LISTEN) != listen
        if is_elsewhere and last.status == "running":
            raise ConfigError(
                text(
                    pt="A sandbox do PEC já está no ar em outro endereço, ou para outros.",
                    en="PEC's sandbox is up already, at another address or for others.",
                ),
                details=[str(last.labels.get(_LISTEN))],
                next_step=f"invoke pec.down --run {self.settings.run_id}",
            )
        if is_elsewhere or last.name != self.name(NET):
            # The others are bound to a network that is no more, or will be none.
            for container in (*others, last):
                container.remove(v=True, force=True)
            return False
        state = last.attrs["State"]
        for container in others:
            own = container.attrs["State"]
            if own["Running"] and not (state["Running"] and own["StartedAt"] > state["StartedAt"]):
                container.stop(timeout=_STOP_SECONDS[container.name == self.name("db")])
        return bool(state["Running"])

    def _failed(self, said: str, services: Sequence[str]) -> ServerError:
        return ServerError(
            text(
                pt=f"O Compose não iniciou {', '.join(services)}.", en=f"Compose did not start {', '.join(services)}."
            ),
            details=said.splitlines()[-5:],
            evidence=self.environment_file,
            next_step=text(
                pt="Se a porta está em uso, indique outra com --port. Sem rede fechada, nada é iniciado.",
                en="If the port is in use, name another with --port. Without a closed network, nothing is started.",
            ),
        )


def _environment() -> dict[str, str]:
    """Ours, without variables that would come before those of the run."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE_", "HOMOLOG_"))}
