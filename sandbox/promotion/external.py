"""The production server as a sandbox server: what a rehearsal needs of one, beside databases and roles of others.

A merge that is repeated on production runs there as it ran in the sandbox: as roles that are not superuser, in
databases of their own. Nothing here starts, stops or configures the server. What is made is told apart from what others
made by the catalog itself, so that a process may be killed at any instant: a role of ours bears a comment that was made
with it in one transaction, and a database is ours as long as a role of ours owns it. Nothing else is ever dropped or
changed.
"""

from __future__ import annotations

import secrets
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
from psycopg import conninfo, sql

from merge.errors import PromotionRefused
from merge.language import text
from sandbox import throwaway
from sandbox.promotion import beside, names
from sandbox.server import ADMIN, Server

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.command import Command
    from sandbox.promotion.production import Production

    Connection = psycopg.Connection[tuple[Any, ...]]

OUTSIDE = "postgres"
"""The database from which the sandbox's code makes others; here any but production's."""

_MARK = "pec-homolog "
_PREFIX = "homolog_"

_QUIET = {
    "log_statement": "none",
    "log_duration": "off",
    "log_min_duration_statement": "-1",
    "log_min_error_statement": "panic",
    "log_min_messages": "fatal",
    "log_error_verbosity": "terse",
    "auto_explain.log_min_duration": "-1",
    "pgaudit.log": "none",
    "lc_messages": "C",
}
"""Settings of our roles, which only a superuser can give: what fails may quote a row, and production's log is not ours.
Errors are told apart by their English words."""

_OURS = """
    SELECT oid, rolname::text FROM pg_catalog.pg_roles
     WHERE pg_catalog.shobj_description(oid, 'pg_authid') LIKE 'pec-homolog %%' AND rolname LIKE 'homolog\\_%%'
"""
_OUR_DATABASES = """
    SELECT d.datname::text, d.oid FROM pg_catalog.pg_database d JOIN ({ours}) r ON r.oid = d.datdba
     WHERE d.datname <> %s ORDER BY 1
""".replace("{ours}", _OURS)
_OURS_INSIDE = """
    SELECT n.nspname::text, c.relname::text
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      JOIN ({ours}) r ON r.oid = c.relowner
     WHERE c.relkind = ANY(%s) AND (n.nspname ~ '^homolog|^src_[0-9]+$') = %s AND n.nspname !~ '^pg_' ORDER BY 1, 2
""".replace("{ours}", _OURS)
_SCHEMAS = "SELECT nspname::text FROM pg_catalog.pg_namespace WHERE nspname ~ '^homolog|^src_[0-9]+$' ORDER BY 1"
_LATE_SECONDS = 60
"""How long the server may go on with a statement, such as CREATE DATABASE, of a process that was killed."""

_BATCH = 50
"""Objects in one transaction: each takes a lock of the server, which has a limited number for all."""


