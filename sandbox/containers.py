"""A PostgreSQL server in a container of the wanted major version, out of which nothing leads.

Three containers make it. The *holder* closes its own network namespace (``compose/guard/isolate``), on a bridge of its
own with one port published on 127.0.0.1, says so, gives up its rights and does nothing but hold it. Only then
*postgres* is started in it, without any capability and without any file of patients; *tools*, beside it, sees the
backups. All are made anew by every start; and whoever restarts one by hand finds that PostgreSQL ends where the
namespace is not closed (``compose/guard/closed``). The data are in a named volume.
"""

from __future__ import annotations

import shutil
import time
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
from docker.errors import APIError, NotFound
from docker.types import LogConfig, Mount

from merge.errors import ServerError
from merge.language import text
from sandbox import guard, images, labelled, server_log, tuning
from sandbox.container_command import ContainerCommand, own_user
from sandbox.lock import exclusive
from sandbox.server import ADMIN
from sandbox.throwaway import ThrowawayServer, write_private

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import docker
    from docker.models.containers import Container

HOME = "/var/lib/postgresql"  # that user's in both images, so that a new volume there is that user's
_DATA = f"{HOME}/homolog"
_SCRATCH = "/scratch"
_RUN = "/run/homolog"
_START_SECONDS = 3600
"""A killed server first reads again what it wrote since it was started: there are no checkpoints."""
_STOP_SECONDS = 600
_LOG_LINES = 2000
"""Lines of a container's log that are kept."""
_CLOSE_SECONDS = 60
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
    _part: ClassVar[str] = "server"

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
            return ContainerCommand(self._tools, argv, own_user(), env)
        env |= self._session(database, role, 5432)
        return ContainerCommand(self._tools, argv, own_user(), env, self._password_of(role))

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
        return labelled.labels(self.run_id, self.folder.resolve().parent, self._part)

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
        """Make a new cluster in a new volume."""
        self._remove(client, "volumes")  # half made by an interrupted start
        client.volumes.create(self._name("data"), labels=self._labels)
        self._initdb(client)

    def _initdb(self, client: docker.DockerClient) -> None:
        """Make a new cluster in the volume, in a container that is thrown away together with the password in it."""
        state = self._state()
        container = client.containers.create(
            state["image"],
            entrypoint=["bash", "-c", _INITDB, "initdb"],
            command=[f"{self._bin}/initdb", *tuning.initdb_options(self._major, ADMIN), *self._locale()],
            environment={"PGDATA": _DATA, "HOMOLOG_AUTH": self._authentication()},
            name=self._name("initdb"),
            user=state["user"],
            network_mode="none",
            mounts=[self._volume()],
            labels=self._labels,
            **_CLOSED,
        )
        password = f"{self.set_password(ADMIN)}\n".encode()
        container.put_archive("/tmp", labelled.tar("pw", password, state["user"]))  # noqa: S108
        container.start()
        code = container.wait()["StatusCode"]
        said = container.logs().decode(errors="replace").splitlines()
        container.remove(v=True)
        if code != 0:
            raise ServerError(text(pt="O initdb falhou.", en="initdb failed."), details=said[-5:])
        self._remember(made=True, boot=None)

    def _open_namespace(self, client: docker.DockerClient) -> tuple[str, int]:
        """Make the network namespace, closed; return the machine's boot id and the published port."""
        network = self._name("net")
        client.networks.create(network, driver="bridge", labels=self._labels)
        ports: dict[str, Any] = {"5432/tcp": ("127.0.0.1", None)}
        holder = client.containers.run(
            images.guard(),
            entrypoint=["bash", f"{guard.INSIDE}/isolate", "hold"],
            command=[f"5432={guard.host_side(client)}"],
            name=self._name("holder"),
            network=network,
            dns=guard.DNS,
            ports=ports,
            cap_add=list(guard.RIGHTS),
            read_only=True,
            tmpfs={"/run": "size=1m", "/tmp": "size=1m"},  # noqa: S108
            mounts=[guard.mount()],
            mem_limit="32m",
            pids_limit=32,
            stop_signal="SIGKILL",
            labels=self._labels,
            detach=True,
            **_CLOSED,
        )
        deadline = time.monotonic() + _CLOSE_SECONDS
        while not (boot := holder.logs(stderr=False).decode().strip()):
            holder.reload()
            if holder.status != "running" or time.monotonic() > deadline:
                raise guard.not_closed(holder.logs().decode(errors="replace"))
            time.sleep(0.02)
        holder.reload()
        return boot, int(holder.attrs["NetworkSettings"]["Ports"]["5432/tcp"][0]["HostPort"])

    def _start_postgres(self, client: docker.DockerClient) -> None:
        memory = self._memory(client)
        entrypoint, *command = self._postgres(memory)
        client.containers.run(
            self._state()["image"],
            entrypoint=["bash", f"{guard.INSIDE}/closed", entrypoint],
            command=command,
            name=self._name("postgres"),
            user=self._state()["user"],
            network_mode=self._namespace,
            init=True,
            read_only=True,
            tmpfs={"/tmp": "mode=1777"},  # noqa: S108
            mounts=[self._volume(), guard.mount()],
            mem_limit=memory,
            shm_size=max(memory // 4, 2**28),
            pids_limit=1024,
            stop_signal="SIGINT",
            labels=self._labels,
            detach=True,
            **_CLOSED,
        )

    def _memory(self, client: docker.DockerClient) -> int:
        return max(self.memory or client.info()["MemTotal"] * 3 // 4, 2**29)

    def _settings(self, memory: int) -> dict[str, str]:
        return {
            **tuning.settings(self._major, memory=memory),
            **server_log.SETTINGS,
            "listen_addresses": "0.0.0.0",  # noqa: S104 - in the closed namespace
            "unix_socket_directories": "",
        }

    def _locale(self) -> list[str]:
        return []

    def _authentication(self) -> str:
        return "scram-sha-256" if self._major >= 10 else "md5"

    def _postgres(self, memory: int) -> list[str]:
        """The command line of the server, with the filter of what it says."""
        program = [f"{self._bin}/postgres", "-D", _DATA, *tuning.flags(self._settings(memory))]
        return ["bash", "-c", server_log.CONTAINER, server_log.FILTER, *program]

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
        return Mount(HOME, self._name("data"), type="volume")

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
        user = own_user()
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
        for left in labelled.find(client, self.run_id, self._part):
            if left.kind in kinds:
                labelled.remove_one(client, left)
