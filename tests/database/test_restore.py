"""A central restored whole, from every form of backup."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from merge.errors import BackupError, ConfigError
from sandbox.intake import check_server, inspect
from sandbox.restore import restore_central
from tests.fix_backup import ALL_FORMS, DATABASE, SECRET, Backups, dump, fingerprint, flipped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import psycopg

    from sandbox.server import Server

OBJECTS = {
    "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname IN ('public', 'other')",
    "constraints": "SELECT conrelid::regclass::text, pg_get_constraintdef(oid), convalidated FROM pg_constraint"
    " WHERE connamespace IN ('public'::regnamespace, 'other'::regnamespace)",
    "triggers": "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
    "rules": "SELECT definition FROM pg_rules WHERE schemaname = 'public'",
    "functions": "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    "views": "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public'",
    "matviews": "SELECT matviewname, definition, ispopulated FROM pg_matviews",
    "matview": "SELECT n FROM public.counted",
    "sequences": "SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'public'",
    "comments": "SELECT objsubid, description FROM pg_description WHERE classoid = 'pg_class'::regclass"
    " AND objoid = 'public.parent'::regclass",
    "columns": "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns"
    " WHERE table_schema IN ('public', 'other')",
    "large objects": "SELECT oid, md5(lo_get(oid)) FROM pg_largeobject_metadata",
    "settings": "SELECT setconfig FROM pg_db_role_setting WHERE setdatabase ="
    " (SELECT oid FROM pg_database WHERE datname = current_database()) AND setrole = 0",
    "comment": "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()",
}


def objects(conn: psycopg.Connection[tuple[Any, ...]]) -> dict[str, list[tuple[Any, ...]]]:
    conn.execute("SET search_path = pg_catalog")
    return {name: sorted(conn.execute(query.encode()).fetchall(), key=str) for name, query in OBJECTS.items()}


@pytest.fixture
def restored(server: Server) -> Iterator[str]:
    yield "restored"
    server.drop_database("restored")


def restore_and_compare(server: Server, path: Path, work: Path, *, properties: bool) -> None:
    seen: list[tuple[int, int]] = []
    try:
        result = restore_central(
            server, inspect(path, work=work), "restored", jobs=2, on_progress=lambda *progress: seen.append(progress)
        )
        assert result.matviews == 1
        assert seen[-1][0] == seen[-1][1]
        with server.connect(DATABASE) as was, server.connect("restored") as now:
            for schema in ("public", "other"):
                assert fingerprint(now, schema) == fingerprint(was, schema)
            expected, found = objects(was), objects(now)
            if not properties:
                for name in ("settings", "comment"):
                    assert expected.pop(name) != found.pop(name)
            assert found == expected
            owners = now.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname IN ('public', 'other')")
            assert owners.fetchall() == [("homolog_central",)]
    finally:
        server.drop_database("restored")


@pytest.mark.parametrize("form", ALL_FORMS)
def test_everything_is_restored(server: Server, backups: Backups, tmp_path: Path, form: str) -> None:
    properties = "plain" not in form
    restore_and_compare(server, backups[form], tmp_path / "work", properties=properties)


@pytest.mark.parametrize("form", ["custom", "directory", "create"])
def test_version_18(server18: Server, backups18: Backups, tmp_path: Path, form: str) -> None:
    restore_and_compare(server18, backups18[form], tmp_path / "work", properties=True)


@pytest.mark.parametrize("form", ["custom", "create"])
def test_version_15(server15: Server, backups15: Backups, tmp_path: Path, form: str) -> None:
    restore_and_compare(server15, backups15[form], tmp_path / "work", properties=True)


def test_extensions(server15: Server, backups15: Backups, server: Server, tmp_path: Path) -> None:
    server15.create_database("extended", "odd_owner")
    with server15.connect("extended") as conn:
        conn.execute("CREATE SCHEMA tools CREATE TABLE tools.t (a text)")
        conn.execute("CREATE EXTENSION unaccent SCHEMA tools; CREATE EXTENSION pg_trgm")
        conn.execute("CREATE INDEX ON tools.t USING gin (a public.gin_trgm_ops)")
        conn.execute("COMMENT ON EXTENSION unaccent IS 'changed'")
    for form in ("custom", "plain"):
        backup = inspect(dump(server15, tmp_path / form, form, "extended"), work=tmp_path / "work")
        assert set(backup.extensions) == {("unaccent", "tools"), ("pg_trgm", "public")}
        restore_central(server15, backup, "restored", jobs=2)
        with server15.connect("restored") as conn:
            assert conn.execute("SELECT tools.unaccent('é'), public.similarity('a', 'a')").fetchone() == ("e", 1.0)
        server15.drop_database("restored")
        with pytest.raises(BackupError) as caught:
            restore_central(server, backup, "restored")
        assert caught.value.details == ("pg_trgm", "unaccent")
        assert not server.has_database("restored")
    server15.drop_database("extended")


def test_never_over_an_existing_database(server: Server, backups: Backups, tmp_path: Path) -> None:
    backup = inspect(backups["custom"], work=tmp_path / "work")
    with pytest.raises(ConfigError):
        restore_central(server, backup, DATABASE)
    assert server.has_database(DATABASE)


@pytest.mark.parametrize("form", ["custom", "plain", "create"])
def test_newer_than_the_server(server: Server, backups18: Backups, tmp_path: Path, form: str) -> None:
    backup = inspect(backups18[form], work=tmp_path / "work")
    with pytest.raises(BackupError, match="18"):
        restore_central(server, backup, "restored")
    with pytest.raises(BackupError, match="18"):
        check_server(backup, 17)
    check_server(backup, 18)


def test_data_that_change_after_the_intake(server: Server, backups: Backups, tmp_path: Path) -> None:
    """The intake had found them whole; then the disk failed. The restore stops, and says which file it is."""
    path = tmp_path / "backup"
    refused = 0
    for corrupt in flipped(backups["custom"], tmp_path / "corrupt"):
        shutil.copy(backups["custom"], path)
        backup = inspect(path, work=tmp_path / "work")
        shutil.copy(corrupt, path)
        with pytest.raises(BackupError) as caught:
            restore_central(server, backup, "restored", jobs=2)
        assert caught.value.evidence == str(path)
        refused += 1
        assert not server.has_database("restored")
    assert refused >= 6


@pytest.mark.parametrize("form", ["raw", "plain", "tar"])
def test_a_row_that_lacks_a_column(server: Server, backups: Backups, tmp_path: Path, form: str) -> None:
    """Nothing shows it but the load: the error names the file and the table."""
    path = tmp_path / "backup"
    whole = backups[form].read_bytes()
    assert whole.count(b"7\tn7\n") == 1
    path.write_bytes(whole.replace(b"7\tn7\n", b"7,n7\n"))
    with pytest.raises(BackupError) as caught:
        restore_central(server, inspect(path, work=tmp_path / "work"), "restored", jobs=2)
    assert caught.value.evidence == str(path)
    assert "parent" in " ".join([caught.value.what, *caught.value.details])


HEADER = """-- PostgreSQL database dump
-- Dumped from database version 16.1
SET client_encoding = 'UTF8';
CREATE TABLE public.t (a integer, b text);
"""
FOOTER = "\n-- PostgreSQL database dump complete\n"
HOSTILE = {
    "shell": "\\! touch {mark}\n",
    "shell within": "SELECT 1 \\! touch {mark}\n;",
    "copy": "\\copy t to '{mark}'\n",
    "output": "\\o {mark}\n",
    "connect": "\\connect a\n\\connect postgres\n",
    "to program": "COPY t TO PROGRAM 'touch {mark}';",
    "from program": "COPY t FROM PROGRAM 'touch {mark}';",
    "to file": "COPY t TO '{mark}';",
    "do program": "DO $$BEGIN EXECUTE 'COPY public.t TO PROGRAM ''touch {mark}'''; END$$;",
    "export": "SELECT pg_catalog.lo_export(lo_create(0), '{mark}');",
    "function": "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$COPY public.t TO PROGRAM 'touch {mark}'$$;"
    " SELECT public.f();",
    "role": "DO $$BEGIN ALTER ROLE homolog_central SUPERUSER; END$$;",
    "new role": "CREATE ROLE intruder SUPERUSER;",
    "system": "ALTER SYSTEM SET archive_command = 'touch {mark}';",
    "language": "CREATE FUNCTION f() RETURNS int LANGUAGE c AS '/lib/x86_64-linux-gnu/libc.so.6', 'system';",
    "become": "DO $$BEGIN SET ROLE homolog_admin; END$$;",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_scripts(server: Server, tmp_path: Path, kind: str) -> None:
    mark = tmp_path / "mark"
    tmp_path.chmod(0o777)
    path = tmp_path / "script"
    path.write_text(HEADER + HOSTILE[kind].format(mark=mark) + FOOTER)
    with pytest.raises(BackupError):
        restore_central(server, inspect(path, work=tmp_path / "work"), "restored")
    assert not mark.exists()
    assert not server.has_database("restored")
    assert not list((tmp_path / "work").glob("**/*.list"))
    with server.connect("postgres") as conn:
        supers = conn.execute("SELECT rolname FROM pg_roles WHERE rolsuper").fetchall()
    assert supers == [("homolog_admin",)]


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER ROLE homolog_central SET search_path = evil;",
        "DO $$BEGIN ALTER ROLE homolog_central SET search_path = evil; END$$;",
        "GRANT ALL ON TABLE public.t TO PUBLIC;",
        "SET ROLE homolog_admin;",
        "SET SESSION AUTHORIZATION homolog_admin;",
        "ALTER TABLE public.t OWNER TO homolog_admin;",
    ],
)
def test_statements_without_effect(server: Server, tmp_path: Path, restored: str, statement: str) -> None:
    path = tmp_path / "script"
    path.write_text(HEADER + statement + FOOTER)
    restore_central(server, inspect(path, work=tmp_path / "work"), restored)
    with server.connect(restored, "homolog_central") as conn:
        found = conn.execute("SELECT current_setting('search_path'), tableowner FROM pg_tables WHERE tablename = 't'")
        assert found.fetchone() == ("public", "homolog_central")
        assert conn.execute("SELECT relacl FROM pg_class WHERE relname = 't'").fetchone() == (None,)


@pytest.mark.parametrize(
    "rows",
    [
        f"COPY public.t (a, b) FROM stdin;\n{SECRET}\tx\n\\.\n",
        f"COPY public.t (a, b) FROM stdin;\n1\tx\t{SECRET}\n\\.\n",
        f"INSERT INTO public.t VALUES ('{SECRET}', 'x');",
        f"ALTER TABLE public.t ADD UNIQUE (b);\nCOPY public.t (a, b) FROM stdin;\n1\t{SECRET}\n2\t{SECRET}\n\\.\n",
        f"DO $$BEGIN RAISE '{SECRET}'; END$$;",
    ],
)
def test_errors_tell_no_rows(server: Server, tmp_path: Path, rows: str) -> None:
    path = tmp_path / "script"
    path.write_text(HEADER + rows + FOOTER)
    with pytest.raises(BackupError) as caught:
        restore_central(server, inspect(path, work=tmp_path / "work"), "restored")
    told = " ".join([caught.value.what, *caught.value.details, str(caught.value.next_step)])
    assert SECRET not in told
    assert "MARIA" not in told
    assert "1 erro" in told
    assert caught.value.evidence == str(path)


def test_errors_of_an_archive_tell_no_rows(server: Server, backups: Backups, tmp_path: Path) -> None:
    """A unique key that the rows break: pg_restore's own message quotes them."""
    whole = backups["custom"].read_bytes()
    path = tmp_path / "broken"
    path.write_bytes(whole.replace(b"CREATE TABLE public.no_key (\n    a integer,\n    b text\n)",
                                   b"CREATE TABLE public.no_key (\n    a integer,\n    b  int\n)"))  # fmt: skip
    assert path.read_bytes() != whole
    with pytest.raises(BackupError) as caught:
        restore_central(server, inspect(path, work=tmp_path / "work"), "restored", jobs=2)
    assert caught.value.evidence == str(path)
    told = " ".join([caught.value.what, *caught.value.details])
    assert "line" not in told.replace("pipeline", "")
    assert "invalid input syntax for type" in told
    assert "no_key" in told