class ExternalServer(Server):
    """The server of a `Production` for one merge; passwords and small files are in `folder`, of this host.

    Superuser is the operator's own role. Code of backups runs as roles of ours only, which log in by a password of
    their own: `SET ROLE` would not hold code that resets it.

    :param run_id: whose roles it makes.
    :param target: the database that is filled; it is marked as the run's candidate (`sandbox.promotion.names`).
    :raises PromotionRefused: the operator's role is not superuser, or production is the target.
    """

    provider: ClassVar[str] = "external"

    def __init__(self, production: Production, folder: Path, run_id: str, target: str) -> None:
        if not production.is_superuser:
            raise PromotionRefused(
                text(
                    pt=f"Repetir a unificação na produção exige superusuário, e {production.role} não é.",
                    en=f"To repeat the merge in production takes a superuser, which {production.role} is not.",
                ),
                next_step=text(
                    pt="Entre como postgres, ou promova sem --mode repeat, que não precisa dele.",
                    en="Connect as postgres, or promote without --mode repeat, which does not need one.",
                ),
            )
        if target == production.database:
            raise PromotionRefused(
                text(pt="Nada se unifica no próprio banco de produção.", en="Nothing is merged in production itself.")
            )
        self.production = production
        self.folder = folder
        self.run_id = run_id
        self.target = target
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def major(self) -> int:
        """Major version of production."""
        return self.production.major

    @property
    def version(self) -> str:
        """Full version of production, without what a distribution adds to it."""
        return self.production.version.split()[0]

    # Life

    def start(self) -> None:
        """Nothing: it runs."""

    def stop(self) -> None:
        """Nothing: it is not ours to stop."""

    def destroy(self) -> None:
        """Remove all databases and roles that merges of this project left on the server, and the passwords."""
        deadline = time.monotonic() + _LATE_SECONDS
        while True:
            databases, roles = self.left()
            for name, _ in databases:
                self.drop_database(name)
            if not roles:
                break
            try:
                with self.connect(OUTSIDE) as conn:
                    conn.execute(sql.SQL("DROP ROLE {}").format(_list(roles)))
            except (psycopg.errors.DependentObjectsStillExist, psycopg.errors.UndefinedObject):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        shutil.rmtree(self.folder, ignore_errors=True)

    def left(self) -> tuple[list[tuple[str, int]], list[str]]:
        """What is ours on the server: databases with their OIDs, and roles."""
        with self.connect(OUTSIDE) as conn:
            found = conn.execute(_OUR_DATABASES.encode(), [self.production.database]).fetchall()
            return [(str(name), int(oid)) for name, oid in found], self._roles(conn)

    def data_is_sound(self) -> bool:
        """True: production keeps its data over a restart."""
        return True

    # Use

    def conninfo(self, database: str, role: str = ADMIN) -> str:
        """A libpq connection string without any password."""
        known = self.production.conninfo(database)
        return known if role == ADMIN else conninfo.make_conninfo(known, **self._ours(role))

    def connect(
        self, database: str, role: str = ADMIN, *, autocommit: bool = True, **settings: Any
    ) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect; as the operator without other settings than production's sessions have."""
        if role == ADMIN:
            conn = self.production.connect_outside() if database == OUTSIDE else self.production.connect(database)
            conn.autocommit = autocommit
            return conn
        # Given here, as a PGPASSWORD of the caller would come before the passfile.
        return super().connect(database, role, autocommit=autocommit, password=self._password(role), **settings)

    def tool(self, name: str, *args: str, database: str | None = None, role: str = ADMIN) -> Command:
        """A client program of production's major version, on this host."""
        if role == ADMIN or database is None:
            return self.production.tool(name, *args, database=database)
        ours = self._ours(role)
        variables = {
            "PGUSER": role, "PGOPTIONS": ours["options"], "PGCLIENTENCODING": ours["client_encoding"]
        }  # fmt: skip
        return self.production.tool(name, *args, database=database, variables=variables, passfile=self._passfile(role))

    def path(self, path: Path) -> str:
        """How a file of this host is called for `tool`."""
        return self.production.path(path)

    @property
    def scratch(self) -> Path:
        """A folder in the server's own, on this host."""
        path = self.folder / "scratch"
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    @property
    def place(self) -> Path:
        """Where production's data are, if they are seen to be on this host; another host's disk is not seen, and our
        own folder stands for it."""
        with self.connect(OUTSIDE) as conn:
            row = conn.execute(
                "SELECT setting, extract(epoch FROM f.modification)::bigint, extract(epoch FROM f.change)::bigint"
                "  FROM pg_settings, LATERAL pg_stat_file('.') f WHERE name = 'data_directory'"
            ).fetchone()
        assert row is not None
        folder, modified, changed = Path(row[0]), row[1], row[2]
        try:  # a container's or another host's may have the same name
            seen = folder.stat()
        except OSError:
            return self.folder
        return folder if (int(seen.st_mtime), int(seen.st_ctime)) == (modified, changed) else self.folder

    def logs(self) -> list[Path]:
        """None: production's log may quote rows."""
        return []

    # Roles

    def set_password(self, role: str) -> str:
        """Make a random password for `role` and keep it in a passfile of its own."""
        password = secrets.token_urlsafe(24)
        throwaway.write_private(self._passfile(role), f"*:*:*:{role}:{password}\n")
        return password

    def renew_password(self, role: str) -> str:
        """Give a role of ours a new random password; the server gets its verifier, which its log may hold."""
        password = self.set_password(role)
        with self.connect(OUTSIDE) as conn:
            self._check_role(conn, role)
            verifier = conn.pgconn.encrypt_password(password.encode(), role.encode()).decode()
            conn.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier)))
        return password

    def create_role(
        self, role: str, *, member_of: str | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        """Create a login role of ours, if it is not there.

        :raises PromotionRefused: somebody else's role has its name.
        """
        name = sql.Identifier(role)
        with self.connect(OUTSIDE) as conn, conn.transaction():
            if not self._check_role(conn, role):
                conn.execute(sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE").format(name))
                conn.execute(sql.SQL("COMMENT ON ROLE {} IS {}").format(name, sql.Literal(f"{_MARK}{self.run_id}")))
        super().create_role(role, member_of=member_of, settings={**_QUIET, **(settings or {})})

    def settle(self, database: str, role: str) -> None:
        """Undo what the code of a backup may have done to its role and database, both ours.

        :raises PromotionRefused: they are not.
        """
        self._check_database(database)
        super().settle(database, role)
        self.create_role(role)  # its settings were reset

    def _check_role(self, conn: Connection, role: str) -> bool:
        """False if it is not there.

        :raises PromotionRefused: it is not ours.
        """
        if role in self._roles(conn):
            return True
        there = conn.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone()
        if there is None and role.startswith(_PREFIX):
            return False
        raise PromotionRefused(
            text(
                pt=f"O papel {role}, de que a unificação precisa, já existe na produção e não é nosso.",
                en=f"The role {role}, which the merge needs, exists in production and is not ours.",
            ),
            next_step=text(
                pt="Promova sem --mode repeat, que não cria papéis; ou dê outro nome a esse papel.",
                en="Promote without --mode repeat, which makes no roles; or rename that role.",
            ),
        )

    @staticmethod
    def _roles(conn: Connection) -> list[str]:
        return sorted(str(name) for _, name in conn.execute(_OURS.encode(), []).fetchall())

    # Databases

    def has_database(self, name: str) -> bool:
        """True if there is a database of ours with this name."""
        return name in dict(self.left()[0])

    def create_database(self, name: str, owner: str) -> None:
        """Make an empty database; the target is made like production's, and anew if this run made it before.

        :raises PromotionRefused: another database has its name, or `owner` cannot log in to it.
        """
        identifier, role = sql.Identifier(name), sql.Identifier(owner)
        with self.connect(OUTSIDE) as conn:
            assert self._check_role(conn, owner), owner
            if name == self.target:
                for one in names.ours(conn):
                    if (one.name, one.run_id, one.kind) == (name, self.run_id, names.Kind.CANDIDATE):
                        beside.drop_unfinished(self.production, one.oid, run_id=self.run_id)
                beside.create_beside(self.production, name, run_id=self.run_id)
                conn.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(identifier, role))
            else:  # for rows on their way
                self._check_free(conn, name)
                conn.execute(
                    sql.SQL(
                        "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"
                    ).format(identifier, role)
                )
            conn.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(identifier))
        self._check_login(name, owner)

    def copy_database(self, name: str, copy: str) -> None:
        """Copy a database of ours.

        :raises PromotionRefused: it is not ours, or another has the name of the copy.
        """
        self._check_database(name)
        with self.connect(OUTSIDE) as conn:
            self._check_free(conn, copy)
        super().copy_database(name, copy)

    def drop_database(self, name: str) -> None:
        """Drop a database of ours, ending its sessions first; another of that name is left as it is."""
        if self.has_database(name):
            super().drop_database(name)

    def hand_over(self, name: str, owner: str) -> None:
        """Leave in a database of ours nothing but what belongs there, and give it all to `owner`; our roles go.

        May be called again after a kill: the last step, from which on it is not ours, is one transaction.
        """
        self._check_database(name)
        with self.connect(name) as conn:
            tables = conn.execute(_OURS_INSIDE.encode(), [["r"], True]).fetchall()
            _in_batches(conn, "DROP TABLE {}", tables)
            for (schema,) in conn.execute(_SCHEMAS).fetchall():
                conn.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))
            change = f"ALTER TABLE {{}} OWNER TO {sql.Identifier(owner).as_string(conn)}"
            # Tables first: sequences of their columns, and indexes, go with them.
            for kinds in (["r", "p", "f"], ["v", "m"], ["S"]):
                _in_batches(conn, change, conn.execute(_OURS_INSIDE.encode(), [kinds, False]).fetchall())
            conn.execute("ANALYZE")
            roles = _list(self._roles(conn))
            with conn.transaction():
                conn.execute(sql.SQL("REASSIGN OWNED BY {} TO {}").format(roles, sql.Identifier(owner)))
                conn.execute(sql.SQL("DROP OWNED BY {}").format(roles))  # what was granted to them
                conn.execute(sql.SQL("DROP ROLE {}").format(roles))
        shutil.rmtree(self.folder, ignore_errors=True)

    def _check_database(self, name: str) -> None:
        if not self.has_database(name):
            raise _taken(name)

    @staticmethod
    def _check_free(conn: Connection, name: str) -> None:
        if conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is not None:
            raise _taken(name)

    def _check_login(self, name: str, owner: str) -> None:
        try:
            self.connect(name, owner).close()
        except psycopg.OperationalError:
            raise PromotionRefused(
                text(
                    pt=f"O servidor de produção não deixa entrar o papel {owner}, que a unificação criou com senha.",
                    en=f"The production server does not let in the role {owner}, which the merge made with a password.",
                ),
                next_step=text(
                    pt=f"Ponha no começo do pg_hba.conf: host all /^{_PREFIX} ENDEREÇO scram-sha-256 (antes do 16, um "
                    "papel por linha), e recarregue; ou promova sem --mode repeat.",
                    en=f"Put at the start of pg_hba.conf: host all /^{_PREFIX} ADDRESS scram-sha-256 (before 16, one "
                    "role in each line), and reload; or promote without --mode repeat.",
                ),
            ) from None

    # Sessions

    def _passfile(self, role: str) -> Path:
        return self.folder / f"{role}.pgpass"

    def _password(self, role: str) -> str:
        return self._passfile(role).read_text().strip().rpartition(":")[2]

    def _ours(self, role: str) -> dict[str, str]:
        """What sessions of our roles have other than the operator's: what they have in the sandbox."""
        return {
            "user": role,
            "passfile": str(self._passfile(role)),
            "client_encoding": "UTF8",
            "options": f"{throwaway.SESSION} {_session(self.production.version_num)}",
        }


