"""What the sandbox's servers have in common: a folder with their state and passwords, and a port on 127.0.0.1."""

from __future__ import annotations

import json
import os
import secrets
from typing import TYPE_CHECKING, Any

import psycopg

from sandbox.server import ADMIN, Server

if TYPE_CHECKING:
    from pathlib import Path

SESSION = " ".join(
    f"-c {setting}"
    for setting in (
        "timezone=UTC",
        "search_path=public",
        "statement_timeout=0",
        "lock_timeout=0",
        "idle_in_transaction_session_timeout=0",
        "default_transaction_read_only=off",
        "default_transaction_deferrable=off",
        "default_transaction_isolation=read\\ committed",
        "standard_conforming_strings=on",
        "row_security=off",  # rows that a policy hides are an error
        "role=none",
    )
)
"""Settings of every session, as options of libpq, which a backup's own settings of its database do not change."""

_STRONGER = ("PGTZ", "PGDATESTYLE", "PGGEQO")
"""Variables of the caller that libpq would put above the settings of our sessions."""


class ThrowawayServer(Server):
    """A server that is made for a run, and removed with it.

    :param folder: the server's own folder (made 0700), in the run's folder. It holds ``server.json`` (what is known
        between processes), ``passfile`` and ``scratch``.
    :param memory: bytes of memory to plan with; all there is by default.
    """

    def __init__(self, folder: Path, *, memory: int | None = None) -> None:
        self.folder = folder
        self.memory = memory
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def conninfo(self, database: str, role: str = ADMIN) -> str:
        """A libpq connection string; the password is in the passfile."""
        return psycopg.conninfo.make_conninfo(
            host="127.0.0.1",
            port=self._state().get("port", 0),
            dbname=database,
            user=role,
            passfile=str(self._passfile),
            sslmode="disable",  # whatever the caller's environment says; it does not leave the machine
            client_encoding="UTF8",
            options=SESSION,
            application_name="homolog",
        )

    def connect(
        self, database: str, role: str = ADMIN, *, autocommit: bool = True, **settings: Any
    ) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect; a ``PGPASSWORD`` of the caller, which would come before the passfile, is not for this server."""
        for name in _STRONGER:
            os.environ.pop(name, None)
        password = self._password_of(role).strip().rpartition(":")[2]
        return super().connect(database, role, autocommit=autocommit, password=password, **settings)

    @property
    def scratch(self) -> Path:
        """A folder in the server's own."""
        path = self.folder / "scratch"
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def set_password(self, role: str) -> str:
        """Make a random password for `role` and keep it in the passfile."""
        password = secrets.token_urlsafe(24)
        kept = [line for line in self._passwords() if line.split(":")[3] != role]
        write_private(self._passfile, "".join([*kept, f"127.0.0.1:*:*:{role}:{password}\n"]))
        return password

    @property
    def _passfile(self) -> Path:
        return self.folder / "passfile"

    def _passwords(self) -> list[str]:
        return self._passfile.read_text().splitlines(keepends=True) if self._passfile.exists() else []

    def _password_of(self, role: str) -> str:
        """The passfile's line for one role, or nothing."""
        return "".join(line for line in self._passwords() if line.split(":")[3] == role)

    def _session(self, database: str, role: str, port: int) -> dict[str, str]:
        """The environment that tells a client program where to connect; its passfile is for the provider to add."""
        return {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(port),
            "PGDATABASE": database,
            "PGUSER": role,
            "PGOPTIONS": SESSION,
            "PGCLIENTENCODING": "UTF8",
            "PGAPPNAME": "homolog",
        }

    # State: ``port`` where it listens, ``boot`` id of the machine from its start until it is stopped cleanly

    def _state(self) -> dict[str, Any]:
        path = self.folder / "server.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def _remember(self, **values: object) -> None:
        write_private(self.folder / "server.json", json.dumps({**self._state(), **values}))


def write_private(path: Path, content: str) -> None:
    """Write a file that only its owner reads, in one instant."""
    making = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
    making.replace(path)
