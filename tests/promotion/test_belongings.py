"""What no restore brings is captured, put back, and compared: on grants as they really are."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from merge.errors import PromotionRefused
from sandbox.promotion import belongings, beside, names, put_back, rights
from sandbox.promotion.belongings import Setting
from sandbox.promotion.guard import WriteGuard
from sandbox.promotion.production import Production
from sandbox.promotion.swap import swap
from sandbox.runs import Run
from tests.fix_production import OWNER, READER, SUPERUSER, production_server
from tests.pairs import RUN, make_pair

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fix_production import ProductionServer

OBJECTS = """
CREATE TABLE patients (id serial PRIMARY KEY, name text, secret text);
CREATE TABLE visits (id serial PRIMARY KEY, patient int REFERENCES patients);
CREATE TABLE closed (x int);
CREATE TABLE parts (x int) PARTITION BY LIST (x);
CREATE TABLE part PARTITION OF parts FOR VALUES IN (1);
CREATE VIEW seen AS SELECT id, name FROM patients;
CREATE MATERIALIZED VIEW summary AS SELECT count(*) FROM patients;
CREATE SEQUENCE numbers;
CREATE SCHEMA "Relatórios ""x"" é";
CREATE TABLE "Relatórios ""x"" é"."Mês %s {}" ("Coluna ""y"" é" int, other int);
CREATE FUNCTION add(int, int) RETURNS int LANGUAGE sql AS 'SELECT $1 + $2';
CREATE PROCEDURE work() LANGUAGE sql AS '';
CREATE AGGREGATE total (int) (SFUNC = add, STYPE = int);
CREATE TYPE mood AS ENUM ('good');
CREATE TYPE pair AS (a int, b int);
CREATE TYPE span AS RANGE (SUBTYPE = int);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE COLLATION plain (LOCALE = 'C');
CREATE OPERATOR @@@ (LEFTARG = int, RIGHTARG = int, FUNCTION = add);
CREATE TEXT SEARCH CONFIGURATION words (COPY = simple);
CREATE STATISTICS related ON id, patient FROM visits;
SELECT lo_from_bytea(70000, 'a'), lo_from_bytea(70001, 'b'), lo_from_bytea(70002, 'c');
"""

GRANTS = f"""
GRANT SELECT ON ALL TABLES IN SCHEMA public TO {READER};
GRANT SELECT (name), UPDATE (secret) ON patients TO bi;
GRANT SELECT ON visits TO bi WITH GRANT OPTION;
SET ROLE bi; GRANT SELECT ON visits TO third; RESET ROLE;
REVOKE ALL ON closed FROM {OWNER};
REVOKE EXECUTE ON FUNCTION add(int, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION add(int, int), total(int) TO bi;
REVOKE EXECUTE ON PROCEDURE work() FROM PUBLIC;
REVOKE USAGE ON TYPE mood FROM PUBLIC; GRANT USAGE ON TYPE pair TO bi;
GRANT USAGE ON SEQUENCE numbers TO bi; GRANT SELECT ON SEQUENCE patients_id_seq TO {READER};
GRANT USAGE ON SCHEMA "Relatórios ""x"" é" TO bi;
GRANT SELECT ("Coluna ""y"" é") ON "Relatórios ""x"" é"."Mês %s {{}}" TO "Papel ""z"" é";
GRANT CREATE ON SCHEMA public TO bi; REVOKE USAGE ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO bi;
ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} IN SCHEMA public GRANT SELECT ON TABLES TO {READER};
ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE bi GRANT USAGE ON SEQUENCES TO third WITH GRANT OPTION;
ALTER TABLE parts OWNER TO bi; ALTER TABLE part OWNER TO bi; ALTER TABLE patients OWNER TO bi;
ALTER MATERIALIZED VIEW summary OWNER TO bi; ALTER VIEW seen OWNER TO bi; ALTER SEQUENCE numbers OWNER TO bi;
ALTER SCHEMA "Relatórios ""x"" é" OWNER TO "Papel ""z"" é";
ALTER FUNCTION add(int, int) OWNER TO bi; ALTER AGGREGATE total(int) OWNER TO bi; ALTER PROCEDURE work() OWNER TO bi;
ALTER TYPE mood OWNER TO bi; ALTER TYPE pair OWNER TO bi; ALTER DOMAIN positive OWNER TO bi;
ALTER TYPE span OWNER TO bi;
ALTER COLLATION plain OWNER TO bi; ALTER OPERATOR @@@ (int, int) OWNER TO bi;
ALTER TEXT SEARCH CONFIGURATION words OWNER TO bi; ALTER STATISTICS related OWNER TO bi;
ALTER LARGE OBJECT 70001 OWNER TO bi; GRANT SELECT ON LARGE OBJECT 70002 TO {READER};
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text) TO bi;
REVOKE EXECUTE ON FUNCTION pg_catalog.version() FROM PUBLIC;
GRANT SELECT ON pg_catalog.pg_authid TO bi; GRANT SELECT (rolname) ON pg_catalog.pg_authid TO third;
"""

DATABASE = """
ALTER DATABASE esus SET search_path TO "$user", public, "Relatórios ""x"" é";
ALTER DATABASE esus SET work_mem = '8MB';
ALTER DATABASE esus SET my.own = 'a=b, "c" ''d''';
ALTER DATABASE esus SET "DateStyle" = 'ISO, DMY';
ALTER ROLE esus_leitura IN DATABASE esus SET statement_timeout = '30s';
ALTER ROLE "Papel ""z"" é" IN DATABASE esus SET search_path TO '';
ALTER DATABASE esus CONNECTION LIMIT 77;
GRANT CONNECT ON DATABASE esus TO bi, esus_leitura; REVOKE CONNECT, TEMPORARY ON DATABASE esus FROM PUBLIC;
GRANT CREATE ON DATABASE esus TO third WITH GRANT OPTION;
"""


@pytest.fixture(params=[16, 18], scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[ProductionServer]:
    for server in production_server(request.param):
        with server.connect("postgres") as conn:
            conn.execute('CREATE ROLE bi LOGIN; CREATE ROLE third; CREATE ROLE "Papel ""z"" é" LOGIN')
        yield server


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOMOLOG_LANG", "en")
    monkeypatch.setenv("HOMOLOG_RUNS", str(tmp_path / "runs"))


def restored(production: Production, name: str, folder: Path) -> int:
    """A candidate beside production: all of its objects, as the owner's, without privileges."""
    dump = folder / "dump"
    dump.write_bytes(production.tool("pg_dump", "-Fc").run().stdout)
    oid = beside.create_beside(production, name, run_id=RUN)
    production.tool("pg_restore", "-d", name, "--no-owner", "--no-privileges", f"--role={OWNER}", str(dump)).run()
    return oid


