"""A server that holds real data: reached as its operator reaches it, never started, stopped or destroyed by us."""

from __future__ import annotations

import getpass
import os
import sys
import tempfile
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg import conninfo, pq

from merge.errors import ConfigError
from merge.language import text
from sandbox.promotion import tools

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.command import Command
    from sandbox.promotion.tools import Tools

    Connection = psycopg.Connection[tuple[Any, ...]]

_SESSION = {
    "search_path": "pg_catalog, pg_temp",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",  # from 14 on
    "transaction_timeout": "0",  # from 17 on
    "default_transaction_read_only": "off",
    "client_min_messages": "warning",
    "tcp_keepalives_idle": "10",  # the server notices within half a minute that our machine is gone
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
"""Settings of every session of ours, whatever the database or the role sets for its own."""

_OPTIONS = "-c search_path=pg_catalog,pg_temp -c statement_timeout=0 -c default_transaction_read_only=off"
"""Those that matter for the very first statement: a path that the database's owner set could lead to code of his."""

_ALIVE = {
    "application_name": "homolog",
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15000,
}


class Production:
    """The production server and the database `database` on it, for as long as the context lasts.

    :ivar database: name of the production database.
    :ivar role: the role that the operator connects as; `is_superuser` whether it may do everything.
    :ivar version_num: as ``server_version_num`` has it, e.g. 90613 or 160014.
    """

    def __init__(self, dsn: str, scratch: Path, *, tools: Path | None = None) -> None:
        """Connect once and find out what the server is.

        :param dsn: a libpq connection string or URI without any password, e.g. ``service=esus`` or
            ``host=10.0.0.5 port=5433 dbname=esus user=postgres sslmode=verify-full``.
        :param scratch: a private folder for a passfile, which is removed at the end.
        :param tools: folder with the ``pg_dump`` and ``pg_restore`` of the server's own major version.
        :raises ConfigError: the string holds a password or no database, or the server does not let us in.
        """
        self._wanted_tools = tools
        self._scratch = scratch
        self._passfile: Path | None = None
        self._password: dict[str, str] = {}
        try:
            with _first_connection(dsn) as conn:
                self._look(conn)
        except BaseException:
            self.close()
            raise

    def _look(self, conn: Connection) -> None:
        self._parameters = _parameters(conn)
        if conn.info.password:
            self._password = {"password": conn.info.password}
            self._passfile = self._write_passfile(conn.info.password)
            self._parameters["passfile"] = str(self._passfile)
        self._tls = conn.pgconn.ssl_in_use
        self.host, self.port = conn.info.host or conn.info.hostaddr, conn.info.port
        self.database, self.role = conn.info.dbname, conn.info.user
        self.version_num = conn.info.server_version
        self.version = str(conn.info.parameter_status("server_version"))
        if not 90600 <= self.version_num < 190000:
            raise ConfigError(
                text(
                    pt=f"A produção é PostgreSQL {self.version}; servem as versões 9.6 a 18.",
                    en=f"Production is PostgreSQL {self.version}; versions 9.6 to 18 will do.",
                )
            )
        row = conn.execute(
            "SELECT rolsuper, pg_catalog.pg_is_in_recovery() FROM pg_catalog.pg_roles WHERE rolname = session_user"
        ).fetchone()
        assert row is not None
        self.is_superuser: bool
        self.is_superuser, is_standby = row
        if is_standby:
            raise ConfigError(
                text(
                    pt="Este servidor é uma réplica, que só se lê.", en="This server is a standby, which is only read."
                ),
                next_step=text(pt="Indique o servidor principal.", en="Name the primary server."),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the passfile."""
        if self._passfile is not None:
            self._passfile.unlink(missing_ok=True)

    @property
    def major(self) -> int:
        """Major version, e.g. 16; 9 for 9.6."""
        return self.version_num // 10000

    @property
    def shown(self) -> str:
        """Where it is, for people: ``esus on 10.0.0.5:5433``."""
        return text(pt=f"{self.database} em {self.host}:{self.port}", en=f"{self.database} on {self.host}:{self.port}")

    def conninfo(self, database: str | None = None) -> str:
        """A libpq connection string without any password."""
        return conninfo.make_conninfo("", **{**self._parameters, "dbname": database or self.database})

    def connect(self, database: str | None = None, *, autocommit: bool = True) -> Connection:
        """A session in the production database, or another of the server, that nothing there may end or make read-only.

        Only ``pg_catalog`` is searched for names.
        """
        # Told outright, as a PGPASSWORD of the caller would come before the passfile.
        conn = psycopg.connect(self.conninfo(database), autocommit=True, **self._password)  # type: ignore[arg-type]
        try:
            settle(conn)
            conn.autocommit = autocommit
        except BaseException:
            conn.close()
            raise
        return conn

    def connect_outside(self) -> Connection:
        """A session in another database than production's, from which databases are made and renamed.

        :raises ConfigError: there is none that lets us in.
        """
        for database in ("postgres", "template1"):
            if database != self.database:
                with suppress(psycopg.OperationalError):
                    return self.connect(database)
        self.connect().close()  # a server that is down says so itself
        raise ConfigError(
            text(
                pt="Para trocar os bancos é preciso entrar por outro: postgres ou template1.",
                en="To swap the databases, another one has to be entered: postgres or template1.",
            ),
            next_step=text(
                pt=f"Dê a {self.role} o direito CONNECT no banco postgres.",
                en=f"Grant CONNECT on database postgres to {self.role}.",
            ),
        )

    def tool(
        self,
        name: str,
        *args: str,
        database: str | None = None,
        variables: Mapping[str, str] | None = None,
        passfile: Path | None = None,
    ) -> Command:
        """A client program (``pg_dump``, ``pg_restore``) of the server's own major version, told where to connect.

        :param variables: of libpq, in the place of ours, e.g. ``PGUSER``; with a `passfile` of one line.
        :raises ConfigError: there is none, see `sandbox.promotion.tools`.
        """
        env = {**_environment(self._parameters), "PGDATABASE": database or self.database, **(variables or {})}
        return self._tools.command(name, args, env, passfile or self._passfile)

    def path(self, path: Path) -> str:
        """How a file of this host is called for `tool`, which may also write beside it."""
        return self._tools.path(path)

    @property
    def tools_shown(self) -> str:
        """Where the client programs are, for people."""
        return self._tools.shown

    @cached_property
    def _tools(self) -> Tools:
        return tools.find(self.major, self._wanted_tools, tls=self._tls, run_id="production", scratch=self._scratch)

    def _write_passfile(self, password: str) -> Path:
        """A passfile of its own, as others may be connected from the same folder."""
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix="production-", suffix=".pgpass", dir=self._scratch)  # 0600
        escaped = password.replace("\\", "\\\\").replace(":", "\\:")
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(f"*:*:*:*:{escaped}\n")
        return Path(name)


def settle(conn: Connection) -> None:
    """Give a session the settings that ours have, as far as this version knows them."""
    conn.execute(
        "SELECT pg_catalog.set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS s (name, value)"
        " WHERE name IN (SELECT name FROM pg_catalog.pg_settings)",
        [list(_SESSION), list(_SESSION.values())],
    )


def _first_connection(dsn: str) -> Connection:
    parameters = _checked(dsn)
    options = " ".join(filter(None, [parameters.get("options") or os.environ.get("PGOPTIONS"), _OPTIONS]))
    ours: dict[str, Any] = {**_ALIVE, "options": options}
    try:
        return psycopg.connect(dsn, autocommit=True, **ours)
    except psycopg.OperationalError as ex:
        if not (ex.pgconn is not None and ex.pgconn.needs_password and sys.stdin and sys.stdin.isatty()):
            raise _unreachable(ex) from None
        user = ex.pgconn.user.decode(errors="replace")
    password = getpass.getpass(text(pt=f"Senha de {user}: ", en=f"Password of {user}: "))
    try:
        return psycopg.connect(dsn, autocommit=True, password=password, **ours)
    except psycopg.OperationalError as ex:
        raise _unreachable(ex) from None


def _checked(dsn: str) -> dict[str, Any]:
    try:
        parameters = conninfo.conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        raise ConfigError(
            text(
                pt="O endereço da produção (--production) não é um DSN do PostgreSQL.",
                en="The address of production (--production) is no DSN of PostgreSQL.",
            ),
            next_step="--production 'host=10.0.0.5 port=5433 dbname=esus user=postgres'",
        ) from None
    if any("password" in name or "secret" in name for name in parameters):
        raise ConfigError(
            text(
                pt="O endereço da produção traz uma senha, que outros veriam na lista de processos e no histórico.",
                en="The address of production holds a password, which others would see in process lists and history.",
            ),
            next_step=text(
                pt="Tire-a dali e troque essa senha. Use um arquivo de senhas (~/.pgpass), um arquivo de serviços "
                "(service=…), a variável PGPASSWORD, ou digite-a quando for pedida.",
                en="Take it out, and change that password. Use a passfile (~/.pgpass), a service file (service=…), "
                "the variable PGPASSWORD, or type it when asked.",
            ),
        )
    if not (parameters.get("dbname") or parameters.get("service") or os.environ.get("PGDATABASE")):
        raise ConfigError(
            text(
                pt="O endereço da produção (--production) não diz qual é o banco.",
                en="The address of production (--production) does not say which database it is.",
            ),
            next_step="dbname=esus",
        )
    return parameters


def _unreachable(ex: psycopg.OperationalError) -> ConfigError:
    return ConfigError(
        text(pt="O servidor de produção não deixou entrar.", en="The production server did not let us in."),
        details=str(ex).splitlines()[:5],
        next_step=text(
            pt="Confira endereço, porta, usuário, senha e pg_hba.conf.",
            en="Check address, port, user, password and pg_hba.conf.",
        ),
    )


_LEFT_OUT = frozenset(
    ("password", "passfile", "service", "servicefile", "client_encoding", "fallback_application_name", "replication")
)
"""Parameters that are said otherwise, or are not for us."""


def _parameters(conn: Connection) -> dict[str, Any]:
    """How a session was had, in full, so that no variable and no service file is asked again; without any password."""
    parameters: dict[str, Any] = {k: v for k, v in conn.info.get_parameters().items() if k not in _LEFT_OUT}
    parameters |= {"port": str(conn.info.port), **_ALIVE}
    if conn.info.host:
        parameters["host"] = conn.info.host  # of several, the one that answered
    if "hostaddr" in parameters:
        parameters["hostaddr"] = conn.info.hostaddr
    return parameters


def _environment(parameters: dict[str, Any]) -> dict[str, str]:
    """The same parameters as the variables that PostgreSQL's programs read."""
    variables = {
        option.keyword.decode(): option.envvar.decode() for option in pq.Conninfo.get_defaults() if option.envvar
    }
    return {
        variables[name]: str(value)
        for name, value in parameters.items()
        if name in variables and name not in _LEFT_OUT and value is not None
    }
