"""The PostgreSQL server of PEC's sandbox: the Compose file's, with all that a `Server` can do."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from docker.errors import NotFound

from merge.errors import ServerError
from merge.language import text
from sandbox import images
from sandbox.containers import HOME, DockerServer
from sandbox.lock import exclusive
from sandbox.pec.compose import NET, PART, Settings, Stack

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import docker

_SERVICES = {"postgres": "db", "holder": NET}


class StackServer(DockerServer):
    """A server whose containers are `net` and `db` of the Compose file; a `DockerServer` of the run may run beside it.

    It is to serve a PEC that people use for hours, and keeps what was committed when the machine is restarted. PEC's
    driver knows the authentication by md5 only (seen by others, who run it in containers).

    :param settings: the stack's; its images of PostgreSQL and guard, that user and the memory are found by `prepare`.
    :param major: PostgreSQL's major version (9 is 9.6).
    :param inputs: files and folders that its tools may read.
    """

    _part: ClassVar[str] = PART

    def __init__(self, settings: Settings, *, major: int, inputs: Sequence[Path] = ()) -> None:
        self.stack = Stack(settings)
        super().__init__(
            self.stack.folder, major=major, run_id=settings.run_id, inputs=inputs, memory=settings.memory
        )  # fmt: skip

    def prepare(self) -> None:
        """Find, pull or build the images of PostgreSQL and of the guard.

        :raises ServerError: if Docker does not answer or an image is not to be had.
        """
        super().prepare()
        state = self._state()
        self.stack.settings = replace(
            self.stack.settings, guard=images.guard(), postgres=state["image"], postgres_user=state["user"]
        )

    def start(self) -> None:
        """Make the server if need be, in the closed network, start it and wait until it answers."""
        with exclusive(self.folder / "lock"):
            self.prepare()
            if self._is_running("postgres") and self._answers():
                return
            if not self._state().get("made"):
                self._remove_all()  # half made by an interrupted start
            self.stack.up("db", start=False)
            with images.daemon() as client:
                self._keep_log(client)
                if not self._state().get("made"):
                    self._initdb(client)
                    self._sync(client)
                command = shlex.join(self._postgres(self._memory(client)))
                start = f"exec {command}\n".encode()
                self.stack.deliver("db", f"{HOME}/start", start, user=self._state()["user"], mode=0o500)
                self.stack.up("db")
                self._remember(port=self.stack.port(5432))
                self._remove_tools(client)
                self._start_tools(client, name=self._name("tools"), network_mode=self._namespace)
                self._wait(client)
            self._check()

    def stop(self) -> None:
        """Stop it cleanly, with all else in its network. Containers and data stay."""
        with images.daemon() as client:
            self._remove_tools(client)
            self.stack.stop()
            self._keep_log(client)

    def destroy(self) -> None:
        """Remove the whole stack, with its data."""
        self._remove_all()
        shutil.rmtree(self.folder, ignore_errors=True)

    def data_is_sound(self) -> bool:
        """False when its data are gone."""
        if not self._state().get("made"):
            return True
        with images.daemon() as client:
            try:
                client.volumes.get(self._name("data"))
            except NotFound:
                return False
        return True

    def _name(self, part: str) -> str:
        return self.stack.name(_SERVICES.get(part, part))

    def _settings(self, memory: int) -> dict[str, str]:
        return {
            **super()._settings(memory),
            **({"password_encryption": "md5"} if self.major >= 10 else {}),
            # Two PECs with their pools of connections, and we.
            "max_connections": "200",
            "max_locks_per_transaction": "512",
            # It lives for longer than a step of ours.
            "fsync": "on",
            "full_page_writes": "on",
            "autovacuum": "on",
            "checkpoint_timeout": "15min",
            "timezone": "America/Sao_Paulo",
        }

    def _authentication(self) -> str:
        return "md5"

    def _locale(self) -> list[str]:
        return ["--locale=C.UTF-8"]  # PEC looks for names in upper or lower case, accents too; the last one counts

    def _check(self) -> None:
        """Look whether new roles can be known to PEC's driver.

        :raises ServerError: if they cannot.
        """
        with self.connect("postgres") as conn:
            found = conn.execute("SELECT current_setting('password_encryption')").fetchall()
            if self.major >= 10:
                found += conn.execute("SELECT auth_method FROM pg_hba_file_rules").fetchall()
        if not {value for (value,) in found} <= {"md5", "on"}:  # 9.6 calls it on
            raise ServerError(
                text(
                    pt="O PostgreSQL da sandbox do PEC não autentica por md5.",
                    en="The PostgreSQL of PEC's sandbox does not authenticate by md5.",
                ),
                details=[value for (value,) in found],
            )

    def _remove_tools(self, client: docker.DockerClient) -> None:
        try:
            client.containers.get(self._name("tools")).remove(v=True, force=True)
        except NotFound:
            return

    def _remove_all(self) -> None:
        with images.daemon() as client:
            self._remove(client, "containers", "networks", "volumes")