def test_all_of_it_is_put_back(server: ProductionServer, tmp_path: Path) -> None:
    """And saved, and read again; afterwards both may be swapped, and everybody may do what he might."""
    with server.connect(role=OWNER) as conn:
        conn.execute(OBJECTS.encode())
    name = names.candidate_name("esus", RUN)
    with Production(server.dsn(), tmp_path) as production:
        oid = restored(production, name, tmp_path)
        with server.connect() as conn:
            conn.execute(GRANTS.encode())
            conn.execute(DATABASE.encode())
        with production.connect() as conn:
            captured = belongings.capture(conn)
            live = conn.execute("SELECT oid::bigint FROM pg_database WHERE datname = 'esus'").fetchone()
            assert live is not None
        run = Run.create()
        run.save("belongings", captured)
        run.unlock()
        assert belongings.Belongings.from_dict(run.load("belongings")) == captured
        with production.connect(name) as conn:
            before = belongings.differences(captured, belongings.capture(conn))
            assert len(before) > 45
            assert put_back.put_back(conn, belongings.Belongings.from_dict(run.load("belongings"))) > 45
            assert belongings.differences(captured, belongings.capture(conn)) == ()
            assert put_back.put_back(conn, captured) == 0  # nothing is left to do
        assert raw(server, "esus") == raw(server, name)
        with WriteGuard(production) as guard:
            swap(production, guard, live[0], oid, "before", run_id=RUN)
    with server.connect(role=READER) as conn, server.connect("before", READER) as old:
        for each in (conn, old):
            assert each.execute("SHOW statement_timeout").fetchone() == ("30s",)
            assert each.execute("SHOW search_path").fetchone() == ('"$user", public, "Relatórios ""x"" é"',)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                each.execute("SELECT * FROM public.visits")  # the schema is closed to PUBLIC
    with server.connect("postgres") as conn:
        conn.execute("DROP DATABASE esus")
        conn.execute('ALTER DATABASE "before" RENAME TO esus')


