"""A PostgreSQL server in a container of the wanted major version, out of which nothing leads.

Four containers make it. The *holder* does nothing but hold a network namespace, on a bridge of its own, with one port
published on 127.0.0.1. The *guard*, which lives for a moment, closes that namespace (``compose/guard/isolate``) and
says that it is closed. Only then *postgres* is started in it, without any capability and without any file of the host;
*tools*, beside it, sees the backups. All are made anew by every start, so that there is no state in which PostgreSQL
runs in a namespace that is open; the data are in a named volume.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
from docker.errors import APIError, ContainerError, NotFound
from docker.types import LogConfig, Mount

from merge.errors import ServerError
from merge.language import text
from sandbox import images, server_log, tuning
from sandbox.container_command import ContainerCommand
from sandbox.lock import exclusive
from sandbox.server import ADMIN
from sandbox.throwaway import ThrowawayServer, write_private

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import docker
    from docker.models.containers import Container

LABEL = "homolog.run"
"""Label of everything that a run makes in Docker; its value is the run's id."""
_FOLDER = "homolog.folder"
"""The same, with the path of the run's folder."""

_HOME = "/var/lib/postgresql"  # that user's in both images, so that a new volume there is that user's
_DATA = f"{_HOME}/homolog"
_SCRATCH = "/scratch"
_RUN = "/run/homolog"
_START_SECONDS = 3600
"""A killed server first reads again what it wrote since it was started: there are no checkpoints."""
_STOP_SECONDS = 600
_LOG_LINES = 2000
"""Lines of a container's log that are kept."""
_CLOSED: dict[str, Any] = {
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
    "log_config": LogConfig(type="json-file", config={"max-size": "10m", "max-file": "2"}),
}

_INITDB = """
set -eu
"$@" --pwfile=/tmp/pw > /dev/null
echo "host all all all $HOMOLOG_AUTH" > "$PGDATA/pg_hba.conf"
"""


