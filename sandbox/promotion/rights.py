"""What a promotion may do on production's server: rights that are missing, what is in its way, who is inside."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

from merge.errors import ConfigError
from merge.language import counted, text
from sandbox.promotion.swap import MAY_END

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sandbox.promotion.production import Connection, Production

_SHOWN = 10


@dataclass(frozen=True)
class Session:
    """Somebody else's session in the production database; `may_be_ended` by our role, when databases are swapped."""

    pid: int
    role: str | None
    program: str | None
    address: str | None
    may_be_ended: bool

    @property
    def is_pec(self) -> bool:
        """Whether it calls itself what PEC's driver does. (Inferred: any Java program may.)"""
        return "jdbc" in (self.program or "").lower()

    def __str__(self) -> str:
        role, program, address = self.role or "?", self.program or "?", self.address or "?"
        return text(
            pt=f"sessão {self.pid}: papel {role}, programa {program}, de {address}",
            en=f"session {self.pid}: role {role}, program {program}, from {address}",
        )


def sessions(production: Production) -> tuple[Session, ...]:
    """Who is in the production database; our own sessions and the server's vacuum are left out."""
    with closing(production.connect_outside()) as conn:
        return tuple(Session(*row) for row in conn.execute(_SESSIONS, [production.database]).fetchall())


def obstacles(production: Production) -> tuple[str, ...]:
    """What no swap of databases carries over, or what would keep it from happening; empty if nothing."""
    version = production.version_num
    with closing(production.connect()) as conn:
        return tuple(_obstacles(conn, version))


def missing_rights(production: Production) -> tuple[str, ...]:
    """What the role would need and does not have, each with the statement that a superuser gives it with.

    :return: lines for people; empty for a superuser.
    """
    if production.is_superuser:
        return ()
    lines: list[str] = []
    try:
        outside = production.connect_outside()
    except ConfigError:
        role = _quoted(production.role)
        lines.append(_line(
            text(pt="entrar por outro banco", en="enter through another database"),
            f"GRANT CONNECT ON DATABASE postgres TO {role};",
        ))  # fmt: skip
    else:
        outside.close()
    with closing(production.connect()) as conn:
        lines += _missing(conn, production)
    return tuple(lines)


_SESSIONS = f"""
SELECT a.pid, a.usename::text, a.application_name, coalesce(a.client_hostname, host(a.client_addr)), {MAY_END}
FROM pg_catalog.pg_stat_activity a
WHERE a.datname = %s AND a.usesysid IS NOT NULL AND a.application_name IS DISTINCT FROM 'homolog'
    AND coalesce(a.query, '') NOT LIKE 'autovacuum:%%'
ORDER BY 1
"""  # noqa: S608

# (from which version on, what it is, the query: names, or numbers)
_OBSTACLES = (
    (
        90600,

        ("transações preparadas (2PC), que ninguém terminou", "prepared transactions (2PC) that nobody ended"),
        "SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database()",
    ),
    (
        90600,

        ("slots de replicação lógica, que ficariam no banco antigo", "logical replication slots, left in the old one"),
        "SELECT slot_name::text FROM pg_catalog.pg_replication_slots WHERE database = pg_catalog.current_database()",
    ),
    (
        100000,

        ("publicações, cujos assinantes ficariam sem dados", "publications, whose subscribers would get no more data"),
        "SELECT pubname::text FROM pg_catalog.pg_publication",
    ),
    (
        100000,

        ("assinaturas de replicação lógica", "subscriptions of logical replication"),
        "SELECT subname::text FROM pg_catalog.pg_subscription WHERE subdbid = (SELECT oid FROM pg_catalog.pg_database"
        " WHERE datname = pg_catalog.current_database())",
    ),
    (
        90600,

        ("rótulos de segurança (SECURITY LABEL)", "security labels"),
        "SELECT DISTINCT provider FROM (SELECT provider FROM pg_catalog.pg_seclabel UNION ALL SELECT provider"
        " FROM pg_catalog.pg_shseclabel WHERE classoid = 'pg_catalog.pg_database'::pg_catalog.regclass AND objoid ="
        " (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())) l",
    ),
    (
        90600,

        ("tabelas de outros servidores, que nada impede de gravar", "tables of other servers, which nothing keeps from"
         " being written"),
        "SELECT c.relname::text FROM pg_catalog.pg_class c WHERE c.relkind = 'f'",
    ),
    (
        90600,

        ("o banco é um modelo (IS_TEMPLATE)", "the database is a template (IS_TEMPLATE)"),
        "SELECT datname::text FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()"
        " AND datistemplate",
    ),
)  # fmt: skip


