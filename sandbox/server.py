"""What a server is to this project, whoever provides it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sandbox.command import Command

ADMIN = "homolog_admin"
"""The superuser of a sandbox server. Only this project's own statements run as it, never a backup's."""

_END_SECONDS = 60

_SET_SOMEWHERE = """
    SELECT datname FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase
     WHERE setrole = (SELECT oid FROM pg_roles WHERE rolname = %s)
"""
_GRANTED_BY = """
    SELECT g.rolname, m.rolname FROM pg_auth_members JOIN pg_roles g ON g.oid = roleid JOIN pg_roles m ON m.oid = member
     WHERE grantor = (SELECT oid FROM pg_roles WHERE rolname = %s)
"""


class Server(ABC):
    """One throwaway PostgreSQL server of one run.

    Listens on 127.0.0.1 only, with random passwords kept in a passfile (0600) of the run. A server object can be
    made again for an existing run (after a kill, in another process): it then takes up the server that is there.
    """

    provider: ClassVar[str]

    @property
    @abstractmethod
    def major(self) -> int:
        """Major version, e.g. 16. Known before the server runs."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Full version, e.g. ``16.14``."""

    @abstractmethod
    def start(self) -> None:
        """Make (if need be) and start the server, and wait until it answers. Does nothing if it runs."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it cleanly; its data stays. Does nothing if it does not run."""

    @abstractmethod
    def destroy(self) -> None:
        """Stop it and remove its data, volumes, networks and passwords. Never fails because it is gone already."""

    @abstractmethod
    def data_is_sound(self) -> bool:
        """False when the machine was restarted under the running server: it does not fsync, so its data is void."""

    @abstractmethod
    def conninfo(self, database: str, role: str = ADMIN) -> str:
        """A libpq connection string without any password (it names the passfile)."""

    @abstractmethod
    def tool(self, name: str, *args: str, database: str | None = None, role: str = ADMIN) -> Command:
        """A client program (``pg_restore``, ``pg_dump``, ``psql``) of this server's own major version.

        With `database`, it is told by environment to connect there as `role`. Works without `database` on a
        server that is not running.
        """

    @abstractmethod
    def path(self, path: Path) -> str:
        """How a file of the host (an input, or one below the run folder) is called for `tool`."""

    @property
    @abstractmethod
    def scratch(self) -> Path:
        """A folder of the run in which small files for `tool` may be made."""

    @property
    @abstractmethod
    def place(self) -> Path:
        """A folder of this host on the disk where its data are or will be."""

    @abstractmethod
    def logs(self) -> list[Path]:
        """Files with what the server has said, also when it was stopped; gone after `destroy`.

        They hold no value of a row and no statement (`sandbox.server_log`).
        """

    @abstractmethod
    def set_password(self, role: str) -> str:
        """Make a random password for `role`, remember it in the passfile and return it."""

    def connect(
        self, database: str, role: str = ADMIN, *, autocommit: bool = True, **settings: Any
    ) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect; `settings` are libpq parameters such as ``application_name``."""
        return psycopg.connect(self.conninfo(database, role), autocommit=autocommit, **settings)

    def create_role(
        self, role: str, *, member_of: str | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        """Create a login role that is not superuser; `settings` hold from its next login (set by the superuser)."""
        name = sql.Identifier(role)
        with self.connect("postgres") as conn:
            if conn.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone() is None:
                conn.execute(sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE").format(name))
        self.renew_password(role)
        with self.connect("postgres") as conn:
            if member_of is not None:
                conn.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(member_of), name))
            for key, value in (settings or {}).items():
                conn.execute(sql.SQL("ALTER ROLE {} SET {} = {}").format(name, sql.Identifier(key), sql.Literal(value)))

    def renew_password(self, role: str) -> str:
        """Give a role that is there a new random password, remember it in the passfile and return it."""
        password = self.set_password(role)
        with self.connect("postgres") as conn:
            conn.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(password)))
        return password

    def create_database(self, name: str, owner: str) -> None:
        """Create an empty UTF8 database from template0. Never over an existing one."""
        with self.connect("postgres") as conn:
            conn.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8'").format(
                    sql.Identifier(name), sql.Identifier(owner)
                )
            )
            conn.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))

    def settle(self, database: str, role: str) -> None:
        """Undo what the code of a backup, run as `role`, may have done to that role and to its own database.

        All that it can change beyond the inside of its database: settings and password of the role, who is a member
        of it, settings and access of the database. Sent from another database, as some settings forbid all sessions.
        """
        self.create_role(role)
        role_name, database_name = sql.Identifier(role), sql.Identifier(database)
        with self.connect("postgres") as conn:
            conn.execute(sql.SQL("ALTER ROLE {} RESET ALL").format(role_name))
            for (name,) in conn.execute(_SET_SOMEWHERE, [role]).fetchall():
                conn.execute(sql.SQL("ALTER ROLE {} IN DATABASE {} RESET ALL").format(role_name, sql.Identifier(name)))
            for group, member in conn.execute(_GRANTED_BY, [role]).fetchall():
                conn.execute(
                    sql.SQL("REVOKE {} FROM {} GRANTED BY {}" if conn.info.server_version >= 160000
                            else "REVOKE {} FROM {}").format(*map(sql.Identifier, (group, member)), role_name)
                )  # fmt: skip
            conn.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(database_name))
            conn.execute(sql.SQL("ALTER DATABASE {} IS_TEMPLATE false CONNECTION LIMIT -1").format(database_name))
            conn.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database_name))

    def has_database(self, name: str) -> bool:
        """True if the database exists."""
        with self.connect("postgres") as conn:
            return conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is not None

    def copy_database(self, name: str, copy: str) -> None:
        """Copy a database to which nobody is connected, as a new one of the same owner, with its settings."""
        with self.connect("postgres") as conn:
            strategy = " STRATEGY file_copy" if conn.info.server_version >= 150000 else ""
            ask = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s"
            for (owner,) in conn.execute(ask, [name]).fetchall():
                conn.execute(
                    sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}" + strategy).format(
                        sql.Identifier(copy), sql.Identifier(owner), sql.Identifier(name)
                    )
                )
            conn.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(copy)))
            # The settings of a database are not in it.
            conn.execute(
                "INSERT INTO pg_db_role_setting SELECT c.oid, s.setrole, s.setconfig FROM pg_db_role_setting s"
                " JOIN pg_database d ON d.oid = s.setdatabase JOIN pg_database c ON c.datname = %s"
                " WHERE d.datname = %s",
                [copy, name],
            )

    def drop_database(self, name: str) -> None:
        """Drop a database of the sandbox, ending its sessions first. Does nothing if it is not there."""
        with self.connect("postgres") as conn:
            end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
            deadline = time.monotonic() + _END_SECONDS
            while conn.execute(end, [name]).rowcount and time.monotonic() < deadline:
                time.sleep(0.05)  # DROP itself waits for 5 s only, and a killed client's backend may take longer
            if self.has_database(name):  # its owner may have made it a template, which cannot be dropped
                conn.execute(sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(sql.Identifier(name)))
                conn.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))