class DockerServer(ThrowawayServer):
    """A server in Docker.

    :param folder: the server's own folder, in the run's folder, which its tools may read.
    :param major: PostgreSQL's major version (9 is 9.6).
    :param inputs: more files and folders that its tools may read.
    :param memory: bytes that it may use; three quarters of the machine's by default.
    """

    provider: ClassVar[str] = "docker"

    def __init__(
        self, folder: Path, *, major: int, run_id: str, inputs: Sequence[Path] = (), memory: int | None = None
    ) -> None:
        super().__init__(folder, memory=memory)
        self.run_id = run_id
        self.inputs = tuple(inputs)
        self._major = major

    @property
    def major(self) -> int:
        """Major version of the image."""
        return self._major

    @property
    def version(self) -> str:
        """Full version of the image's PostgreSQL."""
        self.prepare()
        return str(self._state()["version"])

    def prepare(self) -> None:
        """Find, pull or build the images. Does nothing if that was done before.

        :raises ServerError: if Docker does not answer or an image is not to be had.
        """
        if "version" in self._state():
            return
        image = images.postgres(self._major)
        images.guard()
        with images.daemon() as client:
            ask = f"id -u postgres; id -g postgres; {self._bin}/postgres --version"
            uid, gid, *said = self._run_once(client, image, ["sh", "-c", ask], network_mode="none").split()
        self._remember(image=image, user=f"{uid}:{gid}", version=said[2])

    # Life

    def start(self) -> None:
        """Make the server if need be, close its network, start it and wait until it answers."""
        with exclusive(self.folder / "lock"):
            if self._is_running("postgres") and self._answers():
                return
            self.prepare()
            with images.daemon() as client:
                self._remove(client, "containers", "networks")
                try:
                    if not self._state().get("made"):
                        self._make(client)
                    boot, port = self._open_namespace(client)
                    self._remember(boot=boot, port=port)
                    self._start_postgres(client)
                    self._start_tools(client, name=self._name("tools"), network_mode=self._namespace)
                    self._wait(client)
                except BaseException:
                    self._remove(client, "containers", "networks")
                    raise

    def stop(self) -> None:
        """Stop it cleanly, if it runs; nothing but its volume stays."""
        with images.daemon() as client:
            with suppress(NotFound):
                container = client.containers.get(self._name("postgres"))
                was_running = container.status == "running"
                container.stop(timeout=_STOP_SECONDS)
                container.reload()
                if was_running and container.attrs["State"]["ExitCode"] == 0:
                    self._sync(client)
                    self._remember(boot=None)
            self._remove(client, "containers", "networks")

    def destroy(self) -> None:
        """Stop it and remove everything of it."""
        with images.daemon() as client:
            self._remove(client, "containers", "networks", "volumes")
        shutil.rmtree(self.folder, ignore_errors=True)

    def data_is_sound(self) -> bool:
        """False when Docker's machine was restarted under the running server, or its data are gone."""
        state = self._state()
        if not state.get("made"):
            return True
        with images.daemon() as client:
            try:
                client.volumes.get(self._name("data"))
            except NotFound:
                return False
            boot = state.get("boot")
            if boot is None:
                return True
            now = self._run_once(
                client, state["image"], ["cat", "/proc/sys/kernel/random/boot_id"], network_mode="none"
            )
            return bool(boot == now.strip())

    # Use

    def tool(self, name: str, *args: str, database: str | None = None, role: str = ADMIN) -> ContainerCommand:
        """A client program of the image, run beside the server or, while that does not run, without network."""
        argv, env = (f"{self._bin}/{name}", *args), {"LC_ALL": "C"}
        if database is None:
            return ContainerCommand(self._tools, argv, _own_user(), env)
        env |= self._session(database, role, 5432)
        return ContainerCommand(self._tools, argv, _own_user(), env, self._password_of(role))

    def path(self, path: Path) -> str:
        """Where a file below the run's folder, or an input or a file below it, is in the containers.

        :raises ValueError: if it is neither.
        """
        for inside, outside in self._mounted():
            with suppress(ValueError):
                return str(PurePosixPath(inside, *path.resolve().relative_to(outside.resolve()).parts))
        raise ValueError(path.name)

    @property
    def place(self) -> Path:
        """Docker's own folder, where that is one of this host; else the run's."""
        with images.daemon() as client:
            return images.folder(client) or self.folder

    def logs(self) -> list[Path]:
        """The logs of its containers, of which those are kept that are gone."""
        with images.daemon() as client:
            self._keep_log(client)
        return sorted(self.folder.glob("log-*"), key=lambda path: path.stat().st_mtime)

    # Where things are

    @property
    def _bin(self) -> str:
        return f"/usr/lib/postgresql/{'9.6' if self._major == 9 else self._major}/bin"

    @property
    def _labels(self) -> dict[str, str]:
        return {LABEL: self.run_id, _FOLDER: str(self.folder.resolve().parent)}

    @property
    def _namespace(self) -> str:
        return f"container:{self._name('holder')}"

    def _name(self, part: str) -> str:
        return f"homolog-{self.run_id}-{part}"

    def _mounted(self) -> list[tuple[str, Path]]:
        """Place in the containers and place on the host of all that is mounted, what is written to first."""
        return [
            (_SCRATCH, self.scratch),
            (_RUN, self.folder.parent),
            *((f"/in/{n}/{path.name}", path) for n, path in enumerate(self.inputs)),
        ]

    def _mounts(self) -> list[Mount]:
        return [
            Mount(inside, str(outside.resolve()), type="bind", read_only=inside != _SCRATCH)
            for inside, outside in self._mounted()
        ]

    # How it is made and run

    def _make(self, client: docker.DockerClient) -> None:
        """Make a new cluster in a new volume, in a container that is thrown away together with the password in it."""
        self._remove(client, "volumes")  # half made by an interrupted start
        client.volumes.create(self._name("data"), labels=self._labels)
        state = self._state()
        container = client.containers.create(
            state["image"],
            entrypoint=["bash", "-c", _INITDB, "initdb"],
            command=[f"{self._bin}/initdb", *tuning.initdb_options(self._major, ADMIN)],
            environment={"PGDATA": _DATA, "HOMOLOG_AUTH": "scram-sha-256" if self._major >= 10 else "md5"},
            name=self._name("initdb"),
            user=state["user"],
            network_mode="none",
            mounts=[self._volume()],
            labels=self._labels,
            **_CLOSED,
        )
        container.put_archive("/tmp", _tar("pw", self.set_password(ADMIN) + "\n", state["user"]))  # noqa: S108
        container.start()
        code = container.wait()["StatusCode"]
        said = container.logs().decode(errors="replace").splitlines()
        container.remove(v=True)
        if code != 0:
            raise ServerError(text(pt="O initdb falhou.", en="initdb failed."), details=said[-5:])
        self._remember(made=True, boot=None)

    def _open_namespace(self, client: docker.DockerClient) -> tuple[str, int]:
        """Make the network namespace and close it; return the machine's boot id and the published port."""
        guard = images.guard()
        network_name = self._name("net")
        client.networks.create(network_name, driver="bridge", labels=self._labels)
        ports: dict[str, Any] = {"5432/tcp": ("127.0.0.1", None)}
        holder = client.containers.run(
            guard,
            entrypoint=["sleep", "infinity"],
            name=self._name("holder"),
            network=network_name,
            ports=ports,
            user="65534:65534",
            init=True,
            read_only=True,
            mem_limit="32m",
            pids_limit=8,
            labels=self._labels,
            detach=True,
            **_CLOSED,
        )
        holder.reload()
        settings = holder.attrs["NetworkSettings"]
        gateway = settings["Networks"][network_name]["Gateway"]
        # On a bridge of this machine the host's side is the gateway. Docker Desktop has a machine of its own, which
        # no neighbour of this one reaches, and comes from elsewhere in it.
        allowed = "0.0.0.0/0" if client.info()["OperatingSystem"] == "Docker Desktop" else gateway
        try:
            boot = self._run_once(
                client,
                guard,
                ["bash", "-c", (images.COMPOSE / "guard" / "isolate").read_text(), "isolate", "5432", allowed, gateway],
                network_mode=self._namespace,
                cap_add=["NET_ADMIN", "NET_RAW"],
            )
        except ContainerError as ex:
            raise ServerError(
                text(
                    pt="A rede da sandbox não pôde ser isolada; nada foi iniciado.",
                    en="The sandbox's network could not be isolated; nothing was started.",
                ),
                details=_text(ex.stderr).splitlines()[-5:],
            ) from None
        return boot.strip(), int(settings["Ports"]["5432/tcp"][0]["HostPort"])

    def _start_postgres(self, client: docker.DockerClient) -> None:
        memory = self.memory or client.info()["MemTotal"] * 3 // 4
        settings = {
            **tuning.settings(self._major, memory=memory),
            **server_log.SETTINGS,
            "listen_addresses": "0.0.0.0",  # noqa: S104 - in the closed namespace
            "unix_socket_directories": "",
        }
        client.containers.run(
            self._state()["image"],
            entrypoint=["bash", "-c", server_log.CONTAINER, server_log.FILTER],
            command=[f"{self._bin}/postgres", "-D", _DATA, *tuning.flags(settings)],
            name=self._name("postgres"),
            user=self._state()["user"],
            network_mode=self._namespace,
            init=True,
            read_only=True,
            tmpfs={"/tmp": "mode=1777"},  # noqa: S108
            mounts=[self._volume()],
            mem_limit=max(memory, 2**29),
            shm_size=max(memory // 4, 2**28),
            pids_limit=1024,
            stop_signal="SIGINT",
            labels=self._labels,
            detach=True,
            **_CLOSED,
        )

    def _wait(self, client: docker.DockerClient) -> None:
        container = client.containers.get(self._name("postgres"))
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._answers():
                return
            container.reload()
            if container.status != "running":
                break
            time.sleep(0.1)
        raise ServerError(
            text(pt="O PostgreSQL da sandbox não iniciou.", en="The sandbox's PostgreSQL does not start."),
            details=container.logs(tail=5).decode(errors="replace").splitlines(),
        )

    def _sync(self, client: docker.DockerClient) -> None:
        """Bring the data of the stopped server to the disk."""
        state = self._state()
        command = [f"{self._bin}/initdb", "--sync-only", "-D", _DATA]
        self._run_once(
            client, state["image"], command, user=state["user"], network_mode="none", mounts=[self._volume()]
        )

    def _volume(self) -> Mount:
        return Mount(_HOME, self._name("data"), type="volume")

    def _is_running(self, part: str) -> bool:
        with images.daemon() as client:
            try:
                return bool(client.containers.get(self._name(part)).status == "running")
            except NotFound:
                return False

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.conninfo("postgres"), connect_timeout=5):
                return True
        except psycopg.Error:
            return False

    def _run_once(self, client: docker.DockerClient, image: str, command: list[str], **options: Any) -> str:
        """Run a short-lived container and return its output."""
        said: bytes = client.containers.run(
            image, entrypoint=command, command=[], remove=True, labels=self._labels, **options, **_CLOSED
        )
        return said.decode()

    @contextmanager
    def _tools(self) -> Iterator[str]:
        """A container to run tools in: the one beside the server, or one without network for this use."""
        if self._is_running("tools"):
            yield self._name("tools")
            return
        self.prepare()
        with images.daemon() as client:
            container = self._start_tools(client, network_mode="none")
            try:
                yield str(container.id)
            finally:
                container.remove(v=True, force=True)

    def _start_tools(self, client: docker.DockerClient, **options: Any) -> Container:
        """A container that waits for tools to be run in it, as the user that we are."""
        user = _own_user()
        return client.containers.run(
            self._state()["image"],
            entrypoint=["sleep", "infinity"],
            command=[],
            user=user,
            # Root reads backups of whoever owns them. (DAC_READ_SEARCH would open all files of the host, by handle.)
            cap_add=["DAC_OVERRIDE"] if user == "0:0" else [],
            init=True,
            read_only=True,
            # The server's own folder is hidden: a tool knows the password of its own role only.
            tmpfs={"/tmp": "mode=1777", f"{_RUN}/{self.folder.name}": "size=4k,mode=0500"},  # noqa: S108
            mounts=self._mounts(),
            pids_limit=256,
            labels=self._labels,
            detach=True,
            **options,
            **_CLOSED,
        )

    def _keep_log(self, client: docker.DockerClient) -> None:
        with suppress(NotFound, APIError):
            container = client.containers.get(self._name("postgres"))
            said = container.logs(tail=_LOG_LINES).decode(errors="replace")
            if said and self.folder.is_dir():
                write_private(self.folder / f"log-{container.short_id}", said)

    def _remove(self, client: docker.DockerClient, *kinds: str) -> None:
        self._keep_log(client)
        for left in _find(client, self.run_id):
            if left.kind in kinds:
                _remove(client, left)