def _obstacles(conn: Connection, version: int) -> Iterator[str]:
    for since, (pt, en), query in _OBSTACLES:
        if version >= since and (names := [row[0] for row in conn.execute(query)]):
            yield f"{text(pt=pt, en=en)}: {_listed(names)}"


def _missing(conn: Connection, production: Production) -> Iterator[str]:
    role, database = _quoted(production.role), _quoted(production.database)
    version = production.version_num
    # what CREATE DATABASE … OWNER and ALTER … OWNER ask for: from 16 on, a membership may exclude it
    membership = "SET" if version >= 160000 else "MEMBER"
    row = conn.execute(
        "SELECT r.rolcreatedb, r.rolcreaterole, pg_catalog.pg_has_role('pg_signal_backend', 'USAGE'),"
        " t.spcname::text, pg_catalog.has_tablespace_privilege(t.oid, 'CREATE') OR d.dattablespace ="
        " (SELECT dattablespace FROM pg_catalog.pg_database WHERE datname = 'template0')"
        " FROM pg_catalog.pg_roles r, pg_catalog.pg_database d JOIN pg_catalog.pg_tablespace t"
        " ON t.oid = d.dattablespace WHERE r.rolname = session_user AND d.datname = pg_catalog.current_database()"
    ).fetchone()
    assert row is not None
    may_create, may_create_roles, may_signal, tablespace, may_use = row
    if not may_create:
        yield _line(text(pt="criar e renomear bancos", en="make and rename databases"), f"ALTER ROLE {role} CREATEDB;")
    if not may_use:
        yield _line(
            text(pt=f"usar o tablespace {tablespace}", en=f"use the tablespace {tablespace}"),
            f"GRANT CREATE ON TABLESPACE {_quoted(tablespace)} TO {role};",
        )
    for owner, is_superuser in conn.execute(_OWNERS, [membership]).fetchall():
        if is_superuser:
            yield text(
                pt=f"agir por {owner}, que é superusuário e dono de objetos: entre como superusuário",
                en=f"act for {owner}, who is a superuser and owns objects: connect as a superuser",
            )
        else:
            yield _line(text(pt=f"agir por {owner}", en=f"act for {owner}"), f"GRANT {_quoted(owner)} TO {role};")
    closed = [row[0] for row in conn.execute(_UNLOCKABLE)]
    if closed:
        yield _line(
            text(
                pt=f"bloquear {counted(len(closed), 'tabela', 'tabelas')} ({_listed(closed)})",
                en=f"lock {counted(len(closed), 'table', 'tables')} ({_listed(closed)})",
            ),
            f"GRANT UPDATE ON ALL TABLES IN SCHEMA … TO {role};",
        )
    others = [row[0] for row in conn.execute(_OTHER_LOGINS)]
    if others and not may_signal:
        yield _line(
            text(
                pt=f"encerrar, na hora da troca, sessões de {_listed(others)}",
                en=f"end sessions of {_listed(others)} at the time of the swap",
            ),
            f"GRANT pg_signal_backend TO {role};",
        )
    for name in _untrusted(conn, version):
        yield text(
            pt=f"criar a extensão {name}, o que só um superusuário pode: entre como superusuário",
            en=f"create the extension {name}, which only a superuser may: connect as a superuser",
        )
    for setting in (row[0] for row in conn.execute(_SUPERUSER_SETTINGS)):
        yield text(
            pt=f"pôr a configuração {setting} no banco, o que só um superusuário pode: entre como superusuário",
            en=f"give the database the setting {setting}, which only a superuser may: connect as a superuser",
        )
    with_settings = [row[0] for row in conn.execute(_ROLES_WITH_SETTINGS)]
    if with_settings and not may_create_roles:
        yield _line(
            text(
                pt=f"ALTER ROLE … IN DATABASE {database} de {_listed(with_settings)}",
                en=f"ALTER ROLE … IN DATABASE {database} of {_listed(with_settings)}",
            ),
            f"ALTER ROLE {role} CREATEROLE;"
            + "".join(f" GRANT {_quoted(name)} TO {role} WITH ADMIN OPTION;" for name in with_settings
                      if version >= 160000),
        )  # fmt: skip