LISTED = "(SELECT array_agg(a::text ORDER BY a::text) FROM unnest({}) a)"


def listed(acl: str, kind: str, owner: str) -> str:
    """SQL: an access list in one order, with what holds if there is none."""
    return LISTED.format(f"coalesce({acl}, acldefault({kind}, {owner}))")


RAW = f"""
SELECT 'class', i.identity, relowner::regrole::text,
    {listed("relacl", '''(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char" ''', "relowner")}
FROM pg_class c, pg_identify_object('pg_class'::regclass, c.oid, 0) i WHERE relkind NOT IN ('t', 'i', 'I')
UNION ALL SELECT 'column', attrelid::regclass::text || attname, '', {LISTED.format("attacl")}
FROM pg_attribute WHERE attacl IS NOT NULL
UNION ALL SELECT 'proc', oid::regprocedure::text, proowner::regrole::text, {listed("proacl", "'f'", "proowner")}
FROM pg_proc
UNION ALL SELECT 'type', oid::regtype::text, typowner::regrole::text, {listed("typacl", "'T'", "typowner")}
FROM pg_type WHERE typname !~ '^_?pg_toast'
UNION ALL SELECT 'schema', nspname, nspowner::regrole::text, {listed("nspacl", "'n'", "nspowner")}
FROM pg_namespace WHERE nspname !~ '^pg_t'
UNION ALL SELECT 'lo', oid::text, lomowner::regrole::text, {listed("lomacl", "'L'", "lomowner")}
FROM pg_largeobject_metadata
UNION ALL SELECT 'default', defaclnamespace::regnamespace::text || defaclobjtype::text, defaclrole::regrole::text,
    {LISTED.format("defaclacl")} FROM pg_default_acl
UNION ALL SELECT 'operator', oprname, oprowner::regrole::text, NULL FROM pg_operator WHERE oid >= 16384
UNION ALL SELECT 'other', collname, collowner::regrole::text, NULL FROM pg_collation WHERE oid >= 16384
UNION ALL SELECT 'other', cfgname, cfgowner::regrole::text, NULL FROM pg_ts_config WHERE oid >= 16384
UNION ALL SELECT 'other', stxname, stxowner::regrole::text, NULL FROM pg_statistic_ext
UNION ALL SELECT 'database', '', datdba::regrole::text || datconnlimit, {listed("datacl", "'d'", "datdba")}
FROM pg_database WHERE datname = current_database()
UNION ALL SELECT 'setting', '', setrole::text, (SELECT array_agg(v ORDER BY v) FROM unnest(setconfig) v)
FROM pg_db_role_setting WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def raw(server: ProductionServer, database: str) -> set[Any]:
    """Owners and access lists as the catalogs have them, read without the code that is tested."""
    with server.connect(database) as conn:
        conn.execute("SET search_path = pg_catalog")
        return {(*row[:3], tuple(row[3] or ())) for row in conn.execute(RAW.encode())}


ALONE = {
    "GRANT DELETE ON ledger TO esus_leitura": "",
    "REVOKE INSERT ON ledger FROM esus_owner": "",
    "GRANT SELECT (x) ON which TO esus_leitura": "",
    "ALTER TABLE ledger OWNER TO postgres": "",
    "ALTER SCHEMA public OWNER TO esus_leitura": "",
    "GRANT CREATE ON SCHEMA public TO PUBLIC": "",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'": "DROP FUNCTION f()",
    "CREATE TABLE more (x int)": "DROP TABLE more",
    "ALTER DEFAULT PRIVILEGES FOR ROLE esus_owner GRANT SELECT ON TABLES TO PUBLIC": "",
    "ALTER DATABASE {} SET work_mem = '7MB'": "",
    "ALTER ROLE esus_leitura IN DATABASE {} SET work_mem = '7MB'": "",
    "ALTER DATABASE {} CONNECTION LIMIT 5": "",
    "REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC": "",
    "ALTER DATABASE {} OWNER TO postgres": "",
}
"""Changes of one side, and how to undo those that are not to be put back."""


@pytest.mark.parametrize("where", ["production", "candidate"])
def test_each_difference_is_seen_and_put_back(server: ProductionServer, tmp_path: Path, where: str) -> None:
    """In either direction; an object that one side does not have is told, and nothing is changed."""
    pair = make_pair(server, tmp_path)
    candidate = names.candidate_name(pair.name, RUN)
    changed = pair.name if where == "production" else candidate
    with (
        pair.production() as production,
        production.connect(pair.name) as live,
        production.connect(candidate) as beside_it,
        server.connect(changed) as conn,
    ):
        for change, undo in ALONE.items():
            assert belongings.differences(belongings.capture(live), belongings.capture(beside_it)) == ()
            conn.execute(change.format(f'"{changed}"').encode())
            captured, found = belongings.capture(live), belongings.capture(beside_it)
            told = belongings.differences(captured, found)
            assert told, change
            if undo:
                with pytest.raises(PromotionRefused) as refused:
                    put_back.put_back(beside_it, captured)
                assert set(told) <= set(refused.value.details)
                assert belongings.capture(beside_it) == found
                conn.execute(undo.encode())
            else:
                put_back.put_back(beside_it, captured)
                assert belongings.differences(captured, belongings.capture(beside_it)) == ()
                assert raw(server, pair.name) == raw(server, candidate), change


def test_who_may_not_put_it_back_is_told_what(server: ProductionServer, tmp_path: Path) -> None:
    """The owner may not give what belongs to a role that he is no member of; nothing is changed then."""
    pair = make_pair(server, tmp_path)
    with server.connect(pair.name) as conn:
        conn.execute("ALTER TABLE ledger OWNER TO bi")
        conn.execute(f"GRANT SELECT ON which TO {READER}".encode())
    with pair.production(OWNER) as production:
        told = rights.missing_rights(production)
        assert f"act for bi: GRANT bi TO {OWNER};" in told
        with production.connect() as conn, production.connect(names.candidate_name(pair.name, RUN)) as candidate:
            captured = belongings.capture(conn)
            found = belongings.capture(candidate)
            with pytest.raises(PromotionRefused) as refused:
                put_back.put_back(candidate, captured)
            assert "table public.ledger, owner: SQLSTATE 42501" in refused.value.details
            assert belongings.capture(candidate) == found
            with server.connect() as superuser:
                superuser.execute(f"GRANT bi TO {OWNER}".encode())
            try:
                with server.connect(names.candidate_name(pair.name, RUN)) as superuser:
                    superuser.execute("GRANT CREATE ON SCHEMA public TO bi")  # PostgreSQL asks for it
                with server.connect(pair.name) as superuser:
                    superuser.execute("GRANT CREATE ON SCHEMA public TO bi")
                put_back.put_back(candidate, belongings.capture(conn))
            finally:
                with server.connect() as superuser:
                    superuser.execute(f"REVOKE bi FROM {OWNER}".encode())


def test_a_superuser_lacks_nothing(server: ProductionServer, tmp_path: Path) -> None:
    """And is told so without further ado."""
    pair = make_pair(server, tmp_path)
    with pair.production() as production:
        assert rights.missing_rights(production) == ()
        assert rights.obstacles(production) == ()


def test_every_right_that_is_missing_is_named(server: ProductionServer, tmp_path: Path) -> None:
    """With the statement that gives it: after these, nothing is missing, and a swap works."""
    pair = make_pair(server, tmp_path)
    with server.connect("postgres") as conn:
        conn.execute(f"CREATE ROLE operator LOGIN PASSWORD '{server.password}'".encode())
        conn.execute("REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC")
        conn.execute(f"ALTER ROLE {READER} IN DATABASE \"{pair.name}\" SET work_mem = '8MB'".encode())
    try:
        with pair.production("operator") as production:
            told = rights.missing_rights(production)
            assert len(told) >= 6
            gives = [line.split(": ", 1)[1] for line in told]
            with server.connect(pair.name) as conn:
                for statement in gives:
                    if "…" not in statement:  # the lock on tables comes with the membership
                        conn.execute(statement.encode())
            assert rights.missing_rights(production) == ()
            with WriteGuard(production) as guard:
                pair.swap(production, guard)
        assert pair.content() == "new"
    finally:
        with server.connect("postgres") as conn:
            conn.execute("GRANT CONNECT ON DATABASE postgres, template1 TO PUBLIC")
            conn.execute("REVOKE CONNECT ON DATABASE postgres FROM operator")
            conn.execute(f"REVOKE {OWNER}, {READER}, pg_signal_backend FROM operator; DROP ROLE operator".encode())


def test_obstacles_are_listed(tmp_path: Path) -> None:
    """All of them at once."""
    for server in production_server(16, {"wal_level": "logical", "max_prepared_transactions": "2"}):
        with server.connect() as conn:
            conn.execute("CREATE TABLE t (x int)")
            conn.execute("CREATE PUBLICATION everything FOR ALL TABLES")
            conn.execute("SELECT pg_create_logical_replication_slot('copy', 'pgoutput')")
            conn.execute("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'forgotten'")
            conn.execute(
                "CREATE SUBSCRIPTION theirs CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false)"
            )
        with Production(server.dsn(), tmp_path) as production:
            told = rights.obstacles(production)
            for name in ("everything", "copy", "forgotten", "theirs"):
                assert any(line.endswith(f": {name}") for line in told), told
        with Production(server.dsn("postgres"), tmp_path) as production:
            assert rights.obstacles(production) == ()
        with server.connect() as conn:
            conn.execute("ROLLBACK PREPARED 'forgotten'")
            conn.execute("SELECT pg_drop_replication_slot('copy')")


def test_who_is_inside(server: ProductionServer, tmp_path: Path) -> None:
    """Of others than us; whom an owner may end, and whom not."""
    pair = make_pair(server, tmp_path)
    with (
        server.connect(pair.name, OWNER, application_name="PostgreSQL JDBC Driver") as pec,
        server.connect(pair.name, application_name="psql") as superuser,
        pair.production(OWNER) as production,
        WriteGuard(production),
    ):
        found = {session.pid: session for session in rights.sessions(production)}
        assert set(found) == {pec.info.backend_pid, superuser.info.backend_pid}
        mine, theirs = found[pec.info.backend_pid], found[superuser.info.backend_pid]
        assert (mine.is_pec, mine.may_be_ended, mine.role, mine.address) == (True, True, OWNER, "127.0.0.1")
        assert (theirs.is_pec, theirs.may_be_ended, theirs.role) == (False, False, SUPERUSER)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"$user", public', ("$user", "public")),
        ('"Odd, ""x"', ('Odd, "x',)),
        ("public", ("public",)),
        ('""', ("",)),
        ("", ("",)),
    ],
)
def test_lists_of_names_are_taken_apart(value: str, expected: tuple[str, ...]) -> None:
    """As PostgreSQL stores them; other settings are not."""
    assert belongings.setting_values(Setting("", "search_path", value)) == expected
    assert belongings.setting_values(Setting("", "DateStyle", value)) == (value,)


# The candidate's database


def test_it_is_made_like_production(server: ProductionServer, tmp_path: Path) -> None:
    """Encoding, locale of each provider, owner and grants; it is known to be ours."""
    makes = [
        "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'",
        "ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'pt-BR' LOCALE 'C'",
        "ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'und' ICU_RULES '&a < g' LOCALE 'C'",
    ]
    if server.bin.parts and "18" in str(server.bin):
        makes.append("ENCODING 'UTF8' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'")
    for number, make in enumerate(makes):
        name, beside_it = f"Like {number} \"q\" 'e'", f"Beside {number} \"q\" 'é'"
        with server.connect("postgres") as conn:
            quoted = '"' + name.replace('"', '""') + '"'
            try:
                conn.execute(f"CREATE DATABASE {quoted} OWNER {READER} TEMPLATE template0 {make}".encode())
            except psycopg.errors.FeatureNotSupported:
                assert "icu" in make  # built without it
                continue
            conn.execute(f"REVOKE CONNECT ON DATABASE {quoted} FROM PUBLIC".encode())
        with Production(psycopg.conninfo.make_conninfo(server.dsn(), dbname=name), tmp_path) as production:
            assert production.database == name
            oid = beside.create_beside(production, beside_it, run_id=RUN)
            with closing(production.connect_outside()) as conn:
                expected = belongings.properties(conn, name)
                found = belongings.properties(conn, beside_it)
                assert found == replace(expected, comment=names.mark(RUN, names.Kind.CANDIDATE))
                assert oid in {one.oid for one in names.ours(conn)}
            assert beside.drop_unfinished(production, oid, run_id=RUN)


def test_only_a_candidate_of_the_run_is_dropped(server: ProductionServer, tmp_path: Path) -> None:
    """By what it is, whatever it is called; with whom is inside. The live and the kept one never are."""
    pair = make_pair(server, tmp_path)
    with pair.production(OWNER) as production:
        with WriteGuard(production) as guard:
            pair.swap(production, guard)
        oid = beside.create_beside(production, "again", run_id=RUN)
        with server.connect("postgres") as conn:
            conn.execute('ALTER DATABASE again RENAME TO "Renamed"')
        for other, run_id in ((pair.old, RUN), (pair.new, RUN), (1, RUN), (5, RUN), (oid, "another")):
            with pytest.raises(PromotionRefused):
                beside.drop_unfinished(production, other, run_id=run_id)
        with pytest.raises(PromotionRefused):
            beside.drop_kept(production, oid, run_id=RUN)
        with pytest.raises(PromotionRefused):
            beside.drop_kept(production, pair.new, run_id=RUN)
        with server.connect("Renamed", OWNER):
            assert beside.drop_unfinished(production, oid, run_id=RUN)
        assert not beside.drop_unfinished(production, oid, run_id=RUN)
        assert pair.content() == "new"
        assert beside.drop_kept(production, pair.old, run_id=RUN)
        assert pair.content() == "new"


def test_a_name_that_is_taken_is_refused(server: ProductionServer, tmp_path: Path) -> None:
    """Unless it is ours and empty, as an interruption right after its making leaves it."""
    with Production(server.dsn(), tmp_path) as production:
        server.make_database("empty")
        oid = beside.create_beside(production, "empty", run_id=RUN)
        with pytest.raises(PromotionRefused):
            beside.create_beside(production, "empty", run_id=RUN)
        server.make_database("theirs")
        with server.connect("theirs") as conn:
            conn.execute("CREATE TABLE t (x int)")
        with pytest.raises(PromotionRefused):
            beside.create_beside(production, "theirs", run_id=RUN)
        with pytest.raises(PromotionRefused):
            beside.create_beside(production, "nothing", run_id=RUN, like="nowhere")
        assert beside.drop_unfinished(production, oid, run_id=RUN)


@pytest.mark.parametrize("database", ["esus", "é" * 31, "esus" * 15 + "abc", 'A "b" %s', "日本" * 10])
def test_names_fit(server: ProductionServer, tmp_path: Path, database: str) -> None:
    """Whatever production is called: the server keeps them whole, and they are told apart."""
    made = [make(database, RUN) for make in (names.candidate_name, names.kept_name, names.undone_name)]
    assert len(set(made)) == 3
    for name in made:
        assert RUN in name
        assert len(name.encode()) <= names.LONGEST
    with Production(server.dsn(), tmp_path) as production, closing(production.connect_outside()) as conn:
        oids = []
        for _ in range(2):
            name = names.free_name(conn, made[0])
            oids.append(beside.create_beside(production, name, run_id=RUN))
            found = {one.oid: one.name for one in names.ours(conn)}
            assert found[oids[-1]] == name
        assert len(set(oids)) == 2
        for oid in oids:
            beside.drop_unfinished(production, oid, run_id=RUN)
