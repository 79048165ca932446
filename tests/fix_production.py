"""A production server for tests: PostgreSQL as municipalities run it, with fsync; it can be killed and restarted."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import conninfo, sql

from sandbox import binaries
from sandbox.command import LocalCommand
from sandbox.embedded import end_processes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.fix_town import Town

SUPERUSER = "postgres"
OWNER = "esus_owner"
READER = "esus_leitura"
DATABASE = "esus"


class ProductionServer:
    """One server on a port of 127.0.0.1. Roles: `SUPERUSER`, `OWNER` (not superuser, CREATEDB), `READER`.

    The password of all roles is `password`; `passfile` holds it.
    """

    def __init__(
        self, major: int = 16, settings: Mapping[str, str] | None = None, programs: Path | None = None
    ) -> None:
        self.user = binaries.unprivileged()
        self.bin = programs or binaries.of_wheel(major, self.user, exact=True)
        root = binaries.shared_folder(self.user) if self.user else Path(tempfile.gettempdir())
        self.folder = Path(tempfile.mkdtemp(prefix="production-test-", dir=root))
        self.private = Path(tempfile.mkdtemp(prefix="production-client-"))
        self.password = secrets.token_hex(8)
        self.passfile = self.private / "pgpass"
        self.passfile.write_text(f"*:*:*:*:{self.password}\n")
        self.passfile.chmod(0o600)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "shared_buffers": "64MB",
            "fsync": "on",
            **(settings or {}),
        }

    def make(self) -> None:
        """Make the server, start it, and make its roles and the empty database `DATABASE`."""
        if self.user:
            shutil.chown(self.folder, *self.user)
        password = self.folder / "password"
        password.write_text(self.password)
        if self.user:
            shutil.chown(password, *self.user)
        self._run("initdb", "-D", str(self._data), "-U", SUPERUSER, "-A", "scram-sha-256", f"--pwfile={password}",
                  "-E", "UTF8", "--locale=C")  # fmt: skip
        password.unlink()
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in self.settings.items())
        self.start()
        with self.connect("postgres") as conn:
            for role, right in ((OWNER, "CREATEDB"), (READER, "NOCREATEDB")):
                conn.execute(f"CREATE ROLE {role} LOGIN {right} PASSWORD '{self.password}'")
        self.make_database()

    def make_database(self, name: str = DATABASE) -> None:
        """An empty database of `OWNER`."""
        with self.connect("postgres") as conn:
            conn.execute(f'CREATE DATABASE "{name}" OWNER {OWNER} TEMPLATE template0')

    def dsn(self, database: str = DATABASE, role: str = SUPERUSER) -> str:
        """A connection string without a password."""
        return conninfo.make_conninfo(
            host="127.0.0.1", port=self.port, dbname=database, user=role, passfile=str(self.passfile)
        )

    def connect(
        self, database: str = DATABASE, role: str = SUPERUSER, **options: Any
    ) -> psycopg.Connection[tuple[Any, ...]]:
        """An autocommit session."""
        return psycopg.connect(self.dsn(database, role), **{"autocommit": True, "connect_timeout": 10, **options})

    def start(self) -> None:
        """Start it, also after `kill`, and wait until it answers."""
        if not (self._data / "postmaster.pid").exists():
            self._run("pg_ctl", "start", "-w", "-t", "60", "-D", str(self._data), "-l", str(self.folder / "log"))
        deadline = time.monotonic() + 60
        while True:
            try:
                self.connect("postgres").close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Stop it cleanly."""
        self._run("pg_ctl", "stop", "-w", "-D", str(self._data), "-m", "fast")

    def kill(self) -> None:
        """Kill all its processes at once, as a power cut would."""
        with suppress(FileNotFoundError, ProcessLookupError, ValueError):
            os.kill(int((self._data / "postmaster.pid").read_text().split("\n")[0]), signal.SIGKILL)
        end_processes(self._data, self.user)
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def destroy(self) -> None:
        """Kill it and remove everything of it."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.private, ignore_errors=True)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _run(self, name: str, *args: str) -> None:
        LocalCommand((str(self.bin / name), *args), binaries.environment(), self.user).run()


def contents(server: ProductionServer | Town, database: str, tables: tuple[str, ...]) -> dict[str, list[bytes]]:
    """Every row as binary COPY gives it: what an ordinary text would hide, it does not."""
    found = {}
    with server.connect(database) as conn:
        for table in tables:
            give = sql.SQL("COPY (SELECT t.* FROM {0} t ORDER BY 1) TO STDOUT (FORMAT binary)").format(
                sql.Identifier(table)
            )
            with conn.cursor().copy(give) as copy:
                found[table] = [bytes(block) for block in copy]
    return found


def production_server(
    major: int = 16, settings: Mapping[str, str] | None = None, programs: Path | None = None
) -> Iterator[ProductionServer]:
    """A started server, removed at the end: for fixtures.

    :param programs: the folder with its programs, if they are not the wheel's.
    """
    server = ProductionServer(major, settings, programs)
    try:
        server.make()
        yield server
    finally:
        server.destroy()


@pytest.fixture(scope="module")
def production() -> Iterator[ProductionServer]:
    """A started server of PostgreSQL 16 with the empty database `DATABASE`."""
    yield from production_server()