@dataclass(frozen=True)
class Leftover:
    """Something of a run that is outside of its folder.

    :param kind: ``containers``, ``networks`` or ``volumes`` of Docker, or ``folders``.
    :param name: Docker's name for it, or its path.
    :param folder: the run's folder, "" if that is not known.
    """

    kind: str
    name: str
    run_id: str
    folder: str


def leftovers(run_id: str | None = None) -> list[Leftover]:
    """Everything of a run, or of all runs, that is in Docker, in the order in which it can be removed."""
    with images.daemon() as client:
        return _find(client, run_id)


def remove(found: Iterable[Leftover]) -> None:
    """Remove things from Docker, in this order. Does nothing about what is gone."""
    with images.daemon() as client:
        for left in found:
            _remove(client, left)


def _find(client: docker.DockerClient, run_id: str | None) -> list[Leftover]:
    wanted: dict[str, Any] = {"filters": {"label": LABEL if run_id is None else f"{LABEL}={run_id}"}}
    containers = client.api.containers(all=True, **wanted)
    found = {
        "containers": [(c["Names"][0].lstrip("/"), c["Labels"]) for c in containers],
        "networks": [(n["Name"], n["Labels"]) for n in client.api.networks(**wanted)],
        "volumes": [(v["Name"], v["Labels"]) for v in client.api.volumes(**wanted)["Volumes"] or ()],
    }
    return [
        Leftover(kind, name, labels[LABEL], labels.get(_FOLDER, ""))
        for kind, things in found.items()
        for name, labels in things
    ]


def _remove(client: docker.DockerClient, left: Leftover) -> None:
    with suppress(NotFound):
        if left.kind == "containers":
            with suppress(APIError):  # it may be going already
                client.containers.get(left.name).remove(v=True, force=True)
        elif left.kind == "networks":
            client.networks.get(left.name).remove()
        else:
            client.volumes.get(left.name).remove(force=True)


def _text(said: str | bytes | None) -> str:
    return said.decode(errors="replace") if isinstance(said, bytes) else said or ""


def _own_user() -> str:
    """Our own user and group, so that tools read and write the files of the host as we do."""
    return f"{os.getuid()}:{os.getgid()}" if hasattr(os, "getuid") else "0:0"


def _tar(name: str, content: str, user: str) -> bytes:
    """An archive with one file that only the server's user can read."""
    data = content.encode()
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o600
    info.uid, info.gid = map(int, user.split(":"))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