_OWNERS = """
SELECT DISTINCT pg_catalog.pg_get_userbyid(o.owner)::text, r.rolsuper
FROM (
    SELECT datdba FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
    UNION SELECT relowner FROM pg_catalog.pg_class WHERE oid >= 16384 AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
        AND relpersistence <> 't'
    UNION SELECT nspowner FROM pg_catalog.pg_namespace WHERE oid >= 16384 AND nspname !~ '^pg_'
    UNION SELECT proowner FROM pg_catalog.pg_proc p WHERE oid >= 16384 AND NOT EXISTS (SELECT 1
        FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid
        AND d.deptype = 'e')
    UNION SELECT lomowner FROM pg_catalog.pg_largeobject_metadata
) o (owner) JOIN pg_catalog.pg_roles r ON r.oid = o.owner
WHERE NOT pg_catalog.pg_has_role(o.owner, 'USAGE') OR NOT pg_catalog.pg_has_role(o.owner, %s)
ORDER BY 1
"""

_UNLOCKABLE = """
SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND NOT (pg_catalog.has_schema_privilege(n.oid, 'USAGE')
        AND pg_catalog.has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE'))
ORDER BY 1
"""

_OTHER_LOGINS = """
SELECT rolname::text FROM pg_catalog.pg_roles r
WHERE rolcanlogin AND NOT rolsuper AND NOT pg_catalog.pg_has_role(r.oid, 'USAGE')
    AND pg_catalog.has_database_privilege(r.oid, pg_catalog.current_database(), 'CONNECT')
ORDER BY 1
"""

_EXTENSIONS = """
SELECT e.extname::text FROM pg_catalog.pg_extension e
JOIN pg_catalog.pg_available_extension_versions v ON v.name = e.extname AND v.version = e.extversion
WHERE e.oid >= 16384 AND v.superuser {}
ORDER BY 1
"""

_SUPERUSER_SETTINGS = """
SELECT DISTINCT pg_catalog.split_part(v, '=', 1) FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) v
WHERE s.setdatabase = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
    AND pg_catalog.split_part(v, '=', 1) IN
        (SELECT name FROM pg_catalog.pg_settings WHERE context IN ('superuser', 'superuser-backend'))
ORDER BY 1
"""

_ROLES_WITH_SETTINGS = """
SELECT pg_catalog.pg_get_userbyid(setrole)::text FROM pg_catalog.pg_db_role_setting
WHERE setdatabase = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
    AND setrole NOT IN (0, (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = session_user))
ORDER BY 1
"""


def _untrusted(conn: Connection, version: int) -> list[str]:
    trusted = "AND NOT v.trusted" if version >= 130000 else ""
    return [row[0] for row in conn.execute(sql.SQL(_EXTENSIONS).format(sql.SQL(trusted)))]


def _line(what: str, statement: str) -> str:
    return f"{what}: {statement}"


def _listed(names: Sequence[Any]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(map(str, names[:_SHOWN])) + (f", … (+{more})" if more > 0 else "")


def _quoted(name: str) -> str:
    """A name as it is written in a statement that an operator copies."""
    return '"' + name.replace('"', '""') + '"' if not name.isidentifier() or name != name.lower() else name
