"""All of a server that lies outside of one database, and what tells that something of it was touched."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg

from sandbox.server import ADMIN
from tests.hostile import HONEY, MAKER, PASSWORD, Traps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandbox.server import Server

_OWN = ("hostile", "restored", "source_3", "source_3_data", "candidate", "source_1", "source_1_data")
"""Databases of the hostile backups themselves."""

_SHARED = {
    "roles": "SELECT rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication,"
    " rolbypassrls, rolconnlimit, rolvaliduntil FROM pg_roles",
    "members": "SELECT roleid::regrole::text, member::regrole::text FROM pg_auth_members",
    "settings": "SELECT datname, rolname, setconfig FROM pg_db_role_setting"
    " LEFT JOIN pg_database d ON d.oid = setdatabase LEFT JOIN pg_roles r ON r.oid = setrole"
    f" WHERE datname IS NULL OR datname NOT IN {_OWN}",
    "databases": "SELECT datname, datdba::regrole::text, datistemplate, datallowconn, datconnlimit, dattablespace,"
    f" datacl::text, shobj_description(oid, 'pg_database') FROM pg_database WHERE datname NOT IN {_OWN}",
    "server": "SELECT name, setting FROM pg_settings",
    "file": "SELECT pg_read_file('postgresql.auto.conf'), pg_read_file('pg_hba.conf')",
    "tablespaces": "SELECT spcname, pg_tablespace_location(oid) FROM pg_tablespace",
    "slots": "SELECT slot_name FROM pg_replication_slots",
    "subscriptions": f"SELECT subname FROM pg_subscription JOIN pg_database d ON d.oid = subdbid"
    f" WHERE datname NOT IN {_OWN}",
}
_WITHIN = {
    "objects": "SELECT relname, relkind::text, relacl::text, relowner::regrole::text FROM pg_class WHERE oid >= 16384",
    "functions": "SELECT proname, proowner::regrole::text FROM pg_proc WHERE oid >= 16384",
    "extensions": "SELECT extname FROM pg_extension",
    "rows": "SELECT * FROM public.tb_person",
    "units": "SELECT * FROM public.tb_unit",
    "large objects": "SELECT oid FROM pg_largeobject_metadata",
}


class Listener:
    """Listens on TCP and UDP, and counts what comes."""

    def __init__(self, host: str) -> None:
        self.tcp, self.udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
        self.tcp.bind((host, 0))
        self.host, self.port = self.tcp.getsockname()
        self.udp.bind((host, self.port))
        self.tcp.listen()
        self.came: list[str] = []
        self._threads = [threading.Thread(target=waiting) for waiting in (self._connections, self._packets)]
        for thread in self._threads:
            thread.start()

    def _connections(self) -> None:
        try:
            while True:
                connection, _ = self.tcp.accept()
                self.came.append("tcp")
                connection.close()
        except OSError:
            return

    def _packets(self) -> None:
        try:
            while self.udp.recv(100):
                self.came.append("udp")
        except OSError:
            return

    def close(self) -> None:
        """End it."""
        for one in (self.tcp, self.udp):
            with suppress(OSError):  # UDP is not connected, but who waits on it wakes up
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in (self.tcp, self.udp):
            one.close()


class Witness:
    """Looks at everything outside of the hostile databases.

    :param files: gives the files of the trap's folder, with their content.
    :param programs: gives the programs that run on behalf of the server and are not its own.
    """

    def __init__(
        self,
        server: Server,
        traps: Traps,
        listener: Listener,
        files: Callable[[], dict[str, str]],
        programs: Callable[[], list[str]],
    ) -> None:
        self.server = server
        self.traps = traps
        self.listener = listener
        self._files = files
        self._programs = programs

    def state(self, *databases: str) -> dict[str, Any]:
        """What can be seen, and of other databases all that is in them."""
        seen: dict[str, Any] = {
            "files": self._files(),
            "programs": self._programs(),
            "came": list(self.listener.came),
        }
        with self.server.connect("postgres") as conn:
            for name, query in _SHARED.items():
                seen[name] = sorted(map(repr, conn.execute(query.encode()).fetchall()))
        for database in ("witness", *databases):
            with self.server.connect(database) as conn:
                for name, query in _WITHIN.items():
                    seen[f"{database}: {name}"] = sorted(map(repr, conn.execute(query.encode()).fetchall()))
        return seen

    @contextmanager
    def watched(self, *databases: str) -> Iterator[None]:
        """What happens inside must change nothing; a session to the witness's database must outlive it."""
        before = self.state(*databases)
        with self.server.connect("witness", application_name="witness") as conn:
            yield
            assert conn.execute("SELECT 1").fetchone() == (1,)
        touched = self.changed(before, *databases) + self.open_to_intruders()
        assert not touched, touched

    def changed(self, before: dict[str, Any], *databases: str) -> list[str]:
        """What is not as it was."""
        now = self.state(*databases)
        return [
            f"{name}: {sorted(set(map(str, now[name])) ^ set(map(str, before[name])))}"
            for name in now
            if now[name] != before[name]
        ]

    def open_to_intruders(self) -> list[str]:
        """Roles whose password an intruder knows."""
        with self.server.connect("postgres") as conn:
            roles = conn.execute("SELECT rolname FROM pg_roles WHERE rolcanlogin").fetchall()
        return [role for (role,) in roles if self._can_enter(role)]

    def _can_enter(self, role: str) -> bool:
        try:
            with psycopg.connect(self.server.conninfo("postgres", role), password=PASSWORD):
                return True
        except psycopg.OperationalError as ex:
            return "password authentication failed" not in str(ex)

    def tells_honey(self, database: str) -> bool:
        """Whether a database holds what is in the trap's file, as text or in a large object."""
        dumped = self.server.tool("pg_dump", database=database).run().stdout
        return any(word in dumped for word in (HONEY.encode(), HONEY.encode().hex().encode()))


def make_witness(server: Server) -> None:
    """Make the roles and the database that hostile backups are to leave alone."""
    for role in (MAKER, "homolog_central", "homolog_source_3", "homolog_source_1"):
        server.create_role(role)
    server.create_role("homolog_merge", member_of="homolog_central", settings={"session_replication_role": "replica"})
    server.create_role("homolog_proof", member_of="homolog_merge")
    server.drop_database("witness")
    server.create_database("witness", ADMIN)
    with server.connect("witness") as conn:
        conn.execute("CREATE TABLE public.tb_unit (id integer); CREATE TABLE public.tb_person AS SELECT 1 AS id")