def _session(version: int) -> str:
    """Settings of which a rehearsal's outcome might depend, and those that would end it, as the sandbox has them."""
    settings = {
        "datestyle": "iso,\\ mdy",
        "intervalstyle": "postgres",
        "bytea_output": "hex",
        "extra_float_digits": "1" if version >= 120000 else "0",
        "xmlbinary": "base64",
        "xmloption": "content",
        "lc_monetary": "C",
        "lc_numeric": "C",
        "lc_time": "C",
        "array_nulls": "on",
        "transform_null_equals": "off",
        "default_tablespace": "",
        **({"jit": "off"} if version >= 110000 else {}),
        **({"default_table_access_method": "heap"} if version >= 120000 else {"default_with_oids": "off"}),
        **({"idle_session_timeout": "0"} if version >= 140000 else {}),
        **({"transaction_timeout": "0"} if version >= 170000 else {}),
    }
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


def _list(names: list[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _in_batches(conn: Connection, statement: str, relations: list[tuple[Any, ...]]) -> None:
    """Execute a statement for each relation, some at a time in one transaction."""
    for start in range(0, len(relations), _BATCH):
        batch = [sql.SQL(statement).format(sql.Identifier(*name)) for name in relations[start : start + _BATCH]]
        conn.execute(sql.SQL("; ").join(batch))


def _taken(name: str) -> PromotionRefused:
    return PromotionRefused(
        text(
            pt=f"O banco {name}, de que a unificação precisa, já existe na produção e não é nosso.",
            en=f"The database {name}, which the merge needs, exists in production and is not ours.",
        ),
        next_step=text(
            pt="Nada foi apagado. Promova sem --mode repeat; ou dê outro nome a esse banco.",
            en="Nothing was dropped. Promote without --mode repeat; or rename that database.",
        ),
    )
